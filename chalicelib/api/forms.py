"""Multipart forms (RFC 7578), with limits."""

from io import BytesIO

import multipart  # type: ignore[import-untyped]  # it ships no type information

from chalicelib.api.errors import BadRequest
from chalicelib.api.routing import Form, Upload

MAX_PARTS = 64


def parse(content_type: str, body: bytes) -> Form:
    """Decode a ``multipart/form-data`` body; raises BadRequest saying what is wrong with it."""
    _, options = multipart.parse_options_header(content_type)
    boundary = options.get("boundary")
    if not boundary:
        raise BadRequest("multipart/form-data without a boundary")
    fields: dict[str, str] = {}
    files: dict[str, Upload] = {}
    uploads: list[Upload] = []
    try:
        parser = multipart.MultipartParser(
            BytesIO(body),
            boundary,
            content_length=len(body),
            part_limit=MAX_PARTS,
            memory_limit=len(body) + 1,
            spool_limit=len(body) + 1,  # nothing goes to disk
        )
        for part in parser:
            if part.filename is None:
                fields[part.name] = part.value
            else:
                files[part.name] = Upload(part.filename, part.content_type, part.raw)
                uploads.append(files[part.name])
    except (multipart.MultipartError, UnicodeDecodeError) as error:
        raise BadRequest(f"Malformed multipart body: {error}") from error
    return Form(fields, files, uploads)
