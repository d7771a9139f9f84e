"""The key of an endpoint stays with it."""

import http.server
import json
import threading

import pytest

from evaluation import chat_endpoint
from evaluation.chat_endpoint import ChatEndpoint
from galen.errors import DataError, UsageError

SENTINEL = "sentinel-5d2c1f"


@pytest.fixture
def servers(monkeypatch):
    """Two servers that answer what `reply` says: status, headers, body."""
    monkeypatch.setenv("OPENAI_API_KEY", SENTINEL)
    monkeypatch.setattr(chat_endpoint, "_WAIT", 0.001)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.server.asked.append(dict(self.headers))
            status, headers, body = self.server.reply
            self.send_response(status, *self.server.reason)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    made = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    for server in made:
        server.asked, server.reason, server.url = [], [], f"http://127.0.0.1:{server.server_port}/v1"
        server.reply = (200, {}, json.dumps({"choices": [{"message": {"content": "yes"}}]}).encode())
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield made
    for server in made:
        server.shutdown()
        server.server_close()


def test_the_endpoint_gets_the_key(servers):
    assert ChatEndpoint(servers[0].url, "m").ask("?") == "yes"
    assert servers[0].asked[0]["Authorization"] == f"Bearer {SENTINEL}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(servers, status):
    endpoint, stranger = servers
    endpoint.reply = (status, {"Location": f"{stranger.url}/chat/completions?key={SENTINEL}"}, b"")
    with pytest.raises(DataError, match=r"leads to http://127\.0\.0\.1/v1/chat/completions; the key is not sent there") as caught:
        ChatEndpoint(endpoint.url, "m").ask("?")
    assert stranger.asked == []
    assert SENTINEL not in str(caught.value)


@pytest.mark.parametrize("status", [200, 401, 500])
def test_what_the_server_repeats_of_the_key_is_not_shown(servers, status):
    endpoint, _ = servers
    endpoint.reason = [f"No {SENTINEL}"]
    endpoint.reply = (status, {}, f'{{"error": "{" " * 180}Incorrect API key provided: {SENTINEL}"}}'.encode())
    with pytest.raises(DataError) as caught:
        ChatEndpoint(endpoint.url, "m").ask("?")
    assert SENTINEL[:8] not in str(caught.value)


@pytest.mark.parametrize("url", ["http://me:secret@localhost/v1", "https://a.org/v1?api-key=secret"])
def test_keys_in_the_address_are_refused(url):
    with pytest.raises(UsageError, match="a key goes into OPENAI_API_KEY") as caught:
        ChatEndpoint(url, "m").ask("?")
    assert "secret" not in str(caught.value)


def test_what_is_no_key_is_said(servers, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "two\nlines")
    with pytest.raises(UsageError, match="OPENAI_API_KEY holds blanks"):
        ChatEndpoint(servers[0].url, "m").ask("?")
    assert servers[0].asked == []


def test_an_endless_answer_is_broken_off(servers, monkeypatch):
    monkeypatch.setattr(chat_endpoint, "_MOST_BYTES", 1000)
    servers[0].reply = (200, {}, bytes(2000))
    with pytest.raises(DataError, match="more than 1,000 bytes"):
        ChatEndpoint(servers[0].url, "m").ask("?")
