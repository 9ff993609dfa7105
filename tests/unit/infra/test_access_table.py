from chalicelib.api.adapter import ROUTES
from infra import access_table


def test_the_printed_table_is_that_of_the_routes() -> None:
    written = access_table.PATH.read_text(encoding="utf-8") if access_table.PATH.exists() else ""
    assert written == access_table.table(), "docs/access.md is out of date: run `make access`"


def test_it_has_every_route() -> None:
    lines = access_table.table().splitlines()
    for route in ROUTES:
        assert sum(f"| `{route.method} {route.path}` |" in line for line in lines) == 1
