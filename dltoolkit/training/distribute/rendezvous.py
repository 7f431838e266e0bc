"""The rendezvous of workers before TensorFlow connects them.

TensorFlow would wait for an hour for a worker that does not start, and would not react to signals meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Iterator

from dltoolkit import progress
from dltoolkit.cluster import Cluster
from dltoolkit.errors import UserError
from dltoolkit.option_values import parse_duration

TIMEOUT_VARIABLE = "DLTOOLKIT_WAIT"  # environment variable with the time to wait for the other workers, such as 10m
DEFAULT_TIMEOUT = "10m"
POLL_SECONDS = 0.2  # seconds between two attempts to connect, or to accept a connection
CHIEF_DELAY_SECONDS = 30.0  # seconds beyond the timeout that a worker waits for the answer of a connected chief
SILENT_SECONDS = 5.0  # seconds after which the chief prints which workers are missing
START = "begin\n"  # the message with which the chief starts all workers


def wait_for_workers(cluster: Cluster) -> None:
    """Return when all workers of the cluster have started.

    Each worker binds the port of its address meanwhile, which proves that no other program uses it.

    Raises:
        UserError: If the port of this worker is in use, or a worker does not start within ``$DLTOOLKIT_WAIT`` (10m).
    """
    try:
        timeout = parse_duration(os.environ.get(TIMEOUT_VARIABLE, DEFAULT_TIMEOUT))
    except ValueError:
        raise UserError(f"{TIMEOUT_VARIABLE} must be a time such as 90s or 10m.") from None
    with _listen(cluster.addresses[cluster.index]) as server_socket:
        deadline = time.monotonic() + timeout
        if cluster.index:
            _wait_for_chief(cluster, deadline)
        else:
            _gather_workers(cluster, server_socket, deadline)


@contextlib.contextmanager
def _listen(address: str) -> Iterator[socket.socket]:
    port = int(address.rpartition(":")[2])
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        server_socket = socket.create_server(("", port), family=family, dualstack_ipv6=family == socket.AF_INET6)
    except OSError as error:
        raise UserError(
            f"Port {port} of this machine is not available ({error.strerror}): use another port in TF_CONFIG, or end "
            "the program that uses it."
        ) from None
    with server_socket:
        yield server_socket


def _gather_workers(cluster: Cluster, server_socket: socket.socket, deadline: float) -> None:
    """Accept a connection from every other worker, then tell all of them to start. The chief calls this."""
    server_socket.settimeout(POLL_SECONDS)
    start, announced = time.monotonic(), False
    connections: dict[int, socket.socket] = {}
    try:
        while missing := [index for index in range(1, len(cluster.addresses)) if index not in connections]:
            names = ", ".join(f"{index} ({cluster.addresses[index]})" for index in missing)
            if time.monotonic() > deadline:
                message = f"Worker {names} has not connected: start it, and make sure that it can reach the chief."
                for connection in connections.values():
                    connection.sendall(f"{message}\n".encode())
                raise UserError(message)
            if not announced and time.monotonic() - start > SILENT_SECONDS:
                progress.note(f"Waiting for worker {names}.")
                announced = True
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # other programs may connect, too
                _accept(cluster, server_socket, connections)
            for index in [index for index, connection in connections.items() if _is_closed(connection)]:
                connections.pop(index).close()
        for connection in connections.values():
            connection.sendall(START.encode())
    finally:
        for connection in connections.values():
            connection.close()


def _accept(cluster: Cluster, server_socket: socket.socket, connections: dict[int, socket.socket]) -> None:
    """Wait shortly for a connection. Add it to ``connections`` under its worker's index, or answer with the problem."""
    connection, _ = server_socket.accept()
    try:
        connection.settimeout(POLL_SECONDS * 10)
        request = json.loads(connection.makefile().readline())
        index, problem = request["index"], None
        if request["addresses"] != list(cluster.addresses):
            problem = "The chief has other addresses than this worker: give all workers the same addresses."
        elif index in connections and not _is_closed(connections[index]):
            problem = f"Another worker has the index {index}: give each worker its own index."
        if problem:
            connection.sendall(f"{problem}\n".encode())
        else:
            if index in connections:
                connections[index].close()
            connections[index] = connection
    finally:
        if connection not in connections.values():
            connection.close()


def _is_closed(connection: socket.socket) -> bool:
    try:
        return bool(select.select([connection], [], [], 0)[0]) and not connection.recv(1, socket.MSG_PEEK)
    except OSError:
        return True


def _wait_for_chief(cluster: Cluster, deadline: float) -> None:
    """Connect to the chief and return when it sends the start message. All workers except the chief call this."""
    host, _, port = cluster.addresses[0].rpartition(":")
    request = json.dumps({"index": cluster.index, "addresses": cluster.addresses}).encode() + b"\n"
    while True:
        answer, reason = "", "no answer"
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=POLL_SECONDS * 10) as connection:
                connection.sendall(request)
                connection.settimeout(POLL_SECONDS)
                while not answer.endswith("\n"):
                    with contextlib.suppress(TimeoutError):
                        received = connection.recv(1024).decode("latin-1")
                        if not received:
                            break
                        answer += received
                    if time.monotonic() > deadline + CHIEF_DELAY_SECONDS:  # the chief itself gives up at the deadline
                        raise UserError(f"The chief, {cluster.addresses[0]}, does not answer: restart all workers.")
        except OSError as error:
            reason = error.strerror or type(error).__name__
        if answer == START:
            return
        if answer.endswith("\n"):
            raise UserError(answer.strip())
        if time.monotonic() > deadline:
            raise UserError(
                f"The chief, {cluster.addresses[0]}, cannot be reached ({reason}): start it, or correct TF_CONFIG."
            )
        time.sleep(POLL_SECONDS)
