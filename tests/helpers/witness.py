"""A witness of what really ran: actions tell it, over the network, as they cannot leave files behind."""

import contextlib
import socketserver
import threading
from collections.abc import Iterator


class Witness:
    """``told`` holds every line in the order of arrival; ``shell_command`` makes bash tell ``$n``."""

    def __init__(self, port: int) -> None:
        self.told: list[str] = []
        self.port = port

    @property
    def shell_command(self) -> str:
        return f'echo "$n" > /dev/tcp/127.0.0.1/{self.port}'


class _Server(socketserver.ThreadingTCPServer):
    request_queue_size = 256
    witness: Witness


class _Listener(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        self.server.witness.told.extend(line.decode().strip() for line in self.rfile)


@contextlib.contextmanager
def listening() -> Iterator[Witness]:
    """A witness on a port of its own, for processes of this machine."""
    with _Server(("127.0.0.1", 0), _Listener) as server:
        server.witness = Witness(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.witness
        finally:
            server.shutdown()
            thread.join()
