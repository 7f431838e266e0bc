"""Tests of the filter that keeps strangers from the port of a worker."""

import contextlib
import socket
import subprocess
import sys

import pytest

from dltoolkit.errors import UserError
from dltoolkit.training.distribute import launch, port_filter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has filters of sockets")


def server_beside(reserved: socket.socket, address: str = "") -> socket.socket:
    """Return a socket that shares the port of another one, as TensorFlow's server does."""
    ipv6 = reserved.family == socket.AF_INET6 and not address
    server = socket.socket(reserved.family if ipv6 else socket.AF_INET)
    if ipv6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        server.setsockopt(socket.SOL_SOCKET, option, 1)
    server.bind((address, reserved.getsockname()[1]))
    server.listen()
    return server


def reaches(server: socket.socket, source: str) -> bool:
    """Return whether a connection from an address of this machine reaches a server."""
    host = "::1" if ":" in source else "127.0.0.1"
    server.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        with socket.create_connection((host, server.getsockname()[1]), timeout=0.2, source_address=(source, 0)):
            server.accept()[0].close()
        return True
    return False


@pytest.fixture(params=["may drop packets", "may not"])
def reserved(request, monkeypatch):
    attach = port_filter._attach

    def attach_as_a_user(target, option, program):
        """Attach filters as Linux 6.18 lets users other than root."""
        if option == port_filter.SO_ATTACH_FILTER:
            raise PermissionError
        attach(target, option, program)

    if request.param == "may not":
        monkeypatch.setattr(port_filter, "_attach", attach_as_a_user)
    (port,) = launch.free_ports(1)
    with port_filter.reserve(port) as opened:
        yield opened


def test_a_reserved_port_says_nothing(reserved):
    with contextlib.suppress(TimeoutError):
        with socket.create_connection(("127.0.0.1", reserved.getsockname()[1]), timeout=0.2) as stranger:
            stranger.recv(1)
        raise AssertionError("the port has answered")


@pytest.mark.parametrize("others", [0, 600])
def test_only_admitted_addresses_reach_the_server(reserved, others):
    many = [f"10.0.{number // 256}.{number % 256}" for number in range(others)]
    port_filter.admit(reserved, [*many, "127.0.0.1", "127.0.0.3", "fd00::1", "fe80::1%eth0"])
    with server_beside(reserved) as server:
        port_filter.check(reserved)
        assert [reaches(server, f"127.0.0.{number}") for number in (1, 2, 3, 4)] == [True, False, True, False]


@pytest.mark.skipif(not port_filter.uses_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("admitted", ["::1", "::2"])
def test_ipv6_addresses_are_compared_in_full(reserved, admitted):
    port_filter.admit(reserved, [admitted])
    with server_beside(reserved) as server:
        assert reaches(server, "::1") == (admitted == "::1")
        assert not reaches(server, "127.0.0.1")


def test_check_refuses_a_server_that_does_not_share_the_filter(reserved):
    port_filter.admit(reserved, ["127.0.0.1"])
    with pytest.raises(UserError, match="does not share its port with a filter"):
        port_filter.check(reserved)
    with (
        server_beside(reserved),
        server_beside(reserved, "127.0.0.1"),
        pytest.raises(UserError, match="launch --trust-network"),
    ):
        port_filter.check(reserved)


def test_a_kept_port_stays_filtered_when_its_socket_is_closed():
    (port,) = launch.free_ports(1)
    code = f"""
import socket
from dltoolkit.training.distribute import port_filter
reserved = port_filter.reserve({port})
port_filter.keep(reserved)
reserved.close()
try:
    socket.create_connection(("127.0.0.1", {port}), timeout=0.2).recv(1)
except TimeoutError:
    print("no answer")
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "no answer\n"


def test_a_filter_with_too_many_addresses_is_refused(reserved):
    with pytest.raises(UserError, match="no filter for more than a thousand addresses"):
        port_filter.admit(reserved, [f"10.0.{n >> 8}.{n & 255}" for n in range(3000)])
