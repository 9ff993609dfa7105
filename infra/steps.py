"""What a deployment says of its progress, a line each: the local stack listens to it (``infra.local.stack``)."""

from typing import Final

PACKAGING: Final = "packaging"
CREATING: Final = "deploying"
UPDATING: Final = "updating"
LOADING: Final = "loading packs/core"  # from here on, the functions are there
PROVING: Final = "running a first action"
