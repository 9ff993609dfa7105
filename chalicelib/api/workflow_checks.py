"""Definitions of workflows at the door: what is wrong is refused whole, what may come right is told (README 16)."""

from functools import partial

from chalicelib.api.components import is_hidden, require_delegable
from chalicelib.api.errors import Unprocessable
from chalicelib.api.routing import Call
from chalicelib.domain.entities import Json
from chalicelib.domain.workflow.parsing import check_actions, parse, permission_sets_of


def checked(call: Call, ref: str, definition: Json, path: str = "definition") -> list[str]:
    """What to tell the caller about the definition of the workflow ``ref``, which can be taken.

    Raises Unprocessable with every problem's path and what to change, ``path`` being where in the body the definition
    is; Forbidden for permission sets that hold more than the caller's access.
    """
    parsed = parse(definition)
    problems = [{"path": f"{path}{each.path[1:]}", "problem": each.message} for each in parsed.problems]
    if parsed.definition is None or problems:
        told = "; ".join(f"{each['path']}: {each['problem']}" for each in problems[:5])
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise Unprocessable(f"Invalid workflow definition: {told}{more}", details=problems)
    require_delegable(call, permission_sets_of(parsed.definition))
    absent = check_actions(parsed, partial(_exists, call, ref, path))
    return [f"{path}{each.path[1:]}: {each.message}" for each in (*parsed.warnings, *absent)]


def _exists(call: Call, ref: str, path: str, action_ref: str) -> bool:
    """Whether there is an action of that ref, or will be. Raises Unprocessable for one of somebody's private pack: it
    would run for them who may not run it (README 2)."""
    action = call.snapshot.action(action_ref) or call.registry.actions.find(action_ref)
    if action is not None and is_hidden(call, call.pack(action.pack_ref)):
        raise Unprocessable(f"Action '{action_ref}' does not exist for you", details={"path": path})
    return action is not None or action_ref == ref


def told(message: str, warnings: list[str]) -> str:
    """``message`` with what there is to tell about a definition that was taken."""
    return message if not warnings else f"{message}, with {len(warnings)} warning(s): {'; '.join(warnings)}"
