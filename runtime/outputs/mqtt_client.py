"""paho's client as the MQTT output needs it: made lazily, with its traps closed."""

from __future__ import annotations

from typing import Any

from patchline.runtime.errors import ConfigurationError, MissingExtraError
from patchline.runtime.outputs.mqtt_address import MqttAddress

_LONGEST_RETRY_S = 60


def import_paho() -> Any:
    """paho-mqtt's client module.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        from paho.mqtt import client
    except ImportError as error:
        raise MissingExtraError(
            'paho-mqtt is not installed. Install it with: pip install "patchline[mqtt]"'
        ) from error
    return client


def make_client(address: MqttAddress, client_id: str, first_retry_s: float) -> Any:
    """A client that is not connected yet, and never lets an exception end its thread.

    Args:
        address: gives the credentials and certificates.
        client_id: a second client of that name throws the first one out, over and over.
        first_retry_s: until it connects again, doubling to a minute.

    Raises:
        ConfigurationError: certificates that cannot be read.
        MissingExtraError: paho-mqtt is not installed.
    """
    paho = import_paho()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id)
    if address.user is not None:
        client.username_pw_set(address.user, address.password)
    if address.is_encrypted:
        _encrypt(client, address)
    client.reconnect_delay_set(first_retry_s, _LONGEST_RETRY_S)
    client.suppress_exceptions = True
    return client


def _encrypt(client: Any, address: MqttAddress) -> None:
    files = (address.cafile, address.certfile, address.keyfile)
    try:
        client.tls_set(*(None if file is None else str(file) for file in files))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigurationError(
            f"--mqtt {address}: the certificates cannot be used ({error}). Expected PEM files: "
            "cafile, and certfile with keyfile"
        ) from error
