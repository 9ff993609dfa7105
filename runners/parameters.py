"""How an action gets its parameters, secrets among them: ``semantics.md`` §2.6."""

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from chalicelib.protocol import Run
from runners.child import FOLDER

Json = Any

_encode = msgspec.json.Encoder().encode


class Delivered(msgspec.Struct, kw_only=True, frozen=True):
    """One of ``stdin`` and ``files`` carries the document; the environment says which, and where."""

    stdin: bytes = b""
    files: dict[str, str] = {}
    environment: dict[str, str] = {}


def deliver(run: Run) -> Delivered:
    """The parameters of a run in the form and the way that its action asks for."""
    text = document(run.parameters, run.parameter_format)
    environment: dict[str, str] = {
        "ATTUNE_PARAMETER_DELIVERY": run.parameter_delivery,
        "ATTUNE_PARAMETER_FORMAT": run.parameter_format,
    }
    if run.parameter_delivery == "stdin":
        return Delivered(stdin=text.encode(), environment=environment)
    name = "parameters." + {"json": "json", "dotenv": "env", "yaml": "yaml"}[run.parameter_format]
    environment["ATTUNE_PARAMETER_FILE"] = f"{FOLDER}/{name}"
    return Delivered(files={name: text}, environment=environment)


def document(parameters: Mapping[str, Json], parameter_format: str) -> str:
    """The parameters as JSON (one line), YAML or dotenv, with a newline at the end unless there is nothing."""
    if parameter_format == "dotenv":
        return "".join(f"{name}={_quoted(_text(value))}\n" for name, value in sorted(_flat(parameters)))
    if parameter_format == "yaml":
        import yaml  # few actions want it, and it costs a cold start 15 ms

        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        return str(yaml.dump(dict(parameters), Dumper=dumper, allow_unicode=True, sort_keys=False))
    return _encode(parameters).decode() + "\n"


def _flat(value: Mapping[str, Json], prefix: str = "") -> Iterator[tuple[str, Json]]:
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, inner


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _text(value: Json) -> str:
    """Strings raw, null empty, everything else as compact JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else _encode(value).decode()


# What bash itself gives a meaning to, or refuses to have assigned: a parameter of this name is `PARAM_…` only.
_TAKEN: Final = re.compile(
    r"PATH|HOME|PWD|OLDPWD|SHELL|USER|LOGNAME|TERM|TMPDIR|IFS|ENV|CDPATH|PS[0-4]|TZ|LANG|LC_\w*|LD_\w*|BASH\w*|ATTUNE_\w*"
    r"|E?UID|PPID|GROUPS|SHELLOPTS|SHLVL|FUNCNAME|DIRSTACK|PIPESTATUS|OPTARG|OPTIND|OPTERR|LINENO|SECONDS|RANDOM|SRANDOM"
    r"|EPOCH\w*|HIST\w*|COMP_\w*|COMPREPLY|COPROC|MAPFILE|READLINE_\w*|REPLY|HOST\w*|MACHTYPE|OSTYPE|GLOBIGNORE|POSIXLY_CORRECT|_"
)


def shell_variables(parameters: Mapping[str, Json]) -> str:
    """Assignments for the head of an inline script: ``PARAM_<NAME>`` and ``<name>``, not exported."""
    lines: list[str] = []
    for name, value in parameters.items():
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        plain = f"_{plain}" if plain[:1].isdigit() or not plain else plain
        quoted = shlex.quote(_text(value).replace("\0", ""))  # bash has no way to hold a NUL
        lines.append(f"PARAM_{plain.upper()}={quoted}\n")
        if not _TAKEN.fullmatch(plain):
            lines.append(f"{plain}={quoted}\n")
    return "".join(lines)
