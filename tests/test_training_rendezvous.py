"""Tests of the rendezvous of workers: any order, missing workers, ports in use."""

import json
import socket
import threading
import time

import pytest

from dltoolkit.cluster import Cluster
from dltoolkit.errors import UserError
from dltoolkit.training.distribute import launch, rendezvous


def wait_for_all(clusters) -> dict[int, Exception | None]:
    """Call wait_for_workers for each cluster in its own thread, and return the errors by position."""
    errors: dict[int, Exception | None] = {}

    def wait(position, worker):
        try:
            rendezvous.wait_for_workers(worker)
            errors[position] = None
        except UserError as error:
            errors[position] = error

    threads = [threading.Thread(target=wait, args=pair) for pair in enumerate(clusters)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return errors


@pytest.fixture
def addresses() -> tuple[str, ...]:
    return tuple(f"localhost:{port}" for port in launch.free_ports(3))


@pytest.fixture
def short_timeout(monkeypatch) -> None:
    monkeypatch.setenv(rendezvous.TIMEOUT_VARIABLE, "2s")


def test_wait_for_workers_connects_workers_in_any_order(addresses):
    assert wait_for_all(Cluster(addresses, index) for index in (2, 0, 1)) == {0: None, 1: None, 2: None}
    with socket.create_server(("", int(addresses[0].rpartition(":")[2]))):
        pass  # the ports are free again


def test_wait_for_workers_accepts_a_restarted_worker(addresses):
    chief = threading.Thread(target=rendezvous.wait_for_workers, args=(Cluster(addresses, 0),))
    chief.start()
    request = json.dumps({"index": 1, "addresses": addresses}).encode() + b"\n"
    for _ in range(50):
        try:
            with socket.create_connection(("localhost", int(addresses[0].rpartition(":")[2]))) as first:
                first.sendall(request)
                time.sleep(0.3)
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
    assert wait_for_all(Cluster(addresses, index) for index in (1, 2)) == {0: None, 1: None}
    chief.join(timeout=10)
    assert not chief.is_alive()


def test_wait_for_workers_names_a_missing_worker(addresses, short_timeout):
    errors = wait_for_all(Cluster(addresses, index) for index in (0, 2))
    assert f"Worker 1 ({addresses[1]}) has not connected" in str(errors[0])
    assert str(errors[1]) == str(errors[0]), "connected workers get the same message"


def test_wait_for_workers_names_a_missing_chief(addresses, short_timeout):
    errors = wait_for_all([Cluster(addresses, 1)])
    assert f"The chief, {addresses[0]}, cannot be reached" in str(errors[0])


def test_wait_for_workers_names_a_port_in_use(addresses):
    port = int(addresses[1].rpartition(":")[2])
    with socket.create_server(("", port)), pytest.raises(UserError, match=f"Port {port} of this machine"):
        rendezvous.wait_for_workers(Cluster(addresses, 1))


def test_wait_for_workers_refuses_other_addresses(addresses, short_timeout):
    stray = Cluster((addresses[0], addresses[2]), 1)
    errors = wait_for_all([Cluster(addresses, 0), Cluster(addresses, 1), stray])
    assert "The chief has other addresses than this worker" in str(errors[2])
    assert f"Worker 2 ({addresses[2]}) has not connected" in str(errors[0])
