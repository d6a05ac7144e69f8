"""``--mqtt mqtts://user:password@host:8883/prefix?client_id=…&cafile=…`` taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from patchline.runtime.camera.redact import redact
from patchline.runtime.errors import ConfigurationError

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_OPTIONS = ("client_id", "cafile", "certfile", "keyfile", "frames", "keepalive")
_FORM = "mqtt[s]://[user:password@]host[:port][/prefix][?client_id=NAME&cafile=FILE&frames=1]"
_NO_TOPIC = re.compile(r"[+#\0]|//|^\$")


@dataclass(frozen=True)
class MqttAddress:
    """A broker and what is asked of it.

    Attributes:
        host: name or address.
        port: 1 to 65535.
        is_encrypted: TLS, with the broker's certificate checked.
        prefix: first part of all topics.
        user: name, or ``None``.
        password: or ``None``; in no ``repr``.
        client_id: or ``None`` for one that is made up.
        cafile: certificates that are trusted instead of the system's.
        certfile: the client's own certificate.
        keyfile: its key.
        has_frames: whether each frame's verdict is published as well.
        keepalive_s: a connection that is silent for longer is asked for a sign of life.
    """

    host: str
    port: int
    is_encrypted: bool
    prefix: str = "patchline"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    client_id: str | None = None
    cafile: Path | None = None
    certfile: Path | None = None
    keyfile: Path | None = None
    has_frames: bool = False
    keepalive_s: int = 30

    def __str__(self) -> str:
        scheme = "mqtts" if self.is_encrypted else "mqtt"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"


def parse_mqtt(url: str) -> MqttAddress:
    """Read an address; user and password may be percent-encoded.

    Raises:
        ConfigurationError: another form, an unknown option, or a file that is not there.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _refused(url, "expected") from error
    if parts.scheme not in _PORTS or not host or port == 0 or parts.fragment:
        raise _refused(url, "expected")
    options = _options(url, parts.query)
    prefix = unquote(parts.path).strip("/") or "patchline"
    if _NO_TOPIC.search(prefix):
        raise _refused(url, "the prefix cannot begin a topic (no +, #, // and no $ first) in")
    return MqttAddress(
        host=host,
        port=_PORTS[parts.scheme] if port is None else port,
        is_encrypted=parts.scheme == "mqtts",
        prefix=prefix,
        user=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
        client_id=options.get("client_id"),
        cafile=_file(options, "cafile"),
        certfile=_file(options, "certfile"),
        keyfile=_file(options, "keyfile"),
        has_frames=_number(url, options, "frames", 0, 0, 1) == 1,
        keepalive_s=_number(url, options, "keepalive", 30, 5, 3600),
    )


def _options(url: str, query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) != len(pairs) or not set(options) <= set(_OPTIONS):
        raise _refused(url, f"options are {', '.join(_OPTIONS)}, each once:")
    return options


def _file(options: dict[str, str], key: str) -> Path | None:
    if key not in options:
        return None
    path = Path(options[key])
    if not path.is_file():
        raise ConfigurationError(f"--mqtt: there is no {key} {path}")
    return path


def _number(url: str, options: dict[str, str], key: str, default: int, low: int, high: int) -> int:
    text = options.get(key, str(default))
    if not re.fullmatch(r"\d{1,6}", text) or not low <= int(text) <= high:
        raise _refused(url, f"{key} is expected from {low} to {high} in")
    return int(text)


def _refused(url: str, what: str) -> ConfigurationError:
    return ConfigurationError(f"--mqtt {redact(url)} cannot be: {what} {_FORM}")
