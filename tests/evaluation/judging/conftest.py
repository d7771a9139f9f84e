"""Two runs with answers to six conversations, and a judge at an endpoint."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from evaluation import run
from evaluation.scoring.recipe import Recipe

CRITERIA = [
    {"criterion": "names the dose", "points": 6, "tags": ["axis:accuracy", "level:example"]},
    {"criterion": "says to see a doctor", "points": 4, "tags": ["axis:completeness"]},
    {"criterion": "is rude", "points": -5, "tags": ["axis:accuracy"]},
]


def conversation(number, theme):
    turns = [{"role": "user", "content": f"Question {number}: how much aspirin?"}]
    if number % 2:
        turns += [
            {"role": "assistant", "content": "For what?"},
            {"role": "user", "content": f"For pain {number}."},
        ]
    return {
        "prompt_id": f"c{number}",
        "prompt": turns,
        "rubrics": CRITERIA,
        "example_tags": [f"theme:{theme}"],
        "canary": "x",
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "task.yaml").write_text(
        "kind: rubric\nfile: talks.jsonl\nmax_new_tokens: 6\n", encoding="utf-8"
    )
    rows = [conversation(number, ["hedging", "global_health"][number // 3]) for number in range(6)]
    (folder / "talks.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


@pytest.fixture(scope="module")
def model(make_llama):
    return make_llama(num_hidden_layers=2, max_position_embeddings=4096, initializer_range=0.15)


@pytest.fixture(scope="module")
def runs(data, model, tmp_path_factory):
    """Two runs with other answers."""
    folders = []
    for name, temperature in (("base", None), ("tuned", 0.9)):
        output = tmp_path_factory.mktemp("runs") / name
        options = Recipe(
            model=[model],
            tasks=[str(data / "task.yaml")],
            data=data,
            output=output,
            name=name,
            protocol="chat",
            chat_template="none",
            device="cpu",
            num_samples=None if temperature is None else 3,
            temperature=temperature,
        )
        [results] = run.evaluate(options)
        assert results["tasks"]["task"]["metrics"]["answered"]["value"] > 0.5
        folders.append(output)
    return folders


@pytest.fixture
def server():
    """A judge; `reply` is a function from a message to an answer or a status."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append(body)
            answer = server.reply(body["messages"][-1]["content"])
            self.send_response(answer if isinstance(answer, int) else 200)
            self.end_headers()
            if isinstance(answer, str):
                choice = {"message": {"content": answer}, "finish_reason": "stop"}
                self.wfile.write(json.dumps({"choices": [choice]}).encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.url = [], f"http://127.0.0.1:{server.server_port}/v1"
    server.reply = lambda message: verdict("names the dose" in message)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def verdict(is_met):
    return json.dumps({"explanation": "because", "criteria_met": is_met})


def endpoint(server, output, *options):
    return [
        *("--output", str(output), "--backend", "openai", "--base-url", server.url),
        *("--model-name", "judge-1", *options),
    ]
