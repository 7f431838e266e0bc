"""Which processes train together: the standard ``TF_CONFIG``, or what Slurm says of the tasks of a step.

Importing this never imports TensorFlow, so that a run knows from the beginning whether it may write.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from dltoolkit.errors import UserError

EXAMPLE = '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", "index": 0}}'
SLURM_PORT = 12345  # of the first task on a machine; the others have the following ones


@dataclass(frozen=True)
class Cluster:
    """The workers of a training, of which this process is one.

    Attributes:
        addresses: ``host:port`` of each, two or more; the first is the chief's, who alone writes.
        index: this process' place among them.
    """

    addresses: tuple[str, ...]
    index: int


def current(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """Return the cluster that the environment describes, or None for a process that trains by itself.

    ``TF_CONFIG`` comes first, so that an empty one keeps a process out of what Slurm describes.

    Raises:
        UserError: if ``TF_CONFIG`` is malformed.
    """
    written = environment.get("TF_CONFIG")
    if written is not None:
        return _of_tf_config(written) if written.strip() else None
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return _of_slurm(environment)
    return None


def is_chief() -> bool:
    """Tell whether this process is the one that writes: the chief of its cluster, or one that trains by itself."""
    cluster = current()
    return cluster is None or cluster.index == 0


def _of_tf_config(written: str) -> Cluster | None:
    try:
        config = json.loads(written)
    except json.JSONDecodeError as error:
        raise _malformed(f"is no valid JSON ({error.msg})") from None
    if not isinstance(config, dict) or not isinstance(config.get("cluster", {}), dict):
        raise _malformed("names no cluster")
    jobs = config.get("cluster", {})
    if not jobs:
        return None
    for name in jobs:
        if name not in ("chief", "worker"):
            raise _malformed(f"names a '{name}', and there are only workers, of which one may be called chief")
    addresses = []
    for job in ("chief", "worker"):
        named = jobs.get(job, [])
        if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
            raise _malformed(f"gives {job} no list of addresses")
        addresses += named
    for address in addresses:
        _, _, port = address.rpartition(":")
        if not re.fullmatch(r"[^\s:/]+:\d+|\[[0-9a-fA-F:]+\]:\d+", address) or not 0 < int(port) < 65536:
            raise _malformed(f"has '{address}', which is no host:port")
        if addresses.count(address) > 1:
            raise _malformed(f"names {address} twice")
    if len(jobs.get("chief", [])) > 1:
        raise _malformed("names several chiefs")
    task = config.get("task")
    if not isinstance(task, dict) or task.get("type") not in jobs or not isinstance(task.get("index"), int):
        raise _malformed("does not say which task of the cluster this process is")
    if not 0 <= task["index"] < len(jobs[task["type"]]):
        raise _malformed(f"has no {task['type']} {task['index']}: they are counted from 0")
    index = task["index"] + (len(jobs.get("chief", [])) if task["type"] == "worker" else 0)
    return Cluster(tuple(addresses), index) if len(addresses) > 1 else None


def _malformed(what: str) -> UserError:
    return UserError(f"TF_CONFIG {what}; write it like {EXAMPLE}, or unset it to train by yourself.")


def _of_slurm(environment: Mapping[str, str]) -> Cluster:
    """TensorFlow's own resolver needs nvidia-smi, and takes machines in the order of the alphabet, not in Slurm's."""
    try:
        counts = []
        for part in environment["SLURM_STEP_TASKS_PER_NODE"].split(","):  # such as 2(x3),1
            count, times = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part).groups()
            counts += [int(count)] * int(times or 1)
        machines = zip(_hosts(environment["SLURM_STEP_NODELIST"]), counts, strict=True)
        addresses = [f"{host}:{SLURM_PORT + task}" for host, count in machines for task in range(count)]
        return Cluster(tuple(addresses), int(environment["SLURM_PROCID"]))
    except (KeyError, ValueError, AttributeError):
        raise UserError(
            "Slurm's variables do not say which tasks there are: set TF_CONFIG, or TF_CONFIG= for none."
        ) from None


def _hosts(written: str) -> list[str]:
    """The machines of a list such as ``gpu[01-03,7],login``."""
    hosts = []
    for name, ranges, rest in re.findall(r"([^,\[\]]+)(?:\[([\d,-]+)\])?([^,\[\]]*)", written):
        if not ranges:
            hosts.append(name + rest)
            continue
        for part in ranges.split(","):
            first, _, last = part.partition("-")
            numbers = range(int(first), int(last or first) + 1)
            hosts += [f"{name}{number:0{len(first)}d}{rest}" for number in numbers]
    return hosts
