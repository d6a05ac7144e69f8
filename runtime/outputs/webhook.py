"""``--webhook``: each event as a POST, out of an outbox, again and again until it is taken."""

from __future__ import annotations

import base64
import random
import threading
from collections.abc import Mapping
from typing import Any

import cv2

from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.decisions.event import Event, Notice
from patchline.runtime.errors import ConfigurationError, WriteError
from patchline.runtime.outputs.base import Tell, sentence_of, surely
from patchline.runtime.outputs.documents import event_document, to_json
from patchline.runtime.outputs.http_post import Answer, PostError, Target, retry_after_s
from patchline.runtime.outputs.outbox import Message, Outbox
from patchline.runtime.outputs.overlay import annotate
from patchline.runtime.verdict import JudgedFrame

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0
"""Until a message is tried again, doubling; each between half of it and all of it by chance."""

LONGEST_RETRY_AFTER_S = 3600.0

_TRIED_AGAIN = (408, 429)  # of the 4xx; the others say that this request will never do
_PICTURE_SIDE_PX = 1280
_JPEG_QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 85)


class WebhookOutput:
    """Posts events one after the other, in order, each with its ``Idempotency-Key``.

    A network that is down, a server's error (5xx, 408, 429) or a redirect elsewhere is tried again
    with longer and longer pauses, or when ``Retry-After`` says; what the server refuses for good
    (other 4xx) is dropped, counted and told.

    Args:
        url: ``http`` or ``https``.
        outbox: where events wait; closed with this.
        headers: more headers.
        token: sent as ``Authorization: Bearer``.
        has_picture: whether the annotated peak frame goes along, as base64 JPEG.
        clock: for pauses.
        rng: for jitter.
        on_failure: told once per bout of failures, and of the end of it.
        timeout_s: for each attempt, more than 0.
        closing_s: how long ``close`` waits for what can be sent.

    Attributes:
        sent: events that were taken.
        dead_letters: events that were refused for good.

    Raises:
        ConfigurationError: an address, header or time that cannot be.
    """

    ignores_frames = True

    def __init__(
        self,
        url: str,
        *,
        outbox: Outbox,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        has_picture: bool = False,
        clock: Clock = SYSTEM_CLOCK,
        rng: random.Random | None = None,
        on_failure: Tell = lambda name, sentence: None,
        timeout_s: float = 10.0,
        closing_s: float = 5.0,
    ) -> None:
        if not 0 < timeout_s <= 3600:
            raise ConfigurationError(f"--webhook: a time-out of {timeout_s} s, expected 0 to 3600")
        self.sent = self.dead_letters = 0
        self._target = Target(url, headers or {}, token)
        # Without the path: that of a chat's webhook is a secret.
        self.name = f"webhook {self._target.origin}"
        self._outbox = outbox
        self._has_picture = has_picture
        self._clock = clock
        self._rng = rng or random.Random()
        self._tell = surely(on_failure)
        self._timeout_s, self._closing_s = timeout_s, closing_s
        self._pause_s = FIRST_PAUSE_S
        self._is_failing = self._is_refused = self._is_full = False
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook sender", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Events that are still to be taken."""
        return len(self._outbox)

    def write(self, judged: JudgedFrame) -> None:
        """Not used: it tells of events."""

    def notify(self, notice: Notice) -> None:
        """Keep an event until it is taken; states are not posted.

        Raises:
            WriteError: the outbox cannot be written.
        """
        if not isinstance(notice, Event):
            return
        document = event_document(notice)
        if self._has_picture and notice.peak is not None:
            document["picture"] = _picture(notice.peak)
        dropped = self._outbox.put(notice.message_id, "", to_json(document).encode())
        self._wake.set()
        if dropped and not self._is_full:
            self._tell(self.name, "the outbox is full: the oldest events are given up and counted")
        self._is_full = bool(dropped)

    def close(self) -> None:
        """Send what can be sent within ``closing_s``; what is left stays for the next start."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake.set()
        self._thread.join(self._closing_s)
        if len(self._outbox):
            self._tell(self.name, f"{len(self._outbox)} events are left for the next start")
        if not self._thread.is_alive():
            self._outbox.close()

    def _run(self) -> None:
        end_s: float | None = None
        while True:
            if end_s is None and self._closing.is_set():
                end_s = self._clock.monotonic() + self._closing_s
            self._wake.clear()
            try:
                message = self._outbox.next()
                pause_s = None if message is None else self._send(message)
            except Exception as error:  # the sender goes on, whatever it was
                message, pause_s = None, self._fail(sentence_of(error))
            # Looked at after the box: what was put before closing is seen.
            if self._closing.is_set() and end_s is not None:
                if message is None or pause_s is not None or self._clock.monotonic() >= end_s:
                    return
            elif pause_s is not None:
                self._clock.wait(self._closing, pause_s)
            elif message is None:
                if self._closing.is_set():
                    continue
                self._wake.wait()

    def _send(self, message: Message) -> float | None:
        """Try once; the pause after it, or ``None`` if the message is done with."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": message.message_id}
        try:
            answer = self._target.post(message.payload, headers, self._timeout_s)
        except PostError as error:
            return self._fail(str(error))
        is_taken = 200 <= answer.status < 300
        is_refused = 400 <= answer.status < 500 and answer.status not in _TRIED_AGAIN
        if not is_taken and not is_refused:
            return self._fail(_sentence(answer), answer.retry_after)
        self._outbox.remove(message.number)
        self._pause_s = FIRST_PAUSE_S
        if is_taken:
            self._succeed()
        else:
            self._refuse(answer)
        return None

    def _succeed(self) -> None:
        if self._is_failing or self._is_refused:
            self._tell(self.name, f"takes events again; {len(self._outbox)} wait")
        self._is_failing = self._is_refused = False
        self.sent += 1

    def _refuse(self, answer: Answer) -> None:
        self.dead_letters += 1
        if not self._is_refused:
            self._is_refused = True
            self._tell(
                self.name,
                f"refuses an event for good (HTTP {answer.status}): it is dropped. Check the "
                "address and the token",
            )

    def _fail(self, sentence: str, retry_after: str | None = None) -> float:
        asked_s = retry_after_s(retry_after, self._clock.now())
        pause_s = self._pause_s * self._rng.uniform(0.5, 1.0)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        if not self._is_failing:
            self._is_failing = True
            self._tell(self.name, f"{sentence}. It is tried again; events wait on the disk")
        return pause_s if asked_s is None else max(pause_s, min(asked_s, LONGEST_RETRY_AFTER_S))


def _sentence(answer: Answer) -> str:
    if answer.redirect is not None:
        return f"redirects to {answer.redirect}, which is not followed: give that address"
    return f"answers with HTTP {answer.status}"


def _picture(judged: JudgedFrame) -> dict[str, Any]:
    picture: cv2.typing.MatLike = annotate(judged)
    scale = _PICTURE_SIDE_PX / max(picture.shape[:2])
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    is_encoded, content = cv2.imencode(".jpg", picture, _JPEG_QUALITY)
    if not is_encoded:
        raise WriteError("the picture of an event cannot be written as JPEG")
    return {"type": "image/jpeg", "base64": base64.b64encode(content.tobytes()).decode()}
