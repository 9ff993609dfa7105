import pytest

from chalicelib.api.errors import BadRequest, MethodNotAllowed, NotFound
from chalicelib.api.routing import PUBLIC, SIGNED_IN, Call, Form, Requirement, Routes, grant


@pytest.fixture
def routes():
    table = Routes()
    options = {"needs": SIGNED_IN, "returns": None, "tag": "things"}

    @table.get("/things", **options)
    def list_things(call: Call) -> None: ...

    @table.get("/things/search", **options)
    def search_things(call: Call) -> None: ...

    @table.get("/things/{ref}", **options)
    def get_thing(call: Call, ref: str) -> None: ...

    @table.delete("/things/{ref}", **options)
    def delete_thing(call: Call, ref: str) -> None: ...

    @table.get("/things/{ref}/parts", **options)
    def list_parts(call: Call, ref: str) -> None: ...

    @table.get("/runs/{id}", **options)
    def get_run(call: Call, id: int) -> None: ...  # noqa: A002

    @table.get("/runs/status/{status}", **options)
    def runs_by_status(call: Call, status: str) -> None: ...

    @table.post("/runs/{id}/{verb}", **options)
    def act(call: Call, id: int, verb: str) -> None: ...  # noqa: A002

    return table


@pytest.mark.parametrize(
    ("method", "path", "name", "arguments"),
    [
        ("GET", "/things", "list_things", {}),
        ("GET", "/things/core.echo", "get_thing", {"ref": "core.echo"}),
        ("DELETE", "/things/core.echo", "delete_thing", {"ref": "core.echo"}),
        ("GET", "/things/a/parts", "list_parts", {"ref": "a"}),
        ("GET", "/things/a%2Fb%20c", "get_thing", {"ref": "a/b c"}),
        ("GET", "/runs/12", "get_run", {"id": 12}),
        ("GET", "/runs/status/running", "runs_by_status", {"status": "running"}),
        ("POST", "/runs/7/cancel", "act", {"id": 7, "verb": "cancel"}),
    ],
)
def test_finds_the_route_and_decodes_its_parameters(routes, method, path, name, arguments):
    route, found = routes.find(method, path)
    assert route.name == name
    assert found == arguments


def test_a_literal_segment_wins_over_a_parameter(routes):
    assert routes.find("GET", "/things/search")[0].name == "search_things"


def test_a_parameter_is_tried_when_the_literal_lacks_the_method(routes):
    assert routes.find("DELETE", "/things/search")[1] == {"ref": "search"}


@pytest.mark.parametrize("path", ["/", "", "/thing", "/things/", "/things/a/b", "/things//parts", "//things", "/runs"])
def test_an_unknown_path_is_not_found(routes, path):
    with pytest.raises(NotFound):
        routes.find("GET", path)


def test_a_wrong_method_names_the_right_ones(routes):
    with pytest.raises(MethodNotAllowed) as caught:
        routes.find("POST", "/things/core.echo")
    assert caught.value.headers["Allow"] == "DELETE, GET"


@pytest.mark.parametrize("value", ["x", "1.5", "-1", "+1", "1e3", "٣", "9" * 30, "%31"])
def test_what_is_no_integer_is_a_bad_request(routes, value):
    with pytest.raises(BadRequest):
        routes.find("GET", f"/runs/{value}")


def test_no_ref_is_longer_than_a_ref_can_be(routes):
    assert routes.find("GET", "/things/" + "x" * 255)
    with pytest.raises(NotFound):
        routes.find("GET", "/things/" + "x" * 256)


def test_two_routes_cannot_share_a_place(routes):
    with pytest.raises(ValueError, match="declared twice"):
        routes.get("/things/{other}", needs=PUBLIC, returns=None, tag="things")(lambda call, other: None)


def test_requirements():
    assert grant("packs", "read") == Requirement(resource="packs", action="read")
    assert SIGNED_IN.signed_in
    assert not PUBLIC.signed_in


@pytest.mark.parametrize(("text", "flag"), [("true", True), ("1", True), ("Yes", True), ("on", True), ("false", False)])
def test_form_flags(text, flag):
    assert Form({"force": text}, {}).flag("force") is flag


def test_an_absent_flag_is_off():
    assert Form({}, {}).flag("force") is False
