"""Routes of packs (contract: http-api 1.4, Packs): by API, by upload, and from the deployment's own disk.

What installs packs is imported where it is used: reading YAML and archives costs a cold start 30 ms that few requests
have a use for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, field

from chalicelib.api.errors import BadRequest, Conflict, Forbidden, Unprocessable
from chalicelib.api.routing import ROUTES, Call, grant, readable
from chalicelib.api.views import (
    Body,
    Data,
    Json,
    Label,
    Omittable,
    Page,
    PageQuery,
    Patch,
    Ref,
    Success,
    Version,
    View,
    given,
    patched,
)
from chalicelib.domain import parameters, refs
from chalicelib.domain.dependencies import FILES
from chalicelib.domain.entities import SYSTEM_TENANT, EnvironmentState, LibraryRuntime, Pack
from chalicelib.domain.flaws import Flaw
from chalicelib.flow import configuration
from chalicelib.store.registry import Put

if TYPE_CHECKING:
    from chalicelib.flow.packs import Installed

NOT_STANDARD = "; standard packs are the platform's own, so it is visible in this tenant only"


class CreatePackRequest(Body, kw_only=True, frozen=True):
    ref: Ref
    label: Label
    version: Version
    description: str | None = None
    conf_schema: Json = field(default_factory=dict)
    config: Json = field(default_factory=dict)
    meta: Json = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    runtime_deps: list[str] = field(default_factory=list)
    dependencies: list[str] = field(default_factory=list)
    is_standard: bool = False


class UpdatePackRequest(Body, kw_only=True, frozen=True):
    label: Label | None = None
    description: Patch[str] = None
    version: Version | None = None
    conf_schema: Json = None
    config: Json = None
    meta: Json = None
    tags: list[str] | None = None
    runtime_deps: list[str] | None = None
    dependencies: list[str] | None = None
    is_standard: bool | None = None


class RegisterPackRequest(Body, kw_only=True, frozen=True):
    path: Annotated[str, msgspec.Meta(min_length=1)]
    skip_tests: bool = False
    force: bool = False
    strict: bool = False


class PackEnvironment(View, kw_only=True, frozen=True):
    """The libraries that one of the pack's manifests asks for. ``log`` holds the installer's last lines, ``size`` the
    bytes of what it made, packed."""

    runtime: LibraryRuntime
    state: EnvironmentState
    manifest: str
    key: str
    runtime_version: Omittable[str] = UNSET
    size: Omittable[int] = UNSET
    log: Omittable[str] = UNSET
    updated: Omittable[datetime] = UNSET


class PackResponse(View, kw_only=True, frozen=True):
    """The ``worker_*`` fields are required by the published client, which is newer than the contract; packs do not say
    here where their actions run, so they are empty."""

    id: int
    ref: str
    label: str
    description: str | None
    version: str
    conf_schema: Json
    config: Json
    meta: Json
    tags: list[str]
    runtime_deps: list[str]
    dependencies: list[str]
    is_standard: bool
    worker_selector: dict[str, str]
    worker_tolerations: list[Json]
    worker_affinity: dict[str, Json]
    created: datetime
    updated: datetime
    warnings: Omittable[list[Flaw]] = UNSET  # of a registration: what was left out (README 16)
    environments: Omittable[list[PackEnvironment]] = UNSET


class PackSummary(View, kw_only=True, frozen=True):
    id: int
    ref: str
    label: str
    description: str | None
    version: str
    tags: list[str]
    is_standard: bool
    created: datetime
    updated: datetime


class PackInstallResponse(View, kw_only=True, frozen=True):
    """``warnings`` names what was left out, by file, line and reason (README 16)."""

    pack: PackResponse
    tests_skipped: bool
    test_result: Json = None
    warnings: list[Flaw] = field(default_factory=list)


@ROUTES.get("/api/v1/packs", needs=readable("packs"), returns=Page[PackSummary], query=PageQuery, tag="packs")
def list_packs(call: Call) -> Page[PackSummary]:
    """The packs that exist for the caller, by ref."""
    return Page.slice_of(call.readable("packs", call.registry.packs.visible()), call.query.paging, PackSummary.of)


@ROUTES.post(
    "/api/v1/packs",
    needs=grant("packs", "create"),
    returns=Data[PackResponse],
    body=CreatePackRequest,
    status=201,
    tag="packs",
    errors=(409,),
)
def create_pack(call: Call) -> Data[PackResponse]:
    """A pack without files, private to its creator (README 2)."""
    body: CreatePackRequest = call.body
    refs.pack_ref(body.ref)
    refs.version(body.version)
    parameters.check_schema(body.conf_schema)
    if call.registry.packs.find(body.ref) is not None:
        raise Conflict.exists("Pack", body.ref)
    pack = Pack(
        id=call.services.new_id(),
        created=call.now,
        updated=call.now,
        ref=body.ref,
        label=body.label,
        version=body.version,
        description=body.description,
        conf_schema=body.conf_schema,
        config=body.config,
        meta=body.meta,
        tags=body.tags,
        runtime_deps=body.runtime_deps,
        dependencies=body.dependencies,
        visibility="tenant" if body.is_standard else "private",
        installed_by=call.principal.identity_id,
    )
    call.require("packs", "create", call.context_of(pack))
    pack = configuration.sealed(call.services.cipher, call.tenant, pack)
    call.registry.commit(Put(pack, new=True))
    return Data(_shown(call, pack), "Pack created successfully" + (NOT_STANDARD if body.is_standard else ""))


@ROUTES.get("/api/v1/packs/{ref}", needs=readable("packs"), returns=Data[PackResponse], tag="packs", errors=(404,))
def get_pack(call: Call, ref: str) -> Data[PackResponse]:
    """One pack."""
    return Data(_shown(call, call.to_read("packs", "Pack", ref, call.registry.packs.find(ref))))


@ROUTES.get(
    "/api/v1/packs/{ref}/environments",
    needs=readable("packs"),
    returns=Data[list[PackEnvironment]],
    tag="packs",
    errors=(404,),
)
def list_pack_environments(call: Call, ref: str) -> Data[list[PackEnvironment]]:
    """The state of the libraries that the pack's manifests ask for, one entry per manifest."""
    return Data(_environments(call, call.to_read("packs", "Pack", ref, call.registry.packs.find(ref))) or [])


@ROUTES.post(
    "/api/v1/packs/{ref}/environments",
    needs=grant("packs", "install"),
    returns=Data[list[PackEnvironment]],
    status=202,
    tag="packs",
    errors=(404,),
)
def build_pack_environments(call: Call, ref: str) -> Data[list[PackEnvironment]]:
    """Try again to install what failed. What is ready, or being installed, stays as it is."""
    from chalicelib.flow import environments

    pack = writable_pack(call, ref, "install")
    environments.ensure(call.services, call.tenant, pack)
    return Data(_environments(call, pack) or [], "Environments requested")


@ROUTES.put(
    "/api/v1/packs/{ref}",
    needs=grant("packs", "configure"),
    returns=Data[PackResponse],
    body=UpdatePackRequest,
    tag="packs",
    errors=(404, 409),
)
def update_pack(call: Call, ref: str) -> Data[PackResponse]:
    """Change a pack's description or configuration. ``is_standard`` is the platform's to decide, and ignored."""
    body: UpdatePackRequest = call.body
    current = writable_pack(call, ref, "configure")
    changes = given(body, "label", "version", "conf_schema", "config", "meta", "tags", "runtime_deps", "dependencies")
    refs.version(changes.get("version", current.version))
    parameters.check_schema(changes.get("conf_schema"))
    pack = msgspec.structs.replace(
        current,
        **changes,
        secrets={} if "config" in changes else current.secrets,
        description=patched(body.description, current.description),
        updated=call.now,
    )
    pack = configuration.sealed(call.services.cipher, call.tenant, pack, before=current.secrets)
    call.registry.commit(Put(pack))
    return Data(_shown(call, pack), "Pack updated successfully")


@ROUTES.delete("/api/v1/packs/{ref}", needs=grant("packs", "delete"), returns=Success, tag="packs", errors=(404, 409))
def delete_pack(call: Call, ref: str) -> Success:
    """The pack goes with all its components and keys; rules of other packs keep the refs they name."""
    from chalicelib.flow import packs as flow

    flow.delete(call.services, call.tenant, writable_pack(call, ref, "delete"))
    return Success(f"Pack '{ref}' deleted successfully")


@ROUTES.post(
    "/api/v1/packs/upload",
    needs=grant("packs", "install"),
    returns=Data[PackInstallResponse],
    multipart=True,
    status=201,
    tag="packs",
    errors=(409,),
)
def upload_pack(call: Call) -> Data[PackInstallResponse]:
    """A tar.gz in the form field ``pack``; ``force`` replaces an existing pack, ``strict`` refuses one with flaws."""
    form = call.form
    archive = form.files.get("pack") if form else None
    if form is None or archive is None:
        raise BadRequest("Missing file field 'pack' (a tar.gz archive)")
    installed = _install(call, archive.data, force=form.flag("force"), strict=form.flag("strict"))
    return Data(
        PackInstallResponse(pack=_shown(call, installed.pack), tests_skipped=True, warnings=installed.warnings),
        _installed_message(installed),
    )


@ROUTES.post(
    "/api/v1/packs/register",
    needs=grant("packs", "install"),
    returns=Data[PackResponse],
    body=RegisterPackRequest,
    status=201,
    tag="packs",
    errors=(409,),
)
def register_pack(call: Call) -> Data[PackResponse]:
    """A folder within the deployment's own packs folder, where it has one."""
    from chalicelib.flow import packs as flow

    body: RegisterPackRequest = call.body
    with _refusals():
        files = flow.read_directory(_folder(call, body.path))
    installed = _install(call, files, force=body.force, strict=body.strict)
    shown = _shown(call, installed.pack, warnings=installed.warnings or None)
    return Data(shown, _installed_message(installed))


def _install(call: Call, content: bytes | dict[str, bytes], *, force: bool, strict: bool) -> "Installed":
    from chalicelib.flow import packs as flow

    with _refusals():
        return flow.install(
            call.services,
            call.tenant,
            content,
            force=force,
            strict=strict,
            installed_by=call.principal.identity_id,
            access=call.access,
        )


@contextmanager
def _refusals() -> Iterator[None]:
    """What can be wrong with a pack, as the wire says it."""
    from chalicelib.domain.archives import ArchiveError
    from chalicelib.domain.packs import PackError
    from chalicelib.flow import packs as flow

    try:
        yield
    except ArchiveError as error:
        raise BadRequest(f"Invalid pack archive: {error}") from error
    except PackError as error:
        kind = BadRequest if error.malformed else Unprocessable
        raise kind(f"Invalid pack: {error}", [error.flaw]) from error
    except flow.StrictError as error:
        raise Unprocessable(f"Invalid pack: {error}", error.warnings) from error
    except flow.PackExistsError as error:
        raise Conflict(f"{error}; use force to replace it") from error
    except flow.HiddenPackError as error:
        raise Forbidden.lacking("packs", "install") from error
    except (flow.StandardPackError, flow.DelegationError) as error:
        raise Forbidden(str(error)) from error


def _folder(call: Call, path: str) -> Path:
    base = call.services.settings.packs_dir
    if base is None:
        raise BadRequest("This deployment registers no packs from a folder: upload an archive instead")
    root = Path(base).resolve()
    folder = (root / path).resolve()
    if not folder.is_relative_to(root) or not folder.is_dir():
        raise BadRequest(f"No folder '{path}' within the packs folder")
    return folder


def writable_pack(call: Call, ref: str, action: str) -> Pack:
    """The pack, if the caller may do ``action`` to it; NotFound or Forbidden otherwise."""
    pack = call.to_write("packs", action, "Pack", ref, call.registry.packs.find(ref))
    if not call.access.sees_pack(pack, action):
        raise Forbidden.lacking("packs", action)
    return pack


def _shown(call: Call, pack: Pack, **computed: Any) -> PackResponse:
    """Values that the pack's ``conf_schema`` marks secret are for those only who may configure the pack."""
    if call.access.sees_pack(pack, "configure") and not pack.is_standard:
        config = configuration.revealed(call.services.cipher, call.tenant, pack)
    else:
        config = configuration.masked(pack)
    computed = {"worker_selector": {}, "worker_tolerations": [], "worker_affinity": {}, "warnings": None} | computed
    return PackResponse.of(pack, config=config, environments=_environments(call, pack), **computed)


def _environments(call: Call, pack: Pack) -> list[PackEnvironment] | None:
    """None for a pack without manifests."""
    if not pack.manifests:
        return None
    from chalicelib.flow import environments

    registry = call.services.store.tenant(SYSTEM_TENANT if pack.is_standard else call.tenant).registry
    built = {environment.ref: environment for environment in environments.of_pack(registry, pack)}
    shown = []
    for runtime, digest in pack.manifests.items():
        key = environments.ref_for(runtime, digest)
        found = built.get(key)
        if found is None:  # about to be asked for
            shown.append(PackEnvironment(runtime=runtime, state="pending", manifest=FILES[runtime], key=key))
        else:
            details = {name: getattr(found, name) or None for name in ("runtime_version", "size", "log")}
            shown.append(PackEnvironment.of(found, key=key, **details))
    return shown


def _installed_message(installed: "Installed") -> str:
    left_out = f", with {len(installed.warnings)} warning(s)" if installed.warnings else ""
    return f"Pack '{installed.pack.ref}' installed{left_out}"
