"""A port to which only the machines of the cluster can connect.

The servers of TensorFlow listen on all network interfaces (``0.0.0.0`` is a constant in TensorFlow 2.21) and run
whatever any client sends. On Linux, several sockets can listen on one port, and a filter program that a process has
attached to them selects the socket of each new connection (``SO_ATTACH_REUSEPORT_CBPF``). :func:`reserve` listens on a
port with a socket that nobody reads from. :func:`admit` then selects TensorFlow's socket for connections from given
addresses, and the socket that nobody reads from for others. If the process may set it, a filter makes this socket drop
all packets, so that the port does not answer strangers at all. The program is in place before TensorFlow listens.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator

from dltoolkit.cluster import TRUST_VARIABLE
from dltoolkit.errors import UserError

TENSORFLOW_VARIABLE = "TF_GRPC_REUSE_PORT"  # environment variable with which TensorFlow shares its port
SO_ATTACH_FILTER, SO_ATTACH_REUSEPORT_CBPF = 26, 51  # Linux' numbers, which Python does not define
# Instructions of a filter program (classic BPF), and the position of the IP header; see linux/filter.h
LOAD_WORD, LOAD_BYTE, SHIFT_RIGHT, JUMP, JUMP_IF_EQUAL, RETURN = 0x20, 0x30, 0x74, 0x05, 0x15, 0x06
IP_HEADER = -0x100000 & 0xFFFFFFFF
IPV4_SOURCE, IPV6_SOURCE = IP_HEADER + 12, IP_HEADER + 8
MAX_INSTRUCTIONS = 4096  # Linux' limit
DROPPING, OTHER = 0, 1  # numbers of the sockets that listen on a port, in the order in which they began to listen

Instruction = tuple[int, int, int, int]  # code, jump if equal, jump if not, operand


def reserve(port: int) -> socket.socket:
    """Return a socket that listens on a port of all interfaces, and whose connections nobody reads from.

    A second socket of this process that sets ``SO_REUSEPORT`` and listens on the port gets the connections.

    Raises:
        UserError: If another program uses the port, or this system has no such filters.
    """
    ipv6 = uses_ipv6()
    reserved = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET)
    with contextlib.ExitStack() as stack:
        stack.enter_context(reserved)
        if ipv6:
            reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            reserved.bind(("", port))  # without SO_REUSEPORT, so that another program on the port is an error
        except OSError as error:
            raise port_in_use(port, error) from None
        try:
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with contextlib.suppress(PermissionError):  # of users other than root since Linux 6.18
                _attach(reserved, SO_ATTACH_FILTER, [(RETURN, 0, 0, 0)])
            _attach(reserved, SO_ATTACH_REUSEPORT_CBPF, [(RETURN, 0, 0, OTHER)])
        except (AttributeError, OSError):
            raise _unsupported(f"this system cannot keep other machines away from port {port}") from None
        try:
            reserved.listen(1)
        except OSError as error:
            raise port_in_use(port, error) from None
        stack.pop_all()
    return reserved


def admit(reserved: socket.socket, addresses: Iterable[str]) -> None:
    """Let TensorFlow share the port of a reserved socket, with connections from these IP addresses only."""
    try:
        _attach(reserved, SO_ATTACH_REUSEPORT_CBPF, list(_program(addresses)))
    except OSError:
        raise _unsupported("this system has no filter for more than a thousand addresses") from None
    os.environ[TENSORFLOW_VARIABLE] = "1"


def keep(reserved: socket.socket) -> None:
    """Keep a reserved socket open until the process ends, later than TensorFlow's sockets.

    Python closes its sockets, also those of its modules, before it ends, which can take seconds.
    """
    os.dup(reserved.fileno())


def check(reserved: socket.socket) -> None:
    """Check that the other sockets of this process that listen on the port of a reserved socket are filtered.

    Raises:
        UserError: If there is none, or if it listens on other addresses and therefore does not share the filter.
    """
    own = os.fstat(reserved.fileno()).st_ino
    others = [address for inode, address in _listening(reserved.getsockname()[1]) if inode != own]
    if not others or any(address != _bound_to(reserved) for address in others):
        raise _unsupported("this version of TensorFlow does not share its port with a filter")


def port_in_use(port: int, error: OSError) -> UserError:
    """Return the error for a port on which this process cannot listen."""
    return UserError(
        f"Port {port} of this machine is not available ({error.strerror}): use another port in TF_CONFIG, or end the "
        "program that uses it."
    )


def _unsupported(problem: str) -> UserError:
    return UserError(
        f"TensorFlow runs what any machine sends to the ports of the workers, and {problem}: if you trust all machines "
        f"of your network, use 'dltoolkit launch --trust-network', or set {TRUST_VARIABLE}=1 for all workers."
    )


def uses_ipv6() -> bool:
    """Return whether gRPC listens on an IPv6 socket, which accepts IPv4, too: if this machine has ``::1``."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _attach(target: socket.socket, option: int, program: list[Instruction]) -> None:
    if sys.platform != "linux" or len(program) > MAX_INSTRUCTIONS:
        raise OSError
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in program))
    target.setsockopt(socket.SOL_SOCKET, option, struct.pack("HP", len(program), ctypes.addressof(code)))


def _program(addresses: Iterable[str]) -> Iterator[Instruction]:
    """Yield a program that returns OTHER for packets from these addresses, and DROPPING for all others."""
    parsed = {ipaddress.ip_address(address.partition("%")[0]) for address in addresses}
    ipv4 = [each for address in sorted(parsed, key=str) if address.version == 4 for each in _match(address)]
    ipv6 = [each for address in sorted(parsed, key=str) if address.version == 6 for each in _match(address)]
    yield LOAD_BYTE, 0, 0, IP_HEADER  # the first four bits are the version of the protocol
    yield SHIFT_RIGHT, 0, 0, 4
    yield JUMP_IF_EQUAL, 0, 1, 4
    yield JUMP, 0, 0, len(ipv6) + 3
    yield JUMP_IF_EQUAL, 1, 0, 6
    yield RETURN, 0, 0, DROPPING
    yield from ipv6
    yield RETURN, 0, 0, DROPPING
    yield from ipv4
    yield RETURN, 0, 0, DROPPING


def _match(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Iterator[Instruction]:
    """Yield instructions that end the program if a packet comes from this address."""
    words = struct.unpack(f"!{len(address.packed) // 4}I", address.packed)
    source = IPV4_SOURCE if address.version == 4 else IPV6_SOURCE
    for number, word in enumerate(words):
        yield LOAD_WORD, 0, 0, source + 4 * number
        yield JUMP_IF_EQUAL, 0, 2 * (len(words) - number) - 1, word
    yield RETURN, 0, 0, OTHER


def _listening(port: int) -> Iterator[tuple[int, tuple]]:
    """Yield inode and address of each socket of this process that listens on a port."""
    for name in os.listdir("/proc/self/fd"):
        try:
            duplicate = os.dup(int(name))
        except OSError:
            continue  # the descriptor of the folder itself
        try:
            with socket.socket(fileno=duplicate) as opened:
                is_tcp = opened.family in (socket.AF_INET, socket.AF_INET6) and opened.type == socket.SOCK_STREAM
                listens = is_tcp and opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if listens and opened.getsockname()[1] == port:
                    yield os.fstat(duplicate).st_ino, _bound_to(opened)
        except OSError:
            os.close(duplicate)  # not a socket


def _bound_to(opened: socket.socket) -> tuple:
    """Return what two sockets must have in common to share a filter."""
    only = opened.family == socket.AF_INET6 and opened.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return opened.family, opened.getsockname()[0], only
