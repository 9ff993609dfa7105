"""Gives a deployment a new key to sign tokens with (docs/operating.md, Keys): ``python -m infra.rotate``.

Nobody is signed out: the new key waits until every process knows it, and an old one goes when its last token has
expired. To be repeated at any time, by hand or on a schedule. A failure is one sentence and exit code 1.
"""

import os
import sys
import time
from datetime import UTC, datetime

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib import clients
from chalicelib.security import rotation
from infra import deploy


def rotate(secret_id: str, now: int) -> rotation.Rotated:
    """Rotates the signing keys in the secret of that id, at ``now`` in seconds since 1970."""
    manager = clients.secretsmanager()
    text = manager.get_secret_value(SecretId=secret_id)["SecretString"]
    changed, result = rotation.rotated(text, deploy.new_key(), now)
    if result.added or result.dropped:
        manager.put_secret_value(SecretId=secret_id, SecretString=changed)
    return result


def main() -> int:
    """The command."""
    stack = os.environ.get("ATTUNE_STACK", "attune")
    try:
        outputs = deploy.outputs_of(stack)
        if outputs is None:
            print(f"There is no stack {stack!r} here (see ATTUNE_STACK).", file=sys.stderr)
            return 1
        result = rotate(outputs["Secret"], int(time.time()))
    except (BotoCoreError, ClientError) as error:
        print(f"The keys could not be rotated: {error}", file=sys.stderr)
        return 1
    since = datetime.fromtimestamp(result.next.since, UTC)
    print(
        f"key {result.next.kid} {'was added and' if result.added else 'is there already and'} signs from {since:%FT%TZ}"
    )
    for kid in result.dropped:
        print(f"key {kid} was dropped: everything it signed has expired")
    return 0


if __name__ == "__main__":
    sys.exit(main())
