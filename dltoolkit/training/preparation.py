"""The order of the first steps of a training: wrong data are refused before TensorFlow is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from dltoolkit import lazy, machine, progress
from dltoolkit.config import RunConfig
from dltoolkit.data.readers import source

Splits = TypeVar("Splits")


def read_data(config: RunConfig, build_data: Callable[[], Splits], needs_tensorflow: bool = False) -> Splits:
    """Read the data, start TensorFlow and set its devices, in the order that answers a mistake soonest.

    Reading comes first, so that wrong folders, encodings and labels are refused within a second. Data that TensorFlow
    itself reads come last, because the devices must be set before it starts.

    Args:
        config: Options with ``data`` and ``device``.
        build_data: Reads the data.
        needs_tensorflow: Whether ``build_data`` runs TensorFlow. Reading a TFDS data set always does, and objects of a
            program may be tensors.

    Raises:
        UserError: If the device or the data are wrong.
    """
    machine.parse_device(config.device)
    if not needs_tensorflow and source.resolve(config.data).kind not in ("tfds", "object"):
        with progress.phase(f"Reading {config.data}"):
            splits = build_data()
        start(config)
        return splits
    start(config)
    with progress.phase("Reading the data"):
        return build_data()


def start(config: RunConfig) -> None:
    """Import TensorFlow and set its devices."""
    with progress.phase("Starting TensorFlow"):
        lazy.import_tensorflow()
        from dltoolkit.training.distribute import strategy

        strategy.devices(config.device)
