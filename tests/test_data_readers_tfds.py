"""TFDS data sets, from real builders that the tests register: reading, downloads that fail, and messages."""

import functools
import http.server
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, toy_images

from dltoolkit import memory
from dltoolkit.data.image import dataset
from dltoolkit.data.readers import catalog, source
from dltoolkit.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")
pytestmark = pytest.mark.usefixtures("isolated_cache")
CLOSED = "http://127.0.0.1:9"  # nothing listens on the port of the discard service


def register_toys(
    name: str,
    shape: tuple,
    *,
    per_class: int = 6,
    splits: tuple[str, ...] = ("train", "test"),
    vary_height: bool = False,
):
    """Register and return a TFDS builder class with toy images in the order of the classes."""

    def info(self):
        features = {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(names=list(CLASSES))}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label"), disable_shuffling=True
        )

    def examples(self, seed):
        images, labels = toy_images(per_class, side=16, channels=shape[-1] or 3)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            image = image + np.uint8(seed)
            yield i, {"image": image[: 10 + i % 5] if vary_height else image, "label": CLASSES[label]}

    attributes = {
        "VERSION": tfds.core.Version("1.0.0"),
        "pkg_dir_path": Path(__file__).parent,
        "_info": info,
        "_generate_examples": examples,
        "_split_generators": lambda self, _: {split: self._generate_examples(i) for i, split in enumerate(splits)},
    }
    return type(name, (tfds.core.GeneratorBasedBuilder,), attributes)


def register_unreachable(name: str, **attributes):
    """Register and return a TFDS builder class whose files cannot be downloaded."""
    cls = register_toys(name, (16, 16, 3))

    def split_generators(self, manager):
        if self.MANUAL_DOWNLOAD_INSTRUCTIONS:
            return {"train": self._generate_examples(len(str(manager.manual_dir)))}
        manager.download({"a": f"{CLOSED}/a.zip", "b": f"{CLOSED}/b.zip"})
        return {"train": self._generate_examples(0)}

    cls._split_generators = split_generators
    for key, value in attributes.items():
        setattr(cls, key, value)
    return cls


@pytest.fixture
def tfds_folder(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "tfds"
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    return folder


def refusal(data: str) -> str:
    with pytest.raises(UserError) as caught:
        dataset.load(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_prepare_reads_images_of_one_shape(tfds_folder):
    register_toys("ToysFixed", (16, 16, 1))
    splits = dataset.load("tfds:toys_fixed")
    images, labels = toy_images(6, channels=1)
    assert splits.classes == list(CLASSES)
    assert splits.counts() == {"train": 15, "validation": 3, "test": 18}
    assert (splits.images[splits.test] == images + np.uint8(1)).all()
    assert (splits.labels[splits.test] == labels).all()
    assert splits.names[splits.test[4]] == "toys_fixed/test[4]"
    assert source.resolve("toys_fixed").kind == "tfds"  # a prepared data set needs no prefix
    assert dataset.load("toys_fixed").fingerprint == splits.fingerprint


def test_prepare_reads_images_of_several_shapes(tfds_folder, monkeypatch):
    register_toys("ToysVaried", (None, None, 3), splits=("train",), vary_height=True)
    splits = dataset.load("tfds:toys_varied")
    assert splits.images.shape == (18, 16, 16, 3)
    assert splits.counts() == {"train": 12, "validation": 3, "test": 3}
    image = dataset.read(toy_images(6)[0][7][: 10 + 7 % 5], splits.preprocessing)
    assert (splits.images[7] == image).all()
    few = dataset.load("tfds:toys_varied", limit=9, image_size=8)
    assert few.images.shape == (9, 8, 8, 3)
    assert np.bincount(few.labels).tolist() == [3, 3, 3]
    for row, name in enumerate(few.names):
        number = int(name.partition("[")[2][:-1])
        assert (few.images[row] == dataset.read(toy_images(6)[0][number][: 10 + number % 5], few.preprocessing)).all()
    monkeypatch.setattr(memory, "limit", lambda: 1000)
    for _ in range(2):  # written to the disk cache, and read from it
        on_disk = dataset.load("tfds:toys_varied")
        assert isinstance(on_disk.images, np.memmap)
        assert (on_disk.images == splits.images).all()


def test_prepare_fails_fast_without_a_network(tfds_folder, capfd):
    from tensorflow_datasets.core.download import downloader
    from tensorflow_datasets.core.utils import tqdm_utils

    register_unreachable("ToysRemote")
    tfds_folder.mkdir()
    before = downloader._open_url, downloader.MAX_RETRIES, tqdm_utils._active
    message = refusal("tfds:toys_remote")
    assert message.startswith("toys_remote cannot be downloaded (the host does not answer)")
    assert "to use local data, give data" in message
    assert str(tfds_folder) in message
    assert list(tfds_folder.rglob("*")) == []
    assert capfd.readouterr().out == ""
    assert (downloader._open_url, downloader.MAX_RETRIES, tqdm_utils._active) == before


def test_prepare_removes_no_previous_files(tfds_folder):
    register_unreachable("ToysResumed")
    (tfds_folder / "downloads" / "manual").mkdir(parents=True)
    file = tfds_folder / "downloads" / "manual" / "mine.zip"
    file.touch()
    refusal("tfds:toys_resumed")
    assert [path for path in tfds_folder.rglob("*") if path.is_file()] == [file]


def test_prepare_leaves_complete_downloads_for_the_next_attempt(tfds_folder, tmp_path):
    (tmp_path / "a.txt").write_text("complete")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def split_generators(self, manager):
            manager.download(f"http://127.0.0.1:{server.server_port}/a.txt")
            manager.download(f"{CLOSED}/b.txt")

        register_unreachable("ToysHalf", _split_generators=split_generators)
        refusal("tfds:toys_half")
        server.shutdown()
    files = [path for path in tfds_folder.rglob("*") if path.is_file() and path.suffix == ".txt"]
    assert [path.read_text() for path in files] == ["complete"]
    assert not (tfds_folder / "toys_half").exists()


def test_prepare_explains_downloads_by_hand(tfds_folder):
    register_unreachable("ToysManual", MANUAL_DOWNLOAD_INSTRUCTIONS="Ask the authors.")
    message = refusal("tfds:toys_manual")
    assert "by hand" in message
    assert str(tfds_folder / "downloads" / "manual") in message
    assert not tfds_folder.exists()


def test_prepare_refuses_a_wrong_checksum(tfds_folder):
    from tensorflow_datasets.core.download import checksums

    url = f"{CLOSED}/toys.zip"
    expected = checksums.UrlInfo(size=5, checksum="0" * 64, filename="toys.zip")
    cls = register_unreachable("ToysFlipped", url_infos={url: expected})
    cls._split_generators = lambda self, manager: {"train": self._generate_examples(len(manager.download(url)))}
    manual = tfds_folder / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "toys.zip").write_bytes(b"other")
    message = refusal("tfds:toys_flipped")
    assert "checksum" in message
    assert "toys.zip" in message
    assert (manual / "toys.zip").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tfds:fashion_mnits", "Did you mean 'fashion_mnist'?"),
        ("tfds:mnist_corrupted/spater", "no config 'spater'. Did you mean 'spatter'"),
        ("tfds:imdb_reviews", "has no image feature with one class label (its features: text, label)"),
    ],
)
def test_prepare_refuses_wrong_names(tfds_folder, name, words):
    assert words in refusal(name)
    assert not tfds_folder.exists()


def test_tfds_names_are_those_of_data_sets():
    names = set(catalog.tfds_names())
    assert {"mnist", "fashion_mnist", "kmnist", "cifar10", "beans", "cats_vs_dogs", "tf_flowers", "food101"} <= names
    assert not {"data_source", "annotation_type", "cifar_info"} & names  # classes within TFDS that build no data set


def test_is_tfds_name_accepts_configs_and_versions():
    assert catalog.is_tfds_name("mnist_corrupted/spatter")
    assert catalog.is_tfds_name("beans:0.1.0")
    assert not catalog.is_tfds_name("flowers")
    assert not catalog.is_tfds_name("Beans")
