"""Data sets that Keras downloads, read from its folder or refused without a network."""

import gzip
import os
import subprocess
import sys
import textwrap

import numpy as np

from dltoolkit.data.readers import catalog

CLOSED = "http://127.0.0.1:9"  # nothing listens on the port of the discard service


def test_load_reads_local_files_and_refuses_missing_ones(tmp_path):
    """Run in another process, because Keras reads KERAS_HOME only once."""
    folder = tmp_path / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True)
    for name, count in (("train", 40), ("t10k", 10)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        with gzip.open(folder / f"{name}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(b"\0" * 8 + labels.tobytes())
        with gzip.open(folder / f"{name}-images-idx3-ubyte.gz", "wb") as file:
            file.write(b"\0" * 16 + pixels.tobytes())
    code = """
        import socket
        import urllib.request
        from dltoolkit.data.image import dataset
        from dltoolkit.errors import UserError
        splits = dataset.load("keras:fashion_mnist")
        print(splits.images.shape, splits.counts(), splits.classes[0])
        try: dataset.load("keras:mnist")
        except UserError as error: print(error)
        print(socket.getdefaulttimeout(), urllib.request._opener)
    """
    environment = {**os.environ, "KERAS_HOME": str(tmp_path), "http_proxy": CLOSED, "https_proxy": CLOSED}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=environment, check=True
    )
    loaded, refused, settings = done.stdout.splitlines()
    assert loaded == "(50, 28, 28, 1) {'train': 30, 'validation': 10, 'test': 10} T-shirt/top"
    assert refused.startswith(f"keras:mnist is not in {tmp_path}/datasets and cannot be downloaded (the host does not")
    assert "give data a folder" in refused
    assert settings == "None None"  # the global settings are restored


def test_keras_classes_are_complete():
    assert {name: len(set(classes)) for name, classes in catalog.KERAS_CLASSES.items()} == {
        "mnist": 10,
        "fashion_mnist": 10,
        "cifar10": 10,
        "cifar100": 100,
    }
