"""``dltoolkit doctor``: versions, devices and folders of this machine, and whether each recipe trains here."""

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
from dltoolkit.cli.tables import print_table
from dltoolkit.errors import UserError, root_cause
from dltoolkit.formatting import counted

TRIAL = {"epochs": 1, "limit": 100, "batch_size": 32, "seed": 0, "max_time": 2.0}  # a few steps of every recipe
SMALL_NETWORKS = {  # options of recipes whose default network takes long to compile
    "image-gan": {"width": 8},
    "text-generator": {"limit": 20, "batch_size": 8, "layers": 1, "embedding_dim": 32, "sample_tokens": 20},
}


@click.command(epilog="Example: dltoolkit doctor")
def doctor() -> int:
    """Check this machine and train each recipe briefly.

    Prints versions, devices, memory and folders, and the result of a few training steps of each recipe.
    """
    lazy.import_tensorflow()
    import tensorflow as tf

    click.echo("This machine")
    devices = tf.config.list_physical_devices()
    print_table(
        [],
        [
            *_versions(),
            ["cpu cores", str(os.cpu_count())],
            *([device.name.removeprefix("/physical_device:"), _device_name(device)] for device in devices),
            ["memory", _memory()],
            ["disk here", f"{shutil.disk_usage('.').free / 1e9:.0f} GB free"],
        ],
    )
    click.echo("\nFolders")
    print_table(
        [], [[name, f"{path}{'' if path.exists() else '  (does not exist yet)'}"] for name, path in _folders().items()]
    )
    click.echo("\nA few training steps of each recipe on bundled data")
    with tempfile.TemporaryDirectory() as folder:
        names = sorted(recipe.names(), key=lambda name: name == "fine-tune")  # last: it continues from a run
        return max([try_recipe(name, Path(folder)) for name in names], default=0)


def try_recipe(name: str, folder: Path) -> int:
    """Train a recipe for a few steps and print the result; return the exit code, 1 if it does not train.

    Args:
        name: Name of the recipe.
        folder: Folder of the runs. A run of image-classifier in it is the backbone of fine-tune.
    """
    start = time.monotonic()
    options = TRIAL | SMALL_NETWORKS.get(name, {}) | {"out_dir": str(folder)}
    if name == "fine-tune" and (runs := sorted(folder.glob("image-classifier/*/model.keras"))):
        options["backbone"] = str(runs[0].parent)
    try:
        module = recipe.load(name)
        run = module.train(module.Config(**options))
    except UserError as error:
        click.echo(f"{name:20} failed: {error}")
        return 1
    except Exception as error:  # of any kind: the doctor reports it and tries the next recipe
        click.echo(f"{name:20} failed: {type(error).__name__}: {root_cause(error)}")
        return 1
    steps = run.info["plan"]["steps"]
    click.echo(f"{name:20} works: {counted(steps, 'step')}, evaluation and report in {time.monotonic() - start:.1f} s")
    return 0


def _versions() -> list[list[str]]:
    import keras
    import tensorflow as tf

    return [
        ["dltoolkit", dltoolkit.__version__],
        ["python", f"{platform.python_version()} on {platform.platform()}"],
        ["tensorflow", tf.__version__],
        ["keras", f"{keras.__version__} on {keras.config.backend()}"],
    ]


def _device_name(device: object) -> str:
    import tensorflow as tf

    if device.device_type != "GPU":
        return ""
    return tf.config.experimental.get_device_details(device).get("device_name", "")


def _memory() -> str:
    try:
        free, total = (os.sysconf(name) * os.sysconf("SC_PAGE_SIZE") for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"))
        return f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    except (ValueError, OSError):
        return "unknown"


def _folders() -> dict[str, Path]:
    keras_home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    return {
        "runs": Path("saved_models").resolve(),
        "TFDS data sets": Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser(),
        "Keras data sets": keras_home / "datasets",
        "Keras weights": keras_home / "models",
        "cached images and tokens": Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "dltoolkit",
    }
