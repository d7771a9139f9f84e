"""Harness tasks of three types of output at an OpenAI-compatible endpoint."""

import json

import pytest

from evaluation import run
from galen.errors import DataError, UsageError
from tests.evaluation.backends.openai_server import serving


def samples_of(folder, name):
    lines = (folder / "samples" / f"lm_eval.{name}.jsonl").read_text("utf-8").splitlines()
    return {sample["id"]: sample for sample in map(json.loads, lines)}


def flat(value):
    """Return the log-likelihoods and texts of nested lists."""
    return [leaf for item in value for leaf in flat(item)] if isinstance(value, list) else [value]


@pytest.mark.parametrize(
    ("name", "options"),
    [("arc_easy", []), ("nq_open", ["--lm-eval-gen-kwargs", "max_gen_toks=6"]), ("wikitext", [])],
)
def test_harness_tasks_score_as_with_transformers(
    long_llama, harness_data, tmp_path, name, options
):
    words = ["--tasks", f"lm_eval:{name}", "--data", harness_data, "--limit", "4", *options]
    local = ["--model", long_llama, "--device", "cpu", "--output", tmp_path / "local"]
    run.main([str(word) for word in [*words, *local]])
    with serving(long_llama) as server:
        words += ["--backend", "openai", "--base-url", server.url, "--model-name", "tiny"]
        words += ["--route", "completions", "--output", tmp_path / "scores"]
        if name == "wikitext":  # begins with the model's own token
            words += ["--tokenizer", long_llama]
        run.main([str(word) for word in words])
    ours = samples_of(tmp_path / "local", name)
    theirs = samples_of(tmp_path / "scores", name)
    assert set(ours) == set(theirs) and ours
    for id_, sample in ours.items():
        expected, actual = flat(sample["responses"]), flat(theirs[id_]["responses"])
        if name == "nq_open":
            assert actual == expected
        else:
            assert actual == pytest.approx(expected, rel=1e-5)


def test_an_endpoint_without_the_likeliest_tokens_is_refused(
    long_llama, harness_data, tmp_path, monkeypatch
):
    """Not taken for one whose answers are never the likeliest."""
    words = ["--tasks", "lm_eval:lambada_openai", "--data", harness_data, "--limit", "1"]
    with serving(long_llama) as server:
        echo = server.echo
        monkeypatch.setattr(server, "echo", lambda ids: echo(ids) | {"top_logprobs": None})
        words += ["--backend", "openai", "--base-url", server.url, "--model-name", "tiny"]
        words += ["--route", "completions", "--output", tmp_path / "scores"]
        with pytest.raises(DataError, match="returns no `top_logprobs` of prompts"):
            run.main([str(word) for word in words])


def test_a_chat_route_generates_and_refuses_to_score(long_llama, harness_data, tmp_path):
    words = ["--data", harness_data, "--limit", "2", "--protocol", "chat", "--route", "chat"]
    with serving(long_llama) as server:
        words += ["--backend", "openai", "--base-url", server.url, "--model-name", "tiny"]
        generate = ["--tasks", "lm_eval:nq_open", "--max-new-tokens", "4"]
        run.main([str(word) for word in [*words, *generate, "--output", tmp_path / "scores"]])
        assert len(samples_of(tmp_path / "scores", "nq_open")) == 2
        score = ["--tasks", "lm_eval:arc_easy", "--output", tmp_path / "refused"]
        with pytest.raises(UsageError, match="--route chat returns no log-probabilities"):
            run.main([str(word) for word in [*words, *score]])
