"""``ATTUNE_ARTIFACTS_DIR``: a folder that the executions of one workflow run share (docs/decisions/014-artifacts.md).

    claim ── manifest, one read ──► URLs of the archives, a form for one more ──► runner: unpacks, runs, packs
                ▲                                                                              │ what changed
                └── name of the archive ◄── conductor, before the execution ends ◄── results ──┘

An execution without a workflow costs nothing of this; a task that finds nothing and leaves nothing costs the read.
"""

import hashlib
from datetime import timedelta
from typing import Final

from chalicelib.domain.entities import Execution
from chalicelib.domain.executions import DEFAULT_TIMEOUT, LEASE_GRACE
from chalicelib.flow.tokens import token_hash
from chalicelib.protocol import Artifacts, RunFinished, Upload
from chalicelib.services import Services
from chalicelib.store.artifacts import Archive, Manifest
from chalicelib.store.blobs import MissingBlobError
from chalicelib.store.rows import micros

MAX_WRITTEN: Final = 64 * 1024 * 1024  # bytes of archives in one workflow run, what was overwritten included
MERGED_AT: Final = 16  # archives: so many have become one again
KIND: Final = "artifacts"  # the blobs' tag, by which the bucket forgets them
KEPT: Final = timedelta(days=30)  # after the last change (infra/template.py)
_MARGIN: Final = 15 * 60  # seconds that a run may wait, and take to store


def shared(services: Services, tenant: str, execution: Execution) -> Artifacts | None:
    """What the run of ``execution`` shares; None for one that is no task of a workflow."""
    if execution.root is None:
        return None
    opened = services.store.tenant(tenant)
    manifest = opened.artifacts.of(execution.root)
    seconds = (execution.timeout or DEFAULT_TIMEOUT) + int(LEASE_GRACE.total_seconds()) + _MARGIN
    most = max(0, MAX_WRITTEN - manifest.written)
    form = opened.blobs.presigned_post(
        _blob(execution.root, _name(execution.id, execution.attempt)), most, seconds, kind=KIND
    )
    urls = [opened.blobs.presigned_get(_blob(execution.root, archive.name)) for archive in manifest.archives]
    return Artifacts(archives=urls, upload=Upload(url=form["url"], fields=form["fields"], most=most))


def take_in(services: Services, finished: RunFinished) -> None:
    """Let those that come after find what a run has left. To be called before its end is written, which starts them;
    may be repeated. A report that is not of the current attempt is dropped (design §3)."""
    opened = services.store.tenant(finished.tenant)
    execution = opened.activity.get_execution(finished.execution)
    if (
        execution is None
        or execution.root is None
        or execution.status not in ("running", "canceling")
        or (execution.attempt, execution.attempt_token) != (finished.attempt, token_hash(finished.token))
    ):
        return
    manifest = opened.artifacts.add(
        execution.root,
        _name(execution.id, execution.attempt),
        finished.artifacts,
        now=services.clock(),
        keep=KEPT,
    )
    if len(manifest.recent) % MERGED_AT == 0 and manifest.written <= MAX_WRITTEN:
        _merge(services, finished.tenant, execution.root, manifest)


def _merge(services: Services, tenant: str, root: int, manifest: Manifest) -> None:
    """Make one archive of many, so that a task has few to fetch: gzip files put together are one (RFC 1952 §2.2), whose
    content is nothing to the control plane."""
    opened = services.store.tenant(tenant)
    try:
        whole = b"".join(opened.blobs.get(_blob(root, archive.name)) for archive in manifest.archives)
    except MissingBlobError:  # expired: whoever comes next is told
        return
    name = f"merged-{hashlib.sha256(whole).hexdigest()[:24]}.tar.gz"
    opened.blobs.put(_blob(root, name), whole, "application/gzip", kind=KIND)
    into = Archive(micros(services.clock()), len(whole), name)
    # Those that are merged stay: a run that has begun may be about to fetch them.
    opened.artifacts.merge(root, manifest.base, manifest.recent, into)


def _name(execution: int, attempt: int) -> str:
    return f"{execution}-{attempt}.tar.gz"


def _blob(root: int, name: str) -> str:
    return f"artifacts/{root}/{name}"
