"""The grammar of refs, the names by which things are looked up (``http-api.md`` §1.2).

A component's ref says whose it is: ``pack.name``. Refs are lower-case so that no two of them differ by case only.
"""

import re

MAX_LENGTH = 255  # http-api.md part 2: every `ref` and `pack_ref` field
MIN_LOGIN, MAX_LOGIN = 3, 255  # http-api.md §1.3

_PACK = re.compile(r"[a-z][a-z0-9_-]+", re.ASCII)
_NAME = re.compile(r"[a-z0-9_][a-z0-9_-]*", re.ASCII)
_KEY = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*", re.ASCII)
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
_SEMVER = re.compile(
    r"(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?", re.ASCII
)


class RefError(ValueError):
    """A ref that the grammar forbids; the message says which rule it breaks."""


def pack_ref(ref: str) -> str:
    """``ref`` itself, if a pack may have it: a lower-case letter, then at least one of ``a-z 0-9 _ -``."""
    _check_length("pack ref", ref)
    if not _PACK.fullmatch(ref):
        raise RefError(f"pack ref {ref!r} must be lower-case letters, digits, '_' or '-', beginning with a letter")
    return ref


def component_ref(ref: str, pack: str | None = None) -> str:
    """``ref`` itself, if an action, trigger, rule, sensor or runtime may have it: ``pack.name``, exactly one dot.

    With ``pack``, the ref must also be that pack's.
    """
    _check_length("ref", ref)
    owner, dot, name = ref.partition(".")
    if not dot or not _PACK.fullmatch(owner) or not _NAME.fullmatch(name):
        raise RefError(f"ref {ref!r} must be lower-case 'pack.name' with exactly one dot")
    if pack is not None and owner != pack:
        raise RefError(f"ref {ref!r} must begin with its pack's ref: '{pack}.'")
    return ref


def key_ref(ref: str) -> str:
    """``ref`` itself, if a key may have it: lower-case parts joined by any number of dots."""
    _check_length("key ref", ref)
    if not _KEY.fullmatch(ref):
        raise RefError(f"key ref {ref!r} must be lower-case letters, digits, '_' or '-', in parts joined by dots")
    return ref


def tenant_slug(slug: str) -> str:
    """``slug`` itself, if a tenant may have it: 1 to 63 of ``a-z 0-9 _ -``, beginning with a letter or digit.

    Partition keys and names of blobs begin with it, so it has nothing in it that separates their parts.
    """
    if not _TENANT.fullmatch(slug):
        raise RefError(
            f"not a tenant's slug: {slug!r}; it has 1 to 63 of a-z, 0-9, '_' and '-', and begins with a letter or digit"
        )
    return slug


def login(name: str) -> str:
    """``name`` itself, if someone may sign in with it: 3 to 255 characters, none of them blank or a control."""
    if not MIN_LOGIN <= len(name) <= MAX_LOGIN:
        raise RefError(f"login must have {MIN_LOGIN} to {MAX_LOGIN} characters")
    if any(character.isspace() or not character.isprintable() for character in name):
        raise RefError("login must not contain spaces or control characters")
    return name


def version(text: str) -> str:
    """``text`` itself, if it is a semantic version (semver.org 2.0), as pack versions are."""
    if not _SEMVER.fullmatch(text):
        raise RefError(f"version {text!r} must be a semantic version such as 1.0.0")
    return text


def split(ref: str) -> tuple[str, str]:
    """The pack and the name of a component ref."""
    component_ref(ref)
    owner, _, name = ref.partition(".")
    return owner, name


def _check_length(what: str, ref: str) -> None:
    if not ref:
        raise RefError(f"{what} must not be empty")
    if len(ref) > MAX_LENGTH:
        raise RefError(f"{what} must have at most {MAX_LENGTH} characters")
