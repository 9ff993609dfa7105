"""HTTP calls of the control plane to servers that its operator names, such as a provider of identities.

urllib3, which the AWS SDK has in memory anyway: another client would cost every cold start for what few requests use.
What tenants name is never called from here, but from the execution plane, behind its guard (``runners/http.py``).
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec
import urllib3

_SECONDS: Final = 5.0
_MOST: Final = 1_000_000  # bytes of an answer


class WebError(Exception):
    """The other side did not answer as it should; the message names the address, and nothing that was sent."""


def get_json(url: str) -> Any:
    """What is at ``url``. Raises :class:`WebError`, also for any status but 200."""
    return _json("GET", url)


def post_form(url: str, fields: Mapping[str, str], *, headers: Mapping[str, str] | None = None) -> Any:
    """What ``url`` answers to a form. Raises :class:`WebError`, also for any status but 200."""
    return _json("POST", url, fields=dict(fields), headers=headers, encode_multipart=False)


def _json(method: str, url: str, *, headers: Mapping[str, str] | None = None, **options: Any) -> Any:
    wanted = {"Accept": "application/json", **(headers or {})}
    try:
        answer = _pool().request(method, url, headers=wanted, preload_content=False, redirect=False, **options)
        with answer:
            body = answer.read(_MOST + 1, decode_content=True)
    except urllib3.exceptions.HTTPError as error:
        raise WebError(f"{url} does not answer: {type(error).__name__}") from error
    if answer.status != 200:
        raise WebError(f"{url} answers with status {answer.status}")
    if len(body) > _MOST:
        raise WebError(f"{url} answers with more than {_MOST} bytes")
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise WebError(f"{url} answers with something that is not JSON") from error


@lru_cache(maxsize=1)
def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(num_pools=4, timeout=urllib3.Timeout(total=_SECONDS), retries=False)
