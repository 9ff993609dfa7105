"""Results that no message can hold: the runner puts them beside the attempt's logs, and says so.

SQS takes 1 MB. The runner has a form for anything below its attempt's prefix, and only for that, so where its result
lies is known here and not told. The execution's row keeps a copy (``store.activity``); this one goes with the logs.
"""

import msgspec

from chalicelib.protocol import RunFinished, StoredResult
from chalicelib.services import Services
from chalicelib.store.blobs import MissingBlobError

_decode = msgspec.json.Decoder(StoredResult).decode
_GONE = {"succeeded": False, "error": "The result was lost on its way"}


def whole(services: Services, finished: RunFinished) -> RunFinished:
    """The report with its result."""
    if not finished.stored:
        return finished
    name = f"logs/{finished.execution}/{finished.attempt}/result"
    try:
        stored = _decode(services.store.tenant(finished.tenant).blobs.get(name))
    except MissingBlobError:  # a report that waited longer than the bucket keeps logs
        return msgspec.structs.replace(finished, status="failed", result=_GONE)
    return msgspec.structs.replace(finished, result=stored.result, printed=stored.printed)
