"""The engines of ``benchmark-engine``: opened as ``run-camera`` opens its own, and never built."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from patchline.runtime.cli.camera_engine import EngineOptions, tensorrt_options
from patchline.runtime.cli.command import Provider

if TYPE_CHECKING:
    from patchline.runtime.benchmark.subject import Subject


@contextlib.contextmanager
def opened(asked: Sequence[EngineOptions]) -> Iterator[list[Subject]]:
    """Open one engine, or several for a comparison; they are closed with the context.

    Raises:
        ConfigurationError: an option that none of them has a use for.
        ModelError: as :func:`~patchline.runtime.engine.open.open_engine`.
        EngineError: likewise; also a plan that does not fit this machine.
    """
    from patchline.runtime.benchmark.measurable import Measurable
    from patchline.runtime.benchmark.subject import Subject
    from patchline.runtime.engine import open_engine

    with contextlib.ExitStack() as stack:
        subjects = []
        for one in _each_its_own(asked):
            # A benchmark measures what is there; minutes of building are asked for by name.
            options = replace(tensorrt_options(one), build=False)
            # Not one that opens a lost GPU again: its times would tell nothing.
            engine: Any = stack.enter_context(
                open_engine(
                    one.path,
                    provider=one.provider.value,
                    threads=one.threads,
                    bank=one.bank,
                    tensorrt=options,
                )
            )
            subjects.append(Subject(cast(Measurable, engine), one.path, one.bank))
        yield subjects


def _each_its_own(asked: Sequence[EngineOptions]) -> list[EngineOptions]:
    """Of several, each with the options it has a use for, where another has one for the rest."""
    if len({_is_plan(one) for one in asked}) > 1:
        asked = [_of_its_kind(one) for one in asked]
    takes = [len(asked) > 1 and one.path.is_file() and _takes_bank(one) for one in asked]
    return [
        one if is_taken or not any(takes) else replace(one, bank=None)
        for one, is_taken in zip(asked, takes, strict=True)
    ]


def _is_plan(one: EngineOptions) -> bool:
    return one.path.suffix.lower() == ".trt"


def _of_its_kind(one: EngineOptions) -> EngineOptions:
    if _is_plan(one):
        return replace(one, provider=Provider.AUTO, threads=None)
    return replace(one, device=None, flavour=None, no_cuda_graph=False)


def _takes_bank(one: EngineOptions) -> bool:
    from patchline.runtime.contract import manifest_path
    from patchline.runtime.graph import GraphManifest, load_any_manifest

    return isinstance(load_any_manifest(manifest_path(one.path)), GraphManifest)
