"""Published sets: real TFDS builders made on the spot, Keras' own sets, and what happens without a network."""

import functools
import gzip
import http.server
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, toy_images

from dltoolkit.data import disk_cache as store
from dltoolkit.data.image import dataset as images
from dltoolkit.data.readers import source
from dltoolkit.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")
pytestmark = pytest.mark.usefixtures("isolated_cache")
CLOSED = "http://127.0.0.1:9"  # nobody listens on the discard port


def toys(
    name: str, shape: tuple, *, per_class: int = 6, splits: tuple[str, ...] = ("train", "test"), vary: bool = False
):
    """Return a new TFDS builder class, registered under ``name``, with toy pictures in class order."""

    def info(self):
        features = {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(names=list(CLASSES))}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label"), disable_shuffling=True
        )

    def examples(self, seed):
        pictures, labels = toy_images(per_class, side=16, channels=shape[-1] or 3)
        for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
            picture = picture + np.uint8(seed)
            yield i, {"image": picture[: 10 + i % 5] if vary else picture, "label": CLASSES[label]}

    members = {
        "VERSION": tfds.core.Version("1.0.0"),
        "pkg_dir_path": Path(__file__).parent,
        "_info": info,
        "_generate_examples": examples,
        "_split_generators": lambda self, _: {split: self._generate_examples(i) for i, split in enumerate(splits)},
    }
    return type(name, (tfds.core.GeneratorBasedBuilder,), members)


def unreachable(name: str, **extra):
    """Return a TFDS builder class whose files cannot be had."""
    cls = toys(name, (16, 16, 3))

    def split_generators(self, manager):
        if self.MANUAL_DOWNLOAD_INSTRUCTIONS:
            return {"train": self._generate_examples(len(str(manager.manual_dir)))}
        manager.download({"a": f"{CLOSED}/a.zip", "b": f"{CLOSED}/b.zip"})
        return {"train": self._generate_examples(0)}

    cls._split_generators = split_generators
    for key, value in extra.items():
        setattr(cls, key, value)
    return cls


@pytest.fixture
def tfds_folder(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "tfds"
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    return folder


def refused(data: str) -> str:
    with pytest.raises(UserError) as caught:
        images.load(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pictures_of_one_shape(tfds_folder):
    toys("ToysFixed", (16, 16, 1))
    data = images.load("tfds:toys_fixed")
    pictures, labels = toy_images(6, channels=1)
    assert data.classes == list(CLASSES)
    assert data.counts() == {"train": 15, "validation": 3, "test": 18}
    assert (data.images[data.test] == pictures + np.uint8(1)).all()
    assert (data.labels[data.test] == labels).all()
    assert data.names[data.test[4]] == "toys_fixed/test[4]"
    assert source.resolve("toys_fixed").kind == "tfds"  # now that it is prepared, without the prefix as well
    assert images.load("toys_fixed").fingerprint == data.fingerprint


def test_pictures_of_several_shapes(tfds_folder, monkeypatch):
    toys("ToysVaried", (None, None, 3), splits=("train",), vary=True)
    data = images.load("tfds:toys_varied")
    assert data.images.shape == (18, 16, 16, 3)
    assert data.counts() == {"train": 12, "validation": 3, "test": 3}
    exact = images.read(toy_images(6)[0][7][: 10 + 7 % 5], data.image_shape)
    assert (data.images[7] == exact).all()
    few = images.load("tfds:toys_varied", limit=9, image_size=8)
    assert few.images.shape == (9, 8, 8, 3)
    assert np.bincount(few.labels).tolist() == [3, 3, 3]
    for row, name in enumerate(few.names):
        number = int(name.partition("[")[2][:-1])
        assert (few.images[row] == images.read(toy_images(6)[0][number][: 10 + number % 5], (8, 8, 3))).all()
    monkeypatch.setattr(store, "memory_limit", lambda: 1000)
    for _ in range(2):  # made, and found again
        on_disk = images.load("tfds:toys_varied")
        assert isinstance(on_disk.images, np.memmap)
        assert (on_disk.images == data.images).all()


def test_without_a_network(tfds_folder, capfd):
    unreachable("ToysRemote")
    tfds_folder.mkdir()
    message = refused("tfds:toys_remote")
    assert message.startswith("toys_remote could not be downloaded")
    assert "to use local data, give --data" in message
    assert str(tfds_folder) in message
    assert list(tfds_folder.rglob("*")) == []
    assert capfd.readouterr().out == ""


def test_what_was_there_before_stays(tfds_folder):
    unreachable("ToysResumed")
    (tfds_folder / "downloads" / "manual").mkdir(parents=True)
    kept = tfds_folder / "downloads" / "manual" / "mine.zip"
    kept.touch()
    refused("tfds:toys_resumed")
    assert [path for path in tfds_folder.rglob("*") if path.is_file()] == [kept]


def test_complete_downloads_stay_for_the_next_attempt(tfds_folder, tmp_path):
    (tmp_path / "a.txt").write_text("complete")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def split_generators(self, manager):
            manager.download(f"http://127.0.0.1:{server.server_port}/a.txt")
            manager.download(f"{CLOSED}/b.txt")

        unreachable("ToysHalf", _split_generators=split_generators)
        refused("tfds:toys_half")
        server.shutdown()
    left = [path for path in tfds_folder.rglob("*") if path.is_file() and path.suffix == ".txt"]
    assert [path.read_text() for path in left] == ["complete"]
    assert not (tfds_folder / "toys_half").exists()


def test_a_set_to_be_fetched_by_hand(tfds_folder):
    unreachable("ToysManual", MANUAL_DOWNLOAD_INSTRUCTIONS="Ask the authors.")
    message = refused("tfds:toys_manual")
    assert "by hand" in message
    assert str(tfds_folder / "downloads" / "manual") in message
    assert not tfds_folder.exists()


def test_a_file_with_another_checksum(tfds_folder):
    from tensorflow_datasets.core.download import checksums

    url = f"{CLOSED}/toys.zip"
    expected = checksums.UrlInfo(size=5, checksum="0" * 64, filename="toys.zip")
    cls = unreachable("ToysFlipped", url_infos={url: expected})
    cls._split_generators = lambda self, manager: {"train": self._generate_examples(len(manager.download(url)))}
    manual = tfds_folder / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "toys.zip").write_bytes(b"other")
    message = refused("tfds:toys_flipped")
    assert "checksum" in message
    assert "toys.zip" in message
    assert (manual / "toys.zip").exists()


def test_wrong_names(tfds_folder):
    assert "Did you mean 'fashion_mnist'?" in refused("tfds:fashion_mnits")
    assert "no variant 'spater'. Did you mean 'spatter'?" in refused("tfds:mnist_corrupted/spater")
    assert "has no picture with one class label (its fields: text, label)" in refused("tfds:imdb_reviews")
    assert not tfds_folder.exists()


def test_names_read_from_source_text_are_those_tfds_knows():
    from dltoolkit.data.readers.catalog import tfds_names

    known = {
        "mnist",
        "fashion_mnist",
        "kmnist",
        "cifar10",
        "cifar100",
        "beans",
        "cats_vs_dogs",
        "tf_flowers",
        "food101",
    }
    assert known <= set(tfds_names())


def test_keras_sets(tmp_path):
    """In a process of its own, for Keras reads KERAS_HOME once: a tiny Fashion-MNIST in place, and none of MNIST."""
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
        from dltoolkit.data import images
        from dltoolkit.errors import UserError
        data = images.load("keras:fashion_mnist")
        print(data.images.shape, data.counts(), data.classes[0])
        try: images.load("keras:mnist")
        except UserError as error: print(error)
    """
    environment = {**os.environ, "KERAS_HOME": str(tmp_path), "http_proxy": CLOSED, "https_proxy": CLOSED}
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=environment, check=True
    )
    loaded, failed = answer.stdout.splitlines()
    assert loaded == "(50, 28, 28, 1) {'train': 30, 'validation': 10, 'test': 10} T-shirt/top"
    assert failed.startswith(f"keras:mnist is not in {tmp_path}/datasets and could not be downloaded")
    assert "to use local data" in failed


def test_cifar100_has_its_hundred_classes():
    from dltoolkit.data.readers.catalog import KERAS_NAMES

    assert len(set(KERAS_NAMES["cifar100"])) == 100


def test_tfds_is_left_as_it_was(tfds_folder):
    from tensorflow_datasets.core.download import downloader

    unreachable("ToysPolite")
    before = downloader.MAX_RETRIES
    refused("tfds:toys_polite")
    assert before == downloader.MAX_RETRIES > 2
