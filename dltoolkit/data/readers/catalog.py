"""Names of the data sets that Keras and TensorFlow Datasets (TFDS) provide.

TensorFlow is not imported here, and TFDS only to list its names, which takes about half a second.
"""

import contextlib
import importlib.util
import os
import re
from pathlib import Path

_FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
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
KERAS_CLASSES = {  # the data sets that ``keras:NAME`` reads, and their class names in the order of the labels
    "mnist": list("0123456789"),
    "fashion_mnist": _FASHION,
    "cifar10": _CIFAR10,
    "cifar100": _CIFAR100,
}


def is_tfds_name(name: str) -> bool:
    """Return whether TFDS can build NAME, NAME/CONFIG or NAME:VERSION, or has prepared it on this machine."""
    base = re.split("[/:]", name)[0]
    if not re.fullmatch(r"[a-z][a-z0-9_]*", base) or not tfds_is_installed():
        return False
    return os.path.isdir(tfds_folder() / base) or base in tfds_names()


def tfds_names() -> list[str]:
    """Return the names of the data sets that TFDS can build, or an empty list if it is not installed.

    Community data sets are left out, because listing them needs the network.
    """
    with contextlib.suppress(ImportError):
        import tensorflow_datasets as tfds

        return tfds.list_builders(with_community_datasets=False)
    return []


def tfds_folder() -> Path:
    """Return the folder of the data sets that TFDS has prepared: ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets``."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def tfds_is_installed() -> bool:
    return importlib.util.find_spec("tensorflow_datasets") is not None
