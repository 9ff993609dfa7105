import base64
import hashlib
import re

from chalicelib.api import docs_page


def test_the_page_is_served(api):
    answer = api.anonymous().get("/docs")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert b"api-spec/openapi.json" in answer.body


def test_it_needs_nothing_from_anywhere_else():
    html, _ = docs_page.page()
    assert not re.search(rb"""(src|href)\s*=\s*["']?(https?:)?//|@import|url\(""", html)


def test_its_policy_lets_its_own_code_run_and_no_other():
    html, policy = docs_page.page()
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        inline = re.search(rf"<{tag}>(.*?)</{tag}>".encode(), html, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(inline).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_it_has_no_inline_handlers_that_the_policy_would_stop():
    html, _ = docs_page.page()
    assert not re.search(rb"""<[^>]+\s(on\w+|style)\s*=""", html)
