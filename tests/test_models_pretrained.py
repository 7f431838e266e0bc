"""Pretrained networks: their inputs, their downloads, and the errors when the network does not answer."""

import functools
import os
import socket
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import make_special

from dltoolkit import files, network
from dltoolkit.errors import UserError
from dltoolkit.models import keras_internals, model_size
from dltoolkit.models.pretrained import image_backbones, keras_applications, keras_hub

NAME = "MobileNetV2-0.35"
SHAPE = (32, 32, 3)
WEIGHTS = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"  # as Keras publishes them
PROXIES = ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY")


@pytest.fixture
def keras_home(monkeypatch, tmp_path) -> Path:
    """An empty download folder for Keras, which reads KERAS_HOME only when it is imported."""
    folder = tmp_path / "keras"
    folder.mkdir()
    monkeypatch.setattr(keras_internals.config, "keras_home", lambda: str(folder))
    return folder


@pytest.fixture(scope="module")
def mobilenet() -> keras.Model:
    """The network of ``keras.applications`` with random weights."""
    keras.utils.set_random_seed(0)
    return keras.applications.MobileNetV2(input_shape=SHAPE, include_top=False, weights=None, alpha=0.35)


@pytest.fixture
def firewall(monkeypatch, keras_home):
    """A proxy that accepts every connection and never answers; returns the list of the connections."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    connections = []

    def accept(server):
        while True:
            try:
                connections.append(server.accept()[0])
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(network, "ANSWER_TIMEOUT", 0.3)
        yield connections
        server.shutdown(socket.SHUT_RDWR)
    for connection in connections:
        connection.close()


@pytest.mark.parametrize(
    ("fetch", "message"),
    [
        (lambda: image_backbones.from_application(NAME, SHAPE), "not on this machine .* put mobilenet_v2"),
        (lambda: keras_hub.fetch("bert_tiny_en_uncased", "Backbone"), "not on this machine .* cannot be downloaded"),
        (lambda: keras_hub.fetch("kaggle://keras/bert/keras/bert_tiny/1", "Backbone"), "not on this machine"),
        (lambda: keras_hub.fetch("hf://nobody/nothing", "Backbone"), "not on this machine .* cannot be downloaded"),
    ],
    ids=["application", "name", "kaggle", "huggingface"],
)
def test_fetch_gives_up_when_a_firewall_does_not_answer(firewall, fetch, message):
    pytest.importorskip("keras_hub")
    constants = pytest.importorskip("huggingface_hub.constants")
    before = os.environ["https_proxy"], constants.HF_HUB_OFFLINE, socket.getdefaulttimeout()
    with pytest.raises(UserError, match=message):
        fetch()
    assert len(firewall) == 1, "the host is asked once, and nothing waits for it afterwards"
    assert (os.environ["https_proxy"], constants.HF_HUB_OFFLINE, socket.getdefaulttimeout()) == before


@pytest.mark.parametrize("name", ["bert_tiny_en_uncased", "kaggle://keras/bert/keras/bert_tiny_en_uncased"])
def test_fetch_finds_a_cached_preset_behind_a_firewall(firewall, monkeypatch, tmp_path, name):
    library, cache = pytest.importorskip("keras_hub"), pytest.importorskip("kagglehub.cache")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    handle = pytest.importorskip("kagglehub.handle").parse_model_handle("keras/bert/keras/bert_tiny_en_uncased/3")
    folder = Path(cache.get_cached_path(handle))
    library.models.BertBackbone(9, 1, 1, 4, 8, max_sequence_length=7).save_to_preset(str(folder))
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        cache.Cache().mark_as_complete(handle, str(file.relative_to(folder)))
    (backbone,) = keras_hub.fetch(name, "Backbone")
    assert backbone.max_sequence_length == 7


def test_from_application_shows_gray_images_in_three_channels(mobilenet, tmp_path):
    mobilenet.save_weights(tmp_path / "some.weights.h5")
    gray_model, color_model = (
        image_backbones.from_application(NAME, (32, 32, channels), str(tmp_path / "some.weights.h5"))
        for channels in (1, 3)
    )
    gray = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 1)).astype("float32")
    expected = color_model(np.repeat(gray, 3, axis=-1))
    np.testing.assert_allclose(gray_model(gray), expected, atol=1e-5)
    pixels = keras.applications.mobilenet_v2.preprocess_input(np.repeat(gray, 3, axis=-1))
    np.testing.assert_allclose(expected, np.mean(mobilenet(pixels), axis=(1, 2)), atol=1e-5)


def test_from_application_refuses_images_below_the_minimum():
    with pytest.raises(UserError, match="Xception needs images of at least 71 pixels per side.*image_size=299"):
        image_backbones.from_application("Xception", SHAPE)


def test_from_application_downloads_and_names_a_damaged_file(mobilenet, keras_home, monkeypatch, tmp_path, capfd):
    mobilenet.save(tmp_path / WEIGHTS)  # in the legacy format, which published weights have
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        module = sys.modules[keras.applications.MobileNetV2.__module__]
        monkeypatch.setattr(module, "BASE_WEIGHT_PATH", f"http://127.0.0.1:{server.server_port}/")
        model = image_backbones.from_application(NAME, SHAPE)
        server.shutdown()
    for expected, weight in zip(mobilenet.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    out, err = capfd.readouterr()
    assert "Downloading data" in err and not out, "the progress goes to stderr"
    downloaded = keras_home / "models" / WEIGHTS
    downloaded.write_bytes(downloaded.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"are damaged .*: delete them"):
        image_backbones.from_application(NAME, SHAPE)


def test_applications_are_functions_of_keras():
    for application in keras_applications.APPLICATIONS.values():
        assert hasattr(keras.applications, application.function)


@pytest.mark.parametrize("name", ["mobilenetv2-0.35", "MobileNetV2_0.35", "mobile_net_v2-0.35"])
def test_find_ignores_case_and_punctuation(name):
    assert keras_applications.find(name) == NAME
    assert keras_applications.find("mobilenet-v9") is None


@pytest.mark.parametrize(("line", "damaged"), [("{hash}  ./{name}", False), ("{other} *{name}", True)])
def test_check_weights_file_compares_hashes(tmp_path, line, damaged):
    path = tmp_path / "some.h5"
    path.write_bytes(b"weights")
    digest = files.sha256(path)
    (tmp_path / "SHA256SUMS").write_text(line.format(hash=digest, other="0" * 64, name=path.name) + "\n")
    if damaged:
        with pytest.raises(UserError, match="its hash differs from the one in"):
            keras_applications.check_weights_file(path)
    else:
        keras_applications.check_weights_file(path)


def test_from_preset_refuses_a_text_network(tmp_path):
    library = pytest.importorskip("keras_hub")
    library.models.BertBackbone(9, 1, 1, 4, 8, max_sequence_length=7).save_to_preset(str(tmp_path))
    with pytest.raises(UserError, match="does not read images"):
        image_backbones.from_preset(str(tmp_path), SHAPE)


def test_fetch_refuses_special_files_and_linked_folders_in_a_preset(tmp_path):
    folder, blobs = tmp_path / "models--a--b" / "snapshots" / "1f2e", tmp_path / "models--a--b" / "blobs"
    (folder / "assets").mkdir(parents=True)
    blobs.mkdir()
    for path in (blobs / "5a", tmp_path / "secret"):
        path.write_text("{}")
    (folder / "config.json").symlink_to("../../blobs/5a")  # as in the cache of Hugging Face
    make_special(folder / "assets" / "vocab.json", "a pipe")
    with pytest.raises(UserError, match="assets/vocab.json is a pipe, not a regular file: remove it"):
        keras_hub.fetch(str(folder), "Backbone")
    (folder / "assets" / "vocab.json").unlink()
    for target in (tmp_path, tmp_path / "secret", "../../../blobs"):
        (folder / "assets" / "tokenizer").symlink_to(target)
        with pytest.raises(UserError, match="assets/tokenizer is a symbolic link"):
            keras_hub.fetch(str(folder), "Backbone")
        (folder / "assets" / "tokenizer").unlink()
    folder = folder.rename(tmp_path / "snapshot")
    with pytest.raises(UserError, match="config.json is a symbolic link"):
        keras_hub.fetch(str(folder), "Backbone")


@pytest.mark.parametrize(("error", "message"), [(RuntimeError(), "no message"), (ValueError("a\nb"), "a")])
def test_fetch_names_a_preset_whatever_keras_hub_raises(tmp_path, monkeypatch, error, message):
    library = pytest.importorskip("keras_hub")

    def from_preset(_):
        raise error

    monkeypatch.setattr(library.models.Backbone, "from_preset", from_preset)
    with pytest.raises(UserError, match=rf"KerasHub cannot read .* as a model \({message}\)"):
        keras_hub.fetch(str(tmp_path), "Backbone")
    error = MemoryError()
    with pytest.raises(MemoryError):  # which the command line explains
        keras_hub.fetch(str(tmp_path), "Backbone")


@pytest.mark.parametrize(("name", "size"), [("tokenizer.json", 2**40), ("vocab.txt", 2**40), ("config.json", 2**30)])
def test_limited_to_folder_refuses_files_of_tokenizers_that_are_read_into_memory(tmp_path, name, size):
    with (tmp_path / name).open("wb") as file:
        file.truncate(size)  # a hole, which takes no space on the disk
    message = f"was not loaded, because it would exhaust the memory: {name} has more than"
    with pytest.raises(UserError, match=message), model_size.limited_to_folder(tmp_path):
        pytest.fail("the files are read here")
