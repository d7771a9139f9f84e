"""Chat and reasoning protocols as a user runs them, on a tiny random Llama with a chat template."""

import datetime
import json
import shutil
from pathlib import Path

import pytest

from evaluation import run
from evaluation.scoring.recipe import Recipe
from galen.errors import DataError, UsageError

TEMPLATES = Path(__file__).parent / "chat_models" / "templates"


@pytest.fixture(scope="module")
def chat_llama(tiny_llama, tmp_path_factory):
    """A model whose template opens thinking, and that samples by its own settings."""
    folder = tmp_path_factory.mktemp("chat") / "model"
    shutil.copytree(tiny_llama, folder)
    shutil.copy(TEMPLATES / "deepseek_r1.jinja", folder / "chat_template.jinja")
    path = folder / "generation_config.json"
    config = json.loads(path.read_text()) if path.exists() else {}
    config |= {"do_sample": True, "temperature": 0.6, "top_k": 20}
    path.write_text(json.dumps(config))
    return folder


@pytest.fixture
def evaluate(chat_llama, data, tmp_path):
    """Evaluate on the nine questions; return the results and the samples."""

    def evaluate(**options):
        values = {
            "model": [chat_llama],
            "tasks": ["mesh_topics"],
            "data": data,
            "output": tmp_path / "scores",
            "device": "cpu",
        } | options
        [results] = run.evaluate(Recipe(**values))
        lines = (values["output"] / "samples" / "mesh_topics.jsonl").read_text().splitlines()
        return results, [json.loads(line) for line in lines]

    return evaluate


def prompts(folder):
    lines = (folder / "prompts" / "mesh_topics.jsonl").read_text().splitlines()
    return [json.loads(line)["prompt"] for line in lines]


def test_published_protocols_do_not_use_the_template(evaluate, tiny_llama, tmp_path):
    _, with_template = evaluate(output=tmp_path / "with")
    results, without = evaluate(model=[tiny_llama], output=tmp_path / "without")
    assert with_template == without
    assert prompts(tmp_path / "with") == prompts(tmp_path / "without")
    assert results["settings"]["chat_template"] == "none" and "chat" not in results


def test_letters_are_scored_after_the_generation_prompt(evaluate, tmp_path):
    results, samples = evaluate(chat_template="auto", system_prompt="Be careful.")
    assert results["settings"]["system_prompt"] == "Be careful."
    assert results["chat"]["variables"] == {"enable_thinking": False}
    assert results["chat"]["thinking_markers"] == ["<think>", "</think>"]
    for prompt in prompts(tmp_path / "scores"):
        assert prompt.startswith("Be careful.<|User|>")
        assert prompt.endswith("Answer:<|Assistant|><think>\n</think>\n\n")
    assert all(set(sample["logprobs"]) == set("ABCD") for sample in samples)


def test_a_reasoning_model_that_never_ends_its_thinking(evaluate):
    results, samples = evaluate(protocol="reasoning", max_new_tokens=24)
    assert results["sampling"] == {
        "temperature": 0.6,
        "top_p": 1.0,
        "top_k": 20,
        "repetition_penalty": 1.0,
        "max_new_tokens": 24,
    }
    assert results["settings"]["temperature"] is None  # runs of other models are comparable
    metrics = results["tasks"]["mesh_topics"]["metrics"]
    ended = [sample["num_tokens"][0] < 24 for sample in samples]
    assert metrics["truncated_thinking"]["value"] == 1.0
    assert metrics["unparsed"]["value"] == 0.0
    assert metrics["tokens_per_answer"]["value"] == pytest.approx(
        sum(sample["num_tokens"][0] for sample in samples) / 9
    )
    assert not all(ended)


def test_budget_forcing_gets_an_answer_to_each_question(evaluate, tmp_path):
    results, samples = evaluate(
        protocol="reasoning", thinking_budget=12, max_new_tokens=8, budget_forcing=True
    )
    metrics = results["tasks"]["mesh_topics"]["metrics"]
    cue = "\n</think>\n\nThe final answer is \\boxed{"
    for sample in samples:
        [text] = sample["outputs"]
        assert (cue in text) == sample["forced"][0]
        assert sample["truncated_thinking"] == [not sample["forced"][0]]
    assert metrics["forced"]["value"] > 0.5
    again, repeated = evaluate(
        protocol="reasoning",
        thinking_budget=12,
        max_new_tokens=8,
        budget_forcing=True,
        output=tmp_path / "again",
        max_batch_tokens=16,
    )
    assert [sample["outputs"] for sample in sorted(samples, key=lambda item: item["id"])] == [
        sample["outputs"] for sample in sorted(repeated, key=lambda item: item["id"])
    ]
    assert again["tasks"] == results["tasks"]


def test_several_answers_have_pass_at_k(evaluate):
    results, samples = evaluate(protocol="chat", max_new_tokens=6, num_samples=3)
    metrics = results["tasks"]["mesh_topics"]["metrics"]
    assert {"accuracy", "pass@1", "pass@2", "pass@3"} <= set(metrics)
    assert metrics["pass@1"]["value"] <= metrics["pass@3"]["value"]
    assert all(len(sample["outputs"]) == len(sample["num_tokens"]) == 3 for sample in samples)


def test_other_settings_do_not_resume_into_the_same_folder(evaluate):
    settings = {"protocol": "chat", "max_new_tokens": 2, "limit": 2}
    evaluate(**settings)
    for changed in (
        {"system_prompt": "Other."},
        {"temperature": 0.9},
        {"answer_format": "json"},
        {"thinking_budget": 4},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"chat_template": "none", "fewshot_as_multiturn": False},
        {"repetition_penalty": 1.2},
    ):
        with pytest.raises((DataError, UsageError), match="scores"):
            evaluate(**settings | changed)


def test_another_content_of_the_template_file_does_not_resume(evaluate, tmp_path):
    template = tmp_path / "template.jinja"
    shutil.copy(TEMPLATES / "chatml.jinja", template)
    settings = {"protocol": "chat", "max_new_tokens": 2, "limit": 2}
    settings["chat_template"] = str(template)
    evaluate(**settings)
    template.write_text(template.read_text().replace("helpful", "careful"))
    with pytest.raises((DataError, UsageError), match="scores"):
        evaluate(**settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.5}, "--temperature is for protocols that generate; lm_eval does not"),
        ({"system_prompt": "x"}, "--system-prompt needs a chat template"),
        ({"chat_template": "missing.jinja"}, "there is no file missing.jinja"),
        ({"protocol": "chat", "top_p": 0.0}, "--top-p must be above 0 and at most 1"),
        ({"protocol": "chat", "num_samples": 2, "temperature": 0.0}, "decodes greedily"),
        ({"protocol": "meditron_cot", "answer_format": "json"}, "has a format of its own"),
        ({"protocol": "chat", "budget_forcing": True}, "needs --thinking-budget"),
        ({"protocol": "meditron_chat", "chat_template": "auto"}, "have the chat format"),
        (
            {"protocol": "meditron", "chat_template": "auto", "fewshot_as_multiturn": True},
            "examples of meditron are one text",
        ),
        ({"protocol": "chat", "thinking_budget": 0}, "--thinking-budget must be at least 1"),
        ({"protocol": "chat", "thinking_markers": ["", "x"]}, "must not be empty"),
        ({"protocol": "chat", "thinking_markers": ["x"]}, "takes two texts"),
        ({"protocol": "chat", "guided_decoding": True}, "transformers has no guided decoding"),
        ({"protocol": "chat", "system_prompt": "@missing"}, "--system-prompt: missing"),
        ({"protocol": "chat", "chat_template_kwargs": {"messages": []}}, "cannot be set"),
        (
            {"protocol": "chat", "chat_template_kwargs": {"enable_thinking": "false"}},
            "enable_thinking must be true or false",
        ),
        (
            {"protocol": "chat", "chat_template_kwargs": {"x": datetime.date(2024, 1, 1)}},
            "--chat-template-kwargs: not JSON",
        ),
    ],
)
def test_wrong_options_are_named(evaluate, options, message):
    with pytest.raises(UsageError, match=message):
        evaluate(**options)


def test_the_command_line_has_an_option_for_each_key(chat_llama, data, tmp_path, capsys):
    arguments = [
        *("--model", str(chat_llama), "--tasks", "mesh_topics", "--data", str(data)),
        *("--output", str(tmp_path / "scores"), "--device", "cpu", "--limit", "2"),
        *("--protocol", "chat", "--max-new-tokens", "2", "--temperature", "0.5"),
        *("--top-p", "0.9", "--top-k", "5", "--repetition-penalty", "1.1"),
        *("--system-prompt", "Be brief.", "--answer-format", "json", "--chat-template", "auto"),
        *("--chat-template-kwargs", '{"enable_thinking": true}', "--fewshot-as-multiturn"),
        *("--thinking-markers", "<think>", "</think>", "--thinking-budget", "3"),
        "--budget-forcing",
    ]
    assert run.main(arguments) == 0
    results = json.loads((tmp_path / "scores" / "results.json").read_text())
    settings = results["settings"]
    assert settings["answer_format"] == "json" and settings["guided_decoding"] is False
    assert settings["thinking_markers"] == ["<think>", "</think>"]
    assert results["sampling"]["top_k"] == 5
    text = (tmp_path / "scores" / "samples" / "mesh_topics.jsonl").read_text()
    assert '</think>\\n\\n{\\"answer\\": \\"' in text
