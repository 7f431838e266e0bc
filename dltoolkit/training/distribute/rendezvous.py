"""The rendezvous of workers before TensorFlow connects them.

TensorFlow would wait for an hour for a worker that does not start, and would not react to signals meanwhile. A stranger
who connects to the chief can neither become a worker nor make the chief wait beyond its own deadline.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time
from dataclasses import dataclass, field

from dltoolkit import cluster as clusters
from dltoolkit import progress
from dltoolkit.cluster import TOKEN_VARIABLE, TRUST_VARIABLE, Cluster
from dltoolkit.errors import UserError
from dltoolkit.option_values import parse_duration
from dltoolkit.training.distribute import handshake, host_addresses, port_filter
from dltoolkit.training.distribute.handshake import Request
from dltoolkit.training.distribute.host_addresses import LOOPBACK, HostAddresses

TIMEOUT_VARIABLE = "DLTOOLKIT_WAIT"  # environment variable with the time to wait for the other workers, such as 10m
DEFAULT_TIMEOUT = "10m"
MAX_WAIT_SECONDS = 1e6  # eleven days; the operating system takes no time that is far longer
POLL_SECONDS = 0.2  # seconds between two attempts to connect, or two checks of the deadline
CHIEF_DELAY_SECONDS = 30.0  # seconds beyond the timeout that a worker waits for the answer of a connected chief
SILENT_SECONDS = 5.0  # seconds after which the chief prints which workers are missing
MESSAGE_SECONDS = 5.0  # seconds in which a program that has connected must have sent its message
MAX_UNKNOWN = 32  # connections without a message, in addition to one per worker; beyond it, the oldest are closed
MAX_NAMES = 8  # missing workers that a message names
SAME_SECRET = f"give all workers the same addresses and the same {TOKEN_VARIABLE}"


def wait_for_workers(cluster: Cluster) -> socket.socket | None:
    """Return when all workers of the cluster have started.

    Each worker listens on the port of its address meanwhile, which proves that no other program uses it.

    Returns:
        The socket that keeps strangers from TensorFlow's port, and must stay open; see
        :mod:`dltoolkit.training.distribute.port_filter`. None if the user trusts the network.

    Raises:
        UserError: If the port of this worker is in use, or a worker does not start within ``$DLTOOLKIT_WAIT`` (10m).
    """
    try:
        timeout = min(parse_duration(os.environ.get(TIMEOUT_VARIABLE, DEFAULT_TIMEOUT)), MAX_WAIT_SECONDS)
    except ValueError:
        raise UserError(f"{TIMEOUT_VARIABLE} must be a time such as 90s or 10m.") from None
    (key, is_secret), trusts_network = clusters.secret(), clusters.trusts_network()
    deadline = time.monotonic() + timeout
    hosts, port = HostAddresses(cluster, deadline), cluster.port(cluster.index)
    with contextlib.ExitStack() as stack:
        reserved = stack.enter_context(_listen_everywhere(port) if trusts_network else port_filter.reserve(port))
        if cluster.index:
            if not trusts_network:
                hosts.all()  # before the chief starts everybody: later, an unknown host would keep the others waiting
            _wait_for_chief(cluster, key, hosts, deadline)
        else:
            is_local = all(hosts.is_loopback(index) for index in range(len(cluster.addresses)))
            if not is_secret and not is_local:
                progress.note(f"{TOKEN_VARIABLE} is not set: others who reach the port of this worker can join it.")
            with contextlib.ExitStack() as servers:
                listening = [reserved]
                if not trusts_network:
                    listening = _listen_to_workers(cluster, hosts, is_local, servers)
                gathering = _Gathering(cluster, key, None if trusts_network else hosts, listening)
                servers.callback(gathering.close)
                gathering.wait(deadline)
        if trusts_network:
            return None
        port_filter.admit(reserved, hosts.all())
        stack.pop_all()
    return reserved


def _listen(address: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket that listens on an address of this machine, or on all of them if it is empty.

    Args:
        address: The IP address.
        port: The port.
        shared: Whether a socket that :func:`port_filter.reserve` returned listens on the port.
    """
    ipv6 = ":" in address or (not address and port_filter.uses_ipv6())
    server = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET)
    try:
        if ipv6 and not address:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind((address, port))
        server.listen()
    except OSError:
        server.close()
        raise
    return server


def _listen_everywhere(port: int) -> socket.socket:
    try:
        return _listen("", port)
    except OSError as error:
        raise port_filter.port_in_use(port, error) from None


def _listen_to_workers(
    cluster: Cluster, hosts: HostAddresses, is_local: bool, stack: contextlib.ExitStack
) -> list[socket.socket]:
    """Return sockets that listen on the chief's addresses in TF_CONFIG.

    If the chief knows its own name only as a loopback address, as on Debian, they listen on all addresses.
    """
    port = cluster.port(0)
    addresses = sorted(hosts.of(0)) if is_local or not hosts.is_loopback(0) else [""]
    servers, failure = [], None
    for address in addresses:
        try:
            servers.append(stack.enter_context(_listen(address, port, shared=True)))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise port_filter.port_in_use(port, error) from None
            failure = error
    if not servers:
        raise UserError(
            f"{cluster.host(0)}, the host of worker 0, is not an address of this machine: correct the index or the "
            f"address in TF_CONFIG, or set {TRUST_VARIABLE}=1 if the machine has this address for others only."
        ) from failure
    return servers


@dataclass(eq=False)
class _Connection:
    """A connection to the chief.

    Attributes:
        socket: The socket.
        deadline: When the worker's message must be complete.
        challenge: The chief's challenge.
        received: The message so far.
        request: The message, once it is complete and proven.
    """

    socket: socket.socket
    deadline: float
    challenge: str = field(default_factory=handshake.new_challenge)
    received: bytes = b""
    request: Request | None = None


class _Gathering:
    """The chief's side: it accepts connections and keeps those of workers. No call waits for any of them.

    Args:
        cluster: The cluster.
        key: The secret.
        hosts: The addresses from which workers may connect, or None for all.
        servers: Sockets that listen.
    """

    def __init__(self, cluster: Cluster, key: bytes, hosts: HostAddresses | None, servers: list[socket.socket]):
        self._cluster, self._key, self._hosts = cluster, key, hosts
        self._servers = servers
        self._connections: dict[socket.socket, _Connection] = {}  # in the order in which they were accepted
        self._workers: dict[int, _Connection] = {}
        self._refused = 0  # connections that did not know the secret
        self._selector = selectors.DefaultSelector()
        for server in servers:
            server.setblocking(False)
            self._selector.register(server, selectors.EVENT_READ)

    def wait(self, deadline: float) -> None:
        """Return when every other worker has connected, after telling all of them to start.

        Raises:
            UserError: If a worker has not connected at the deadline.
        """
        start, announced = time.monotonic(), False
        while missing := [index for index in range(1, len(self._cluster.addresses)) if index not in self._workers]:
            now = time.monotonic()
            names = ", ".join(f"{index} ({self._cluster.addresses[index]})" for index in missing[:MAX_NAMES])
            names += f" and {len(missing) - MAX_NAMES} more" if len(missing) > MAX_NAMES else ""
            if now > deadline:
                problem = f"Worker {names} has not connected: start it, and make sure that it can reach the chief."
                if self._refused:
                    problem += f" A program that did not know the secret was refused: {SAME_SECRET}."
                self._answer(problem)
                raise UserError(problem)
            if not announced and now - start > SILENT_SECONDS:
                progress.note(f"Waiting for worker {names}.")
                announced = True
            for connection in list(self._connections.values()):
                if connection.request is None and now > connection.deadline:
                    self._forget(connection)
            for key, _ in self._selector.select(POLL_SECONDS):
                if key.fileobj in self._servers:
                    self._accept(key.fileobj)
                elif key.fileobj in self._connections:
                    self._read(self._connections[key.fileobj])
        self._answer(None)

    def close(self) -> None:
        """Close all connections."""
        for connection in list(self._connections.values()):
            self._forget(connection)
        self._selector.close()

    def _accept(self, server: socket.socket) -> None:
        unknown = [connection for connection in self._connections.values() if connection.request is None]
        if len(unknown) >= MAX_UNKNOWN + len(self._cluster.addresses):
            self._forget(unknown[0])
        try:
            accepted, _ = server.accept()
        except BlockingIOError:
            return
        except OSError:  # such as too many open files
            if unknown:
                self._forget(unknown[0])
            time.sleep(POLL_SECONDS / 10)
            return
        accepted.setblocking(False)
        connection = _Connection(accepted, time.monotonic() + MESSAGE_SECONDS)
        self._connections[accepted] = connection
        self._selector.register(accepted, selectors.EVENT_READ)
        self._send(connection, handshake.challenge_message(connection.challenge))

    def _read(self, connection: _Connection) -> None:
        """Read what has come of a message. A worker that has sent its message sends nothing else until it ends."""
        try:
            received = connection.socket.recv(handshake.LINE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        connection.received += received
        if not received or connection.request or len(connection.received) > handshake.LINE_BYTES:
            self._forget(connection)
        elif b"\n" in connection.received:
            self._check(connection)

    def _check(self, connection: _Connection) -> None:
        """Keep the connection of a worker, or answer with the problem."""
        try:
            request, is_proven = handshake.parse_request(connection.received, self._key, connection.challenge)
            source = host_addresses.plain(connection.socket.getpeername()[0])
        except (ValueError, OSError):
            self._forget(connection)
            return
        self._refused += not is_proven
        problem = self._problem(request, source) if is_proven else "The secret differs."
        if problem is None:
            connection.request = request
            self._workers[request.index] = connection
        else:
            self._send(connection, handshake.answer_message(self._key, request.challenge, problem))
            self._forget(connection)

    def _problem(self, request: Request, source: str) -> str | None:
        index = request.index
        if request.cluster != handshake.digest(self._cluster):
            return "The chief has other addresses than this worker: give all workers the same addresses."
        if not 0 < index < len(self._cluster.addresses):
            return f"The chief expects no worker with the index {index}: give each worker its own index."
        if index in self._workers and not _is_closed(self._workers[index].socket):
            return f"Another worker has the index {index}: give each worker its own index."
        if self._hosts is not None:
            strange = {source, *request.sources} - self._hosts.of(index) - LOOPBACK
            if strange:
                return (
                    f"Worker {index} connects from {min(strange)}, which is not an address of "
                    f"{self._cluster.host(index)}: use that address in TF_CONFIG, or set {TRUST_VARIABLE}=1 for all "
                    "workers if you trust all machines of the network."
                )
        return None

    def _answer(self, problem: str | None) -> None:
        for connection in self._workers.values():
            self._send(connection, handshake.answer_message(self._key, connection.request.challenge, problem))

    def _send(self, connection: _Connection, message: bytes) -> None:
        """Send a message, which is far smaller than the buffer of a socket."""
        with contextlib.suppress(OSError):
            connection.socket.send(message)

    def _forget(self, connection: _Connection) -> None:
        self._selector.unregister(connection.socket)
        del self._connections[connection.socket]
        if connection.request and self._workers.get(connection.request.index) is connection:
            del self._workers[connection.request.index]
        connection.socket.close()


def _is_closed(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _wait_for_chief(cluster: Cluster, key: bytes, hosts: HostAddresses, deadline: float) -> None:
    """Connect to the chief and return when it says that all workers have come. All other workers call this."""
    reason = "no answer"
    while True:
        try:
            address = (cluster.host(0), cluster.port(0))
            with socket.create_connection(address, timeout=MESSAGE_SECONDS) as connection:
                answer = _ask(cluster, key, hosts, connection, deadline)
        except (OSError, UnicodeError) as error:
            answer, reason = None, getattr(error, "strerror", None) or "no answer"
        except ValueError:
            answer, reason = None, "another program answers"
        if answer:
            problem, is_proven = answer
            if not is_proven:
                raise UserError(f"The chief, {cluster.addresses[0]}, knows another secret: {SAME_SECRET}.")
            if problem:
                raise UserError(problem)
            return
        if time.monotonic() > deadline:
            raise UserError(
                f"The chief, {cluster.addresses[0]}, cannot be reached ({reason}): start it, or correct TF_CONFIG."
            )
        time.sleep(POLL_SECONDS)


def _ask(
    cluster: Cluster, key: bytes, hosts: HostAddresses, connection: socket.socket, deadline: float
) -> tuple[str | None, bool]:
    """Return the chief's answer and whether it is proven."""
    line = handshake.receive_line(connection, time.monotonic() + MESSAGE_SECONDS)
    challenge, chief_challenge = handshake.new_challenge(), handshake.parse_challenge(line)
    connection.sendall(handshake.request_message(cluster, key, chief_challenge, challenge, hosts.own_sources()))
    try:
        # the chief itself gives up at the deadline
        line = handshake.receive_line(connection, max(time.monotonic(), deadline) + CHIEF_DELAY_SECONDS)
    except TimeoutError:
        raise UserError(f"The chief, {cluster.addresses[0]}, does not answer: restart all workers.") from None
    return handshake.parse_answer(line, key, challenge)
