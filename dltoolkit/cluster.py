"""The processes that train together, as described by ``TF_CONFIG`` or by Slurm.

This module does not import TensorFlow, so that a run knows from the start whether its process may write files.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from dltoolkit.errors import UserError, json_error

EXAMPLE = '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", "index": 0}}'
SLURM_PORT = 12345  # port of the first Slurm task on a machine; each further task takes the next port
TASK_TYPES = ("chief", "worker")  # the task types of TF_CONFIG that this package supports, in the order of their ranks


@dataclass(frozen=True)
class Cluster:
    """The workers of a training run, one of which is this process.

    Attributes:
        addresses: ``host:port`` of each of the two or more workers. The first is the chief, which writes the files.
        index: Position of this process among them.
    """

    addresses: tuple[str, ...]
    index: int


def current(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """Return the cluster that the environment describes, or None for a process that trains without others.

    ``TF_CONFIG`` takes precedence over Slurm's variables. An empty ``TF_CONFIG`` means that there is no cluster.

    Raises:
        UserError: If ``TF_CONFIG`` is malformed.
    """
    tf_config = environment.get("TF_CONFIG")
    if tf_config is not None:
        return _from_tf_config(tf_config) if tf_config.strip() else None
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return _from_slurm(environment)
    return None


def is_chief() -> bool:
    """Return whether this process writes the run's files: the chief of a cluster, or a process without a cluster."""
    cluster = current()
    return cluster is None or cluster.index == 0


def _from_tf_config(text: str) -> Cluster | None:
    try:
        config = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _malformed(f"is not valid JSON ({json_error(error)})") from None
    if not isinstance(config, dict) or not isinstance(config.get("cluster", {}), dict):
        raise _malformed("does not describe a cluster")
    tasks = config.get("cluster", {})
    if not tasks:
        return None
    for task_type in tasks:
        if task_type not in TASK_TYPES:
            raise _malformed(f"has the task type '{task_type}', but only workers and one chief are supported")
    addresses = []
    for task_type in TASK_TYPES:
        of_type = tasks.get(task_type, [])
        if not isinstance(of_type, list) or not all(isinstance(address, str) for address in of_type):
            raise _malformed(f"does not give a list of addresses for '{task_type}'")
        addresses += of_type
    for address in addresses:
        _, _, port = address.rpartition(":")
        if not re.fullmatch(r"[^\s:/]+:\d+|\[[0-9a-fA-F:]+\]:\d+", address) or not 0 < int(port) < 65536:
            raise _malformed(f"has the address '{address}', which is not of the form host:port")
        if addresses.count(address) > 1:
            raise _malformed(f"lists {address} twice")
    if len(tasks.get("chief", [])) > 1:
        raise _malformed("lists more than one chief")
    task = config.get("task")
    if not isinstance(task, dict) or task.get("type") not in tasks or not isinstance(task.get("index"), int):
        raise _malformed("does not say which task of the cluster this process is")
    if not 0 <= task["index"] < len(tasks[task["type"]]):
        raise _malformed(f"does not list a {task['type']} {task['index']} (indices start at 0)")
    index = task["index"] + (len(tasks.get("chief", [])) if task["type"] == "worker" else 0)
    return Cluster(tuple(addresses), index) if len(addresses) > 1 else None


def _malformed(problem: str) -> UserError:
    return UserError(f"TF_CONFIG {problem}; write it like {EXAMPLE}, or unset it to train in a single process.")


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    """Return the cluster of a Slurm step.

    TensorFlow's own resolver requires nvidia-smi, and sorts the machines by name instead of keeping Slurm's order.
    """
    try:
        counts = []
        for group in environment["SLURM_STEP_TASKS_PER_NODE"].split(","):  # such as 2(x3),1
            count, times = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", group).groups()
            counts += [int(count)] * int(times or 1)
        machines = zip(_hosts(environment["SLURM_STEP_NODELIST"]), counts, strict=True)
        addresses = [f"{host}:{SLURM_PORT + task}" for host, count in machines for task in range(count)]
        return Cluster(tuple(addresses), int(environment["SLURM_PROCID"]))
    except (KeyError, ValueError, AttributeError):
        raise UserError(
            "Slurm's variables do not describe the tasks of this step: set TF_CONFIG, or set TF_CONFIG= to train "
            "in a single process."
        ) from None


def _hosts(node_list: str) -> list[str]:
    """Return the hosts of a Slurm node list such as ``gpu[01-03,7],login``."""
    hosts = []
    for name, ranges, rest in re.findall(r"([^,\[\]]+)(?:\[([\d,-]+)\])?([^,\[\]]*)", node_list):
        if not ranges:
            hosts.append(name + rest)
            continue
        for bounds in ranges.split(","):
            first, _, last = bounds.partition("-")
            numbers = range(int(first), int(last or first) + 1)
            hosts += [f"{name}{number:0{len(first)}d}{rest}" for number in numbers]
    return hosts
