"""How workers find each other before TensorFlow connects them, which would wait for an hour and hear no signal."""

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
from dltoolkit.config import parse_duration
from dltoolkit.errors import UserError

WAIT_VARIABLE = "DLTOOLKIT_WAIT"  # how long, such as 10m
WAIT = "10m"
LOOK_SECONDS = 0.2  # between two looks for somebody
SILENCE_SECONDS = 30.0  # that a chief may be late
QUIET_SECONDS = 5.0  # of waiting before anything is said


def wait_for_workers(cluster: Cluster) -> None:
    """Return when all workers of the cluster are there; each at its own address, for which it has its port to itself.

    Raises:
        UserError: if this process' port is taken, or somebody has not come within ``$DLTOOLKIT_WAIT`` (10m).
    """
    try:
        patience = parse_duration(os.environ.get(WAIT_VARIABLE, WAIT))
    except ValueError:
        raise UserError(f"{WAIT_VARIABLE} must be a time such as 90s or 10m.") from None
    with _listening(cluster.addresses[cluster.index]) as door:
        deadline = time.monotonic() + patience
        if cluster.index:
            _report(cluster, deadline)
        else:
            _gather(cluster, door, deadline)


@contextlib.contextmanager
def _listening(address: str) -> Iterator[socket.socket]:
    port = int(address.rpartition(":")[2])
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        door = socket.create_server(("", port), family=family, dualstack_ipv6=family == socket.AF_INET6)
    except OSError as error:
        raise UserError(
            f"Port {port} of this machine cannot be had ({error.strerror}): name another one in TF_CONFIG, or end the "
            "program that holds it."
        ) from None
    with door:
        yield door


def _gather(cluster: Cluster, door: socket.socket, deadline: float) -> None:
    """The chief's part: let every worker in, then tell all to begin."""
    door.settimeout(LOOK_SECONDS)
    began, told = time.monotonic(), False
    there: dict[int, socket.socket] = {}
    try:
        while missing := [index for index in range(1, len(cluster.addresses)) if index not in there]:
            names = ", ".join(f"{index} ({cluster.addresses[index]})" for index in missing)
            if time.monotonic() > deadline:
                missed = f"Worker {names} has not come: start it, and see that it can reach the chief."
                for guest in there.values():
                    guest.sendall(f"{missed}\n".encode())
                raise UserError(missed)
            if not told and time.monotonic() - began > QUIET_SECONDS:
                progress.note(f"Waiting for worker {names}.")
                told = True
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # others may knock at a port too
                _let_in(cluster, door, there)
            for index in [index for index, guest in there.items() if _has_left(guest)]:
                there.pop(index).close()
        for guest in there.values():
            guest.sendall(b"begin\n")
    finally:
        for guest in there.values():
            guest.close()


def _let_in(cluster: Cluster, door: socket.socket, there: dict[int, socket.socket]) -> None:
    """Wait a little for somebody, and put a worker into its place; tell others what is wrong."""
    guest, _ = door.accept()
    try:
        guest.settimeout(LOOK_SECONDS * 10)
        said = json.loads(guest.makefile().readline())
        index, wrong = said["index"], None
        if said["addresses"] != list(cluster.addresses):
            wrong = "other addresses than this worker: give all workers the same"
        elif index in there and not _has_left(there[index]):
            wrong = f"a worker {index} already: give each another index"
        if wrong:
            guest.sendall(f"The chief knows {wrong}.\n".encode())
        else:
            if index in there:
                there[index].close()
            there[index] = guest
    finally:
        if guest not in there.values():
            guest.close()


def _has_left(guest: socket.socket) -> bool:
    try:
        return bool(select.select([guest], [], [], 0)[0]) and not guest.recv(1, socket.MSG_PEEK)
    except OSError:
        return True


def _report(cluster: Cluster, deadline: float) -> None:
    """A worker's part: come to the chief, and wait until it says to begin."""
    host, _, port = cluster.addresses[0].rpartition(":")
    hello = json.dumps({"index": cluster.index, "addresses": cluster.addresses}).encode() + b"\n"
    while True:
        answer, reason = "", "no answer"
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK_SECONDS * 10) as chief:
                chief.sendall(hello)
                chief.settimeout(LOOK_SECONDS)
                while not answer.endswith("\n"):
                    with contextlib.suppress(TimeoutError):
                        got = chief.recv(1024).decode("latin-1")
                        if not got:
                            break
                        answer += got
                    if time.monotonic() > deadline + SILENCE_SECONDS:  # it is the chief who says when to give up
                        raise UserError(f"The chief, {cluster.addresses[0]}, does not answer: start all anew.")
        except OSError as error:
            reason = error.strerror or type(error).__name__
        if answer == "begin\n":
            return
        if answer.endswith("\n"):
            raise UserError(answer.strip())
        if time.monotonic() > deadline:
            raise UserError(
                f"The chief, {cluster.addresses[0]}, has not come ({reason}): start it, or see to TF_CONFIG."
            )
        time.sleep(LOOK_SECONDS)
