"""Where the HTTP runner may not go."""

import pytest

from runners.addresses import AddressGuard, AddressRefusedError


def guard(*allowed: str, **names: list[str]) -> AddressGuard:
    return AddressGuard(allowed, ["127.0.0.1:9001"], lambda host, _: names.get(host, [host]))


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_the_public_internet_is_open(address: str) -> None:
    assert guard().addresses(address, 443) == [address]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
        "169.254.170.2", "169.254.100.1", "192.0.0.192", "100.100.100.200", "168.63.129.16", "198.18.0.1", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
    ],
)  # fmt: skip
def test_everything_else_is_closed(address: str) -> None:
    with pytest.raises(AddressRefusedError, match="refused"):
        guard().addresses(address, 80)


def test_one_bad_address_of_a_name_is_enough() -> None:
    with pytest.raises(AddressRefusedError, match=r"10\.0\.0\.1 is not a public address"):
        guard(rebinding=["1.1.1.1", "10.0.0.1"]).addresses("rebinding", 80)


def test_an_operator_opens_networks_and_ports() -> None:
    opened = guard("10.20.0.0/16", "127.0.0.1:8080", "[::1]:8080", "fd12::/16")

    for address, port in (("10.20.3.4", 80), ("127.0.0.1", 8080), ("::1", 8080), ("fd12::1", 1)):
        assert opened.addresses(address, port) == [address]
    for address, port in (("10.21.0.1", 80), ("127.0.0.1", 4566), ("::1", 4566)):
        with pytest.raises(AddressRefusedError):
            opened.addresses(address, port)


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fe80::1", "fd00:ec2::254", "::ffff:169.254.169.254", "168.63.129.16"]
)
def test_nobody_opens_metadata(address: str) -> None:
    with pytest.raises(AddressRefusedError, match="metadata"):
        guard("0.0.0.0/0", "::/0").addresses(address, 80)


def test_nobody_opens_the_runtime_api() -> None:
    opened = guard("127.0.0.0/8")

    assert opened.addresses("127.0.0.1", 8080) == ["127.0.0.1"]
    with pytest.raises(AddressRefusedError, match="runtime API"):
        opened.addresses("127.0.0.1", 9001)


def test_the_local_api_is_open_and_the_emulator_beside_it_is_not() -> None:
    opened = AddressGuard.from_environment({"ATTUNE_API_URL": "http://localhost:8080"})

    assert opened.addresses("127.0.0.1", 8080) == ["127.0.0.1"]
    with pytest.raises(AddressRefusedError):
        opened.addresses("127.0.0.1", 4566)


def test_a_public_api_opens_nothing() -> None:
    closed = AddressGuard.from_environment(
        {"ATTUNE_API_URL": "https://api.example.com", "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001"}
    )

    with pytest.raises(AddressRefusedError):
        closed.addresses("127.0.0.1", 443)


def test_the_operators_list_is_in_the_environment() -> None:
    opened = AddressGuard.from_environment({"ATTUNE_HTTP_ALLOWED": " 10.0.0.0/8, 192.168.0.1:81 ,"})

    assert opened.addresses("10.1.1.1", 5) == ["10.1.1.1"]
    assert opened.addresses("192.168.0.1", 81) == ["192.168.0.1"]
