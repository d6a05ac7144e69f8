"""What commands share: one sentence for an error of ours, exit codes 0, 1, 2, 130, and choices."""

from __future__ import annotations

import contextlib
import enum
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NoReturn

import typer
from rich.console import Console

from patchline.runtime.errors import PatchlineError
from patchline.runtime.interrupt import remembered_interrupts

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130


class Provider(str, enum.Enum):
    """Where ONNX Runtime computes."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class FlavourName(str, enum.Enum):
    """Which TensorRT builds and runs plans."""

    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


def run_command(command: Callable[..., None]) -> None:
    """Run one function as a command-line program and leave the process.

    Results belong on stdout, progress and messages on stderr. Usage errors exit with 2 (by
    typer), an error of ours with 1 and one sentence, an interrupt with 130.
    """

    @functools.wraps(command)
    def with_sentences(*args: Any, **options: Any) -> None:
        try:
            with remembered_interrupts():
                command(*args, **options)
        except PatchlineError as error:
            _leave(str(error), EXIT_ERROR)
        except OSError as error:  # a file that vanished, a folder that may not be listed
            _leave(f"{error.filename or 'the system'}: {error.strerror or error}", EXIT_ERROR)
        except KeyboardInterrupt:
            _leave("interrupted", EXIT_INTERRUPTED)

    # Plain tracebacks: a bug report needs them whole. Plain help: rich takes "[default: 256]" for
    # markup and drops it.
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(with_sentences)
    app()


def _leave(message: str, status: int) -> NoReturn:
    print_error(message)
    raise typer.Exit(status)


def stderr_console() -> Console:
    """The console for progress and messages."""
    return Console(stderr=True, highlight=False, emoji=False)  # module:x: is no face


def print_error(message: str) -> None:
    """Print one error sentence on stderr, unwrapped, so that it can be searched and copied."""
    stderr_console().print(f"[bold red]error:[/] {_escaped(message)}", soft_wrap=True)


def print_warning(message: str) -> None:
    """Print one warning sentence on stderr, unwrapped; or tell who asked for it, see below."""
    tell = _told.get()
    if tell is not None:
        tell(message)
        return
    stderr_console().print(f"[bold yellow]warning:[/] {_escaped(message)}", soft_wrap=True)


_told: ContextVar[Callable[[str], None] | None] = ContextVar("_told", default=None)


@contextlib.contextmanager
def warnings_told(tell: Callable[[str], None]) -> Iterator[None]:
    """Tell warnings instead of printing them while the context is open: nobody sees them here."""
    token = _told.set(tell)
    try:
        yield
    finally:
        _told.reset(token)


def _escaped(message: str) -> str:
    from rich.markup import escape

    return escape(message)
