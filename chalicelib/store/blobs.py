"""Big values and files in S3, each under its tenant's prefix."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from xml.sax.saxutils import escape

from chalicelib import clients

_REMEMBERED: Final = 1000  # names and URLs kept in memory per process
_URL_REUSE: Final = 0.25  # the part of its life during which a signed URL is handed out again

# S3: the form field of a POST that sets an object's tags.
_TAGGING: Final = "<Tagging><TagSet><Tag><Key>kind</Key><Value>{}</Value></Tag></TagSet></Tagging>"

_signed: OrderedDict[tuple[str, str, int], tuple[float, str]] = OrderedDict()
_stored: OrderedDict[tuple[str, str], None] = OrderedDict()


def forget_stored() -> None:
    """Forget which values are there: a tenant may have been deleted with all of its own."""
    _stored.clear()


class MissingBlobError(Exception):
    """There is no blob of that name."""


class Blobs:
    """One tenant's blobs. Names are relative to the tenant: ``events/17`` is ``{tenant}/events/17`` in the bucket."""

    def __init__(self, bucket: str, tenant: str) -> None:
        self._bucket = bucket
        self._prefix = f"{tenant}/"

    def put(
        self, name: str, content: bytes, content_type: str = "application/octet-stream", *, kind: str | None = None
    ) -> str:
        """Store ``content`` and return ``name``. ``kind``: as for :meth:`presigned_post`."""
        tagged = {"Tagging": f"kind={kind}"} if kind else {}
        clients.s3().put_object(
            Bucket=self._bucket, Key=self._prefix + name, Body=content, ContentType=content_type, **tagged
        )
        return name

    def put_value(self, content: bytes, folder: str = "values") -> str:
        """Store ``content`` under a name made from it, once per process while it is remembered."""
        name = f"{folder}/{hashlib.sha256(content).hexdigest()}"
        known = (self._bucket, self._prefix + name)
        if known not in _stored:
            self.put(name, content, "application/json")
            _remember(_stored, known, None)
        return name

    def get(self, name: str) -> bytes:
        """The content of ``name``. Raises :class:`MissingBlobError`."""
        s3 = clients.s3()
        try:
            answer = s3.get_object(Bucket=self._bucket, Key=self._prefix + name)
        except s3.exceptions.NoSuchKey:
            raise MissingBlobError(name) from None
        content: bytes = answer["Body"].read()
        return content

    def get_part(self, name: str, start: int, stop: int) -> bytes:
        """The bytes of ``name`` from ``start`` to before ``stop``, if it has any. Raises :class:`MissingBlobError`."""
        s3 = clients.s3()
        wanted = {"Bucket": self._bucket, "Key": self._prefix + name, "Range": f"bytes={start}-{stop - 1}"}
        try:
            answer = s3.get_object(**wanted)
        except s3.exceptions.NoSuchKey:
            raise MissingBlobError(name) from None
        except s3.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in ("InvalidRange", "416"):
                return b""
            raise
        content: bytes = answer["Body"].read()
        return content

    def sizes(self, prefix: str) -> dict[str, int]:
        """The names that begin with ``prefix``, in order, and how many bytes each has. One call per thousand."""
        found: dict[str, int] = {}
        wanted = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        for page in clients.s3().get_paginator("list_objects_v2").paginate(**wanted):
            for entry in page.get("Contents", ()):
                found[entry["Key"].removeprefix(self._prefix)] = entry["Size"]
        return found

    def exists(self, name: str) -> bool:
        return self.modified(name) is not None

    def modified(self, name: str) -> datetime | None:
        """When ``name`` was stored last; None if it is not there."""
        s3 = clients.s3()
        try:
            answer = s3.head_object(Bucket=self._bucket, Key=self._prefix + name)
        except s3.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                return None
            raise
        at: datetime = answer["LastModified"]
        return at

    def delete(self, name: str) -> None:
        """Delete ``name``, if it is there."""
        clients.s3().delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def delete_all(self, names: Sequence[str]) -> None:
        """Delete up to a thousand names in one call."""
        objects = [{"Key": self._prefix + name} for name in names]
        answer = clients.s3().delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
        if refused := answer.get("Errors"):
            raise OSError(f"{len(refused)} of {len(names)} blobs could not be deleted: {refused[0].get('Message')}")

    def presigned_get(self, name: str, seconds: int = 3600, *, once: bool = False) -> str:
        """A URL that reads ``name`` for at least three quarters of ``seconds`` without further rights; no AWS call.

        ``once``: it will not be asked for again, and does not push out what will.
        """
        wanted = (self._bucket, self._prefix + name, seconds)
        now = time.monotonic()
        known = _signed.get(wanted)
        if known is not None and now < known[0]:
            return known[1]
        url: str = clients.s3().generate_presigned_url(
            "get_object", Params={"Bucket": self._bucket, "Key": self._prefix + name}, ExpiresIn=seconds
        )
        if not once:
            _remember(_signed, wanted, (now + seconds * _URL_REUSE, url))
        return url

    def presigned_post(
        self, name: str, max_bytes: int, seconds: int = 900, *, kind: str | None = None
    ) -> dict[str, Any]:
        """``{"url", "fields"}`` of a form that uploads a file of at most ``max_bytes`` to ``name``; when that ends in
        ``${filename}``, any number of files to names that begin with the rest. No AWS call.

        ``kind`` becomes the files' tag of that name, by which the bucket's lifecycle knows them (infra/template.py).
        """
        tagged = {"tagging": _TAGGING.format(escape(kind))} if kind else {}
        form: dict[str, Any] = clients.s3().generate_presigned_post(
            Bucket=self._bucket,
            Key=self._prefix + name,
            Fields=dict(tagged),
            Conditions=[["content-length-range", 0, max_bytes], *([tagged] if tagged else [])],
            ExpiresIn=seconds,
        )
        return form


def _remember(memory: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    memory[key] = value
    if len(memory) > _REMEMBERED:
        memory.popitem(last=False)
