"""The workflows of an installed pack, looked at again: brought up to what its files say, or only checked."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from chalicelib.domain import archives, documents, installation
from chalicelib.domain.components import Component
from chalicelib.domain.documents import DocumentError
from chalicelib.domain.entities import SYSTEM_TENANT, Action, Pack, Rule, WorkflowDefinition
from chalicelib.domain.flaws import Flaw
from chalicelib.domain.pack_workflows import is_workflow_file
from chalicelib.domain.packs import PackSource
from chalicelib.domain.permissions import Access
from chalicelib.domain.workflow.parsing import parse
from chalicelib.flow import packs
from chalicelib.services import Services
from chalicelib.store.registry import Put


@dataclass(frozen=True, slots=True)
class Synced:
    """One workflow of the pack's files. ``warnings`` are for people."""

    workflow: WorkflowDefinition
    created: bool
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Sync:
    """``found`` counts the workflows of the files, also those that ``errors`` is about."""

    found: int
    workflows: list[Synced] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def sync(services: Services, tenant: str, pack: Pack, access: Access) -> Sync:
    """Write the workflows of ``pack`` as its files say they are, and the actions that run them. What else the pack has
    stays as it is, and so do workflows that its files do not have.

    Raises DelegationError as an installation does.
    """
    source, flaws = _workflows(services, tenant, pack)
    if source is None:
        return Sync(found=0)
    registry = services.store.tenant(tenant).registry
    present = packs.present(registry, source)
    outcome = installation.plan(
        source, pack, present, new_id=services.new_id, owner=pack.installed_by, now=services.clock()
    )
    packs.check_delegation(registry, outcome.installed, access)
    written = [each for each in outcome.written if isinstance(each, WorkflowDefinition | Action | Rule)]
    if written:
        registry.commit(*(Put(each, new=each.revision == 0) for each in written))
    files = {component.ref: component.file for component in source.components}
    installed = [each for each in outcome.installed if isinstance(each, WorkflowDefinition)]
    sound = {files[each.ref] for each in installed}
    warnings = [*(flaw for flaw in flaws if flaw.file in sound), *outcome.warnings]
    broken = _by_file(flaw for flaw in flaws if flaw.file not in sound)
    return Sync(
        found=len(installed) + len(broken),
        workflows=[Synced(each, each.revision == 0, _by_file(warnings).get(files[each.ref], [])) for each in installed],
        errors=[f"{file}: {reason}" for file, reasons in broken.items() for reason in reasons],
    )


def validate(services: Services, tenant: str, pack: Pack) -> tuple[int, dict[str, list[str]]]:
    """How many workflows of ``pack`` were looked at, those of its files and those made by API, and what is wrong, by
    file or ref."""
    source, flaws = _workflows(services, tenant, pack)
    components = [] if source is None else source.components
    sound = {component.file for component in components}
    broken = _by_file(flaw for flaw in flaws if flaw.file not in sound)
    in_files = [component for component in components if component.type is WorkflowDefinition]
    registry = services.store.tenant(SYSTEM_TENANT if pack.is_standard else tenant).registry
    made = [each for each in registry.workflows.list() if each.pack_ref == pack.ref and each.is_adhoc]
    problems = {each.ref: parse(each.definition).problems for each in made}
    told = {ref: [f"{each.path}: {each.message}" for each in found] for ref, found in problems.items() if found}
    return len(in_files) + len(broken) + len(made), broken | told


def _workflows(services: Services, tenant: str, pack: Pack) -> tuple[PackSource | None, list[Flaw]]:
    """The workflows in the files of ``pack``, with the actions that run them, and what is wrong with any of them. None
    for a pack without files."""
    if pack.content is None:
        return None, []
    blobs = services.store.tenant(SYSTEM_TENANT if pack.is_standard else tenant).blobs
    files = archives.contents(blobs.get(packs.archive_name(pack.content)))
    source = packs.read(files)
    refs = {component.ref for component in source.components if component.type is WorkflowDefinition}
    components: list[Component] = [
        component
        for component in source.components
        if component.type in (WorkflowDefinition, Action) and component.ref in refs
    ]
    flaws = [flaw for flaw in source.warnings if flaw.file in files and _is_workflow(flaw.file, files[flaw.file])]
    return replace(source, components=components), flaws


def _is_workflow(file: str, content: bytes) -> bool:
    try:
        return is_workflow_file(file) or is_workflow_file(file, documents.read(content).value)
    except DocumentError:
        return False


def _by_file(flaws: Iterable[Flaw]) -> dict[str, list[str]]:
    told: dict[str, list[str]] = {}
    for flaw in flaws:
        told.setdefault(flaw.file, []).append(f"line {flaw.line}: {flaw.reason}")
    return told
