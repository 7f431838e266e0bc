"""The speed of a file in its runtime, measured in a process of its own: ``python -m dltoolkit.export.speed FOLDER``."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit import machine
from dltoolkit.errors import UserError
from dltoolkit.export import trial

if TYPE_CHECKING:
    from dltoolkit.export.graphs import Graph

SECONDS = 0.5  # of each measurement
MIN_CALLS = 5
BATCH = 64  # inputs of a call when the number per second is measured
TIMEOUT = 300  # seconds after which the process is considered to hang


def measure(folder: Path) -> dict[str, float]:
    """Return the speed and the memory of an exported folder, in a new process.

    Returns:
        ``ms_1_thread`` and ``ms_2_threads`` for one input, ``per_second`` in batches of 64 with one thread per core,
        and ``peak_memory_mb`` of the process.

    Raises:
        UserError: If the process fails.
    """
    try:
        done = trial.run_module("dltoolkit.export.speed", str(folder), text=True, timeout=TIMEOUT, check=True)
        return json.loads(done.stdout)
    except subprocess.SubprocessError as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        raise UserError(f"The speed of the file could not be measured ({reason}).") from None


def of_graph(graph: Graph, inputs: list[dict[str, Any]], max_length: int | None = None) -> dict[str, float]:
    """Return the figures of :func:`measure` for a network as a ``tf.function`` in this process, which has all threads.

    Args:
        graph: The network.
        inputs: Its inputs, as export.json has them.
        max_length: Maximum number of tokens of a text; None for no limit.
    """

    def call(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [tensor.numpy() for tensor in graph.module.answer(*inputs.values()).values()]

    one, many = (example_inputs(inputs, graph.empty_state, count, max_length) for count in (1, BATCH))
    count = len(next(iter(many.values())))
    return {
        "ms_2_threads": of_function(call, one),
        "per_second": 1000 * count / of_function(call, many),
        "peak_memory_mb": _peak_memory_mb(),
    }


def of_function(call: Callable[[dict[str, np.ndarray]], Any], inputs: dict[str, np.ndarray]) -> float:
    """Return the median time of a call in milliseconds."""
    call(inputs)
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < MIN_CALLS or time.perf_counter() < end:
        start = time.perf_counter()
        call(inputs)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def example_inputs(
    inputs: list[dict[str, Any]], empty_state: dict[str, list[int]], count: int, max_length: int | None = None
) -> dict[str, np.ndarray]:
    """Return random inputs of a file.

    Args:
        inputs: The inputs, as export.json has them.
        empty_state: Shapes of the state of a language model, as preprocessing.json has them; empty for other models.
        count: Number of inputs; a language model gets one token of one text.
        max_length: Maximum number of tokens of a text; None for no limit.
    """
    rng, arrays = np.random.default_rng(0), {}
    tokens = trial.example_tokens(empty_state, max_length)
    for tensor in inputs:
        name, dtype, shape = tensor["name"], tensor["dtype"], list(tensor["shape"])
        if name in empty_state:
            arrays[name] = np.zeros(empty_state[name], np.float32)
            continue
        shape[0] = 1 if empty_state else count
        shape = [tokens if size is None else size for size in shape]
        if dtype == "float32":
            arrays[name] = rng.standard_normal(shape, np.float32)
        else:
            arrays[name] = rng.integers(0, 256 if dtype == "uint8" else 2, shape).astype(dtype)
    return arrays


def main(path: str) -> None:
    """Measure a folder and print the result as JSON."""
    from dltoolkit.export import exported, folder

    where = Path(path)
    info, steps = folder.read(where)
    max_length = steps.get("max_length") or steps.get("context_length")
    sizes = (info["inputs"], steps.get("empty_state", {}))
    one, many = (example_inputs(*sizes, count, max_length) for count in (1, BATCH))
    result = {}
    for threads, name in ((1, "ms_1_thread"), (2, "ms_2_threads")):
        result[name] = of_function(exported.open_session(where, info["runtime"], threads).run, one)
    count = len(next(iter(many.values())))
    result["per_second"] = 1000 * count / of_function(exported.open_session(where, info["runtime"]).run, many)
    result["peak_memory_mb"] = _peak_memory_mb()
    print(json.dumps(result))


def _peak_memory_mb() -> float:
    """Return the peak of the resident memory of this process; getrusage counts that of the parent before it too."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peak = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return int(peak) / 1024 if peak else machine.peak_memory_mb()


if __name__ == "__main__":
    main(sys.argv[1])
