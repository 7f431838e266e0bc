"""Downloads that other libraries make, which fail soon if a host does not answer, as behind a firewall.

Each function that changes a global setting restores it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

ANSWER_TIMEOUT = 3.0  # seconds to wait for the answer of a host before it counts as unreachable
STALL_TIMEOUT = 30.0  # seconds without any data after which a download fails
CLOSED_PROXY = "http://127.0.0.1:9"  # the port of the discard service, which hardly any machine runs


def answers(url: str) -> bool:
    """Return whether the host of a URL answers, directly or through the proxy that the environment names."""
    if any(os.environ.get(name) for name in ("all_proxy", "ALL_PROXY")):
        return True  # urllib does not support these proxies, so it cannot tell
    answered = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        with contextlib.suppress(OSError, http.client.HTTPException):
            with contextlib.suppress(urllib.error.HTTPError):  # an HTTP error is an answer too
                urllib.request.build_opener().open(request, timeout=ANSWER_TIMEOUT).close()
            answered.append(True)

    thread = threading.Thread(target=ask, daemon=True)  # resolving the name of a host has no timeout of its own
    thread.start()
    thread.join(ANSWER_TIMEOUT)
    return bool(answered)


def check_answers(url: str) -> None:
    """Raise a ``urllib.error.URLError`` if the host of a URL does not answer."""
    if not answers(url):
        raise urllib.error.URLError(f"{urllib.request.Request(url).host} does not answer")


@contextlib.contextmanager
def fail_fast() -> Iterator[None]:
    """Let downloads with urllib, such as those of Keras, fail if the host does not answer or the transfer stalls."""
    opener, timeout = urllib.request._opener, socket.getdefaulttimeout()  # urllib has no public getter of the opener
    urllib.request.install_opener(urllib.request.build_opener(_CheckingHandler))
    socket.setdefaulttimeout(STALL_TIMEOUT)
    try:
        yield
    finally:
        urllib.request.install_opener(opener)
        socket.setdefaulttimeout(timeout)


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Let libraries that respect ``https_proxy`` fail to connect at once, so that they use their caches."""
    proxy = os.environ.get("https_proxy")
    os.environ["https_proxy"] = CLOSED_PROXY
    try:
        yield
    finally:
        if proxy is None:
            del os.environ["https_proxy"]
        else:
            os.environ["https_proxy"] = proxy


def explain(error: Exception, max_length: int = 120) -> str:
    """Return why a download failed, in at most ``max_length`` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    if re.search("resol|Name or service", text):
        return "no network, or the host is unknown"
    if re.search("timed? ?out|does not answer", text):
        return "the host does not answer"
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


class _CheckingHandler(urllib.request.BaseHandler):
    """A handler that checks that a host answers before urllib waits for it without a limit."""

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        check_answers(request.full_url)
        return request

    https_request = http_request
