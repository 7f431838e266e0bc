"""The processes that train together, as described by ``TF_CONFIG`` or by Slurm.

This module does not import TensorFlow, so that a run knows from the start whether its process may write files.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from dltoolkit import strict_json
from dltoolkit.errors import UserError

EXAMPLE = '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", "index": 0}}'
SLURM_PORT = 12345  # port of the first Slurm task on a machine; each further task takes the next port
TASK_TYPES = ("chief", "worker")  # the task types of TF_CONFIG that this package supports, in the order of their ranks
MAX_WORKERS = 4096  # far more workers than MultiWorkerMirroredStrategy can use; a larger number is a mistake
TOKEN_VARIABLE = "DLTOOLKIT_CLUSTER_TOKEN"  # environment variable with the secret that all workers share
MIN_TOKEN_LENGTH = 16  # characters that a secret needs, so that nobody who listens to a proof of it can guess it
TRUST_VARIABLE = "DLTOOLKIT_TRUST_NETWORK"  # environment variable that is 1 if any program may connect to the workers


@dataclass(frozen=True)
class Cluster:
    """The workers of a training run, one of which is this process.

    Attributes:
        addresses: ``host:port`` of each of the two or more workers. The first is the chief, which writes the files.
        index: Position of this process among them.
    """

    addresses: tuple[str, ...]
    index: int

    def host(self, index: int) -> str:
        """Return the host name or IP address of a worker, an IPv6 address without brackets."""
        return self.addresses[index].rpartition(":")[0].strip("[]")

    def port(self, index: int) -> int:
        """Return the port of a worker."""
        return int(self.addresses[index].rpartition(":")[2])


def current(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """Return the cluster that the environment describes, or None for a process that trains without others.

    ``TF_CONFIG`` takes precedence over Slurm's variables. An empty ``TF_CONFIG`` means that there is no cluster.

    Raises:
        UserError: If ``TF_CONFIG`` is malformed.
    """
    tf_config = environment.get("TF_CONFIG")
    if tf_config is not None:
        return _from_tf_config(tf_config) if tf_config.strip() else None
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or "1"
    return None if tasks == "1" else _from_slurm(environment, tasks)


def secret(environment: Mapping[str, str] = os.environ) -> tuple[bytes, bool]:
    """Return the key with which the workers prove that they belong together, and whether only they know it.

    Without ``$DLTOOLKIT_CLUSTER_TOKEN``, the key is a hash of Slurm's job and step, which keeps other jobs out, but not
    somebody who means to come in.

    Raises:
        UserError: If the token is too short.
    """
    token = environment.get(TOKEN_VARIABLE, "")
    if token and len(token) < MIN_TOKEN_LENGTH:
        raise UserError(
            f"{TOKEN_VARIABLE} has {len(token)} characters, but a secret needs at least {MIN_TOKEN_LENGTH}: make one "
            "with 'openssl rand -hex 16', and give it to all workers."
        )
    job = [environment.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID")]
    return hashlib.sha256(json.dumps([token] if token else job).encode()).digest(), bool(token)


def trusts_network(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the user lets any program connect to the workers.

    Raises:
        UserError: If ``$DLTOOLKIT_TRUST_NETWORK`` is neither 0 nor 1.
    """
    value = environment.get(TRUST_VARIABLE, "")
    if value not in ("", "0", "1"):
        raise UserError(f"{TRUST_VARIABLE} must be 1 or 0, not '{value}'.")
    return value == "1"


def is_chief() -> bool:
    """Return whether this process writes the run's files: the chief of a cluster, or a process without a cluster.

    A malformed description, which may be left over from other work, matters to training only, which refuses it.
    """
    try:
        cluster = current()
    except UserError:
        return True
    return cluster is None or cluster.index == 0


def _from_tf_config(text: str) -> Cluster | None:
    try:
        config = strict_json.loads(text)
    except strict_json.InvalidJSON as error:
        raise _malformed(f"is not valid JSON ({error})") from None
    if not isinstance(config, dict) or not isinstance(config.get("cluster", {}), dict):
        raise _malformed("does not describe a cluster")
    tasks = config.get("cluster", {})
    if not tasks:
        return None
    addresses = []
    for task_type in tasks:
        if task_type not in TASK_TYPES:
            raise _malformed(f"has the task type {_quoted(task_type)}, but only workers and one chief are supported")
    for task_type in TASK_TYPES:
        of_type = tasks.get(task_type, [])
        if not isinstance(of_type, list) or not all(isinstance(address, str) for address in of_type):
            raise _malformed(f"does not give a list of addresses for '{task_type}'")
        addresses += of_type
    if len(addresses) > MAX_WORKERS:
        raise _malformed(f"lists {len(addresses)} workers, but at most {MAX_WORKERS} are supported")
    seen = set()
    for address in addresses:
        if (canonical := _canonical(address)) in seen:
            raise _malformed(f"lists {address} twice")
        seen.add(canonical)
    chiefs = len(tasks.get("chief", []))
    if chiefs > 1:
        raise _malformed("lists more than one chief")
    task = config.get("task")
    task_type, index = (task.get("type"), task.get("index")) if isinstance(task, dict) else (None, None)
    if not isinstance(task_type, str) or task_type not in tasks or type(index) is not int:
        raise _malformed("does not say which task of the cluster this process is")
    if not 0 <= index < len(tasks[task_type]):
        raise _malformed(f"does not list a {task_type} {_quoted(index)} (indices start at 0)")
    index += chiefs if task_type == "worker" else 0
    return Cluster(tuple(addresses), index) if len(addresses) > 1 else None


def _canonical(address: str) -> tuple[str, int]:
    """Return host and port of an address, equal for two spellings of one address."""
    match = re.fullmatch(r"(?:([A-Za-z0-9._-]{1,253})|\[([0-9A-Fa-f:.]{2,45})\]):([0-9]{1,5})", address)
    if match and 0 < int(match[3]) < 65536:
        host = (match[1] or match[2]).lower()
        try:
            host = str(ipaddress.ip_address(host))
        except ValueError:
            match = match if match[1] else None  # brackets hold an IPv6 address, but a name need not be an address
        if match and host not in ("0.0.0.0", "::"):
            return host, int(match[3])
        if match:
            raise _malformed(f"has the address {_quoted(address)}, which does not say which machine is meant")
    raise _malformed(f"has the address {_quoted(address)}, which is not of the form host:port")


def _quoted(value: object) -> str:
    """Return a value for a message, in quotes if it is text, and shortened if it is long."""
    text = str(value) if len(str(value)) <= 60 else f"{str(value)[:59]}…"
    return f"'{text}'" if isinstance(value, str) else text


def _malformed(problem: str) -> UserError:
    return UserError(f"TF_CONFIG {problem}; write it like {EXAMPLE}, or unset it to train in a single process.")


def _from_slurm(environment: Mapping[str, str], tasks: str) -> Cluster:
    """Return the cluster of a Slurm step.

    TensorFlow's own resolver requires nvidia-smi, and sorts the machines by name instead of keeping Slurm's order.
    """
    problem = f"SLURM_STEP_NUM_TASKS={_quoted(tasks)}"
    try:
        workers = _integer(tasks)
        if not 1 < workers <= MAX_WORKERS:
            raise ValueError
        problem = "SLURM_STEP_NUM_TASKS, SLURM_STEP_TASKS_PER_NODE, SLURM_STEP_NODELIST"
        counts = []
        for group in environment["SLURM_STEP_TASKS_PER_NODE"].split(","):  # such as 2(x3),1
            count, times = re.fullmatch(r"([^()]+)(?:\(x([^()]+)\))?", group).groups()
            counts += [_integer(count)] * min(_integer(times or "1"), MAX_WORKERS + 1)
        if sum(counts) != workers:
            raise ValueError
        hosts = list(islice(_hosts(environment["SLURM_STEP_NODELIST"]), MAX_WORKERS + 1))
        machines = zip(hosts, counts, strict=True)
        addresses = [f"{host}:{SLURM_PORT + task}" for host, count in machines for task in range(count)]
        if len(set(addresses)) < workers:
            raise ValueError
        problem = "SLURM_PROCID"
        index = _integer(environment["SLURM_PROCID"])
        if index >= workers:
            raise ValueError
        return Cluster(tuple(addresses), index)
    except (KeyError, ValueError, AttributeError, RecursionError):
        raise UserError(
            f"Slurm's variables do not describe the tasks of this step ({problem}): set TF_CONFIG, or set TF_CONFIG= "
            "to train in a single process."
        ) from None


def _integer(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(text)
    return int(text)


def _hosts(node_list: str) -> Iterator[str]:
    """Yield the hosts of a Slurm node list such as ``gpu[01-03,7],rack[1-2]node[1-4],login``."""
    names = re.findall(r"(?:[A-Za-z0-9._-]|\[[0-9,-]+\])+", node_list)
    if ",".join(names) != node_list:
        raise ValueError(node_list)
    for name in names:
        yield from _expand(name)


def _expand(name: str) -> Iterator[str]:
    prefix, bracket, rest = name.partition("[")
    if not bracket:
        yield name
        return
    ranges, _, rest = rest.partition("]")
    for bounds in ranges.split(","):
        first, dash, last = bounds.partition("-")
        numbers = range(_integer(first), _integer(last if dash else first) + 1)
        if not 0 < len(numbers) <= MAX_WORKERS:
            raise ValueError(bounds)
        for number in numbers:
            yield from (f"{prefix}{number:0{len(first)}d}{end}" for end in _expand(rest))
