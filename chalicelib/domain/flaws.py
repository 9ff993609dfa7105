"""What is wrong with a file that was taken nevertheless (contract README 16)."""

import msgspec


class Flaw(msgspec.Struct, frozen=True):
    """Something in a pack that was not taken as it stands; ``line`` counts from 1."""

    file: str
    line: int
    reason: str
