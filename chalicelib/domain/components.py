"""A component of a pack, as its file describes it."""

from dataclasses import dataclass
from typing import TypeAlias

from chalicelib.domain.documents import Document
from chalicelib.domain.entities import (
    Action,
    Json,
    PermissionSet,
    Rule,
    Runtime,
    Sensor,
    Trigger,
    WorkflowDefinition,
)
from chalicelib.domain.flaws import Flaw

ComponentType: TypeAlias = (
    type[PermissionSet]
    | type[Runtime]
    | type[Trigger]
    | type[WorkflowDefinition]
    | type[Action]
    | type[Rule]
    | type[Sensor]
)


@dataclass(frozen=True, slots=True)
class Component:
    """``fields`` are those of ``type`` that the file decides. ``enabled`` is among them only where the file says it.
    ``at``: where in the document the component is."""

    type: ComponentType
    ref: str
    fields: dict[str, Json]
    file: str
    document: Document
    at: str = "$"

    def flaw(self, reason: str, path: str = "$") -> Flaw:
        """What is wrong at ``path``, which begins with ``$`` for the component itself."""
        return Flaw(self.file, self.document.line_of(f"{self.at}{path[1:]}"), reason)
