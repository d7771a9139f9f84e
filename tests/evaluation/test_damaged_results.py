"""Damaged results, samples, logs and ratings: a report, or one line that names the file.

Never a traceback.
"""

import json
import random
import shutil

import pytest

from evaluation import agreement, rationales, report
from evaluation.question_sets import jsonl
from evaluation.reporting import (
    comparison,
    error_analysis,
    paper_tables,
    rationale_summaries,
    report_inputs,
    tables,
    verdicts,
)
from galen.errors import DataError, GalenError
from tests.evaluation.mutation import ROUNDS, damaged, replaced
from tests.evaluation.test_report import write_corpus, write_run, write_scores

CALIBRATION = {
    "ece": 0.1,
    "ece_biomistral": 0.2,
    "brier": 0.5,
    "bins": [{"low": 0.5, "high": 0.6, "samples": 4, "confidence": 0.55, "accuracy": 0.5}],
}

RATIONALES = {
    "model": "ours",
    "protocol": "mmedbench_rationale",
    "settings": {"template": "mmedbench_rationale", "num_fewshot": 0},
    "task": "mmedbench_french",
    "samples": 622,
    "languages": {
        "fr": {
            "rationales": 4,
            "metrics": {
                "bleu1_corpus": {"value": 40.0},
                "bleu1_mmedlm": {"value": 41.0, "low": 35.0, "high": 47.0},
            },
        }
    },
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All that a report can be made from, small."""
    folder = tmp_path_factory.mktemp("whole")
    write_scores(folder / "base", "base", 3.0, 3, samples=6)
    path = folder / "base" / "results.json"
    results = json.loads(path.read_text())
    summary = results["tasks"]["topics"]
    group = {"samples": 3, "value": 0.5, "low": 0.2, "high": 0.8}
    summary |= {
        "by_subject": {"a": group, "b": group},
        "calibration": CALIBRATION,
        "predictions": {"A": 6},
        "one_sided": "x",
        "contaminated": 2,
        "contaminated_ids": ["0", "5"],
        "clean": group | {"samples": 4},
        "contaminated_subset": group | {"samples": 2},
    }
    results |= {"protocol": "meditron", "settings": {"template": "meditron", "num_fewshot": 3}}
    results["tasks"]["medqa"] = summary
    path.write_text(json.dumps(results))
    samples = folder / "base" / "samples" / "topics.jsonl"
    records = [
        json.loads(line) | {"logprobs": {"A": -1.0, "B": -2.0}, "outputs": ["t"], "rationale": "r"}
        for line in samples.read_text().splitlines()
    ]
    samples.write_text("".join(json.dumps(record) + "\n" for record in records))
    shutil.copy(samples, samples.with_name("medqa.jsonl"))
    (folder / "base" / "prompts").mkdir()
    (folder / "base" / "prompts" / "topics.jsonl").write_text(
        "".join(json.dumps({"id": r["id"], "prompt": "?"}) + "\n" for r in records)
    )
    write_corpus(folder / "corpus", documents=3)
    write_run(folder / "run", [3.5, 3.25])
    (folder / "times.json").write_text(json.dumps({"curate": {"title": "Curate", "seconds": 61.0}}))
    (folder / "scores.jsonl").write_text('{"id": "1", "metrics": {"bleu1": 1.0, "judge": 2}}\n' * 2)
    (folder / "rationales.json").write_text(json.dumps(RATIONALES))
    (folder / "sheet.csv").write_text('id,question,judge1\n1,"a\nb",3\n2,c,4\n')
    return folder


def read_all(folder):
    """Read everything as the commands do, and make all of the page but its figures."""
    models = report_inputs.named([report_inputs.read_scores(folder / "base")])
    comparisons = comparison.compare(models)
    texts = [verdicts.verdict(item) for item in comparisons]
    rationale_runs = rationale_summaries.read([folder / "rationales.json"])
    papers = paper_tables.paper_tables(models, rationale_runs)
    texts += tables.write(folder / "tables", [*papers, tables.comparison_table(comparisons)])
    for found in (
        report.grouped(models),
        report.calibrations(models),
        report.letters(models),
        report.wrong_answers(models),
    ):
        texts.append(str(found))
    corpus = report_inputs.read_corpus(folder / "corpus")
    texts += [
        report.drops(corpus.counts),
        report_inputs.read_run(folder / "run"),
        report_inputs.read_times(folder / "times.json"),
    ]
    agreement.read_scores(folder / "scores.jsonl")
    agreement.read_ratings(folder / "sheet.csv")
    rationales.read_samples(folder / "base", "topics")
    return texts


def damage(path, draw):
    content = path.read_bytes()
    if path.suffix == ".json" and draw.random() < 0.7:
        return json.dumps(replaced(json.loads(content), draw)).encode()
    if path.suffix == ".jsonl" and draw.random() < 0.7:
        lines = content.splitlines()
        number = draw.randrange(len(lines))
        lines[number] = json.dumps(replaced(json.loads(lines[number]), draw)).encode()
        return b"\n".join(lines)
    return damaged(content, draw)


def test_everything_whole_is_read(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    assert len(read_all(tmp_path / "copy")) > 5


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_random_damage(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.metrics.intervals.RESAMPLES", 20)
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "tables" not in path.parts and path.name != "recipe.yaml"
    ]
    for number in range(ROUNDS):
        draw = random.Random(number)
        path = files[number % len(files)]
        before = path.read_bytes()
        path.write_bytes(damage(path, draw))
        try:
            read_all(folder)
        except GalenError as error:
            assert (
                str(folder) in str(error) and "\n" not in str(error) and len(str(error)) < 1500
            ), (number, str(error))
        except BaseException:
            print(f"input {number}: {path}: {path.read_bytes()[:400]!r}")
            raise
        path.write_bytes(before)


def test_pages_of_what_is_odd_but_right(whole, tmp_path):
    """Figures too, for some damages that leave the files readable."""
    folder, pages = tmp_path / "copy", 0
    shutil.copytree(whole, folder)
    path = folder / "base" / "results.json"
    before = path.read_bytes()
    for number in range(min(ROUNDS // 40, 40)):
        path.write_bytes(json.dumps(replaced(json.loads(before), random.Random(number))).encode())
        try:
            report.main([str(folder / "base"), "--output", str(tmp_path / "page.html")])
            pages += 1
        except GalenError as error:
            assert "\n" not in str(error)
    assert pages


def test_a_half_line_and_another_kind_of_file(whole, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(whole / "base", folder)
    samples = folder / "samples" / "topics.jsonl"
    samples.write_bytes(samples.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"topics\.jsonl, line 6: not JSON"):
        report_inputs.read_scores(folder)
    (folder / "results.json").write_bytes(b"[" * 100_000)
    with pytest.raises(DataError, match=r"results\.json is not JSON"):
        report_inputs.read_scores(folder)
    (folder / "results.json").write_text("[]")
    with pytest.raises(
        DataError,
        match=r"results\.json is not a results file of `galen evaluate`: expected an object",
    ):
        report_inputs.read_scores(folder)


def test_a_record_may_be_anything():
    assert jsonl.shown("a\nb") == "'a\\nb'"
    assert (
        error_analysis._wrong(
            {"id": "1", "prediction": "Z", "logprobs": {"A": 0.0}, "correct": False}
        ).confidence
        is None
    )
