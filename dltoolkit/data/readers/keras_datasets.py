"""The data sets that Keras downloads itself. Keras is imported only to read one."""

import contextlib
import io
import os
from pathlib import Path

from dltoolkit import network
from dltoolkit.data.readers.arrays import SplitArrays
from dltoolkit.errors import UserError


def load(name: str) -> SplitArrays:
    """Read a data set of ``catalog.KERAS_CLASSES`` from ``$KERAS_HOME/datasets``, or download it.

    Raises:
        UserError: If it is not on this machine and cannot be downloaded.
    """
    import keras

    with network.fail_fast(), contextlib.redirect_stdout(io.StringIO()):  # Keras prints the progress of a download
        try:
            train, test = getattr(keras.datasets, name).load_data()
        except Exception as error:  # Keras raises a bare Exception when a download fails
            folder = Path(os.environ.get("KERAS_HOME", "~/.keras")) / "datasets"
            raise UserError(
                f"keras:{name} is not in {folder} and cannot be downloaded ({network.explain(error)}): check the "
                "connection, or give --data a folder of class folders, a table or an .npz file."
            ) from error
    return {"train": train, "test": test}
