"""Routes of the workflows in a pack's files (contract: http-api 1.4, Packs).

What reads packs is imported where it is used, as in ``chalicelib.api.packs``.
"""

from chalicelib.api.errors import Forbidden
from chalicelib.api.packs import writable_pack
from chalicelib.api.routing import ROUTES, Call, grant, readable
from chalicelib.api.views import Data
from chalicelib.api.workflow_views import (
    PackWorkflowSyncResponse,
    PackWorkflowValidationResponse,
    WorkflowSyncResult,
)


@ROUTES.post(
    "/api/v1/packs/{ref}/workflows/sync",
    needs=grant("packs", "install"),
    returns=Data[PackWorkflowSyncResponse],
    tag="workflows",
    errors=(404,),
)
def sync_pack_workflows(call: Call, ref: str) -> Data[PackWorkflowSyncResponse]:
    """Bring the workflows of a pack up to what its files say, where they were changed by API since."""
    from chalicelib.flow import pack_workflows
    from chalicelib.flow.packs import DelegationError

    pack = writable_pack(call, ref, "install")
    try:
        synced = pack_workflows.sync(call.services, call.tenant, pack, call.access)
    except DelegationError as error:
        raise Forbidden(str(error)) from error
    shown = PackWorkflowSyncResponse(
        pack_ref=ref,
        loaded_count=synced.found,
        registered_count=len(synced.workflows),
        workflows=[
            WorkflowSyncResult(
                ref_name=each.workflow.ref,
                created=each.created,
                workflow_def_id=each.workflow.id,
                warnings=each.warnings,
            )
            for each in synced.workflows
        ],
        errors=synced.errors,
    )
    return Data(shown, f"{len(synced.workflows)} workflow(s) synchronized")


@ROUTES.post(
    "/api/v1/packs/{ref}/workflows/validate",
    needs=readable("packs"),
    returns=Data[PackWorkflowValidationResponse],
    tag="workflows",
    errors=(404,),
)
def validate_pack_workflows(call: Call, ref: str) -> Data[PackWorkflowValidationResponse]:
    """Check the workflows of a pack, those of its files and those made by API. Nothing changes."""
    from chalicelib.flow import pack_workflows

    pack = call.to_read("packs", "Pack", ref, call.registry.packs.find(ref))
    count, errors = pack_workflows.validate(call.services, call.tenant, pack)
    return Data(
        PackWorkflowValidationResponse(
            pack_ref=ref, validated_count=count, error_count=sum(map(len, errors.values())), errors=errors
        )
    )
