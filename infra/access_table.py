"""``docs/access.md``, made of the table of routes and the default permission sets: ``python -m infra.access_table``."""

from pathlib import Path
from typing import Final

from chalicelib.api.adapter import ROUTES
from chalicelib.api.openapi import permission
from chalicelib.api.routing import Route
from chalicelib.domain.permissions import DEFAULT_SETS, Access

PATH: Final = Path(__file__).resolve().parents[1] / "docs" / "access.md"
ROLES: Final = ("core.admin", "core.editor", "core.executor", "core.viewer")
INTRODUCTION: Final = """\
# Who may do what

Made by `make access` from what stands beside each route; a test holds every line against the answers, for every role,
in its own tenant and in another (`tests/unit/api/test_matrix.py`). Do not edit.

Every token belongs to one tenant, and what is another tenant's does not exist: 404. Within the tenant, a caller may do
what the grants of its permission sets allow: those assigned to it and those of its roles. The four standard sets are
columns here; more come with packs and by API (`POST /api/v1/permissions/sets`).

- *public*: no token at all. *signed in*: any valid token.
- `resource:action`: some grant gives it, else 403. The constraints of the grant are then held against the very row.
- `… for what is not a standard pack's`: lists are open and hold what the caller may read; what belongs to a standard
  pack may be read by everybody.
- `…, unless …`: whom the grant is not asked of.
- *token: …*: only tokens of this type.

● the set has the grant, ○ it does not and the caller gets 403, or a list without what needs it, · no grant is asked.
"""


def table() -> str:
    """The whole document."""
    lines = [INTRODUCTION]
    for tag in sorted({route.tag for route in ROUTES}):
        lines += [
            f"## {tag}\n",
            "| route | needs | " + " | ".join(role.removeprefix("core.") for role in ROLES) + " |",
            "|---|---|" + ":-:|" * len(ROLES),
        ]
        routes = sorted((route for route in ROUTES if route.tag == tag), key=lambda route: (route.path, route.method))
        for route in routes:
            marks = " | ".join(_mark(route, role) for role in ROLES)
            lines.append(f"| `{route.method} {route.path}` | {permission(route.needs)} | {marks} |")
        lines.append("")
    lines.append("## The standard permission sets\n")
    for role in DEFAULT_SETS:
        given = Access(DEFAULT_SETS[role]).effective()
        lines.append(f"- **{role}**: " + "; ".join(f"{name} {', '.join(actions)}" for name, actions in given.items()))
    return "\n".join(lines) + "\n"


def _mark(route: Route, role: str) -> str:
    needs = route.needs
    if needs.resource is None or needs.action is None:
        return "·"
    return "●" if Access(DEFAULT_SETS[role]).allows(needs.resource, needs.action) else "○"


if __name__ == "__main__":
    PATH.write_text(table(), encoding="utf-8")
