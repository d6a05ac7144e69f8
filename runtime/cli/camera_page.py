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
        host: address of the page; this machine's own by default.
        port: of the page; 8765 by default.
        token: demanded by it.
        metrics: ``[HOST:]PORT`` of Prometheus' metrics.
    """

    has_page: bool = False
    host: str | None = None
    port: int | None = None
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
    from patchline.runtime.dashboard.address import DEFAULT_PORT, LOOPBACK
    from patchline.runtime.dashboard.server import Dashboard

    host = LOOPBACK if options.host is None else options.host
    port = DEFAULT_PORT if options.port is None else options.port
    page = Dashboard(live, controls, host=host, port=port, token=options.token)
    page.start()
    try:
        stderr_console().print(f"page       {page.url}", markup=False, soft_wrap=True)
        yield
    finally:
        page.stop()
