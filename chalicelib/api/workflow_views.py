"""Bodies, queries and answers of the workflow routes (contract: http-api part 2, workflow.rs and pack.rs)."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET

from chalicelib.api.views import Body, Json, Label, Omittable, PageQuery, Ref, Version, View

Schema = dict[str, Json]


class CreateWorkflowRequest(Body, kw_only=True, frozen=True):
    ref: Ref
    pack_ref: Ref
    label: Label
    version: Version
    definition: Json
    description: str | None = None
    param_schema: Schema | None = None
    out_schema: Schema | None = None
    tags: list[str] | None = None


class UpdateWorkflowRequest(Body, kw_only=True, frozen=True):
    """What is absent or null stays as it is."""

    label: Label | None = None
    description: str | None = None
    version: Version | None = None
    param_schema: Schema | None = None
    out_schema: Schema | None = None
    definition: Json = None
    tags: list[str] | None = None


class SaveWorkflowFileRequest(Body, kw_only=True, frozen=True):
    """The workflow ``{pack_ref}.{name}``."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    pack_ref: Ref
    label: Label
    version: Version
    definition: Json
    description: str | None = None
    param_schema: Schema | None = None
    out_schema: Schema | None = None
    tags: list[str] | None = None


class WorkflowSummary(View, kw_only=True, frozen=True):
    id: int
    ref: str
    pack_ref: str
    label: str
    description: str | None
    version: str
    tags: list[str]
    created: datetime
    updated: datetime


class WorkflowResponse(WorkflowSummary, kw_only=True, frozen=True):
    """``warnings``, of a write: what was taken nevertheless, such as an action that does not exist yet (README 16)."""

    pack: int
    param_schema: Json
    out_schema: Json
    definition: Json
    warnings: Omittable[list[str]] = UNSET


class WorkflowQuery(PageQuery, kw_only=True, frozen=True):
    """``tags``, separated by commas: those that have one of them at least."""

    tags: str | None = None
    search: str | None = None
    pack_ref: str | None = None


class WorkflowSyncResult(View, kw_only=True, frozen=True):
    ref_name: str
    created: bool
    workflow_def_id: int
    warnings: list[str]


class PackWorkflowSyncResponse(View, kw_only=True, frozen=True):
    """``loaded_count`` workflows were found in the pack's files, ``registered_count`` are in the registry now."""

    pack_ref: str
    loaded_count: int
    registered_count: int
    workflows: list[WorkflowSyncResult]
    errors: list[str]


class PackWorkflowValidationResponse(View, kw_only=True, frozen=True):
    """``errors`` by ref or, for a file that gives no workflow, by its name."""

    pack_ref: str
    validated_count: int
    error_count: int
    errors: dict[str, list[str]]
