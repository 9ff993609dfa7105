"""The platform's runtimes (the core pack's), and who runs them."""

from collections.abc import Mapping
from typing import Final, Literal

Runner = Literal["python", "shell", "node", "http", "container"]

PYTHON: Final = "core.python"
SHELL: Final = "core.shell"
NODE: Final = "core.nodejs"
HTTP: Final = "core.http"  # prints nothing: what came back is its result
CONTAINER: Final = "core.container"
NATIVE: Final = "core.native"  # runs nothing: the executor itself completes it

RUNNERS: Final[Mapping[str, Runner]] = {
    PYTHON: "python",
    SHELL: "shell",
    NODE: "node",
    HTTP: "http",
    CONTAINER: "container",
}
"""Which runner of the execution plane runs a runtime."""

RUNNER_TYPES: Final[Mapping[str, str]] = {
    "shell": SHELL,
    "bash": SHELL,
    "sh": SHELL,
    "python": PYTHON,
    "python3": PYTHON,
    "nodejs": NODE,
    "node": NODE,
    "native": NATIVE,
    "builtin": NATIVE,
    "standalone": NATIVE,
    "http": HTTP,
    "http-request": HTTP,
    "container": CONTAINER,
    "docker": CONTAINER,
}
"""``runner_type`` of actions and sensors → runtime; the aliases of the core pack's runtimes say the same."""

WITHOUT_FILE: Final = frozenset({NATIVE, HTTP, CONTAINER})  # their entry point is no file of the pack
