"""The page at ``/docs``: reads the OpenAPI document and shows it. It needs nothing from anywhere else."""

import re
from base64 import b64encode
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from chalicelib.api.routing import PUBLIC, ROUTES, Call
from chalicelib.api.views import Raw


@ROUTES.get("/docs", needs=PUBLIC, returns=Raw, tag="docs", media_type="text/html; charset=utf-8")
def docs(_call: Call) -> Raw:
    """This page."""
    html, policy = page()
    return Raw(html, headers={"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy})


@lru_cache(maxsize=1)
def page() -> tuple[bytes, str]:
    """The page and the content security policy (CSP 3) that lets nothing but its own script and style run."""
    html = Path(__file__).with_name("docs.html").read_bytes()
    script, style = (_hash_of(html, tag) for tag in (b"script", b"style"))
    policy = (
        f"default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, policy


def _hash_of(html: bytes, tag: bytes) -> str:
    inline = re.search(rb"<%b>(.*?)</%b>" % (tag, tag), html, re.DOTALL)
    if inline is None:
        raise ValueError(f"docs.html has no inline {tag.decode()}")
    return f"sha256-{b64encode(sha256(inline[1]).digest()).decode()}"
