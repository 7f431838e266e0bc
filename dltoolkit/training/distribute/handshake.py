"""The messages with which a worker and the chief prove to each other that they know the secret of the cluster.

Each message is a JSON object on a line of at most 4 KiB. The chief sends a challenge. The worker answers with its
index, a challenge of its own, and an HMAC of its message and the chief's challenge as the proof. When all workers have
come, or at the first problem, the chief answers with the problem or none, and its proof. The secret is never sent, and
no proof can be used twice. All functions raise ValueError for messages of another form.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dltoolkit import strict_json
from dltoolkit.cluster import Cluster

LINE_BYTES = 4096  # maximum length of a message
MAX_SOURCES = 32  # maximum number of IP addresses that a worker says it connects from


@dataclass(frozen=True)
class Request:
    """What a worker says about itself.

    Attributes:
        index: Its index.
        cluster: The digest of the addresses of its cluster.
        sources: IP addresses from which it connects to other workers.
        challenge: Its challenge.
    """

    index: int
    cluster: str
    sources: list[str]
    challenge: str


def new_challenge() -> str:
    """Return a random text that nobody has used before."""
    return secrets.token_hex(16)


def digest(cluster: Cluster) -> str:
    """Return a text that is equal for all workers that were given the same addresses."""
    return hashlib.sha256(json.dumps(cluster.addresses).encode()).hexdigest()


def challenge_message(challenge: str) -> bytes:
    """Return the first message of the chief."""
    return _encode({"challenge": challenge})


def parse_challenge(line: bytes) -> str:
    """Return the challenge in the chief's first message."""
    return _challenge(_decode(line))


def request_message(
    cluster: Cluster, key: bytes, chief_challenge: str, challenge: str, sources: Iterable[str]
) -> bytes:
    """Return the message of a worker."""
    request = Request(cluster.index, digest(cluster), sorted(sources)[:MAX_SOURCES], challenge)
    return _encode(vars(request) | {"proof": _proof(key, "worker", chief_challenge, *vars(request).values())})


def parse_request(line: bytes, key: bytes, chief_challenge: str) -> tuple[Request, bool]:
    """Return the message of a worker, and whether it proves that the worker knows the secret."""
    fields = _decode(line)
    index, cluster, sources = fields.get("index"), fields.get("cluster"), fields.get("sources")
    if type(index) is not int or not isinstance(cluster, str) or not isinstance(sources, list):
        raise ValueError("not a request")
    if len(sources) > MAX_SOURCES or not all(isinstance(source, str) for source in sources):
        raise ValueError("not a list of addresses")
    request = Request(index, cluster, sources, _challenge(fields))
    return request, _is_proof(fields, _proof(key, "worker", chief_challenge, *vars(request).values()))


def answer_message(key: bytes, challenge: str, problem: str | None) -> bytes:
    """Return the last message of the chief: the problem, or None if training can begin."""
    return _encode({"problem": problem, "proof": _proof(key, "chief", challenge, problem)})


def parse_answer(line: bytes, key: bytes, challenge: str) -> tuple[str | None, bool]:
    """Return the problem in the chief's last message, and whether it proves that the chief knows the secret."""
    fields = _decode(line)
    problem = fields.get("problem")
    if not isinstance(problem, str | None):
        raise ValueError("not an answer")
    return problem, _is_proof(fields, _proof(key, "chief", challenge, problem))


def receive_line(connection: socket.socket, deadline: float) -> bytes:
    """Return the next line of a connection, from which nothing else is read.

    Raises:
        TimeoutError: If it is not complete at the deadline, on the clock of :func:`time.monotonic`.
        ValueError: If it is too long, or the connection ends before.
    """
    line = b""
    while not line.endswith(b"\n"):
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        received = connection.recv(1)
        if not received or len(line) >= LINE_BYTES:
            raise ValueError("no line")
        if time.monotonic() > deadline:
            raise TimeoutError
        line += received
    return line


def _proof(key: bytes, *parts: Any) -> str:
    return hmac.new(key, json.dumps(parts).encode(), "sha256").hexdigest()


def _is_proof(fields: dict[str, Any], expected: str) -> bool:
    proof = fields.get("proof")
    return isinstance(proof, str) and hmac.compare_digest(proof.encode("utf-8", "replace"), expected.encode())


def _challenge(fields: dict[str, Any]) -> str:
    challenge = fields.get("challenge")
    if not isinstance(challenge, str) or not re.fullmatch("[0-9a-f]{32}", challenge):
        raise ValueError("no challenge")
    return challenge


def _encode(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _decode(line: bytes) -> dict[str, Any]:
    fields = strict_json.loads(line.decode())
    if not isinstance(fields, dict):
        raise ValueError("not an object")
    return fields
