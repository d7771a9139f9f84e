import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune import export, train
from galen.errors import DataError, UsageError


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_llama, question_file):
    """A finished run of two steps with a merged model; half of the questions are test questions, too."""
    folder = tmp_path_factory.mktemp("export")
    lines = question_file.read_text().splitlines()
    (folder / "test.jsonl").write_text("\n".join(lines[:2]) + "\n")
    (folder / "train.jsonl").write_text("\n".join(line for line in lines if int(json.loads(line)["pmid"]) % 3 == 0) + "\n")
    (folder / "recipe.yaml").write_text(
        f"model: {{path: {tiny_llama}}}\ndata: {{train: {folder / 'train.jsonl'}, test_sets: [{folder / 'test.jsonl'}]}}\n"
        f"lora: {{r: 4, alpha: 8, merge: true}}\ntraining: {{learning_rate: 0.02, max_steps: 2}}\noutput: {folder / 'run'}\n"
    )
    train.main([str(folder / "recipe.yaml")])
    return folder / "run"


@pytest.fixture
def arguments(run, tmp_path):
    return ["--run", str(run), "--output", str(tmp_path / "out"), "--name", "Tiny", "--license", "Apache-2.0"]


def test_the_card_says_what_manifests_and_results_say(arguments, run, tmp_path, tiny_llama):
    corpus, scores = tmp_path / "corpus", tmp_path / "scores"
    corpus.mkdir()
    scores.mkdir()
    sources = {"pubmed": {"kept": 900}, "guidelines": {"kept": 100}}
    inputs = [{"path": "a", "source": "pubmed", "licence": None}, {"path": "b", "source": "guidelines", "licence": "CC-BY-4.0"}]
    (corpus / "manifest.json").write_text(json.dumps({"stage": "curate", "inputs": inputs, "counts": {"kept": 1000, "sources": sources}}))
    summary = {"items": 500, "metrics": {"accuracy": {"value": 0.77, "low": 0.731, "high": 0.805}}, "contaminated": 12}
    summary["clean"] = {"items": 488, "value": 0.7623, "low": 0.72, "high": 0.8}
    results = {"model": {"name": "tuned"}, "protocol": "meditron_chat", "tasks": {"pubmedqa": summary}}
    (scores / "results.json").write_text(json.dumps(results))
    assert export.main([*arguments, "--corpus", str(corpus), "--scores", str(scores)]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith(f"---\nlicense: apache-2.0\nlibrary_name: transformers\nbase_model: {tiny_llama.name}\n")
    for wanted in (
        "| pubmed | 900 | 90.0% | each document's own |",
        "| guidelines | 100 | 10.0% | CC-BY-4.0 |",
        "| tuned | pubmedqa | meditron_chat | accuracy | 0.77 | [0.731, 0.805] | 500 |",
        "12 of 500 items stand in the pretraining corpus; on the others 0.7623 [0.72, 0.8].",
        "1 training records were left out",
        "| steps | 2 |",
        "r 4, alpha 8.0",
        "Nothing it writes is medical advice",
    ):
        assert wanted in card
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    AutoTokenizer.from_pretrained(tmp_path / "out")


class Hub(BaseHTTPRequestHandler):
    """Remembers what is asked of it, and refuses."""

    asked: list = []  # noqa: RUF012

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append((self.path, json.loads(body), self.headers.get("Authorization")))
        self.send_response(403)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_nothing_is_sent_without_push_and_with_it_a_private_repository_is_asked_for(arguments, tmp_path, monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    from huggingface_hub import HfApi

    hub = HfApi(endpoint=f"http://127.0.0.1:{server.server_port}", token="hf_test")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    try:
        with pytest.raises(DataError, match="is written, but was not uploaded"):
            export.main([*arguments, "--push", "someone/tiny"])
        ((path, body, authorization),) = Hub.asked
        assert path == "/api/repos/create" and body["name"] == "tiny" and body["organization"] == "someone"
        assert body.get("private", body.get("visibility")) in (True, "private") and authorization == "Bearer hf_test"
        assert (tmp_path / "out" / "README.md").is_file()
        arguments[3] = str(tmp_path / "other")
        assert export.main(arguments) == 0 and len(Hub.asked) == 1
    finally:
        server.shutdown()


def test_mistakes_are_told(arguments, tmp_path):
    with pytest.raises(UsageError, match="write OWNER/NAME"):
        export.main([*arguments, "--push", "tiny"])
    with pytest.raises(DataError, match="cannot be read"):
        export.main([*arguments, "--scores", str(tmp_path)])
    arguments[1] = str(tmp_path)
    with pytest.raises(DataError, match="was the stage that writes it finished"):
        export.main(arguments)
