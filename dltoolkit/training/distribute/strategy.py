"""Devices, dtype policy and XLA, selected by ``--device``, ``--precision``, ``--xla`` and this machine."""

from __future__ import annotations

import functools
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from dltoolkit import cluster, machine, progress
from dltoolkit.cluster import Cluster
from dltoolkit.errors import UserError
from dltoolkit.training.distribute import connection_deadline, launcher_pipe, port_filter, rendezvous

# Environment variable with hosts that gRPC reaches without the proxy of http_proxy, through which workers would hang
NO_PROXY_VARIABLE = "no_grpc_proxy"
# Values of ONEDNN_MAX_CPU_ISA with which oneDNN has no bfloat16 instructions
ISAS_WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")


@dataclass(frozen=True)
class Devices:
    """The devices of a run.

    Attributes:
        strategy: The tf.distribute strategy in whose scope the model is built.
        kind: ``cpu``, ``gpu`` or ``tpu``.
        replicas: Number of copies of the model that share a batch, over all workers.
        workers: Number of processes.
        chief: Whether this process writes the run's files.
    """

    strategy: tf.distribute.Strategy
    kind: str
    replicas: int
    workers: int = 1
    chief: bool = True

    @property
    def mirrored(self) -> bool:
        """Whether Keras can neither compile a step with XLA nor run several steps per execution."""
        return self.replicas > 1 and self.kind != "tpu"


def devices(device: str) -> Devices:
    """Return the devices that ``--device`` selects: auto, cpu, cpu:N, gpu, gpu:I,J, tpu or tpu:NAME.

    In a cluster, the option applies to each worker, and the function returns when all workers have started. The first
    call of a process must come before anything else initializes the devices of TensorFlow.

    Raises:
        UserError: If the option is invalid, this machine has no such device, or a worker does not start.
    """
    kind, selection = machine.parse_device(device)
    workers = cluster.current()
    if workers and (kind == "tpu" or (kind == "cpu" and selection)):
        raise UserError(f"--device={device} needs a single process; with several workers use cpu, gpu or gpu:0,1.")
    if kind == "tpu":
        return _tpu(selection or "")
    gpus = tf.config.list_physical_devices("GPU")
    if kind == "auto" and not gpus:
        _note_once("TensorFlow finds no GPU: training on the CPU.")
    if kind == "cpu" or (kind == "auto" and not gpus):
        return _multi_worker(workers) if workers else _cpu(selection)
    selected = _select_gpus(gpus, selection)
    return _multi_worker(workers, *selected) if workers else _gpu(gpus, selected)


@functools.cache
def _multi_worker(workers: Cluster, *selected: int) -> Devices:
    """Connect this process and its selected GPUs with the other workers; TensorFlow accepts only one cluster."""
    launcher_pipe.stop_with_launcher()
    os.environ[NO_PROXY_VARIABLE] = ",".join(workers.host(index) for index in range(len(workers.addresses)))
    reserved = rendezvous.wait_for_workers(workers)
    if reserved:
        port_filter.keep(reserved)
    gpus = tf.config.list_physical_devices("GPU")
    tf.config.set_visible_devices([gpus[number] for number in selected], "GPU")
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": workers.addresses}),
        task_type="worker",
        task_id=workers.index,
        rpc_layer="grpc",
        num_accelerators={"GPU": len(selected)},
    )
    with connection_deadline.ends_process():
        strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    if reserved:
        port_filter.check(reserved)
    if threading.current_thread() is threading.main_thread():
        # restore the handler that TensorFlow has replaced in the process but not in Python
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    kind = "gpu" if selected else "cpu"
    return Devices(strategy, kind, strategy.num_replicas_in_sync, len(workers.addresses), workers.index == 0)


@functools.cache
def _note_once(message: str) -> None:
    progress.note(message)


def _cpu(count: str | None) -> Devices:
    if count is None:
        return Devices(_single_device([], "/cpu:0"), "cpu", 1)
    requested = int(count)
    physical = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(physical, [tf.config.LogicalDeviceConfiguration()] * requested)
    except RuntimeError:  # the devices are already initialized
        if len(tf.config.list_logical_devices("CPU")) != requested:
            raise UserError(
                f"TensorFlow has already started with {len(tf.config.list_logical_devices('CPU'))} logical CPU(s); "
                f"use cpu:{requested} in a new process."
            ) from None
    if requested == 1:
        return Devices(_single_device([], "/cpu:0"), "cpu", 1)
    return _mirrored("cpu", *range(requested))


def _select_gpus(gpus: list, selection: str | None) -> list[int]:
    """Return the numbers of the GPUs that ``gpu`` or ``gpu:I,J`` selects, and let their memory grow as needed."""
    if not gpus:
        raise UserError(
            "TensorFlow finds no GPU; 'dltoolkit doctor' lists the devices that it finds. Use --device=cpu."
        )
    selected = list(range(len(gpus)))
    if selection is not None:
        selected = [int(number) for number in selection.split(",")]
        if max(selected) >= len(gpus) or len(set(selected)) < len(selected):
            raise UserError(f"This machine has no 'gpu:{selection}': its GPUs are numbered 0 to {len(gpus) - 1}.")
    for number in selected:
        try:
            tf.config.experimental.set_memory_growth(gpus[number], True)
        except RuntimeError:
            break  # the devices are already initialized
    return selected


def _gpu(gpus: list, selected: list[int]) -> Devices:
    if len(selected) == 1:
        return Devices(_single_device([gpus[selected[0]]], f"/gpu:{selected[0]}"), "gpu", 1)
    return _mirrored("gpu", *selected)


@functools.cache
def _mirrored(kind: str, *numbers: int) -> Devices:
    """Return one strategy per process and devices: TensorFlow mixes up the all-reduces of two on the same devices."""
    strategy = tf.distribute.MirroredStrategy([f"{kind.upper()}:{number}" for number in numbers])
    return Devices(strategy, kind, len(numbers))


def _single_device(gpus: list, device: str) -> tf.distribute.Strategy:
    """Return the default strategy with only these GPUs visible, or OneDeviceStrategy if devices are initialized.

    OneDeviceStrategy takes 0.1 s more for each pass over a dataset, which is noticeable for small datasets.
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
    except Exception as error:  # any failure means that there is no TPU of this name
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"The TPU '{name or 'local'}' cannot be reached ({reason}); check its name, or use --device=auto."
        ) from error
    strategy = tf.distribute.TPUStrategy(resolver)
    return Devices(strategy, "tpu", strategy.num_replicas_in_sync)


def shared_batch_size(batch_size: int, devices: Devices, multiple: int = 1) -> int:
    """Return the largest batch size, not above ``batch_size``, that all replicas can share equally.

    Args:
        batch_size: Examples per step over all replicas.
        devices: The devices.
        multiple: Number that must divide each replica's part.

    Raises:
        UserError: If there are more replicas than examples in a batch.
    """
    if batch_size < devices.replicas:
        raise UserError(
            f"{devices.replicas} replicas cannot share a batch of {batch_size}: use a larger --batch-size, more data "
            "or fewer devices."
        )
    multiple *= devices.replicas
    shared = max(multiple, batch_size - batch_size % multiple)
    if shared != batch_size and devices.replicas > 1:
        progress.note(
            f"The batch size is {shared} instead of {batch_size}, so that {devices.replicas} replicas can share it."
        )
    return shared


def set_precision(precision: str, devices: Devices, *, xla: bool = False, depthwise: bool = False) -> str:
    """Set Keras' dtype policy, and return its compute dtype: ``float32``, ``bfloat16`` or ``float16``.

    The variables stay in float32. ``auto`` means bfloat16 on a TPU, on a GPU of compute capability 8 or more, and on a
    CPU with bfloat16 instructions, where convolutions measured 1.3 times and transformers 1.5 times faster; float16 on
    a GPU of compute capability 7.x; and float32 otherwise. On a CPU, ``auto`` also means float32 with XLA, whose matrix
    products in bfloat16 measured 1.6 times slower, and for depthwise convolutions, with which MobileNetV2 measured 2.5
    times slower. :meth:`dltoolkit.run.Run.session` restores the policy.

    Args:
        precision: The option ``--precision``.
        devices: The devices.
        xla: Whether XLA compiles the step.
        depthwise: Whether the network may contain depthwise convolutions.
    """
    dtype = precision
    if precision == "auto":
        dtype = "float32"
        if devices.kind == "tpu" or (devices.kind == "cpu" and not (xla or depthwise) and _cpu_has_bfloat16()):
            dtype = "bfloat16"
        elif devices.kind == "gpu":
            details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
            capability = details.get("compute_capability", (0, 0))
            dtype = "bfloat16" if capability >= (8, 0) else "float16" if capability >= (7, 0) else "float32"
    keras.config.set_dtype_policy("float32" if dtype == "float32" else f"mixed_{dtype}")
    return dtype


def use_xla(xla: str, devices: Devices, *, xla_on_cpu: bool = False, variable_shapes: bool = False) -> bool:
    """Return whether XLA compiles the training step.

    ``auto`` means yes on a TPU. On a GPU it means yes if the shapes are constant, because steps measured two to seven
    times faster, but each shape takes half a minute to compile. On a CPU it means yes if ``xla_on_cpu``, because
    transformers measured faster with XLA there, but convolutions two to three times slower.

    Args:
        xla: The option ``--xla``.
        devices: The devices.
        xla_on_cpu: Whether XLA is faster for this model on a CPU.
        variable_shapes: Whether batches differ in shape.
    """
    if xla != "auto":
        return xla == "on"
    return xla_on_cpu or devices.kind == "tpu" or (devices.kind == "gpu" and not variable_shapes)


def _cpu_has_bfloat16() -> bool:
    """Return whether TensorFlow uses oneDNN, and oneDNN the bfloat16 instructions of the processor."""
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower() in ("0", "false"):
        return False
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in ISAS_WITHOUT_BFLOAT16:
        return False
    path = Path("/proc/cpuinfo")
    return os.name == "posix" and path.exists() and "avx512_bf16" in path.read_text()
