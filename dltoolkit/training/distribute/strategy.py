"""Where the arithmetic runs and in which number format: ``--device``, ``--precision`` and ``--xla``."""

from __future__ import annotations

import functools
import os
import re
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from dltoolkit import cluster, progress
from dltoolkit.cluster import Cluster
from dltoolkit.errors import UserError
from dltoolkit.training.distribute import rendezvous as meeting


@dataclass(frozen=True)
class Devices:
    """The devices of a run.

    Attributes:
        strategy: the tf.distribute strategy to build and train in.
        kind: ``cpu``, ``gpu`` or ``tpu``.
        replicas: how many copies of the model work on a batch together, over all workers.
        workers: how many processes have them.
        chief: whether this process is the one of them that writes.
    """

    strategy: tf.distribute.Strategy
    kind: str
    replicas: int
    workers: int = 1
    chief: bool = True

    @property
    def mirrored(self) -> bool:
        """Whether Keras cannot have XLA compile its step, nor several steps in a call."""
        return self.replicas > 1 and self.kind != "tpu"


def devices(device: str) -> Devices:
    """Turn ``--device`` into devices: auto, cpu, cpu:N, gpu, gpu:I,J, tpu or tpu:NAME; of each worker of a cluster.

    The first call of a process must come before anything else starts TensorFlow. In a cluster it returns when all
    workers are there.

    Raises:
        UserError: if the wording is unknown, there is no such device on this machine, or the workers do not come.
    """
    form = re.fullmatch(r"(auto|cpu|gpu|tpu)(?::(.+))?", device.strip().lower())
    if not form or (form[1] == "auto" and form[2]):
        raise UserError(f"'{device}' is no device: use auto, cpu, cpu:2, gpu, gpu:0,1, tpu or tpu:NAME.")
    kind, which = form.groups()
    together = cluster.current()
    if together and (kind == "tpu" or (kind == "cpu" and which)):
        raise UserError(f"--device {device} is for one process: with several workers use cpu, gpu or gpu:0,1.")
    if kind == "tpu":
        return _tpu(device.strip()[4:])
    gpus = tf.config.list_physical_devices("GPU")
    if kind == "auto" and not gpus:
        _say_once("TensorFlow sees no GPU here: the CPU trains.")
    if kind == "cpu" or (kind == "auto" and not gpus):
        return _workers(together) if together else _cpu(which)
    chosen = _chosen(gpus, which)
    return _workers(together, *chosen) if together else _gpu(gpus, chosen)


@functools.cache
def _workers(together: Cluster, *chosen: int) -> Devices:
    """Connect this process and these GPUs of it with the others; once, for TensorFlow takes no second cluster."""
    meeting.wait_for_workers(together)
    gpus = tf.config.list_physical_devices("GPU")
    tf.config.set_visible_devices([gpus[number] for number in chosen], "GPU")
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": together.addresses}),
        task_type="worker",
        task_id=together.index,
        rpc_layer="grpc",
        num_accelerators={"GPU": len(chosen)},
    )
    strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # TensorFlow has put its own in its place
    workers, kind = len(together.addresses), "gpu" if chosen else "cpu"
    return Devices(strategy, kind, strategy.num_replicas_in_sync, workers, together.index == 0)


@functools.cache
def _say_once(what: str) -> None:
    progress.note(what)


def _cpu(count: str | None) -> Devices:
    if count is None:
        return Devices(_only([], "/cpu:0"), "cpu", 1)
    if not count.isdigit() or not 1 <= int(count) <= 64:
        raise UserError(f"'cpu:{count}' is no device: write how many logical CPUs to use, such as cpu:2.")
    wanted = int(count)
    physical = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(physical, [tf.config.LogicalDeviceConfiguration()] * wanted)
    except RuntimeError:  # TensorFlow has started: what it started with must do
        if len(tf.config.list_logical_devices("CPU")) != wanted:
            raise UserError(
                f"TensorFlow has already started with {len(tf.config.list_logical_devices('CPU'))} logical CPU(s); "
                f"use cpu:{wanted} in a fresh process."
            ) from None
    if wanted == 1:
        return Devices(_only([], "/cpu:0"), "cpu", 1)
    return _mirrored("cpu", *range(wanted))


def _chosen(gpus: list, which: str | None) -> list[int]:
    """The numbers of the GPUs that ``gpu`` or ``gpu:I,J`` means, which take memory as they need it."""
    if not gpus:
        raise UserError(
            "There is no GPU that TensorFlow can use here; 'dltoolkit doctor' says what it sees. Use --device cpu."
        )
    chosen = list(range(len(gpus)))
    if which is not None:
        if not re.fullmatch(r"\d+(,\d+)*", which):
            raise UserError(f"'gpu:{which}' is no device: number the GPUs, such as gpu:0 or gpu:0,1.")
        chosen = [int(number) for number in which.split(",")]
        if max(chosen) >= len(gpus) or len(set(chosen)) < len(chosen):
            raise UserError(f"'gpu:{which}' does not fit this machine: its GPUs are numbered 0 to {len(gpus) - 1}.")
    for number in chosen:
        try:
            tf.config.experimental.set_memory_growth(gpus[number], True)
        except RuntimeError:
            break  # already initialised in this process
    return chosen


def _gpu(gpus: list, chosen: list[int]) -> Devices:
    if len(chosen) == 1:
        return Devices(_only([gpus[chosen[0]]], f"/gpu:{chosen[0]}"), "gpu", 1)
    return _mirrored("gpu", *chosen)


@functools.cache
def _mirrored(kind: str, *numbers: int) -> Devices:
    """One strategy for all trainings of a process: TensorFlow confuses the exchanges of two on the same devices."""
    strategy = tf.distribute.MirroredStrategy([f"{kind.upper()}:{number}" for number in numbers])
    return Devices(strategy, kind, len(numbers))


def _only(gpus: list, device: str) -> tf.distribute.Strategy:
    """Return the default strategy with only these GPUs in sight, or OneDeviceStrategy if TensorFlow has started.

    OneDeviceStrategy makes a new pass over a data set cost 0.1 s, which small data feel at every epoch.
    """
    try:
        tf.config.set_visible_devices(gpus, "GPU")
        return tf.distribute.get_strategy()
    except RuntimeError:
        if tf.config.get_visible_devices("GPU") == gpus:
            return tf.distribute.get_strategy()
        return tf.distribute.OneDeviceStrategy(device)


def _tpu(name: str) -> Devices:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name or "local")
        if name and name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except Exception as error:  # every failure here means that no TPU answers under that name
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"No TPU '{name or 'local'}' answers ({reason}).") from error
    strategy = tf.distribute.TPUStrategy(resolver)
    return Devices(strategy, "tpu", strategy.num_replicas_in_sync)


def shared_batch(batch_size: int, target: Devices, multiple: int = 1) -> int:
    """Return the largest batch size, up to this one, that all replicas can share equally.

    Args:
        batch_size: over all replicas together.
        target: whose replicas.
        multiple: of which each replica's part must be.

    Raises:
        UserError: if there is not an example for each.
    """
    if batch_size < target.replicas:
        raise UserError(
            f"{target.replicas} replicas cannot share a batch of {batch_size}: use a larger --batch-size, more data or "
            "fewer devices."
        )
    multiple *= target.replicas
    shared = max(multiple, batch_size - batch_size % multiple)
    if shared != batch_size and target.replicas > 1:
        progress.note(f"Batches of {shared} in place of {batch_size}, for {target.replicas} replicas to share.")
    return shared


def precision(wanted: str, target: Devices, *, compiled: bool = False, depthwise: bool = False) -> str:
    """Set Keras' number format and return its name: ``float32``, ``bfloat16`` or ``float16``.

    ``auto`` takes bfloat16 on a TPU, on a GPU of compute capability 8 or more, and on a CPU with bfloat16
    instructions (where convolutions measured 1.3 times faster, transformers 1.5 times), unless XLA compiles the step
    (``compiled``), whose products on a CPU measured 1.6 times slower in it, or the network may hold convolutions of
    each channel by itself (``depthwise``), with which MobileNetV2 measured 2.5 times slower; float16 on an older GPU
    with tensor cores (7.x); float32 elsewhere. Weights stay in float32.
    """
    chosen = wanted
    if wanted == "auto":
        chosen = "float32"
        if target.kind == "tpu" or (target.kind == "cpu" and not (compiled or depthwise) and _cpu_has_bfloat16()):
            chosen = "bfloat16"
        elif target.kind == "gpu":
            details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
            capability = details.get("compute_capability", (0, 0))
            chosen = "bfloat16" if capability >= (8, 0) else "float16" if capability >= (7, 0) else "float32"
    keras.config.set_dtype_policy("float32" if chosen == "float32" else f"mixed_{chosen}")
    return chosen


def xla(wanted: str, target: Devices, *, on_cpu: bool = False, varying: bool = False) -> bool:
    """Tell whether to compile the step with XLA.

    ``auto``: on a TPU yes; on a GPU, where steps measured two to seven times faster and compiling takes half a minute,
    unless shapes are ``varying``, each of which would be compiled; on a CPU where ``on_cpu`` says so, for oneDNN's
    convolutions measured two to three times faster there, and transformers slower.
    """
    if wanted != "auto":
        return wanted == "on"
    return on_cpu or target.kind == "tpu" or (target.kind == "gpu" and not varying)


def _cpu_has_bfloat16() -> bool:
    path = Path("/proc/cpuinfo")
    return os.name == "posix" and path.exists() and "avx512_bf16" in path.read_text()
