"""What a deployment holds before its first client: the core pack and an administrator. May be repeated at any time."""

from pathlib import Path

from chalicelib.domain.entities import SYSTEM_TENANT
from chalicelib.flow import packs
from chalicelib.flow.bootstrap import ensure_administrator
from chalicelib.services import services
from chalicelib.settings import DEFAULT_TENANT


def prepare(core: Path, administrator: tuple[str, str] | None) -> None:
    """Installs the pack in the folder ``core`` for every tenant, and makes the administrator (login, password) unless
    there is one of that login. Works on the deployment that the environment names (``ATTUNE_*``)."""
    deployment = services()
    packs.install(deployment, SYSTEM_TENANT, packs.read_directory(core), visibility="standard", force=True, strict=True)
    if administrator:
        login, password = administrator
        ensure_administrator(deployment, tenant=DEFAULT_TENANT, login=login, password=password)
