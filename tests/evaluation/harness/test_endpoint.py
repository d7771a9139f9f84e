"""Harness tasks through an OpenAI-compatible endpoint, as through transformers."""

import json

import pytest

from evaluation import run
from evaluation.backends import openai_client
from galen.errors import UsageError
from tests.evaluation.backends.openai_server import serving

TASKS = "lm_eval:arc_easy,lm_eval:nq_open,lm_eval:wikitext,lm_eval:lambada_openai"


@pytest.fixture(scope="module")
def server(long_llama):
    with serving(long_llama) as server:
        yield server


@pytest.fixture
def score(harness_data, long_llama, tmp_path):
    def run_with(output, tasks, *options):
        words = ["--tasks", tasks, "--data", str(harness_data), "--output", str(tmp_path / output)]
        words += ["--limit", "2", *options]
        run.main(words)
        return json.loads((tmp_path / output / "results.json").read_text())["tasks"]

    return run_with


@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_an_endpoint_scores_as_transformers(
    score, server, long_llama, tmp_path, monkeypatch, with_tokenizer
):
    monkeypatch.setattr(openai_client, "FIRST_WAIT", 0.001)
    kwargs = ["--lm-eval-gen-kwargs", "max_gen_toks=6"]
    local = score("local", TASKS, "--model", str(long_llama), "--device", "cpu", *kwargs)
    endpoint = ["--backend", "openai", "--base-url", server.url, "--model-name", "tiny"]
    tokenizer = ["--tokenizer", str(long_llama)] if with_tokenizer else []
    tasks = TASKS if with_tokenizer else "lm_eval:nq_open"
    remote = score("endpoint", tasks, *endpoint, "--route", "completions", *tokenizer, *kwargs)
    for name, entry in remote.items():
        for metric, estimate in entry["metrics"].items():
            assert estimate["value"] == pytest.approx(
                local[name]["metrics"][metric]["value"], rel=1e-4
            )
        log = f"samples/{name.replace(':', '.')}.jsonl"
        ours, theirs = (responses(tmp_path / folder / log) for folder in ("local", "endpoint"))
        assert ours.keys() == theirs.keys()
        for id_, of_sample in ours.items():
            assert theirs[id_] == pytest.approx(of_sample, abs=1e-4)


def responses(path):
    samples = map(json.loads, path.read_text().splitlines())
    return {sample["id"]: flat(sample["responses"]) for sample in samples}


def flat(value):
    if isinstance(value, list):
        return [item for part in value for item in flat(part)]
    return [value]


def test_a_chat_route_generates_and_refuses_to_score(score, server, monkeypatch):
    endpoint = ["--backend", "openai", "--base-url", server.url, "--model-name", "tiny"]
    chat = [*endpoint, "--route", "chat", "--protocol", "chat"]
    entry = score("chat", "lm_eval:nq_open", *chat, "--lm-eval-gen-kwargs", "max_gen_toks=4")
    assert entry["lm_eval:nq_open"]["samples"] == 2
    with pytest.raises(UsageError, match="--route chat returns no log-probabilities"):
        score("refused", "lm_eval:arc_easy", *chat)
