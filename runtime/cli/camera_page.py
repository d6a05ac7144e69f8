"""``--dashboard`` and ``--metrics`` of ``run-camera``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchline.runtime.cli.command import stderr_console

if TYPE_CHECKING:
    from patchline.runtime.dashboard.live import LiveView
    from patchline.runtime.line.controls import Controls


@dataclass(frozen=True)
class PageOptions:
    """What is served.

    Attributes:
        has_page: whether the live page is.
        host: address of the page.
        port: of the page.
        token: demanded by it.
        metrics: ``[HOST:]PORT`` of Prometheus' metrics.
    """

    has_page: bool = False
    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = None
    metrics: str | None = None


@contextlib.contextmanager
def served_page(live: LiveView | None, controls: Controls, options: PageOptions) -> Iterator[None]:
    """Serve the page while the context is open.

    Raises:
        MissingExtraError: the extra ``[dashboard]`` is not installed.
        ConfigurationError: a token is missing, or the address cannot be listened on.
    """
    if live is None:
        yield
        return
    from patchline.runtime.dashboard.server import Dashboard

    page = Dashboard(live, controls, host=options.host, port=options.port, token=options.token)
    page.start()
    try:
        stderr_console().print(f"page       {page.url}", markup=False, soft_wrap=True)
        yield
    finally:
        page.stop()
