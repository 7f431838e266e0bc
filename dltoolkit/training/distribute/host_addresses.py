"""The IP addresses of the machines of a cluster."""

from __future__ import annotations

import ipaddress
import socket
import time

from dltoolkit.cluster import Cluster
from dltoolkit.errors import UserError

LOOPBACK = frozenset({"127.0.0.1", "::1"})  # the addresses from which a machine connects to itself
RETRY_SECONDS = 0.5  # seconds between two attempts to find the addresses of a host, which may be just starting


class HostAddresses:
    """The IP addresses of the hosts of a cluster.

    Args:
        cluster: The cluster.
        deadline: Until when to wait for a name service that does not know a host yet, in the time of time.monotonic.
    """

    def __init__(self, cluster: Cluster, deadline: float):
        self._cluster, self._deadline = cluster, deadline
        self._known: dict[str, frozenset[str]] = {}

    def known(self, index: int) -> frozenset[str] | None:
        """Return the addresses of the host of a worker, or None if no name service knows it now."""
        host = self._cluster.host(index)
        if host not in self._known:
            try:
                results = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError):
                return None
            addresses = frozenset(plain(address[0]) for *_, address in results)
            if any(ipaddress.ip_address(address).is_unspecified for address in addresses):
                raise UserError(f"'{host}' in TF_CONFIG does not say which machine is meant: give its name or address.")
            self._known[host] = addresses
        return self._known[host]

    def of(self, index: int) -> frozenset[str]:
        """Return the addresses of the host of a worker.

        Raises:
            UserError: If no name service knows it at the deadline.
        """
        while (addresses := self.known(index)) is None:
            if time.monotonic() > self._deadline:
                host = self._cluster.host(index)
                raise UserError(
                    f"The machine '{host}' of worker {index} is unknown here: correct its name in TF_CONFIG."
                )
            time.sleep(RETRY_SECONDS)
        return addresses

    def all(self) -> set[str]:
        """Return the addresses from which workers connect to each other."""
        return {address for index in range(len(self._cluster.addresses)) for address in self.of(index)} | LOOPBACK

    def is_loopback(self, index: int) -> bool:
        """Return whether a worker's host has only loopback addresses, so that other machines cannot reach it there."""
        addresses = self.known(index)
        return bool(addresses) and all(ipaddress.ip_address(address).is_loopback for address in addresses)

    def own_sources(self) -> set[str]:
        """Return the addresses from which this machine connects to the hosts that are known. Nothing is sent."""
        sources = set()
        for index in range(len(self._cluster.addresses)):
            for address in self.known(index) or ():
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                with socket.socket(family, socket.SOCK_DGRAM) as probe:
                    try:
                        probe.connect((address, self._cluster.port(index)))
                    except OSError:
                        continue  # there is no way to this address
                    sources.add(plain(probe.getsockname()[0]))
        return sources


def plain(address: str) -> str:
    """Return an IP address without its interface, and an IPv4 address as such if it is written as an IPv6 address."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
