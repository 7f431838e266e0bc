"""Submodules that are imported on first use, so that ``--help`` does not wait for TensorFlow.

The ``__init__.py`` of a package holds ``__getattr__, __dir__ = submodules(__name__, __path__)``. Then
``from dltoolkit import data`` imports nothing, and ``data.split`` imports ``dltoolkit/data/split.py``. If the module
imports Keras or TensorFlow at its top, :func:`import_tensorflow` runs first: it checks the Keras backend and keeps the
startup messages of TensorFlow off the terminal.
"""

import contextlib
import functools
import importlib
import importlib.util
import logging
import os
import pkgutil
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

from dltoolkit import keras_settings, machine
from dltoolkit.errors import UserError

DEBUG_VARIABLE = "DLTOOLKIT_DEBUG"  # environment variable that --debug sets; messages of TensorFlow are shown then


def submodules(package: str, path: Sequence[str]) -> tuple[Callable, Callable]:
    """Return ``__getattr__`` and ``__dir__`` for a package whose submodules are imported on first use.

    Args:
        package: The name of the package, ``__name__`` in its ``__init__.py``.
        path: The folders of the package, ``__path__`` in its ``__init__.py``.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(path))

    def load(name: str):
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        full_name = f"{package}.{name}"
        if full_name not in sys.modules and _imports_keras(full_name):
            import_tensorflow()
        return importlib.import_module(full_name)

    return load, lambda: names


def _imports_keras(module: str) -> bool:
    """Return whether a module imports Keras or TensorFlow at its top."""
    return source_imports_keras(importlib.util.find_spec(module).loader.get_source(module) or "")


def source_imports_keras(source: str) -> bool:
    """Return whether Python code imports Keras or TensorFlow at its top."""
    return re.search(r"^(import|from) (keras|tensorflow)\b", source, re.MULTILINE) is not None


def import_tensorflow() -> None:
    """Import TensorFlow and Keras without their startup messages.

    Raises:
        UserError: If Keras is set to another backend than TensorFlow, or its settings cannot be used.
    """
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if "keras" in sys.modules:
        backend = sys.modules["keras"].config.backend()
    if backend != "tensorflow":
        raise UserError(
            f"dltoolkit runs Keras on TensorFlow, but the Keras backend is set to '{backend}'; "
            "unset KERAS_BACKEND or set it to 'tensorflow'."
        )
    if "keras" in sys.modules:
        keras_settings.check_imported()
        if "tensorflow" in sys.modules and not os.environ.get(DEBUG_VARIABLE):
            _find_devices()
        return
    keras_settings.check_file()
    machine.check_address_space()
    from dltoolkit import progress  # imports Rich, which takes a noticeable part of the time of --help

    if os.environ.get(DEBUG_VARIABLE):
        import keras
    else:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with progress.phase("Starting TensorFlow"), discard_stderr():
            import keras  # noqa: F401
    keras_settings.use_defaults()


@functools.cache
def _find_devices() -> None:
    """Let a TensorFlow that the user has imported search for GPUs, about which it prints messages the first time."""
    with discard_stderr():
        sys.modules["tensorflow"].config.list_physical_devices()


class _WarningFilter(logging.Filter):
    """A filter that drops warnings while a block of :func:`quiet_tensorflow` runs.

    Attributes:
        open_blocks: Number of blocks that run now, in all threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open_blocks = 0
        self.lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        return self.open_blocks == 0 or record.levelno >= logging.ERROR

    def count(self, change: int) -> None:
        with self.lock:
            self.open_blocks += change


_warning_filter = _WarningFilter()


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Drop warnings of TensorFlow inside the block, such as that several models retrace a function.

    Outside of such blocks, TensorFlow warns as the user's program has set it. ``--debug`` shows all.
    """
    if os.environ.get(DEBUG_VARIABLE):
        yield
        return
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).addFilter(_warning_filter)  # has no effect if it is there already
    _warning_filter.count(1)
    try:
        yield
    finally:
        _warning_filter.count(-1)


@contextlib.contextmanager
def discard_stderr() -> Iterator[None]:
    """Redirect file descriptor 2 to the null device, because the C++ code of TensorFlow bypasses ``sys.stderr``."""
    sys.stderr.flush()
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def keras_hub():
    """Return the module ``keras_hub``, which is an extra and takes seconds to import.

    Raises:
        UserError: If it is not installed.
    """
    import_tensorflow()
    try:
        with contextlib.nullcontext() if os.environ.get(DEBUG_VARIABLE) else discard_stderr():
            return importlib.import_module("keras_hub")
    except ImportError as error:
        raise UserError(f"This needs KerasHub ({error}): pip install 'dltoolkit[hub]'.") from None
