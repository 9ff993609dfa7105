"""Where a runner finds the files of a component's pack."""

from chalicelib.domain.entities import SYSTEM_TENANT, Action, Sensor
from chalicelib.protocol import Pack
from chalicelib.services import Services
from chalicelib.store.snapshot import Snapshot


def archive_of(services: Services, snapshot: Snapshot, component: Action | Sensor) -> Pack | None:
    """The archive that ``component`` was installed from; None for one that was made by API and has its code with it."""
    if component.content is None:
        return None
    pack = snapshot.pack(component.pack_ref or "")
    owner = SYSTEM_TENANT if pack is not None and pack.is_standard else snapshot.tenant
    url = services.store.tenant(owner).blobs.presigned_get(f"packs/{component.content}.tar.gz")
    return Pack(ref=component.pack_ref or "", content=component.content, url=url)
