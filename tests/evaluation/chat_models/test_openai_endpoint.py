"""The key of an endpoint stays with it."""

import http.server
import json
import os
import subprocess
import threading
from pathlib import Path

import pytest

from evaluation.backends import openai_client
from evaluation.chat_models.openai_endpoint import ChatEndpoint
from galen.errors import DataError, UsageError
from tests.conftest import ROOT, command

SENTINEL = "sentinel-5d2c1f"


@pytest.fixture
def servers(monkeypatch):
    """Two servers that answer what `reply` says: status, headers, body."""
    monkeypatch.setenv("OPENAI_API_KEY", SENTINEL)
    monkeypatch.setattr(openai_client, "FIRST_WAIT", 0.001)

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
        server.asked, server.reason, server.url = (
            [],
            [],
            f"http://127.0.0.1:{server.server_port}/v1",
        )
        server.reply = (
            200,
            {},
            json.dumps({"choices": [{"message": {"content": "yes"}}]}).encode(),
        )
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
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
    with pytest.raises(
        DataError,
        match=r"redirects to http://127\.0\.0\.1/v1/chat/completions; the key is not sent there",
    ) as caught:
        ChatEndpoint(endpoint.url, "m").ask("?")
    assert stranger.asked == []
    assert SENTINEL not in str(caught.value)


@pytest.mark.parametrize("status", [200, 401, 500])
def test_what_the_server_repeats_of_the_key_is_not_shown(servers, status):
    endpoint, _ = servers
    endpoint.reason = [f"No {SENTINEL}"]
    endpoint.reply = (
        status,
        {},
        f'{{"error": "{" " * 180}Incorrect API key provided: {SENTINEL}"}}'.encode(),
    )
    with pytest.raises(DataError) as caught:
        ChatEndpoint(endpoint.url, "m").ask("?")
    assert SENTINEL[:8] not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://me:secret@localhost/v1", "https://a.org/v1?api-key=secret"]
)
def test_keys_in_the_address_are_refused(url):
    with pytest.raises(UsageError, match="set the key in OPENAI_API_KEY") as caught:
        ChatEndpoint(url, "m").ask("?")
    assert "secret" not in str(caught.value)


def test_an_invalid_key_is_refused(servers, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "two\nlines")
    with pytest.raises(UsageError, match="OPENAI_API_KEY holds blanks"):
        ChatEndpoint(servers[0].url, "m").ask("?")
    assert servers[0].asked == []


def test_an_endless_answer_is_broken_off(servers, monkeypatch):
    monkeypatch.setattr(openai_client, "MAX_BYTES", 1000)
    servers[0].reply = (200, {}, bytes(2000))
    with pytest.raises(DataError, match="more than 1,000 bytes"):
        ChatEndpoint(servers[0].url, "m").ask("?")


@pytest.mark.multiprocess
@pytest.mark.parametrize("reply", [f"I am {SENTINEL}. Rating: 4", f"no rating, {SENTINEL}"])
def test_a_command_writes_the_key_nowhere(servers, tmp_path, reply):
    """Although the judge repeats it: not in scores, messages or the command line."""
    pytest.importorskip("sacrebleu")
    endpoint, _ = servers
    endpoint.reply = (200, {}, json.dumps({"choices": [{"message": {"content": reply}}]}).encode())
    scores = tmp_path / "scores"
    for name, record in (
        (
            "samples",
            {
                "id": "1",
                "language": "fr",
                "outputs": ["###Rationale: Parce que."],
                "rationale": "Parce que oui.",
            },
        ),
        ("prompts", {"id": "1", "prompt": "Question ?"}),
    ):
        (scores / name).mkdir(parents=True)
        (scores / name / "fr.jsonl").write_text(json.dumps(record) + "\n")
    given = [
        scores,
        "--task",
        "fr",
        "--output",
        tmp_path / "out.jsonl",
        "--base-url",
        endpoint.url,
        "--model-name",
        "m",
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(
        command("evaluation/rationales.py", *given), cwd=ROOT, env=dict(os.environ), **pipes
    )
    shown = Path(f"/proc/{process.pid}/cmdline").read_text()
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == (0 if "Rating" in reply else 1)
    assert endpoint.asked[0]["Authorization"] == f"Bearer {SENTINEL}"
    assert SENTINEL not in "".join(
        [shown, printed, *(path.read_text() for path in tmp_path.rglob("*") if path.is_file())]
    )
