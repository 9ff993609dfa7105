"""The whole output of a run, in S3 while it runs (T3.21).

The runner has no rights on any bucket: the run brings a presigned form for objects below one prefix. S3 cannot append,
so each stream becomes parts, of which the last is uploaded again as it grows: a log of ten megabytes is ten objects,
and a line that was written is there within two seconds. What is reported sooner than that, whole, is not uploaded.
"""

import codecs
import contextlib
import json
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any, Final, Self

from chalicelib.protocol import Logs
from runners import results
from runners.capture import KEPT, Capture, Captured
from runners.output import SHOWN, printable
from runners.presigned import post_form
from runners.redaction import RedactedStream, Redactor

INTERVAL: Final = 0.25  # seconds between two looks at what was written
PATIENCE: Final = 1.25  # seconds for which it may wait after that: with both and an upload, less than two
PART: Final = 1024 * 1024  # bytes of a part that grows no more
LAST_UPLOADS: Final = 20.0  # seconds for what is left when the run is over
_ATTEMPTS: Final = 2
_NOT_UPLOADED: Final = "logs not uploaded"  # which costs no run its result, and no other its logs

_log = results.logger()

Post = Callable[[str, dict[str, Any]], None]


class LogUpload:
    """Follows the captures of a run, redacted and printable, from the moment it is entered until it is left.

    Losing a part is not losing an execution: what could not be uploaded is tried again with what follows, and in the
    end left out. :attr:`parts` says how far each stream got. ``until`` (monotonic seconds) ends the last attempts.
    """

    def __init__(
        self,
        form: Logs,
        streams: dict[str, Capture],
        redactor: Redactor,
        post: Post | None = None,
        *,
        until: float | None = None,
    ) -> None:
        self._form = form
        self._post = post or post_form
        self._streams = [_Stream(name, capture, redactor) for name, capture in streams.items()]
        self._until = until
        self._uploading = threading.Lock()
        self._over = False
        self.needed = False  # at the end, of however little there is, because the result will not show it

    @property
    def parts(self) -> dict[str, int]:
        """How many parts each stream has, for those that have any."""
        return {stream.name: stream.parts for stream in self._streams if stream.parts}

    def __enter__(self) -> Self:
        _watch().add(self)
        return self

    def __exit__(self, *_: object) -> None:
        last = time.monotonic() + LAST_UPLOADS
        self._until = last if self._until is None else min(last, self._until)
        self._over = True
        _watch().remove(self)
        if not self._uploading.acquire(timeout=max(0.0, self._until - time.monotonic())):
            return  # the bucket is out of reach
        try:
            for stream in self._streams:
                if stream.parts or stream.total > SHOWN or self.needed:
                    stream.read()
                    stream.close()
                    self._upload(stream)
        except Exception:
            _log.exception(_NOT_UPLOADED)
        finally:
            self._uploading.release()

    def look(self) -> None:
        """Upload what has waited long enough, from another thread than the run's."""
        with self._uploading:
            for stream in self._streams:
                if not self._over and stream.waits(time.monotonic()):
                    stream.read()
                    self._upload(stream)

    def _upload(self, stream: "_Stream") -> None:
        while (part := stream.next_part()) is not None:
            number, content = part
            name = f"{stream.name}/{number:06d}"
            key = self._form.fields["key"].replace("${filename}", name)
            if not self._posted({**self._form.fields, "key": key, "file": (name, content)}):
                return
            stream.uploaded(content)

    def _posted(self, fields: dict[str, Any]) -> bool:
        for _ in range(_ATTEMPTS):
            if self._until is not None and time.monotonic() > self._until:
                break
            with contextlib.suppress(OSError):
                self._post(self._form.url, fields)
                return True
        return False


class _Watch:
    """The one thread that looks at the runs under way. It is not started per run, and sleeps while there is none."""

    def __init__(self) -> None:
        self._uploads: list[LogUpload] = []
        self._needed = threading.Event()
        threading.Thread(target=self._look_around, name="logs", daemon=True).start()

    def add(self, upload: LogUpload) -> None:
        self._uploads.append(upload)
        self._needed.set()

    def remove(self, upload: LogUpload) -> None:
        self._uploads.remove(upload)

    def _look_around(self) -> None:
        while True:
            self._needed.wait()
            time.sleep(INTERVAL)
            if not self._uploads:
                self._needed.clear()
                if self._uploads:  # come just now
                    self._needed.set()
            for upload in tuple(self._uploads):
                try:
                    upload.look()
                except Exception:
                    _log.exception(_NOT_UPLOADED)


@cache
def _watch() -> _Watch:
    return _Watch()


class _Stream:
    def __init__(self, name: str, capture: Capture, redactor: Redactor) -> None:
        self.name = name
        self._capture = capture
        self._seen = 0  # bytes that had been written when they were last taken
        self._nothing_waited = time.monotonic()  # when it was last looked at and all was there
        self._read = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._redacted = RedactedStream(redactor)
        self._longest = redactor.longest
        self._full = 0  # parts that grow no more
        self._growing = bytearray()  # the part after them
        self._stored = 0  # bytes of that one which have been uploaded

    @property
    def total(self) -> int:
        return self._capture.total

    @property
    def parts(self) -> int:
        return self._full + bool(self._stored)

    def waits(self, now: float) -> bool:
        """Whether something has waited for :data:`PATIENCE` seconds."""
        if self._capture.total == self._seen and self.next_part() is None:
            self._nothing_waited = now
        return now - self._nothing_waited >= PATIENCE

    def read(self) -> None:
        """Take what has come, but for what may be the beginning of a secret."""
        self._seen = self._capture.total
        block = self._capture.since(self._read)
        self._read += len(block)
        self._nothing_waited = time.monotonic()
        self._growing += printable(self._redacted.add(self._decoder.decode(block))).encode()

    def close(self) -> None:
        """Take what was held back, or, if the stream was cut, say how much is missing."""
        rest = self._redacted.rest() + self._decoder.decode(b"", final=True)
        missing = self.total - KEPT
        if missing > 0:
            # The cut may go through a secret, which then has no form to be known by.
            rest = f"{rest[: -self._longest or None]}\n[... {missing} bytes left out ...]\n"
        self._growing += printable(rest).encode()

    def next_part(self) -> tuple[int, bytes] | None:
        """The number and content of the part to be uploaded next, if there is anything new."""
        if len(self._growing) <= self._stored:
            return None
        return self._full, bytes(self._growing[:PART])

    def uploaded(self, content: bytes) -> None:
        """The part that :meth:`next_part` gave is there."""
        self._stored = len(content)
        if self._stored == PART:
            self._full += 1
            del self._growing[:PART]
            self._stored = 0


def unshown(stdout: Captured, result: Any, redactor: Redactor) -> str | None:
    """What was printed, when the result has it neither as text nor as a value that would be written just so.

    Output that was parsed is not in the result as well (semantics §2.6); this keeps its log, without an upload.
    """
    if "data" not in result or "stdout" in result or stdout.total > SHOWN:
        return None
    text = printable(redactor.text(stdout.head.decode("utf-8", "replace")))
    return None if text == json.dumps(result["data"]) + "\n" else text
