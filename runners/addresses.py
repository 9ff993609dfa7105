"""Which addresses the HTTP runner may connect to: a guard against server-side request forgery.

The runner stands where a tenant does not: beside the platform's own services. So a request goes to the public internet,
or to what the operator has opened, and never to what answers with credentials.
"""

import ipaddress
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], list[str]]

# Where clouds and container platforms hand out credentials: no allow-list opens these.
_METADATA: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "169.254.0.0/16",  # link-local: EC2 and GCP (169.254.169.254), ECS (169.254.170.2), Lambda (169.254.100.1)
        "fe80::/10",
        "fd00:ec2::/32",  # EC2 (IMDS, DNS, time) over IPv6
        "100.100.100.200/32",  # Alibaba Cloud
        "168.63.129.16/32",  # Azure
        "192.0.0.192/32",  # Oracle Cloud
    )
)
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


class AddressRefusedError(Exception):
    """The request would go where it must not."""


class AddressGuard:
    """Resolves names and says no.

    ``allowed``: networks or addresses beyond the public internet, each with an optional port: ``10.20.0.0/16``,
    ``127.0.0.1:8080``, ``[::1]:8080``. ``forbidden``: addresses with ports that nothing opens.
    """

    def __init__(
        self, allowed: Iterable[str] = (), forbidden: Iterable[str] = (), resolve: Resolve | None = None
    ) -> None:
        self._allowed = [_network_and_port(entry) for entry in allowed]
        self._forbidden = [_network_and_port(entry) for entry in forbidden]
        self._resolve = resolve or _resolve

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "AddressGuard":
        """``ATTUNE_HTTP_ALLOWED`` is the operator's list. The platform's own API may always be called, also where it is
        on this machine; Lambda's runtime API may not, wherever it is."""
        allowed = [entry.strip() for entry in environment.get("ATTUNE_HTTP_ALLOWED", "").split(",") if entry.strip()]
        api = urlsplit(environment.get("ATTUNE_API_URL", ""))
        if api.hostname in ("localhost", "127.0.0.1", "::1"):
            port = api.port or (443 if api.scheme == "https" else 80)
            allowed += [f"127.0.0.1:{port}", f"[::1]:{port}"]
        runtime = environment.get("AWS_LAMBDA_RUNTIME_API", "")
        return cls(allowed, [runtime] if runtime[:1].isdigit() else [])

    def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of ``host``, all of which may be connected to; the caller connects to one of them and does not
        resolve again. Raises :class:`AddressRefusedError`, and ``OSError`` if there is no such name."""
        addresses = self._resolve(host, port)
        for address in addresses:
            reason = self._objection(ipaddress.ip_address(address), port)
            if reason is not None:
                raise AddressRefusedError(f"requests to {host} are refused: {address} is {reason}")
        return addresses

    def _objection(self, address: Address, port: int) -> str | None:
        inner = _embedded(address)
        if inner is not None:
            return self._objection(inner, port)
        if any(address in network for network in _METADATA):
            return "a link-local or metadata address"
        if _listed(self._forbidden, address, port):
            return "the address of the runtime API"
        if (address.is_global and not address.is_multicast) or _listed(self._allowed, address, port):
            return None
        return "not a public address"


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for: mapped, 6to4 and NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _listed(entries: list[tuple[Network, int | None]], address: Address, port: int) -> bool:
    return any(address in network and only in (None, port) for network, only in entries)


def _network_and_port(entry: str) -> tuple[Network, int | None]:
    if entry.startswith("["):
        network, _, port = entry[1:].partition("]")
        port = port.removeprefix(":")
    elif entry.count(":") == 1:
        network, _, port = entry.partition(":")
    else:
        network, port = entry, ""
    return ipaddress.ip_network(network), int(port) if port else None


def _resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found))
