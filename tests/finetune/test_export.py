import json
import shutil

import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune import export, train
from galen.errors import DataError, UsageError
from tests.conftest import run as command_line
from tests.finetune.hub import Hub


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_llama, question_file):
    """A finished run of two steps with a merged model.

    Half of the questions are test questions, too.
    """
    folder = tmp_path_factory.mktemp("export")
    lines = question_file.read_text().splitlines()
    (folder / "test.jsonl").write_text("\n".join(lines[:2]) + "\n")
    (folder / "train.jsonl").write_text(
        "\n".join(line for line in lines if int(json.loads(line)["pmid"]) % 3 == 0) + "\n"
    )
    (folder / "recipe.yaml").write_text(
        f"model: {{path: {tiny_llama}}}\n"
        f"data: {{train: {folder / 'train.jsonl'},"
        f" decontaminate_against: [{folder / 'test.jsonl'}]}}\n"
        "lora: {r: 4, alpha: 8, merge: true}\noptimizer: {lr: 0.02}\n"
        f"training: {{train_iters: 2}}\noutput: {folder / 'run'}\n"
    )
    train.main([str(folder / "recipe.yaml")])
    return folder / "run"


@pytest.fixture
def arguments(run, tmp_path):
    return [
        "--run",
        str(run),
        "--output",
        str(tmp_path / "out"),
        "--name",
        "Tiny",
        "--license",
        "Apache-2.0",
    ]


def test_a_corpus_of_which_nothing_was_kept_has_its_row(arguments, run, tmp_path):
    counts, inputs = (
        {"kept": 0, "sources": {"pubmed": {"kept": 0}}},
        [{"path": "a", "source": "pubmed", "license": "CC0-1.0"}],
    )
    (tmp_path / "manifest.json").write_text(
        json.dumps(
            {"stage": "curate", "inputs": inputs, "config": {}, "outputs": [], "counts": counts}
        )
    )
    export.main([*arguments, "--corpus", str(tmp_path)])
    assert "| pubmed | 0 | 0.0% | CC0-1.0 |" in (tmp_path / "out/README.md").read_text()


def test_the_card_says_what_manifests_and_results_say(arguments, run, tmp_path, tiny_llama):
    corpus, scores = tmp_path / "corpus", tmp_path / "scores"
    corpus.mkdir()
    scores.mkdir()
    sources = {"pubmed": {"kept": 900}, "guidelines": {"kept": 100}}
    inputs = [
        {"path": "a", "source": "pubmed", "license": None},
        {"path": "b", "source": "guidelines", "license": "CC-BY-4.0"},
    ]
    counts = {"kept": 1000, "sources": sources}
    made = {"stage": "curate", "inputs": inputs, "config": {}, "outputs": [], "counts": counts}
    (corpus / "manifest.json").write_text(json.dumps(made))
    summary = {
        "samples": 500,
        "kind": "multiple_choice",
        "metrics": {"accuracy": {"value": 0.7700012345678901, "low": 0.731, "high": 0.805}},
        "contaminated": 12,
    }
    summary["clean"] = {"samples": 488, "value": 0.7623, "low": 0.72, "high": 0.8}
    perplexity = {
        "samples": 40,
        "kind": "perplexity",
        "metrics": {"perplexity": {"value": 21.400123456789012, "low": 18.0, "high": 25.0}},
    }
    results = {
        "model": {"name": "tuned"},
        "protocol": "meditron_chat",
        "tasks": {"pubmedqa": summary, "held_out": perplexity},
    }
    (scores / "results.json").write_text(json.dumps(results))
    assert export.main([*arguments, "--corpus", str(corpus), "--scores", str(scores)]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: transformers\npipeline_tag: ")
    for wanted in (
        "| pubmed | 900 | 90.0% | each document's own |",
        "| guidelines | 100 | 10.0% | CC-BY-4.0 |",
        "| tuned | pubmedqa | meditron_chat | accuracy | 0.77 | [0.731, 0.805] | 500 |",
        "12 of 500 samples are in the pretraining corpus; on the others 0.7623 [0.72, 0.8].",
        "1 training records were left out",
        "| steps | 2 |",
        f"| base model | {tiny_llama.name} |",
        "- `train.jsonl`, template ",
        "r 4, alpha 8.0",
        "Nothing it writes is medical advice",
    ):
        assert wanted in card
    front = yaml.safe_load(card.split("---")[1])
    assert front["language"] == ["en"] and front["pipeline_tag"] == "text-generation"
    # neither the base nor the data are on the hub
    assert "base_model" not in front and "datasets" not in front
    (entry,) = front["model-index"]
    assert entry["name"] == "Tiny"
    metric = {"type": "accuracy", "value": 0.77, "name": "accuracy (meditron_chat)"}
    dataset = {"name": "pubmedqa", "type": "pubmedqa"}
    assert entry["results"][0] == {
        "task": {"type": "question-answering"},
        "dataset": dataset,
        "metrics": [metric],
    }
    assert entry["results"][1]["task"] == {"type": "text-generation"}
    assert entry["results"][1]["metrics"][0]["value"] == 21.4
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    AutoTokenizer.from_pretrained(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_no_path_of_this_machine_leaves_it(arguments, run, tmp_path, tiny_llama, kind):
    if kind == "adapter":
        shutil.copytree(run, tmp_path / "run")
        shutil.rmtree(tmp_path / "run" / "model")
        arguments[1] = str(tmp_path / "run")
    export.main([*arguments, "--base", "someone/base", "--language", "de", "en"])
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        for local in (tiny_llama, run.parent, tmp_path):
            assert str(local).encode() not in content, path
    card = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == "someone/base" and front["language"] == ["de", "en"]
    if kind == "adapter":
        config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "someone/base"
        assert config["target_modules"] == sorted(config["target_modules"])
    else:  # the lines of the card run as they are
        snippet = card.split("```python\n")[1].split("```")[0]
        assert command_line(
            "-c", snippet.replace('"."', repr(str(tmp_path / "out")))
        ).stdout.startswith("Question: Which")


def push(arguments, hub):
    """Export and upload as a user does, to this hub.

    Large files go by Git LFS: the hub's other protocol needs another server.
    """
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": "hf_test",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }
    return command_line(
        "finetune/export.py", *arguments, "--push", "someone/tiny", check=False, env=environment
    )


def test_an_upload_holds_each_file_of_the_folder_in_a_private_repository(arguments, tmp_path):
    with Hub() as hub:
        done = push(arguments, hub)
        assert done.returncode == 0 and done.stdout.endswith("uploaded to someone/tiny\n"), (
            done.stderr
        )
        wanted = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        ((message, contents),) = hub.commits
        assert {
            "README.md",
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "manifest.json",
        } <= set(wanted)
        assert contents == wanted and message == "Model, tokenizer and card" and len(hub.large) == 1
        (created,) = hub.repositories.values()
        assert created.get("private", created.get("visibility")) in (True, "private")


def test_a_hub_that_refuses_is_reported_and_the_folder_stays(arguments, tmp_path):
    with Hub(token=None) as hub:
        done = push(arguments, hub)
        assert (
            done.returncode == 1
            and "is written, but was not uploaded" in done.stderr
            and "Traceback" not in done.stderr
        )
        assert hub.asked == ["/api/repos/create"] and (tmp_path / "out" / "README.md").is_file()


def test_no_network_is_reported_and_the_same_command_uploads_the_folder_as_it_is_then(
    arguments, tmp_path, monkeypatch
):
    with Hub() as hub:
        pass  # its port is closed again
    assert "was not uploaded" in push(arguments, hub).stderr
    with (tmp_path / "out" / "README.md").open("a") as card:
        card.write("Written by hand.\n")
    with Hub() as hub:
        done = push(arguments, hub)
        ((_, contents),) = hub.commits
    assert "already complete" in done.stderr and contents["README.md"].endswith(
        b"Written by hand.\n"
    )


def test_the_front_of_the_card_is_yaml_whatever_the_license(arguments, tmp_path):
    assert export.main([*arguments[:-1], "ours: ask"]) == 0
    assert (
        yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])["license"]
        == "ours: ask"
    )


def test_nothing_is_sent_without_push(arguments, monkeypatch):
    with Hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        assert export.main(arguments) == 0 and hub.asked == []


def test_mistakes_are_reported(arguments, tmp_path):
    with pytest.raises(UsageError, match="write OWNER/NAME"):
        export.main([*arguments, "--push", "tiny"])
    with pytest.raises(DataError, match="cannot be read"):
        export.main([*arguments, "--scores", str(tmp_path)])
    arguments[1] = str(tmp_path)
    with pytest.raises(DataError, match="did `galen finetune` that writes it finish"):
        export.main(arguments)
