"""The names of published data sets: those Keras downloads itself, and those TensorFlow Datasets (TFDS) can build.

Neither library is imported here, so telling whether a name is known takes milliseconds.
"""

import functools
import importlib.util
import os
import re
from pathlib import Path

_CLOTHES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
_CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
""".split()  # noqa: SIM905
KERAS_NAMES = {  # class names, in the order of the labels
    "mnist": list("0123456789"),
    "fashion_mnist": _CLOTHES,
    "cifar10": _CIFAR10,
    "cifar100": _CIFAR100,
}


def is_tfds_name(name: str) -> bool:
    """Return whether ``name`` (NAME, NAME/CONFIG, NAME:VERSION) is prepared here, or one that TFDS knows to build."""
    base = re.split("[/:]", name)[0]
    package = tfds_package()
    if package is None or not re.fullmatch(r"[a-z][a-z0-9_]*", base):
        return False
    return (
        (tfds_folder() / base).is_dir()
        or (package / "url_checksums" / f"{base}.txt").exists()
        or any((folder / base / "checksums.tsv").exists() for folder in package.iterdir())
        or base in tfds_names()
    )


@functools.cache
def tfds_names() -> tuple[str, ...]:
    """Return the names TFDS can build, read from its source text: importing it would take seconds."""
    package = tfds_package()
    if package is None:
        return ()
    names = {path.stem for path in (package / "url_checksums").glob("*.txt")}
    for folder in package.iterdir():
        if folder.name in ("core", "testing", "scripts", "__pycache__") or not folder.is_dir():
            continue
        names.update(path.parent.name for path in folder.glob("*/*_dataset_builder.py"))
        for path in (*folder.glob("*.py"), *folder.glob("*/*.py")):
            classes = re.findall(r"^class ([A-Z]\w+)\(", path.read_text(errors="ignore"), re.MULTILINE)
            names.update(_snake(name) for name in classes if not name.endswith(("Config", "Builder", "Test")))
    return tuple(sorted(names))


def tfds_folder() -> Path:
    """Return where TFDS keeps prepared sets: ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets``."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


@functools.cache
def tfds_package() -> Path | None:
    found = importlib.util.find_spec("tensorflow_datasets")
    return Path(found.origin).parent if found and found.origin else None


def _snake(name: str) -> str:
    """CamelCase to the name under which TFDS registers a builder class."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()
