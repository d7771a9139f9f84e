"""Causes of failed requests in words."""

import socket
import ssl

import pytest
import requests
import urllib3
from urllib3.exceptions import MaxRetryError, NameResolutionError, ProtocolError, ProxyError

from data_prep.fetching.request_errors import describe

POOL = urllib3.HTTPConnectionPool("s.org")
UNKNOWN = NameResolutionError(
    "s.org", urllib3.connection.HTTPConnection("s.org"), socket.gaierror()
)
REFUSED = ProxyError(
    "Unable to connect to proxy", OSError("Tunnel connection failed: 403 Forbidden")
)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            requests.ConnectionError(MaxRetryError(POOL, "/", UNKNOWN)),
            "the name cannot be resolved (no network, or a wrong name)",
        ),
        (
            requests.exceptions.ProxyError(MaxRetryError(POOL, "/", REFUSED)),
            "through the proxy: Tunnel connection failed: 403 Forbidden",
        ),
        (requests.ReadTimeout("Read timed out."), "timed out"),
        (
            requests.exceptions.SSLError(ssl.SSLError(1, "self-signed certificate")),
            "no trusted TLS connection",
        ),
        (
            requests.ConnectionError(
                ProtocolError("Aborted.", ConnectionResetError(104, "Connection reset by peer"))
            ),
            "the connection was lost (Connection reset by peer)",
        ),
    ],
)
def test_causes(error, words):
    assert describe(error).startswith(words)


def test_a_refused_proxy_is_reported_as_such():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(requests.RequestException) as raised:
            requests.get("http://s.org/", proxies={"http": proxy}, timeout=5)
    assert describe(raised.value) == "through the proxy: connection refused"
