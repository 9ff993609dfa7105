"""A meeting point: whoever comes waits until all are there, so that those who meet must run at the same time."""

import contextlib
import socketserver
import threading
from collections.abc import Iterator

PATIENCE = 60  # seconds until those who came give up on the others


class Meeting:
    """``shell_command`` makes bash go there and print ``met``, or ``alone`` if not all come."""

    def __init__(self, people: int) -> None:
        self.barrier = threading.Barrier(people)
        self.port = 0

    @property
    def shell_command(self) -> str:
        return f"exec 3<>/dev/tcp/127.0.0.1/{self.port}\nread -r answer <&3\necho $answer"


class _Server(socketserver.ThreadingTCPServer):
    request_queue_size = 64
    daemon_threads = True
    meeting: Meeting


class _Guest(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        try:
            self.server.meeting.barrier.wait(PATIENCE)
            self.wfile.write(b"met\n")
        except threading.BrokenBarrierError:
            self.wfile.write(b"alone\n")


@contextlib.contextmanager
def meeting_of(people: int) -> Iterator[Meeting]:
    """A meeting point for so many processes of this machine."""
    with _Server(("127.0.0.1", 0), _Guest) as server:
        server.meeting = Meeting(people)
        server.meeting.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.meeting
        finally:
            server.meeting.barrier.abort()
            server.shutdown()
            thread.join()
