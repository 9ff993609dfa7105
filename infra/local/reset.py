"""``make reset``: forgets the state of ``make run``. Runs on any Python, without packages."""

import fcntl
import os
import shutil
import sys
from pathlib import Path
from typing import Final

# What the stack writes. Nothing else is removed, whatever folder ATTUNE_STATE_DIR names.
OWN: Final = ("aws", "s3", "aws.env", "aws.log", "functions.log", "outputs.json", "lock")


def reset(state: Path) -> str:
    """Removes the state in ``state``; returns one sentence. Raises RuntimeError when a stack is running on it."""
    if not (state / "lock").exists():
        return f"There is no state in {state}."
    with (state / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RuntimeError(f"A stack is running on {state}: stop it first.") from error
        for name in OWN:
            path = state / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    if not any(state.iterdir()):
        state.rmdir()
    return f"Forgot the state in {state}."


if __name__ == "__main__":
    try:
        print(reset(Path(os.environ.get("ATTUNE_STATE_DIR") or ".attune").resolve()))
    except RuntimeError as refusal:
        sys.exit(str(refusal))
