"""What a run may do with S3, which is what the URLs and forms that it brings allow. One pool of connections for all."""

from functools import cache
from typing import Any, Final

_TIMEOUT: Final = 5.0  # seconds for the connection, and between two blocks
_LOOK_TIMEOUT: Final = 1.0


def post_form(url: str, fields: dict[str, Any]) -> None:
    """Upload by a presigned form. Raises OSError."""
    answer = _request("POST", url, fields=fields)
    if answer.status >= 300:
        raise OSError(f"upload refused with {answer.status}")


def is_there(url: str) -> bool:
    """Whether the URL has an object, which should be a small one. Raises OSError when S3 is out of reach."""
    status: int = _request("GET", url, timeout=_LOOK_TIMEOUT).status
    if status >= 500:
        raise OSError(f"S3 answered {status}")
    return status == 200


def _request(method: str, url: str, **options: Any) -> Any:
    from urllib3.exceptions import HTTPError

    try:
        return _pool().request(method, url, **options)
    except HTTPError as error:
        raise OSError(str(error)) from error


@cache
def _pool() -> Any:
    import urllib3  # comes with botocore; not before there is something to be had or uploaded

    return urllib3.PoolManager(timeout=_TIMEOUT, retries=False)
