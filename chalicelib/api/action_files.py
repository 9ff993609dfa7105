"""The files of an action made by API (issue 3): code in more than one file, which ``entrypoint`` names one of.

They are kept as a pack's are: one archive under the SHA-256 of its content, which the runner gets as it gets a pack's.
"""

import hashlib
from typing import Annotated, Final

import msgspec

from chalicelib.api.components import require_delegable
from chalicelib.api.delegation import require_grants
from chalicelib.api.errors import BadRequest, Conflict, Unprocessable
from chalicelib.api.routing import ROUTES, Call, Form, grant, readable
from chalicelib.api.views import Data, View
from chalicelib.domain.entities import Action
from chalicelib.flow.permission_sets import lent_by_rules
from chalicelib.store.registry import Put

# What runs a program, so that its code can be in files.
_PROGRAMS: Final = ("core.shell", "core.python", "core.nodejs")


class ActionFile(View, kw_only=True, frozen=True):
    path: str
    size: Annotated[int, msgspec.Meta(description="bytes")]
    sha256: str


class ActionFilesResponse(View, kw_only=True, frozen=True):
    """``content`` names the archive; null for an action whose code is its ``entrypoint`` itself."""

    ref: str
    entrypoint: str
    content: str | None
    files: list[ActionFile]


@ROUTES.get(
    "/api/v1/actions/{ref}/files",
    needs=readable("actions"),
    returns=Data[ActionFilesResponse],
    tag="actions",
    errors=(404,),
)
def list_action_files(call: Call, ref: str) -> Data[ActionFilesResponse]:
    """The files of an action made by API, without what is in them. Those of a pack's action are the pack's."""
    action = call.to_read("actions", "Action", ref, call.registry.actions.find(ref))
    return Data(_shown(action, files_of(call, action)))


@ROUTES.post(
    "/api/v1/actions/{ref}/files",
    needs=grant("actions", "update"),
    returns=Data[ActionFilesResponse],
    multipart=True,
    status=201,
    tag="actions",
    errors=(404, 409),
)
def upload_action_files(call: Call, ref: str) -> Data[ActionFilesResponse]:
    """Every file of the form, under its file name, which may hold folders (``lib/names.py``). They replace those that
    there are; with the field ``keep`` set they are added to them. The field ``entrypoint`` says which one is run;
    without it the action's own names it, and a lone file needs no name."""
    action = _changeable(call, ref)
    form = call.form
    if form is None or not form.uploads:
        raise BadRequest("Missing files: send each as a part of the form with a file name")
    files = {**files_of(call, action), **_given(form)} if form.flag("keep") else _given(form)
    entrypoint = form.fields.get("entrypoint") or (next(iter(files)) if len(files) == 1 else action.entrypoint)
    check_entrypoint(entrypoint, files)
    action = _with_files(call, action, files, entrypoint)
    return Data(_shown(action, files), f"{len(files)} file(s) stored")


@ROUTES.delete(
    "/api/v1/actions/{ref}/files",
    needs=grant("actions", "update"),
    returns=Data[ActionFilesResponse],
    tag="actions",
    errors=(404, 409),
)
def delete_action_files(call: Call, ref: str) -> Data[ActionFilesResponse]:
    """The action's code is its ``entrypoint`` again: what was in the file that it named."""
    action = _changeable(call, ref)
    code = files_of(call, action).get(action.entrypoint, action.entrypoint.encode())
    try:
        entrypoint = code.decode()
    except UnicodeDecodeError:
        raise Conflict(f"'{action.entrypoint}' is no text, so it cannot become the entrypoint") from None
    before = action
    action = msgspec.structs.replace(action, content=None, manifest=None, entrypoint=entrypoint, updated=call.now)
    call.registry.commit(Put(action))
    _let_go_of(call, before)
    return Data(_shown(action, {}), "Files deleted")


def files_of(call: Call, action: Action) -> dict[str, bytes]:
    """The files of an action made by API; none for any other."""
    if action.content is None or not action.is_adhoc:
        return {}
    from chalicelib.domain import archives  # few requests have a use for it: see chalicelib.api.packs
    from chalicelib.flow.packs import archive_name

    return archives.contents(call.services.store.tenant(call.tenant).blobs.get(archive_name(action.content)))


def check_entrypoint(entrypoint: str, files: dict[str, bytes]) -> None:
    """Raises Unprocessable unless ``entrypoint`` is one of ``files``, as the runner looks for it."""
    if entrypoint not in files and f"actions/{entrypoint}" not in files:
        raise Unprocessable(
            f"entrypoint '{entrypoint[:80]}' is none of the action's files: {', '.join(sorted(files)[:20])}",
            details={"path": "entrypoint"},
        )


def _given(form: Form) -> dict[str, bytes]:
    from chalicelib.domain import archives

    try:
        return archives.gathered((upload.filename, upload.data) for upload in form.uploads)
    except archives.ArchiveError as error:
        raise BadRequest(f"Invalid files: {error}") from error


def _changeable(call: Call, ref: str) -> Action:
    """The action, if the caller may change what it does. Conflict for one that has no files of its own."""
    action = call.to_write("actions", "update", "Action", ref, call.registry.actions.find(ref))
    if not action.is_adhoc:
        raise Conflict(f"Action '{ref}' came with its pack, and its files are the pack's")
    if action.runtime_ref not in _PROGRAMS:
        raise Conflict(f"Action '{ref}' runs no program: its runtime is {action.runtime_ref}")
    require_delegable(call, action.default_execution_permission_set_refs)
    require_grants(call, lent_by_rules(call.registry, {action.ref}), f"A rule that runs '{action.ref}'")
    return action


def _with_files(call: Call, action: Action, files: dict[str, bytes], entrypoint: str) -> Action:
    """Stores the archive first: nothing refers to it until the action does. Libraries that a manifest among the files
    asks for are built as a pack's are."""
    from chalicelib.domain import archives, dependencies
    from chalicelib.flow import environments, quotas
    from chalicelib.flow.packs import archive_name

    archive = archives.pack(files)
    content = archives.digest(archive)
    if content != action.content:
        quotas.admit_bytes(call.services, call.tenant, len(archive))
        call.services.store.tenant(call.tenant).blobs.put(archive_name(content), archive, "application/gzip")
    runtime = dependencies.RUNTIMES.get(action.runtime_ref or "")
    manifests = {kind: digest for kind, digest in dependencies.manifests(files).items() if kind == runtime}
    manifest = next(iter(manifests.values()), None)
    changed = msgspec.structs.replace(
        action, content=content, manifest=manifest, entrypoint=entrypoint, updated=call.now
    )
    call.registry.commit(Put(changed))
    if action.content not in (None, content):
        _let_go_of(call, action)
    pack = call.registry.packs.get(action.pack_ref)
    if pack is not None and manifests:
        wanted = msgspec.structs.replace(pack, content=content, manifests=manifests)
        environments.ensure(call.services, call.tenant, wanted)
    return changed


def _let_go_of(call: Call, before: Action) -> None:
    from chalicelib.flow import garbage

    garbage.leave(call.services, call.tenant, [before])


def _shown(action: Action, files: dict[str, bytes]) -> ActionFilesResponse:
    return ActionFilesResponse(
        ref=action.ref,
        entrypoint=action.entrypoint,
        content=action.content if action.is_adhoc else None,
        files=[
            ActionFile(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())
            for path, content in sorted(files.items())
        ],
    )
