"""The packages of the extra ``[dashboard]``, looked for only when a dashboard is asked for."""

from __future__ import annotations

from patchline.runtime.errors import MissingExtraError


def require_extra() -> None:
    """Make sure that Starlette, uvicorn and websockets are there.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
        import websockets  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"the dashboard needs the package {error.name}, which is not installed. Install it "
            'with: pip install "patchline[dashboard]"'
        ) from error
