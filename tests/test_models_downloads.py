"""Behind a wall that swallows everything, what would be downloaded is said to be missing, and soon."""

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from dltoolkit.errors import UserError
from dltoolkit import network
from dltoolkit.models.pretrained import image_backbones
from dltoolkit.models.pretrained import keras_hub as hub

PROXIES = ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY")
SOON, LATE = 20, 60  # seconds; what waits for the wall gives up after the latter


@pytest.fixture
def wall(monkeypatch, tmp_path):
    """A proxy that takes every connection and never answers."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))  # read at import
    before = socket.getdefaulttimeout()
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.getsockname()[1]}")
        socket.setdefaulttimeout(LATE)
        yield
        socket.setdefaulttimeout(before)


@pytest.mark.parametrize(
    ("fetch", "words"),
    [
        (lambda: image_backbones.from_application("MobileNetV2-0.35", (32, 32, 3)), "not on this machine .* put mobilenet_v2"),
        (lambda: hub.fetch("bert_tiny_en_uncased", "Backbone"), "not on this machine .* cannot be downloaded"),
        (lambda: hub.fetch("kaggle://keras/bert/keras/bert_tiny/1", "Backbone"), "not on this machine"),
        (lambda: hub.fetch("hf://nobody/nothing", "Backbone"), "not on this machine .* cannot be downloaded"),
    ],
    ids=["application", "named", "kaggle", "huggingface"],
)
def test_where_nobody_answers_it_is_said_soon(wall, fetch, words):
    pytest.importorskip("keras_hub")
    proxy, began = os.environ["https_proxy"], time.monotonic()
    with pytest.raises(UserError, match=words):
        fetch()
    assert time.monotonic() - began < SOON
    assert os.environ["https_proxy"] == proxy, "what was set for the libraries is as it was"


@pytest.mark.parametrize("name", ["bert_tiny_en_uncased", "kaggle://keras/bert/keras/bert_tiny_en_uncased"])
def test_what_was_downloaded_before_is_found(wall, monkeypatch, tmp_path, name):
    hub_library, cache = pytest.importorskip("keras_hub"), pytest.importorskip("kagglehub.cache")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    handle = pytest.importorskip("kagglehub.handle").parse_model_handle("keras/bert/keras/bert_tiny_en_uncased/3")
    folder = Path(cache.get_cached_path(handle))
    hub_library.models.BertBackbone(9, 1, 1, 4, 8, max_sequence_length=7).save_to_preset(str(folder))
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        cache.Cache().mark_as_complete(handle, str(file.relative_to(folder)))
    (network,) = hub.fetch(name, "Backbone")
    assert network.max_sequence_length == 7


def test_an_answer_that_refuses_is_an_answer(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        monkeypatch.setattr(network, "ANSWER_TIMEOUT", 0.3)
        assert not network.answers(address)
        server.accept()[0].close()
        monkeypatch.setattr(network, "ANSWER_TIMEOUT", 10.0)

        def refuse():
            connection, _ = server.accept()
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 403 Forbidden\r\n\r\n")
            connection.close()

        threading.Thread(target=refuse, daemon=True).start()
        assert network.answers(address)
    assert not network.answers(address), "there is nobody any more"
