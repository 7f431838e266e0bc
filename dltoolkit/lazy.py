"""Submodules that are imported when they are first used, so that `--help` never waits for TensorFlow.

A room's ``__init__.py`` says ``__getattr__, __dir__ = submodules(__name__, keras=["images"], plain=["split"])``;
then ``from dltoolkit import data`` costs nothing and ``data.images`` imports ``dltoolkit/data/images.py``.
Modules named under ``keras`` import Keras and TensorFlow at their top as usual: by then this gate has been
passed, which checks the Keras backend and keeps TensorFlow's start-up chatter off the terminal.
"""

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence

from dltoolkit.errors import UserError

DEBUG_VARIABLE = "DLTOOLKIT_DEBUG"  # set by --debug: nothing is hidden then


def submodules(package: str, *, keras: Sequence[str] = (), plain: Sequence[str] = ()) -> tuple[Callable, Callable]:
    """Return ``__getattr__`` and ``__dir__`` for a package whose submodules load on first use.

    Args:
        package: the package's name, ``__name__`` in its ``__init__.py``.
        keras: submodules that need Keras and TensorFlow, which are then imported first, quietly.
        plain: submodules that do without.
    """

    def load(name: str):
        if name in keras:
            import_tensorflow()
        elif name not in plain:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return importlib.import_module(f"{package}.{name}")

    return load, lambda: sorted([*keras, *plain])


def import_tensorflow() -> None:
    """Import TensorFlow and Keras once, quietly.

    Raises:
        UserError: if Keras is set to another backend than TensorFlow.
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
    with _stderr_to_nowhere():
        import keras  # noqa: F401
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of every second model that answers


@contextlib.contextmanager
def _stderr_to_nowhere() -> Iterator[None]:
    """Send file descriptor 2 to the null device: TensorFlow's C++ code writes there without asking Python."""
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
    """Return KerasHub, which is an extra and takes seconds to import.

    Raises:
        UserError: if it is not installed.
    """
    import_tensorflow()
    try:
        with contextlib.nullcontext() if os.environ.get(DEBUG_VARIABLE) else _stderr_to_nowhere():
            return importlib.import_module("keras_hub")
    except ImportError as error:
        raise UserError(f"This needs KerasHub ({error}): pip install 'dltoolkit[hub]'.") from None
