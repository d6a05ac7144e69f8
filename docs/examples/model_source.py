"""A folder of published models on a web server."""

from __future__ import annotations

import contextlib
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

from model_index import File, Index, parse_index

from patchline.runtime.errors import ConfigurationError, PatchlineError

_TIMEOUT_S, _BLOCK_BYTES, _LARGEST_INDEX_BYTES = 30.0, 1 << 20, 1 << 20


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object) -> None:
        return None  # an error with the status: an index elsewhere is somebody else's


class Source:
    """A folder on a web server. Proxies of the environment are not used."""

    def __init__(self, url: str, ca: str | None, cert: str | None, key: str | None) -> None:
        if not url.startswith("https://"):
            raise ConfigurationError(f"{url} is no https:// address: digests would prove nothing")
        context = ssl.create_default_context(cafile=ca)
        if cert is not None:
            context.load_cert_chain(cert, key)
        self._url = url.rstrip("/")
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=context),
            _NoRedirects(),
        )

    def index(self) -> Index:
        """Raises: PatchlineError: the server is away, or what it has is no index."""
        with self._open("index.json") as answer:
            return parse_index(answer.read(_LARGEST_INDEX_BYTES))

    def get(self, file: File, target: Path) -> None:
        """Fetch a file, and no more of it than the index says."""
        with self._open(f"files/{file.sha256}") as answer, target.open("wb") as out:
            left = file.bytes + 1
            while left and (block := answer.read(min(left, _BLOCK_BYTES))):
                left -= out.write(block)

    @contextlib.contextmanager
    def _open(self, path: str) -> Iterator[Any]:
        try:
            with self._opener.open(f"{self._url}/{path}", timeout=_TIMEOUT_S) as answer:
                yield answer
        except (
            urllib.error.URLError,
            ssl.SSLError,
            TimeoutError,
            ConnectionError,
            HTTPException,
        ) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            raise PatchlineError(
                f"{self._url}/{path} cannot be had: {error}. What runs goes on"
            ) from error
