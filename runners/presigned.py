"""What a run may do with S3, which is what the URLs and forms that it brings allow. One pool of connections for all."""

import time
from collections.abc import Iterator
from functools import cache
from typing import IO, Any, Final

from chalicelib.protocol import Upload

_ATTEMPTS: Final = 3
_FILE_TIMEOUT: Final = 120.0
_BLOCK: Final = 1 << 20
_TIMEOUT: Final = 5.0  # seconds for the connection, and between two blocks
_LOOK_TIMEOUT: Final = 1.0


def post_form(url: str, fields: dict[str, Any]) -> None:
    """Upload by a presigned form. Raises OSError."""
    answer = _request("POST", url, fields=fields)
    if answer.status >= 300:
        raise OSError(f"upload refused with {answer.status}")


def upload(target: Upload, file: IO[bytes], size: int) -> None:
    """Put ``file``, which is ``size`` bytes, where ``target`` says, with a few attempts. Raises OSError."""
    from urllib3.filepost import encode_multipart_formdata

    mark = "the file goes here"
    body, kind = encode_multipart_formdata({**target.fields, "file": ("archive.tar.gz", mark, "application/gzip")})
    before, after = body.split(mark.encode())
    headers = {"Content-Type": kind, "Content-Length": str(len(before) + size + len(after))}
    said = "nothing"
    for attempt in range(_ATTEMPTS):
        time.sleep(0.2 * attempt)
        file.seek(0)
        parts = _parts(before, file, after)
        try:
            answer = _request("POST", target.url, body=parts, headers=headers, timeout=_FILE_TIMEOUT)
        except OSError as error:
            said = str(error)
            continue
        if answer.status < 300:
            return
        said = f"status {answer.status}"
    raise OSError(f"the file could not be stored: {said}")


def get(url: str, most: int) -> bytes | None:
    """The object, with a few attempts; None if there is none (any more). Raises OSError, also for one of more than
    ``most`` bytes."""
    said: object = None
    for attempt in range(_ATTEMPTS):
        time.sleep(0.2 * attempt)
        try:
            answer = _request("GET", url, preload_content=False)
            content: bytes = answer.read(most + 1)
            answer.release_conn()
        except OSError as error:
            said = error
            continue
        if answer.status in (403, 404):
            return None
        if answer.status == 200 and len(content) <= most:
            return content
        said = f"status {answer.status}, {len(content)} bytes"
    raise OSError(f"the file cannot be fetched: {said}")


def is_there(url: str) -> bool:
    """Whether the URL has an object, which should be a small one. Raises OSError when S3 is out of reach."""
    status: int = _request("GET", url, timeout=_LOOK_TIMEOUT).status
    if status >= 500:
        raise OSError(f"S3 answered {status}")
    return status == 200


def _parts(before: bytes, file: IO[bytes], after: bytes) -> Iterator[bytes]:
    yield before
    while block := file.read(_BLOCK):
        yield block
    yield after


def _request(method: str, url: str, **options: Any) -> Any:
    from urllib3.exceptions import HTTPError

    try:
        return _pool().request(method, url, **options)
    except HTTPError as error:
        raise OSError(str(error)) from error


@cache
def _pool() -> Any:
    import urllib3  # comes with botocore; not before there is something to be had or uploaded

    return urllib3.PoolManager(timeout=_TIMEOUT, retries=False)
