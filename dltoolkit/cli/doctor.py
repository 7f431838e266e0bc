"""``dltoolkit doctor``: what this machine has, where files are looked for, and whether training works here."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from pathlib import Path

import click

import dltoolkit
from dltoolkit import lazy, recipe
from dltoolkit.cli import output
from dltoolkit.errors import UserError, gist

TRIAL = {"epochs": 1, "limit": 200, "batch_size": 32, "seed": 0}  # enough for a few steps of every recipe


def run() -> int:
    """Print the findings and try every recipe; return the exit code, 1 if a recipe does not train."""
    lazy.import_tensorflow()
    import keras
    import tensorflow as tf

    click.echo("This machine")
    rows = [
        ["dltoolkit", dltoolkit.__version__],
        ["python", f"{platform.python_version()} on {platform.platform()}"],
        ["tensorflow", tf.__version__],
        ["keras", f"{keras.__version__} on {keras.config.backend()}"],
        ["cpu cores", str(os.cpu_count())],
        *(
            [device.name.removeprefix("/physical_device:"), _device_name(device)]
            for device in tf.config.list_physical_devices()
        ),
        ["memory", _memory()],
        ["disk here", f"{shutil.disk_usage('.').free / 1e9:.0f} GB free"],
    ]
    output.table([], rows)
    click.echo("\nWhere files are looked for")
    output.table(
        [], [[what, f"{path}{'' if path.exists() else '  (not there yet)'}"] for what, path in _folders().items()]
    )
    click.echo("\nA few training steps of each recipe, on bundled data")
    return max([_try(name) for name in recipe.names()], default=0)


def _try(name: str) -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            module = recipe.load(name)
            finished = module.train(module.Config(**TRIAL, out_dir=folder))
        except UserError as error:
            click.echo(f"{name:20} failed: {error}")
            return 1
        except Exception as error:  # whatever it is, the doctor must go on to the next recipe and say it
            click.echo(f"{name:20} failed: {type(error).__name__}: {gist(error)}")
            return 1
    steps = finished.info["plan"]["steps"]
    click.echo(f"{name:20} works: {steps} steps, measured and reported in {time.monotonic() - began:.1f} s")
    return 0


def _device_name(device: object) -> str:
    import tensorflow as tf

    return (
        tf.config.experimental.get_device_details(device).get("device_name", "") if device.device_type == "GPU" else ""
    )


def _memory() -> str:
    try:
        free, whole = (os.sysconf(name) * os.sysconf("SC_PAGE_SIZE") for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"))
        return f"{free / 1e9:.1f} of {whole / 1e9:.1f} GB free"
    except (ValueError, OSError):
        return "unknown"


def _folders() -> dict[str, Path]:
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    return {
        "runs": Path("saved_models").resolve(),
        "TFDS data sets": Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser(),
        "Keras data sets": home / "datasets",
        "Keras weights": home / "models",
        "decoded pictures, tokens": Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "dltoolkit",
    }
