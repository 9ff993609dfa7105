import pytest

from chalicelib.domain import refs
from chalicelib.domain.refs import RefError


@pytest.mark.parametrize("ref", ["core", "my_pack", "a1", "x-y", "a" * 255])
def test_a_pack_may_have_a_lower_case_ref(ref: str) -> None:
    assert refs.pack_ref(ref) == ref


@pytest.mark.parametrize("ref", ["", "a", "Core", "1core", "_core", "my pack", "my.pack", "é1", "a" * 256, "core\n"])
def test_a_pack_may_not_have_another(ref: str) -> None:
    with pytest.raises(RefError):
        refs.pack_ref(ref)


@pytest.mark.parametrize("ref", ["core.echo", "my_pack.do-it", "aws.s3_copy", "core.2fa"])
def test_a_component_ref_has_one_dot(ref: str) -> None:
    assert refs.component_ref(ref) == ref


@pytest.mark.parametrize("ref", ["", "core", "core.", ".echo", "core.a.b", "Core.echo", "core.Echo", "core.e cho"])
def test_a_component_ref_has_no_other_form(ref: str) -> None:
    with pytest.raises(RefError):
        refs.component_ref(ref)


def test_a_component_ref_begins_with_its_pack() -> None:
    assert refs.component_ref("core.echo", pack="core") == "core.echo"
    with pytest.raises(RefError, match=r"must begin with its pack's ref: 'other\.'"):
        refs.component_ref("core.echo", pack="other")


def test_a_ref_splits_into_pack_and_name() -> None:
    assert refs.split("core.echo") == ("core", "echo")
    with pytest.raises(RefError):
        refs.split("core")


@pytest.mark.parametrize("ref", ["token", "db.password", "a.b.c-d.e_f", "1password.key"])
def test_a_key_ref_has_any_number_of_dots(ref: str) -> None:
    assert refs.key_ref(ref) == ref


@pytest.mark.parametrize("ref", ["", ".a", "a.", "a..b", "A", "a b", "a/b"])
def test_a_key_ref_has_no_empty_or_upper_case_part(ref: str) -> None:
    with pytest.raises(RefError):
        refs.key_ref(ref)


@pytest.mark.parametrize("name", ["bob", "test@attune.local", "Ünal-1", "x" * 255])
def test_a_login_is_any_printable_name(name: str) -> None:
    assert refs.login(name) == name


@pytest.mark.parametrize("name", ["", "ab", "x" * 256, "two words", "a\tb", "zero\u0000byte"])
def test_a_login_is_not_short_long_or_blank(name: str) -> None:
    with pytest.raises(RefError):
        refs.login(name)


@pytest.mark.parametrize("text", ["1.0.0", "0.1.0-rc.1+build.5"])
def test_a_version_is_semantic(text: str) -> None:
    assert refs.version(text) == text


@pytest.mark.parametrize("text", ["", "1", "1.0", "01.0.0", "v1.0.0"])
def test_a_version_is_nothing_else(text: str) -> None:
    with pytest.raises(RefError, match="semantic version"):
        refs.version(text)
