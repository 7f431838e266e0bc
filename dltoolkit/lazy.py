"""Submodules that are imported on first use, so that ``--help`` does not wait for TensorFlow.

The ``__init__.py`` of a package holds ``__getattr__, __dir__ = submodules(__name__, __path__)``. Then
``from dltoolkit import data`` imports nothing, and ``data.split`` imports ``dltoolkit/data/split.py``. If the module
imports Keras or TensorFlow at its top, :func:`import_tensorflow` runs first: it checks the Keras backend and keeps the
startup messages of TensorFlow off the terminal.
"""

import contextlib
import importlib
import importlib.util
import logging
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Sequence

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
        UserError: If Keras is set to another backend than TensorFlow.
    """
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if "keras" in sys.modules:
        backend = sys.modules["keras"].config.backend()
    if backend != "tensorflow":
        raise UserError(
            f"dltoolkit runs Keras on TensorFlow, but the Keras backend is set to '{backend}'; "
            "unset KERAS_BACKEND or set it to 'tensorflow'."
        )
    if "keras" in sys.modules and "tensorflow" in sys.modules:
        return
    if os.environ.get(DEBUG_VARIABLE):
        import keras

        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from dltoolkit import progress  # imports Rich, which takes a noticeable part of the time of --help

    with progress.phase("Starting TensorFlow"), _discard_stderr():
        import keras  # noqa: F401
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns when a process calls predict of several models


@contextlib.contextmanager
def _discard_stderr() -> Iterator[None]:
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
        with contextlib.nullcontext() if os.environ.get(DEBUG_VARIABLE) else _discard_stderr():
            return importlib.import_module("keras_hub")
    except ImportError as error:
        raise UserError(f"This needs KerasHub ({error}): pip install 'dltoolkit[hub]'.") from None
