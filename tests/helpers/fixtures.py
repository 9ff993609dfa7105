"""Objects that tests need again and again, each with a ref of its own so that no test meets another's."""

import gzip
import io
import tarfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from helpers.client import AttuneClient, Json


def unique_ref(prefix: str = "test") -> str:
    """A pack ref that nobody else has."""
    return f"{prefix}_{uuid.uuid4().hex[:10]}"


def unique_login() -> str:
    return f"{uuid.uuid4().hex[:12]}@example.test"


@dataclass(frozen=True)
class WebhookTrigger:
    """A trigger whose webhook is on, and its key."""

    ref: str
    key: str


def create_webhook_trigger(client: AttuneClient, pack_ref: str, name: str = "hook") -> WebhookTrigger:
    ref = f"{pack_ref}.{name}"
    client.create_trigger(ref, pack_ref)
    return WebhookTrigger(ref=ref, key=client.enable_webhook(ref))


def create_echo_action(client: AttuneClient, pack_ref: str, name: str = "echo") -> str:
    """A shell action that prints its parameter ``message``; returns its ref."""
    ref = f"{pack_ref}.{name}"
    schema = {"message": {"type": "string", "default": "hello"}}
    client.create_action(ref, pack_ref, entrypoint='echo "$message"', param_schema=schema)
    return ref


def create_python_action(client: AttuneClient, pack_ref: str, name: str, code: str, schema: Json = None) -> str:
    """An inline Python action that reads its parameters as JSON from stdin; returns its ref."""
    ref = f"{pack_ref}.{name}"
    client.create_action(ref, pack_ref, entrypoint=code, runtime_ref="core.python", param_schema=schema)
    return ref


def create_failing_action(client: AttuneClient, pack_ref: str, name: str = "broken", exit_code: int = 1) -> str:
    """A shell action that complains on stderr and exits with ``exit_code``; returns its ref."""
    ref = f"{pack_ref}.{name}"
    client.create_action(ref, pack_ref, entrypoint=f"echo 'it broke' >&2\nexit {exit_code}")
    return ref


def pack_archive(files: Mapping[str, str | bytes]) -> bytes:
    """A tar.gz of ``files`` (path → content), the same bytes for the same files."""
    return tar_gz([_member(path, content) for path, content in files.items()])


def tar_gz(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar.gz of any members, for archives that nobody should accept as well."""
    tar_bytes = io.BytesIO()
    with tarfile.open(fileobj=tar_bytes, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(tar_bytes.getvalue(), mtime=0)


def _member(path: str, content: str | bytes) -> tuple[tarfile.TarInfo, bytes]:
    body = content.encode() if isinstance(content, str) else content
    info = tarfile.TarInfo(path)
    info.size = len(body)
    info.mode = 0o755
    return info, body
