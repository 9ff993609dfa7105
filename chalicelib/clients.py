"""The AWS clients of a process, made once and shared.

They come from one botocore session rather than from boto3: the clients are the same, but sessions do not share their
parsed service models, and a second session with boto3's resource layer costs 80 ms of every cold start.

The endpoint is botocore's affair: ``AWS_ENDPOINT_URL`` names an emulator, nothing means AWS. Whoever wants to see every
call (the benchmark's counters) registers a handler with :func:`on_event` before or after the clients exist.
"""

import os
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import botocore.session
from botocore.config import Config

Client = Any
Handler = Callable[..., Any]

_lock = threading.Lock()  # botocore sessions do not make clients thread-safely
_made: list[Client] = []
_handlers: list[tuple[str, Handler]] = []


@lru_cache(maxsize=1)
def session() -> botocore.session.Session:
    """The one botocore session of the process."""
    return botocore.session.get_session()


@lru_cache
def client(service: str) -> Client:
    """The shared client of ``service``. Parameters are not validated on our side: the service does, and it saves a
    tenth of a call's CPU time."""
    with _lock:
        made = session().create_client(
            service,
            region_name=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
            config=_config(service),
        )
    _made.append(made)
    for event, handler in _handlers:
        made.meta.events.register(event, handler)
    return made


def dynamodb() -> Client:
    return client("dynamodb")


def sqs() -> Client:
    return client("sqs")


def s3() -> Client:
    return client("s3")


def lambda_() -> Client:
    return client("lambda")


def ecs() -> Client:
    return client("ecs")


def secretsmanager() -> Client:
    return client("secretsmanager")


def on_event(event: str, handler: Handler) -> None:
    """Calls ``handler`` on a botocore event (``before-send.*.*``, ``after-call.dynamodb.*`` ...) of every client, those
    made already and those to come."""
    _handlers.append((event, handler))
    for made in _made:
        made.meta.events.register(event, handler)


def off_event(event: str, handler: Handler) -> None:
    """Takes back :func:`on_event`."""
    _handlers.remove((event, handler))
    for made in _made:
        made.meta.events.unregister(event, handler)


def forget() -> None:
    """Drops session and clients, so that the next ones see a changed environment (tests, the local stack)."""
    client.cache_clear()
    session.cache_clear()
    _made.clear()


def _config(service: str) -> Config:
    return Config(
        connect_timeout=2,
        # A Lambda invocation may be throttled and retried, a table answers in milliseconds or is in trouble.
        read_timeout=10,
        max_pool_connections=32,
        parameter_validation=False,
        # botocore would put its own together anew for every call, at 0.1 ms each.
        user_agent="attune-serverless",
        retries={"mode": "standard", "total_max_attempts": 4},
        tcp_keepalive=True,
        # Presigned URLs would get signature version 2, which newer regions refuse.
        signature_version="s3v4" if service == "s3" else None,
        # On AWS, presigned URLs would name the global host, which sends others than us-east-1's a redirect that they
        # are not signed for; those of the virtual style name the region's.
        s3={"addressing_style": "path" if _emulated() else "virtual"} if service == "s3" else None,
    )


def _emulated() -> bool:
    return bool(os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL_S3"))
