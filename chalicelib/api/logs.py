"""Routes of what executions print (T3.21; contract: http-api 1.4 and 1.5, README 15).

A response holds what is there. Its headers say where the next one begins: ``X-Log-Next-Offset``, and whether there will
be more: ``X-Log-Complete``. As server-sent events, ids are those offsets, so that an EventSource that reconnects with
``Last-Event-ID`` misses nothing and sees nothing twice.
"""

import json
from collections.abc import Iterator
from typing import Annotated, Final, get_args

import msgspec

from chalicelib.api.errors import Unprocessable
from chalicelib.api.executions import readable_execution
from chalicelib.api.routing import ROUTES, Call, grant
from chalicelib.api.views import MAX_NUMBER, Limit, Query, Raw
from chalicelib.domain.entities import Execution
from chalicelib.domain.executions import TERMINAL, WAITING
from chalicelib.flow.logs import Log, Stream, last_lines, log_of

# Lambda takes 6 MB of answer, with the body as a JSON string: what does not fit is left for the next request.
MOST_SENT: Final = 5_500_000
MOST_STREAMED: Final = 2_000_000
_EVENT: Final = 64 * 1024  # characters of a log in one event
_RETRY: Final = 500  # milliseconds until a client asks for more

Offset = Annotated[int, msgspec.Meta(ge=0, le=MAX_NUMBER)]


class LogQuery(Query, kw_only=True, frozen=True):
    """``offset``: bytes to skip. ``tail``: only the last so many lines of what follows that."""

    offset: Offset = 0
    tail: Limit | None = None


class LogStreamQuery(Query, kw_only=True, frozen=True):
    """``offset``: bytes to skip; a ``Last-Event-ID`` header counts more."""

    offset: Offset = 0


@ROUTES.get(
    "/api/v1/executions/{execution_id}/logs/{stream}",
    needs=grant("executions", "read"),
    returns=Raw,
    query=LogQuery,
    tag="executions",
    errors=(404, 422),
    media_type="text/plain; charset=utf-8",
)
def get_execution_log(call: Call, execution_id: int, stream: str) -> Raw:
    """What an execution printed so far, as text, while it runs as well. ``stream``: stdout or stderr.

    An answer holds at most 5.5 MB; ``X-Log-Next-Offset`` says where the next one begins and ``X-Log-Complete`` is
    ``true`` when there is nothing left and nothing will come."""
    execution, log = _log(call, execution_id, stream)
    query: LogQuery = call.query
    start = query.offset
    if query.tail is not None:
        start = last_lines(log, query.tail, start=start, most=MOST_SENT)
    text = _Span(log, start, MOST_SENT)
    headers = {
        "Content-Type": "text/plain; charset=utf-8",
        "X-Log-Offset": str(text.start),
        "X-Log-Next-Offset": str(text.stop),
        "X-Log-Complete": str(text.is_last and execution.status in TERMINAL).lower(),
    }
    return Raw(text.content.encode(), headers=headers)


@ROUTES.get(
    "/api/v1/executions/{execution_id}/logs/{stream}/stream",
    needs=grant("executions", "read"),
    returns=Raw,
    query=LogStreamQuery,
    tag="executions",
    errors=(404, 422),
    media_type="text/event-stream",
)
def stream_execution_log(call: Call, execution_id: int, stream: str) -> Raw:
    """What an execution prints, as server-sent events: ``waiting``, ``content``, ``append``, ``done``.

    A response holds what is there and ends; the client reconnects with ``Last-Event-ID``, as every EventSource does,
    until ``done``."""
    execution, log = _log(call, execution_id, stream)
    seen = _last_event_id(call)
    start = call.query.offset if seen is None else seen
    again = seen is not None
    if execution.attempt > 1 and start > log.size():  # of an attempt that was lost: the next one begins anew
        start, again = 0, False
    span = _Span(log, start, MOST_STREAMED)
    if not (span.is_last and execution.status in TERMINAL):
        span.leave("\r")  # with a line feed to come it is one line end
    events = "".join(_events(execution, span, again=again))
    return Raw(events.encode(), headers={"Content-Type": "text/event-stream; charset=utf-8"})


def _log(call: Call, execution_id: int, stream: str) -> tuple[Execution, Log]:
    if stream not in get_args(Stream):
        raise Unprocessable(f"There is no stream '{stream}': expected stdout or stderr", details={"path": "stream"})
    execution = readable_execution(call, execution_id)
    return execution, log_of(call.blobs, execution, "stdout" if stream == "stdout" else "stderr")


def _last_event_id(call: Call) -> int | None:
    text = call.headers.get("last-event-id", "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


class _Span:
    """A part of a log, of whole characters, that fits into an answer. ``start`` and ``stop`` are offsets."""

    def __init__(self, log: Log, start: int, most: int) -> None:
        found = log.read(start, start + most)
        skipped = 0
        while skipped < min(3, len(found)) and _continues(found[skipped]):
            skipped += 1
        self.start = start + skipped
        found = found[skipped:]
        while True:
            self.content = found.decode("utf-8", "ignore")  # at its end there may be a part of a character
            if len(json.dumps(self.content)) <= most:
                break
            found = found[: len(found) // 2]
        self.stop = self.start + len(self.content.encode())
        self.is_last = self.stop >= log.size()

    def leave(self, end: str) -> None:
        """Leave ``end`` for the next answer, if that is how this one ends."""
        if self.content.endswith(end):
            self.content = self.content.removesuffix(end)
            self.stop -= len(end.encode())
            self.is_last = False


def _continues(byte: int) -> bool:
    return byte & 0b1100_0000 == 0b1000_0000


def _events(execution: Execution, span: _Span, *, again: bool) -> Iterator[str]:
    """``again``: the client has seen what comes before."""
    yield f"retry: {_RETRY}\n\n"
    at = span.start
    for piece in _pieces(span.content):
        at += len(piece.encode())
        yield _event("append" if again else "content", piece, at)
    if span.is_last and execution.status in TERMINAL:
        yield _event("done", execution.status, None)
    elif not span.content and not at:
        yield _event("waiting", _waiting_for(execution), None)
    elif not span.content:
        yield ": nothing new\n\n"


def _pieces(content: str) -> Iterator[str]:
    at = 0
    while at < len(content):
        end = at + _EVENT
        if content[end - 1 : end + 1] == "\r\n":  # one line end, for one event
            end += 1
        yield content[at:end]
        at = end


def _event(name: str, data: str, id_: int | None) -> str:
    """The lines of one event. The protocol knows only one line end: a carriage return counts as one, too."""
    lines = data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    identified = "" if id_ is None else f"id: {id_}\n"
    return f"event: {name}\n{identified}" + "".join(f"data: {line}\n" for line in lines) + "\n"


def _waiting_for(execution: Execution) -> str:
    return "The execution has not begun" if execution.status in WAITING else "The execution has printed nothing yet"
