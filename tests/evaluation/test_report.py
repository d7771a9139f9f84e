"""The report on small folders in the formats that the other rooms write."""

import csv
import gzip
import json
import random
import re
from pathlib import Path

import pytest

from evaluation import report
from evaluation.metrics import aggregate, intervals
from evaluation.metrics.intervals import Estimate
from evaluation.reporting import comparison, report_inputs, verdicts
from evaluation.scoring.multiple_choice import MultipleChoice
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
    assert accuracy.endswith(", corrected p = 1.000.")


def write_questions(
    folder: Path, name: str, right: dict[str, set[int]], contaminated: set[int] | None = None
) -> Path:
    """A results folder with tasks of 40 questions each; `right` has the correct ones of a task.

    `contaminated`: the questions in the training corpus; None if that was not checked.
    """
    tasks = {}
    for task, correct in right.items():
        samples = [
            {"id": f"{n}", "answer": "A", "prediction": "A" if n in correct else "B"}
            | {"correct": n in correct}
            for n in range(40)
        ]
        entry = aggregate.choice_entry([samples], [0])
        if contaminated is not None:
            ids = {f"{n}" for n in contaminated}
            entry |= aggregate.by_contamination([samples], ids, aggregate.accuracy)
        tasks[task] = {"kind": "multiple_choice", "samples": 40, "chance": 0.25, **entry}
        write_lines(folder / "samples" / f"{task}.jsonl", samples)
    results = {
        "model": {"name": name, "path": name, "adapter": None},
        "protocol": "lm_eval",
        "tasks": tasks,
        "versions": {"galen": "0.1.0"},
    }
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


def marked(page: str) -> list[str]:
    """Return the judgements of the differences on a page, in order."""
    found = re.findall(r'<span class="(better|worse|unclear)">[+−][0-9.]+ (\w+)</span>', page)
    assert all(css == word for css, word in found)
    return [word for _, word in found]


@pytest.mark.parametrize(
    ("tasks", "gained", "lost", "judgement"),
    [
        # exact McNemar, 7 against 1: p = 18/256 = 0.0703, though the interval excludes zero
        (1, 7, 1, "unclear"),
        (10, 7, 1, "unclear"),  # corrected: 0.703
        (1, 8, 1, "better"),  # p = 20/512 = 0.0391
        (2, 8, 1, "unclear"),  # corrected: 0.0781
        (10, 10, 0, "better"),  # p = 2/1024; corrected 0.0195
        (1, 1, 8, "worse"),
        (2, 1, 8, "unclear"),
        (1, 5, 5, "unclear"),
        (1, 0, 0, "unclear"),
    ],
)
def test_verdicts_follow_the_corrected_test(
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    tasks: int,
    gained: int,
    lost: int,
    judgement: str,
) -> None:
    before = set(range(20))
    after = set(range(lost, 20 + gained))
    names = [f"task{n}" for n in range(tasks)]
    folders = [
        write_questions(tmp_path / "base", "base", dict.fromkeys(names, before)),
        write_questions(tmp_path / "tuned", "tuned", dict.fromkeys(names, after)),
    ]
    page = write_report(tmp_path, *folders)
    assert marked(page) == [judgement] * tasks
    value = f"{100 * len(after) / 40:.1f} % for tuned"
    expected = {"better": f"rose to {value}", "worse": f"fell to {value}"}
    sentences = [line for line in capsys.readouterr().out.splitlines() if "Accuracy" in line]
    for sentence in sentences:
        assert expected.get(judgement, f"; {value}, no clear change (difference ") in (
            sentence.replace("50.0 % for base; ", "; ", 1)
        )
        assert re.search(r"95 % interval [+−][0-9.]+ to [+−][0-9.]+\), corrected p [<=]", sentence)
        assert sentence.count("rose") + sentence.count("fell") == (judgement != "unclear")
    assert ("the one test" if tasks == 1 else f"all {tasks} tests") in page


def test_a_significant_p_value_is_not_rounded_to_the_level() -> None:
    assert verdicts.p_value(0.0494) == "0.049"
    assert verdicts.p_value(0.04996) == "< 0.05"
    assert verdicts.p_value(0.05) == "0.050"
    assert verdicts.p_value(0.0004) == "< 0.001"
    assert verdicts.p_value(0.7031) == "0.703"


def test_clean_and_contaminated_scores(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """All that the second model gains is in the corpus: 30 of 40 questions, all right after it."""
    right = {"leaked": set(range(10, 40)), "sealed": set(range(10))}
    folders = [
        write_questions(tmp_path / "base", "base", {"leaked": {0, 1, 2, 3, 10, 11}}),
        write_questions(tmp_path / "tuned", "tuned", right, set(range(10, 40))),
    ]
    page = write_report(tmp_path, *folders, "--tables", tmp_path / "tables")
    leaked, sealed = [line for line in capsys.readouterr().out.splitlines() if "Acc" in line]
    assert "15.0 % for base; rose to 75.0 % for tuned" in leaked
    assert (
        "Without the 30 that are in the training corpus: 40.0 % for base; 0.0 % for tuned, no clear"
        " change (difference −40.0 points" in leaked
    )
    assert "Without the 30 that are in the training corpus: 100.0 % (95 % interval" in sealed
    assert marked(page) == ["better", "unclear"]
    assert "All 40</th>" in page
    assert "Clean 10</th>" in page
    assert "Contaminated 30</th>" in page
    assert "Contamination not checked for base." in page
    rows = list(csv.DictReader((tmp_path / "tables" / "all.csv").open()))
    shown = {
        (row["subset"], row["samples"], row["model"]): row["value"]
        for row in rows
        if row["task"] == "leaked"
    }
    assert shown == {
        ("all", "40", "base"): "0.1500",
        ("all", "40", "tuned"): "0.7500",
        ("clean", "10", "base"): "0.4000",
        ("clean", "10", "tuned"): "0.0000",
        ("contaminated", "30", "base"): "0.0667",
        ("contaminated", "30", "tuned"): "1.0000",
    }
    # 4 lost and none gained: p = 2/16; two tests are corrected for
    tested = {row["subset"]: row for row in rows if row["p"]}
    assert tested.keys() == {"all", "clean"}
    assert float(tested["clean"]["p"]) == pytest.approx(0.125)
    assert float(tested["clean"]["p (Holm)"]) == pytest.approx(0.125)


def test_contamination_of_all_or_no_samples(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    right = {"topics": set(range(10))}
    everything = write_questions(tmp_path / "a", "a", right, set(range(40)))
    nothing = write_questions(tmp_path / "b", "b", right, set())
    page = write_report(tmp_path, everything)
    assert "All of them are in the training corpus." in capsys.readouterr().out
    assert "Contaminated 40</th>" in page
    assert "Clean" not in page
    page = write_report(tmp_path, nothing)
    assert "training corpus" not in capsys.readouterr().out
    assert "No sample is in the training corpus." in page


def test_subsets_of_several_runs_equal_the_results(tmp_path: Path) -> None:
    """Clean and contaminated values of the report are those of `results.json`."""
    runs = [
        [
            {"id": f"{n}", "answer": "A", "prediction": "A", "correct": n % step == 0}
            for n in range(9)
        ]
        for step in (2, 3)
    ]
    ids = {"0", "3", "4"}
    entry = aggregate.choice_entry(runs, [1, 2])
    entry |= aggregate.by_contamination(runs, ids, aggregate.accuracy)
    folder = tmp_path / "scores"
    for name, samples in zip("12", runs, strict=True):
        write_lines(folder / "samples" / f"topics@{name}.jsonl", samples)
    tasks = {"topics": {"kind": "multiple_choice", "samples": 9, **entry}}
    results = {"model": {"name": "a", "path": "a"}, "protocol": "x", "tasks": tasks, "versions": {}}
    (folder / "results.json").write_text(json.dumps(results))
    scores = report_inputs.read_scores(folder).tasks["topics"]
    assert scores.contaminated == ids
    for subset, name in ((scores.contaminated, "contaminated_subset"), (set("125678"), "clean")):
        expected = {key: value for key, value in entry[name].items() if key != "samples"}
        assert scores.subset(subset).metrics["accuracy"].as_dict() == pytest.approx(expected)


def test_sections_without_input_are_omitted(tmp_path: Path, models: list[Path]) -> None:
    page = write_report(tmp_path, models[0])
    for heading in ("Records read", "Training", "Time by stage", "Against"):
        assert heading not in page
    assert '<h2 id="scores">Scores</h2>' in page
    assert "Galen: evaluation report" in page


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
        DataError,
        match=r"base was scored with the protocol lm_eval, tuned with mmedbench.*same --name",
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


def test_chat_template_files_compare_by_content(tmp_path: Path, models: list[Path]) -> None:
    for folder, path, digest in zip(models, ("a.jinja", "b.jinja"), ("1f" * 32,) * 2, strict=True):
        results = json.loads((folder / "results.json").read_text())
        results |= {"settings": {"chat_template": path}, "chat": {"template_sha256": digest}}
        (folder / "results.json").write_text(json.dumps(results))
    write_report(tmp_path, *models)
    results |= {"settings": {"chat_template": "a.jinja"}, "chat": {"template_sha256": "2f" * 32}}
    (models[1] / "results.json").write_text(json.dumps(results))
    with pytest.raises(
        DataError, match='chat_template "FILE with SHA-256 1f1f1f1f1f1f", tuned with'
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


def test_other_data_files_with_the_same_ids_are_named(tmp_path: Path, models: list[Path]) -> None:
    for folder, digest in zip(models, ("1f" * 32, "2f" * 32), strict=True):
        files = {"test.jsonl": digest, "train.jsonl": "3f" * 32}
        config = {"tasks": {"topics": {"files": files}}}
        manifest.write(
            folder / manifest.NAME,
            stage="evaluate",
            inputs=[],
            config=config,
            outputs=[],
            counts={},
        )
    page = write_report(tmp_path, *models)
    assert "tuned was scored on other data files (test.jsonl) with the same ids and answers" in page


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


def test_metrics_by_length_are_columns_where_they_differ_from_accuracy() -> None:
    def row(**metrics: float) -> comparison.Row:
        estimates = {name: Estimate(value, 0, 1) for name, value in metrics.items()}
        return comparison.Row("model", estimates, None, lower_is_better=False)

    def columns(*rows: comparison.Row) -> list[str]:
        return comparison.Comparison("t", MultipleChoice(), 4, None, list(rows)).columns

    letters = row(accuracy=0.5, acc_norm=0.5, acc_bytes=0.5)
    assert columns(letters, row(accuracy=0.25, acc_norm=0.25, acc_bytes=0.25)) == ["accuracy"]
    texts = row(accuracy=0.5, acc_norm=0.75, acc_bytes=0.5)
    assert columns(letters, texts) == ["accuracy", "acc_norm"]
    # scores without the metric, of an earlier version
    assert columns(row(accuracy=0.5), letters) == ["accuracy", "acc_norm", "acc_bytes"]
