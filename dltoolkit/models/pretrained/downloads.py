"""Downloads that other libraries make: given up soon where nobody answers, as on a machine behind a wall."""

from __future__ import annotations

import contextlib
import http.client
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

PATIENCE = 3.0  # seconds for an answer of the other side
NOBODY = "http://127.0.0.1:9"  # the port of a service that throws away what it is sent, and does not run


def answers(url: str) -> bool:
    """Tell whether anybody answers at an address, directly or through the proxy that the environment names."""
    if any(os.environ.get(name) for name in ("all_proxy", "ALL_PROXY")):
        return True  # which urllib knows nothing of
    answered = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        with contextlib.suppress(OSError, http.client.HTTPException):
            with contextlib.suppress(urllib.error.HTTPError):  # an answer too
                urllib.request.build_opener().open(request, timeout=PATIENCE).close()
            answered.append(True)

    asking = threading.Thread(target=ask, daemon=True)  # looking up the name of a host knows no timeout
    asking.start()
    asking.join(PATIENCE)
    return bool(answered)


@contextlib.contextmanager
def asked_first() -> Iterator[None]:
    """Let urllib, which fetches for Keras, ask for an answer before it waits for one without end."""
    urllib.request.install_opener(urllib.request.build_opener(_Asking))
    try:
        yield
    finally:
        urllib.request.install_opener(None)


@contextlib.contextmanager
def cut_off() -> Iterator[None]:
    """Let libraries that heed ``https_proxy`` find nobody at once, and what is on this machine all the same."""
    before = os.environ.get("https_proxy")
    os.environ["https_proxy"] = NOBODY
    try:
        yield
    finally:
        if before is None:
            del os.environ["https_proxy"]
        else:
            os.environ["https_proxy"] = before


class _Asking(urllib.request.BaseHandler):
    def https_request(self, request: urllib.request.Request) -> urllib.request.Request:
        if not answers(request.full_url):
            raise urllib.error.URLError(f"{request.host} does not answer")
        return request
