"""The report on small folders in the formats that the other rooms write."""

import gzip
import json
import random
import re
from pathlib import Path

import pytest

from evaluation import report
from evaluation.metrics import intervals
from evaluation.reporting import report_inputs
from galen import manifest
from galen.errors import DataError, UsageError

TOKENS = 100


def write_lines(path: Path, records: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def write_scores(
    folder: Path, name: str, nll_per_token: float, right: int, samples: int = 40
) -> Path:
    """A results folder with one perplexity task and one multiple-choice task.

    Every document has the same number of tokens.
    """
    noise = random.Random(0)
    documents = [
        {
            "id": str(i),
            "nll": TOKENS * (nll_per_token + noise.uniform(-0.2, 0.2)),
            "tokens": TOKENS,
            "bytes": 450,
        }
        for i in range(samples)
    ]
    questions = [
        {"id": str(i), "answer": "A", "prediction": "A" if i < right else "B", "correct": i < right}
        for i in range(samples)
    ]
    perplexity = intervals.perplexity(
        [document["nll"] for document in documents], [TOKENS] * samples
    )
    results = {
        "model": {"name": name, "path": f"models/{name}", "adapter": None},
        "protocol": "lm_eval",
        "tasks": {
            "held_out": {
                "kind": "perplexity",
                "samples": samples,
                "metrics": {"perplexity": perplexity.as_dict()},
            },
            "topics": {
                "kind": "multiple_choice",
                "samples": samples,
                "chance": 0.25,
                "metrics": {
                    "accuracy": intervals.accuracy([i < right for i in range(samples)]).as_dict()
                },
            },
        },
        "versions": {"python": "3.11.7", "galen": "0.1.0", "torch": "2.13.0"},
        "created": "2026-01-01T00:00:00Z",
    }
    write_lines(folder / "samples" / "held_out.jsonl", documents)
    write_lines(folder / "samples" / "topics.jsonl", questions)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


def write_corpus(folder: Path, documents: int = 30) -> Path:
    counts = {
        "read": documents + 12,
        "kept": documents,
        "dropped": {"abstract: none": 9, "language: not wanted <b>": 3},
        "splits": {"train": documents, "validation": 0, "test": 0},
    }
    (folder / "train").mkdir(parents=True)
    with gzip.open(folder / "train" / "00000.jsonl.gz", "wt", encoding="utf-8") as file:
        for i in range(documents):
            record = {
                "id": str(i),
                "text": "word " * (50 + i),
                "metadata": {"date": f"{1990 + i % 9}-05", "language": ["eng"]},
            }
            file.write(json.dumps(record) + "\n")
    manifest.write(
        folder / manifest.NAME,
        stage="curate",
        inputs=[],
        config={"seed": 1},
        outputs=[],
        counts=counts,
    )
    return folder


def write_run(folder: Path, losses: list[float]) -> Path:
    train = [
        {"kind": "train", "step": i, "loss": loss, "tokens": 1000 * i}
        for i, loss in enumerate(losses, start=1)
    ]
    ends = [
        {"kind": "validation", "step": 0, "loss": losses[0]},
        {"kind": "validation", "step": len(losses), "loss": losses[-1]},
    ]
    write_lines(folder / "log.jsonl", [*train, *ends])
    (folder / "recipe.yaml").write_text("train_iters: 12\n", encoding="utf-8")
    return folder


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return [
        write_scores(tmp_path / "base", "base", 3.0, 20),
        write_scores(tmp_path / "tuned", "tuned", 2.8, 21),
    ]


def write_report(tmp_path: Path, *arguments: object) -> str:
    output = tmp_path / "report.html"
    report.main([*map(str, arguments), "--output", str(output)])
    return output.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("whole")
    models = [
        write_scores(folder / "base", "base", 3.0, 20),
        write_scores(folder / "tuned", "tuned", 2.8, 21),
    ]
    corpus, run = write_corpus(folder / "corpus"), write_run(folder / "run", [3.5, 3.25, 3.125])
    times = folder / "times.json"
    times.write_text(
        json.dumps(
            {
                "curate": {"title": "Curate", "seconds": 61.0},
                "score": {"title": "Score", "seconds": 100},
            }
        )
    )
    return write_report(
        folder,
        *models,
        "--corpus",
        corpus,
        "--pretraining",
        run,
        "--finetuning",
        run,
        "--times",
        times,
    )


def test_whole_page_holds_the_true_figures(whole_page: str) -> None:
    assert re.search(r"records read</dt><dd>42<", whole_page)
    assert re.search(
        r"dropped, abstract: none<div[^>]*21.43%.*?</th>\s*<td class=\"figure\">9</td><td"
        r" class=\"figure\">21.4 %",
        whole_page,
    )
    assert "3.500 → 3.125" in whole_page
    assert "train_iters: 12" in whole_page
    assert re.search(r"Curate</th><td class=\"figure\">61 s", whole_page)
    assert "2 min 41 s" in whole_page  # both stages together
    assert "52.5 %" in whole_page  # 21 of 40


def test_page_needs_nothing_from_elsewhere_and_ids_are_unique(whole_page: str) -> None:
    assert not re.search(r'(src|href)="(?!#)', whole_page)
    assert "<script" not in whole_page
    ids = re.findall(r' id="([^"]*)"', whole_page)
    assert len(ids) == len(set(ids))
    assert "language: not wanted &lt;b&gt;" in whole_page


def test_verdict_states_changes_and_unclear_differences(
    tmp_path: Path, models: list[Path], capsys: pytest.CaptureFixture
) -> None:
    write_report(tmp_path, *models)
    output = capsys.readouterr().out
    perplexity, accuracy = output.splitlines()[:2]
    # the two models' documents differ by exactly 0.2 nats a token: 20.09 against 16.44, up to the
    # noise that both share
    assert re.search(
        r"fell to .* for tuned \(difference −3\.\d\d, 95 % interval −3\.\d\d to −3\.\d\d\)",
        perplexity,
    )
    assert "52.5 % for tuned, no clear change (difference +2.5 points" in accuracy


def test_sections_without_input_are_omitted(tmp_path: Path, models: list[Path]) -> None:
    page = write_report(tmp_path, models[0])
    for heading in ("Records read", "Training", "Time by stage", "Against"):
        assert heading not in page
    assert "Before and after" in page


def test_a_restarted_run_counts_each_step_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [3.5, 3.25])
    with (run / "log.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train", "step": 2, "loss": 3.0, "tokens": 2000}) + "\n")
    assert [line["loss"] for line in report_inputs.read_run(run).train] == [3.5, 3.0]


def test_different_items_do_not_compare(tmp_path: Path, models: list[Path]) -> None:
    fewer = write_scores(tmp_path / "fewer", "fewer", 2.0, 3, samples=10)
    with pytest.raises(
        DataError, match=r"base was scored on 40 samples, fewer on 10, 10 of them the same"
    ):
        write_report(tmp_path, models[0], fewer)
    assert not (tmp_path / "report.html").exists()


def test_different_protocols_do_not_compare(tmp_path: Path, models: list[Path]) -> None:
    path = models[1] / "results.json"
    path.write_text(path.read_text().replace('"lm_eval"', '"mmedbench"'))
    with pytest.raises(
        DataError, match="base was scored with the protocol lm_eval, tuned with mmedbench"
    ):
        write_report(tmp_path, *models)


def test_other_settings_of_one_protocol_do_not_compare(tmp_path: Path, models: list[Path]) -> None:
    for folder, num_fewshot in zip(models, (0, 5), strict=True):
        results = json.loads((folder / "results.json").read_text())
        (folder / "results.json").write_text(
            json.dumps(results | {"settings": {"form": "lm_eval", "num_fewshot": num_fewshot}})
        )
    with pytest.raises(
        DataError,
        match="base was scored with num_fewshot 0, tuned with num_fewshot 5; these scores are not",
    ):
        write_report(tmp_path, *models)


def test_other_wording_of_a_task_does_not_compare(tmp_path: Path, models: list[Path]) -> None:
    results = json.loads((models[1] / "results.json").read_text())
    results["tasks"]["topics"]["settings"] = {"prompt": {"doc_to_text": "{{ question }}"}}
    (models[1] / "results.json").write_text(json.dumps(results))
    with pytest.raises(
        DataError,
        match=r"'topics': base and tuned were scored with different task files \(keys prompt\)",
    ):
        write_report(tmp_path, *models)


def test_questions_of_another_release_do_not_compare(tmp_path: Path, models: list[Path]) -> None:
    samples = models[1] / "samples" / "topics.jsonl"
    samples.write_text(samples.read_text().replace('"answer": "A"', '"answer": "C"', 1))
    with pytest.raises(
        DataError, match="base and tuned were scored on questions with different answers"
    ):
        write_report(tmp_path, *models)


def test_a_task_that_the_first_model_lacks_is_shown(
    tmp_path: Path, models: list[Path], capsys: pytest.CaptureFixture
) -> None:
    results = json.loads((models[0] / "results.json").read_text())
    del results["tasks"]["topics"]
    (models[0] / "results.json").write_text(json.dumps(results))
    write_report(tmp_path, *models)
    assert "Accuracy on 40 questions (topics) is 52.5 %" in capsys.readouterr().out


def under(folder: Path, protocol: str, **settings) -> Path:
    """The same results as if scored under another protocol, or with other settings of it."""
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(
        json.dumps(results | {"protocol": protocol, "settings": settings})
    )
    return folder


def test_several_protocols_of_one_model(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folders = [
        under(
            write_scores(tmp_path / f"{name}-{protocol}-{num_fewshot}", name, 3.0, right),
            protocol,
            num_fewshot=num_fewshot,
        )
        for name, right in (("base", 20), ("tuned", 31))
        for protocol, num_fewshot in (("lm_eval", 0), ("lm_eval", 5), ("meditron", 3))
    ]
    page = write_report(tmp_path, *folders, "--tables", tmp_path / "tables")
    lines = capsys.readouterr().out.splitlines()
    accuracies = [line for line in lines if line.startswith("Accuracy")]
    assert [re.search(r"\((topics[^)]*)\)", line)[1] for line in accuracies] == [
        "topics, lm_eval, num_fewshot 0",
        "topics, lm_eval, num_fewshot 5",
        "topics, meditron",
    ]
    assert (
        "50.0 % for base (lm_eval, num_fewshot 0); rose to 77.5 % for tuned"
        " (lm_eval, num_fewshot 0)" in accuracies[0]
    )
    assert "50.0 % for base (meditron); rose to 77.5 % for tuned (meditron)" in accuracies[2]
    assert any(line.startswith("Perplexity on 40 documents (held_out): ") for line in lines)
    assert "Prompt protocol: lm_eval, meditron." in page
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    with pytest.raises(
        DataError,
        match=r"base \(lm_eval\) was scored with the protocol lm_eval, tuned with mmedbench",
    ):
        write_report(tmp_path, folders[0], folders[2], under(folders[3], "mmedbench"))
    with pytest.raises(UsageError, match="have the same model name"):
        write_report(tmp_path, folders[0], folders[2], folders[0])


def test_same_name_twice(tmp_path: Path, models: list[Path]) -> None:
    with pytest.raises(UsageError, match="have the same model name"):
        write_report(tmp_path, models[0], models[0])


def test_broken_input_is_one_clear_message(tmp_path: Path, models: list[Path]) -> None:
    with pytest.raises(DataError, match=r"cannot read .*results.json: No such file"):
        write_report(tmp_path, tmp_path / "nowhere")
    with pytest.raises(
        DataError, match=r"it has the results of several models: give .*/base .*/tuned"
    ):
        write_report(tmp_path, tmp_path)
    with pytest.raises(DataError, match=r"there is no .*log.jsonl"):
        write_report(tmp_path, *models, "--pretraining", tmp_path)
    corpus = write_corpus(tmp_path / "corpus")
    [file] = (corpus / "train").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"00000.jsonl.gz, after line \d+: cannot be read"):
        write_report(tmp_path, *models, "--corpus", corpus)
    samples = models[1] / "samples" / "topics.jsonl"
    samples.write_text(samples.read_text().replace('"correct"', '"right"', 1))
    with pytest.raises(
        DataError, match=r"topics.jsonl, line 1: not a scored sample: the key 'correct' is missing"
    ):
        write_report(tmp_path, *models)
    (models[0] / "results.json").write_text('{"model": {"name": "base"}}')
    with pytest.raises(
        DataError,
        match=(
            r"results.json is not a results file of `galen evaluate`: the key 'tasks' is missing"
        ),
    ):
        write_report(tmp_path, *models)
