"""Tests of the rendezvous of workers: any order, missing workers, ports in use, and strangers."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable

import pytest

from dltoolkit import cluster as clusters
from dltoolkit.cluster import TOKEN_VARIABLE, Cluster
from dltoolkit.errors import UserError
from dltoolkit.training.distribute import handshake, launch, rendezvous

KEY = "one secret for all workers"


def wait_for_all(members) -> dict[int, Exception | None]:
    """Call wait_for_workers for each cluster in its own thread, and return the errors by position."""
    errors: dict[int, Exception | None] = {}
    reserved = contextlib.ExitStack()

    def wait(position, worker):
        try:
            reserved.enter_context(rendezvous.wait_for_workers(worker) or contextlib.nullcontext())
            errors[position] = None
        except UserError as error:
            errors[position] = error

    threads = [threading.Thread(target=wait, args=pair, daemon=True) for pair in enumerate(members)]
    with reserved:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
    return errors


@pytest.fixture
def addresses(monkeypatch) -> tuple[str, ...]:
    monkeypatch.setenv(TOKEN_VARIABLE, KEY)
    return tuple(f"127.0.0.1:{port}" for port in launch.free_ports(3))


@pytest.fixture
def short_timeout(monkeypatch) -> None:
    monkeypatch.setenv(rendezvous.TIMEOUT_VARIABLE, "1s")


def connect_to_chief(addresses: tuple[str, ...]) -> socket.socket:
    """Connect to the chief as soon as it listens."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", int(addresses[0].rpartition(":")[2])), timeout=0.5)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def ask(connection: socket.socket, member: Cluster, sources: tuple[str, ...] = ()) -> str:
    """Send a worker's request, and return the challenge in it."""
    challenge, chief_challenge = handshake.new_challenge(), challenge_of_chief(connection)
    key, _ = clusters.secret()
    connection.sendall(handshake.request_message(member, key, chief_challenge, challenge, sources))
    return challenge


def challenge_of_chief(connection: socket.socket) -> str:
    return handshake.parse_challenge(handshake.receive_line(connection, time.monotonic() + 10))


def test_wait_for_workers_connects_workers_in_any_order(addresses):
    assert wait_for_all(Cluster(addresses, index) for index in (2, 0, 1)) == {0: None, 1: None, 2: None}
    with socket.create_server(("", int(addresses[0].rpartition(":")[2]))):
        pass  # the ports are free again


def test_wait_for_workers_accepts_a_restarted_worker(addresses):
    errors = {}
    chief = threading.Thread(target=lambda: errors.update(wait_for_all([Cluster(addresses, 0)])))
    chief.start()
    with connect_to_chief(addresses) as first:
        ask(first, Cluster(addresses, 1))
    assert wait_for_all(Cluster(addresses, index) for index in (1, 2)) == {0: None, 1: None}
    chief.join(timeout=10)
    assert errors == {0: None}


def test_wait_for_workers_names_a_missing_worker(addresses, short_timeout):
    errors = wait_for_all(Cluster(addresses, index) for index in (0, 2))
    assert f"Worker 1 ({addresses[1]}) has not connected" in str(errors[0])
    assert str(errors[1]) == str(errors[0]), "connected workers get the same message"


def test_wait_for_workers_names_a_missing_chief(addresses, short_timeout):
    errors = wait_for_all([Cluster(addresses, 1)])
    assert f"The chief, {addresses[0]}, cannot be reached" in str(errors[0])


@pytest.mark.parametrize("trust", ["0", "1"])
def test_wait_for_workers_names_a_port_in_use(addresses, monkeypatch, trust):
    monkeypatch.setenv(clusters.TRUST_VARIABLE, trust)
    port = int(addresses[1].rpartition(":")[2])
    with socket.create_server(("", port)), pytest.raises(UserError, match=f"Port {port} of this machine"):
        rendezvous.wait_for_workers(Cluster(addresses, 1))


def test_wait_for_workers_refuses_other_addresses(addresses, short_timeout):
    stray = Cluster((addresses[0], addresses[2]), 1)
    errors = wait_for_all([Cluster(addresses, 0), Cluster(addresses, 1), stray])
    assert "The chief has other addresses than this worker" in str(errors[2])
    assert f"Worker 2 ({addresses[2]}) has not connected" in str(errors[0])


def test_wait_for_workers_refuses_a_chief_on_another_machine(addresses):
    elsewhere = ("198.51.100.1:12345", addresses[1])
    with pytest.raises(UserError, match=r"198\.51\.100\.1, the host of worker 0, is not an address of this machine"):
        rendezvous.wait_for_workers(Cluster(elsewhere, 0))


def test_a_worker_that_does_not_know_a_host_does_not_join(addresses, short_timeout):
    unknown = (*addresses[:2], "no-such-host.invalid:12345")
    errors = wait_for_all(Cluster(unknown, index) for index in (0, 1))
    assert "The machine 'no-such-host.invalid' of worker 2 is unknown here" in str(errors[1])
    assert "Worker 1" in str(errors[0]) and "has not connected" in str(errors[0])


def deeply_nested(connection: socket.socket, addresses: tuple[str, ...]) -> None:
    connection.sendall(b"[" * 4000 + b"\n")


def too_long(connection: socket.socket, addresses: tuple[str, ...]) -> None:
    connection.sendall(b"[" * 100_000)


def endless(connection: socket.socket, addresses: tuple[str, ...]) -> None:
    for _ in range(10_000):
        connection.sendall(b"x" * 65536)


def slow(connection: socket.socket, addresses: tuple[str, ...]) -> None:
    for _ in range(1000):
        connection.sendall(b"[")
        time.sleep(0.2)


def idle(connection: socket.socket, addresses: tuple[str, ...]) -> None:
    others = [connect_to_chief(addresses) for _ in range(100)]
    time.sleep(3)
    for other in others:
        other.close()


def impostor(connection: socket.socket, addresses: tuple[str, ...]) -> None:
    """Answer as worker 1 with the proof for another challenge, such as one that was overheard."""
    key, _ = clusters.secret()
    challenge = handshake.new_challenge()
    request = handshake.request_message(Cluster(addresses, 1), key, handshake.new_challenge(), challenge, [])
    connection.sendall(request)
    time.sleep(3)


def wrong_types(connection: socket.socket, addresses: tuple[str, ...]) -> None:
    request = {"index": True, "cluster": [], "sources": {}, "challenge": 1, "proof": None}
    connection.sendall(json.dumps(request).encode() + b"\n")


@pytest.mark.parametrize(
    "stranger", [deeply_nested, too_long, endless, slow, idle, impostor, wrong_types], ids=lambda each: each.__name__
)
def test_a_stranger_neither_delays_nor_ends_the_rendezvous(addresses, monkeypatch, stranger):
    errors = {}
    chief = threading.Thread(target=lambda: errors.update(wait_for_all([Cluster(addresses, 0)])))
    chief.start()
    start_stranger(stranger, addresses)
    monkeypatch.setattr(rendezvous, "MESSAGE_SECONDS", 20.0)
    assert wait_for_all(Cluster(addresses, index) for index in (1, 2)) == {0: None, 1: None}
    chief.join(timeout=10)
    assert errors == {0: None}


def start_stranger(stranger: Callable, addresses: tuple[str, ...]) -> None:
    """Let a stranger that has connected to the chief work in a thread of its own."""
    connection = connect_to_chief(addresses)

    def work():
        with connection, contextlib.suppress(OSError):
            stranger(connection, addresses)

    threading.Thread(target=work, daemon=True).start()


@pytest.mark.parametrize("message", [b"[" * 4000 + b"\n", b"[" * 5000, b"[]\n", b'{"index": 1}\n', b"\xff\n", b""])
def test_the_chief_closes_the_connection_of_a_stranger(addresses, monkeypatch, message):
    monkeypatch.setattr(rendezvous, "MESSAGE_SECONDS", 20.0 if message else 0.1)
    chief = threading.Thread(target=wait_for_all, args=([Cluster(addresses, 0)],))
    chief.start()
    with connect_to_chief(addresses) as connection:
        connection.settimeout(10)
        challenge_of_chief(connection)
        connection.sendall(message)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    wait_for_all(Cluster(addresses, index) for index in (1, 2))
    chief.join(timeout=20)


def test_the_chief_closes_the_oldest_of_many_idle_connections(addresses, monkeypatch):
    monkeypatch.setattr(rendezvous, "MAX_UNKNOWN", 2)
    monkeypatch.setattr(rendezvous, "MESSAGE_SECONDS", 20.0)
    chief = threading.Thread(target=wait_for_all, args=([Cluster(addresses, 0)],))
    chief.start()
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect_to_chief(addresses)) for _ in range(8)]  # three more than 2 + 3
        for connection in connections:
            connection.settimeout(10)
            challenge_of_chief(connection)
        assert [connection.recv(1) for connection in connections[:3]] == [b""] * 3
        wait_for_all(Cluster(addresses, index) for index in (1, 2))
    chief.join(timeout=20)


def test_strangers_do_not_keep_the_chief_from_its_deadline(addresses, short_timeout):
    errors = {}
    chief = threading.Thread(target=lambda: errors.update(wait_for_all([Cluster(addresses, 0)])))
    chief.start()
    for stranger in (slow, endless, impostor):
        start_stranger(stranger, addresses)
    chief.join(timeout=20)
    assert "Worker 1" in str(errors[0]) and "did not know the secret" in str(errors[0])


def test_another_secret_is_named_on_both_sides(addresses, short_timeout):
    errors = {}
    chief = threading.Thread(target=lambda: errors.update(wait_for_all([Cluster(addresses, 0)])))
    with pytest.MonkeyPatch.context() as patch:
        chief.start()
        connect_to_chief(addresses).close()
        patch.setenv(TOKEN_VARIABLE, "another secret than the others")
        errors[1] = wait_for_all([Cluster(addresses, 1)])[0]
    chief.join(timeout=20)
    assert str(errors[1]).endswith(f"knows another secret: {rendezvous.SAME_SECRET}.")
    assert str(errors[0]).endswith(f"did not know the secret was refused: {rendezvous.SAME_SECRET}.")


@pytest.mark.parametrize(
    ("index", "sources", "problem"),
    [
        (1, ("10.9.9.9",), "Worker 1 connects from 10.9.9.9, which is not an address of 127.0.0.1"),
        (3, (), "The chief expects no worker with the index 3"),
        (0, (), "The chief expects no worker with the index 0"),
        (-1, (), "The chief expects no worker with the index -1"),
    ],
)
def test_the_chief_checks_what_a_worker_says(addresses, index, sources, problem):
    chief = threading.Thread(target=wait_for_all, args=([Cluster(addresses, 0)],))
    chief.start()
    key, _ = clusters.secret()
    with connect_to_chief(addresses) as connection:
        challenge = ask(connection, Cluster(addresses, index), sources)
        line = handshake.receive_line(connection, time.monotonic() + 10)
    answer, is_proven = handshake.parse_answer(line, key, challenge)
    assert is_proven and answer.startswith(problem)
    wait_for_all(Cluster(addresses, index) for index in (1, 2))
    chief.join(timeout=20)


def test_the_rendezvous_listens_only_on_the_address_of_tf_config(addresses):
    chief = threading.Thread(target=wait_for_all, args=([Cluster(addresses, 0)],))
    chief.start()
    connect_to_chief(addresses).close()
    with pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.2", int(addresses[0].rpartition(":")[2])), timeout=0.2)
    wait_for_all(Cluster(addresses, index) for index in (1, 2))
    chief.join(timeout=20)


def test_a_chief_that_knows_itself_by_a_loopback_address_listens_for_other_machines(addresses):
    mixed = (addresses[0].replace("127.0.0.1", "localhost"), "198.51.100.1:12345")
    errors = {}
    chief = threading.Thread(target=lambda: errors.update(wait_for_all([Cluster(mixed, 0)])))
    chief.start()
    connect_to_chief(addresses).close()
    port = int(addresses[0].rpartition(":")[2])
    with socket.create_connection(("127.0.0.2", port), timeout=5, source_address=("127.0.0.1", 0)) as connection:
        ask(connection, Cluster(mixed, 1))
        chief.join(timeout=20)
    assert errors == {0: None}


def test_a_worker_does_not_wait_for_a_program_that_is_not_the_chief(addresses, short_timeout):
    port = int(addresses[0].rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)) as server:
        accepted = []

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    accepted.append(connection)
                    connection.sendall(b"[" * 100_000)

        threading.Thread(target=answer, daemon=True).start()
        errors = wait_for_all([Cluster(addresses, 1)])
    assert "cannot be reached (another program answers)" in str(errors[0])


def test_a_short_secret_is_refused(addresses, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    with pytest.raises(UserError, match="DLTOOLKIT_CLUSTER_TOKEN has 6 characters"):
        rendezvous.wait_for_workers(Cluster(addresses, 0))


def test_without_a_token_the_secret_depends_on_the_job_of_slurm():
    job = {"SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0"}
    key, is_secret = clusters.secret(job)
    assert not is_secret
    assert key == clusters.secret(job)[0]
    assert key not in (clusters.secret({**job, "SLURM_JOB_ID": "18"})[0], clusters.secret({})[0])
    assert clusters.secret({TOKEN_VARIABLE: KEY})[1]
