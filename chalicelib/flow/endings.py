"""What follows the end of an execution, whoever ended it: those who wait for it are told.

Everything here can be repeated: whoever ended an execution and died before this calls it again (design §2, rule 4).
"""

from collections.abc import Sequence

from chalicelib.domain.entities import Execution
from chalicelib.services import Services


def ended(services: Services, tenant: str, executions: Sequence[Execution]) -> None:
    """Tell whoever waits for these executions of ``tenant``, which have just ended, or ended some time ago."""
