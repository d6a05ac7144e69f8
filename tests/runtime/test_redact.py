"""No credential of a camera address is ever shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchline.runtime.camera.redact import redact


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://admin:secret@cam/1", "rtsp://***@cam/1"),
        ("rtsp://admin@cam/1", "rtsp://***@cam/1"),
        ("rtsp://admin:se@cr/et?x@cam:554/1", "rtsp://***@cam:554/1"),
        ("RTSP://admin:secret@cam/1", "RTSP://***@cam/1"),
        ("rtsp:/admin:secret@cam/1", "rtsp:/***@cam/1"),
        ("admin:secret@cam/1", "***@cam/1"),
        ("http://cam/v?user=me&pwd=secret&fps=5", "http://cam/v?user=***&pwd=***&fps=5"),
        ("http://cam/v?access_token=se/cr?et", "http://cam/v?access_token=***"),
        ("http://cam/v?API-KEY=secret#x", "http://cam/v?API-KEY=***"),
        ("rtsp://cam/user=me_password=secret_channel=1.sdp", "rtsp://cam/user=***"),
        ("http://cam/cgi?u=admin&p=secret&channel=2", "http://cam/cgi?u=***&p=***&channel=2"),
        ("http://cam/cgi?pin=4711", "http://cam/cgi?pin=***"),
        ("http://cam/v?passphrase=a;b&sig=c", "http://cam/v?passphrase=***&sig=***"),
        (
            "gst://rtspsrc location=rtsp://a:b@c/1 latency=5 ! decodebin",
            "gst://rtspsrc location=*** latency=5 ! decodebin",
        ),
        (
            'GST://rtspsrc location = "rtsp://a:b\\" c@c/1" user-pw=\'x y\' ! decodebin',
            "GST://rtspsrc location = *** user-pw=*** ! decodebin",
        ),
        (
            r"gst://souphttpsrc user-pw=x\ y\"z user-id=a ! jpegdec",
            "gst://souphttpsrc user-pw=*** user-id=*** ! jpegdec",
        ),
        ('gst://rtspsrc user-pw="left open ! decodebin', "gst://rtspsrc user-pw=***"),
        ("gst://mysrc where=rtsp://a:secret@c ! decodebin", "gst://***@c ! decodebin"),
    ],
)
def test_credentials_are_hidden(uri: str, shown: str) -> None:
    assert redact(uri) == shown


@pytest.mark.parametrize(
    "uri",
    [
        "0",
        "rtsp://cam:554/stream1",
        "http://cam/video.mjpg?fps=5",
        "/data/cam@1/token=5.png",
        "data/day 1/2:30.mp4",
        "C:\\line\\cam@2",
        "test://?frames=5&seed=1",
        "gst://v4l2src device=/dev/video0 ! video/x-raw,width=640 ! videoconvert",
        "csi://0",
        "v4l2:///dev/video0",
        "file:///data/line.mp4",
    ],
)
def test_what_holds_no_credentials_is_left_as_it_is(uri: str) -> None:
    assert redact(uri) == uri


@given(
    user=st.text(min_size=1, max_size=10),
    password=st.text(min_size=1, max_size=10).map(lambda text: f"SECRET{text}SECRET"),
)
def test_no_password_survives_whatever_characters_it_has(user: str, password: str) -> None:
    assert "SECRET" not in redact(f"rtsp://{user}:{password}@camera.local:554/stream")


@given(
    text=st.text(min_size=1, max_size=10), kind=st.sampled_from(["user-pw", "location", "token"])
)
def test_no_quoted_secret_of_a_pipeline_survives(text: str, kind: str) -> None:
    escaped = f"SECRET{text}SECRET".replace("\\", "\\\\").replace('"', '\\"')
    assert "SECRET" not in redact(f'gst://rtspsrc {kind}="{escaped}" latency=5 ! decodebin')
