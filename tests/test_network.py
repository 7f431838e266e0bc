"""Detecting a host that does not answer, and restoring the global settings."""

import os
import socket
import threading
import urllib.request

import pytest

from dltoolkit import network


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_answers_counts_an_http_error_as_an_answer_but_not_silence(monkeypatch):
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
    assert not network.answers(address), "the server is gone"


def test_fail_fast_restores_the_opener_and_the_timeout():
    opener = urllib.request.build_opener()
    urllib.request.install_opener(opener)
    socket.setdefaulttimeout(7.0)
    try:
        with network.fail_fast():
            assert urllib.request._opener is not opener
        assert urllib.request._opener is opener and socket.getdefaulttimeout() == 7.0
    finally:
        urllib.request.install_opener(None)
        socket.setdefaulttimeout(None)


@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:3128"])
def test_offline_restores_the_proxy(monkeypatch, proxy):
    if proxy:
        monkeypatch.setenv("https_proxy", proxy)
    with network.offline():
        assert os.environ["https_proxy"] == network.CLOSED_PROXY
    assert os.environ.get("https_proxy") == proxy
