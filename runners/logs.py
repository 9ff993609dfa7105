"""The whole output of a run, in S3 while it runs (T3.21).

The runner has no rights on any bucket: the run brings a presigned form for objects below one prefix. S3 cannot append,
so each stream becomes parts, one per second in which there was something. A run that is over before the first second
and whose result shows all of its output uploads nothing.
"""

import codecs
import contextlib
import threading
from collections.abc import Callable
from typing import Any, Final, Self

from chalicelib.protocol import Logs
from runners.capture import KEPT, Capture
from runners.output import SHOWN, printable
from runners.redaction import RedactedStream, Redactor

INTERVAL: Final = 1.0  # seconds between parts
_TIMEOUT: Final = 5.0  # seconds for one upload
_ATTEMPTS: Final = 2

Post = Callable[[str, dict[str, Any]], None]


class LogUpload:
    """Follows the captures of a run, redacted and printable, from the moment it is entered until it is left.

    Losing a part is not losing an execution: after a failed upload the stream simply ends there, and :attr:`parts`
    says how far it got.
    """

    def __init__(self, form: Logs, streams: dict[str, Capture], redactor: Redactor, post: Post | None = None) -> None:
        self._form = form
        self._post = post or _post
        self._streams = [_Stream(name, capture, redactor) for name, capture in streams.items()]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="logs", daemon=True)

    @property
    def parts(self) -> dict[str, int]:
        """How many parts each stream has, for those that have any."""
        return {stream.name: stream.parts for stream in self._streams if stream.parts}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._over.wait(INTERVAL):
            for stream in self._streams:
                self._upload(stream, stream.news())
        if self.parts or any(stream.total > SHOWN for stream in self._streams):
            for stream in self._streams:
                self._upload(stream, stream.news() + stream.rest())

    def _upload(self, stream: "_Stream", text: str) -> None:
        if not text or stream.broken:
            return
        name = f"{stream.name}/{stream.parts:06d}"
        key = self._form.fields["key"].replace("${filename}", name)
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(OSError):
                self._post(self._form.url, {**self._form.fields, "key": key, "file": (name, text.encode())})
                stream.parts += 1
                return
        stream.broken = True


class _Stream:
    def __init__(self, name: str, capture: Capture, redactor: Redactor) -> None:
        self.name = name
        self.parts = 0
        self.broken = False
        self._capture = capture
        self._read = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._redacted = RedactedStream(redactor)
        self._longest = redactor.longest

    @property
    def total(self) -> int:
        return self._capture.captured().total

    def news(self) -> str:
        """What has come since the last call, but for what may be the beginning of a secret."""
        block = self._capture.since(self._read)
        self._read += len(block)
        return printable(self._redacted.add(self._decoder.decode(block)))

    def rest(self) -> str:
        """What was held back, or, if the stream was cut, how much is missing."""
        rest = self._redacted.rest() + self._decoder.decode(b"", final=True)
        missing = self.total - KEPT
        if missing <= 0:
            return printable(rest)
        # The cut may go through a secret, which then has no form to be known by.
        return f"{printable(rest[: -self._longest or None])}\n[... {missing} bytes left out ...]\n"


def _post(url: str, fields: dict[str, Any]) -> None:
    import urllib3  # comes with botocore

    try:
        answer = urllib3.request("POST", url, fields=fields, timeout=_TIMEOUT, retries=False)
    except urllib3.exceptions.HTTPError as error:
        raise OSError(str(error)) from error
    if answer.status >= 300:
        raise OSError(f"upload refused with {answer.status}")
