"""Paper tables, groups, calibration, significance and errors to read, from scored results.

The results have the form of evaluation/run.py.
"""

import csv
import json

import pytest

from evaluation import report
from evaluation.metrics import aggregate
from evaluation.reporting import published_results
from galen.atomic import write_text


def write_model(folder, name, right):
    """Results on MEDITRON's five tasks and two languages of MMedBench, 40 samples each.

    `right` of these are right.
    """
    tasks = {}
    names = [
        "mmlu_medical",
        "pubmedqa",
        "medmcqa",
        "medqa",
        "medqa_4options",
        "mmedbench_english",
        "mmedbench_french",
    ]
    for task in names:
        samples = []
        for n in range(40):
            correct = n < right
            logprobs = {"A": -0.1 if correct else -2.0 - n / 100, "B": -2.4 if correct else -0.2}
            item = {
                "id": f"{task}{n}",
                "answer": "A",
                "prediction": "A" if correct else "B",
                "correct": correct,
                "logprobs": logprobs,
            }
            samples.append(
                item
                | ({"subject": ("anatomy", "virology")[n % 2]} if task == "mmlu_medical" else {})
            )
        write_text(
            folder / "samples" / f"{task}.jsonl",
            "".join(json.dumps(item) + "\n" for item in samples),
        )
        prompts = [
            json.dumps({"id": item["id"], "prompt": f"Which <organ>, {item['id']}?"}) + "\n"
            for item in samples
        ]
        write_text(folder / "prompts" / f"{task}.jsonl", "".join(prompts))
        tasks[task] = {
            "kind": "multiple_choice",
            "samples": len(samples),
            **aggregate.choice_entry([samples], [0]),
            "chance": 0.5,
        }
    results = {
        "model": {"name": name, "path": name, "adapter": None},
        "protocol": "lm_eval",
        "tasks": tasks,
        "versions": {},
    }
    write_text(folder / "results.json", json.dumps(results))
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    models = [
        write_model(folder / "base", "base_7B", 10),
        write_model(folder / "tuned", "tuned & merged", 25),
    ]
    report.main(
        [
            *map(str, models),
            "--output",
            str(folder / "report.html"),
            "--tables",
            str(folder / "tables"),
        ]
    )
    return folder


def test_our_rows_stand_above_the_published_ones(written):
    rows = list(csv.reader((written / "tables" / "meditron.csv").open()))
    assert rows[0] == [
        "",
        "MMLU-Medical",
        "PubMedQA",
        "MedMCQA",
        "MedQA",
        "MedQA-4-option",
        "Average",
        "note",
    ]
    assert rows[1][:-1] == ["base_7B [1]", *["25.0"] * 6]
    assert rows[2][:-1] == ["tuned & merged [2]", *["62.5"] * 6]
    assert rows[3] == ["few-shot MPT-7B", "23.5", "43.9", "32.1", "22.5", "27.6", "29.9", ""]
    mmedbench = list(csv.reader((written / "tables" / "mmedbench.csv").open()))
    # no average of half a row
    assert mmedbench[1][:-1] == ["base_7B [1]", "25.0", "", "", "25.0", "", "", ""]
    biomistral = list(csv.reader((written / "tables" / "biomistral.csv").open()))
    # 13 of the 20 with this subject
    assert biomistral[0][3] == "Anatomy" and biomistral[2][3] == "65.0"
    assert "Anatomy: n = 20 of 135, 95 % interval 43.3 to 81.9" in biomistral[2][-1]


def test_markdown_and_latex(written):
    markdown = (written / "tables" / "tables.md").read_text()
    # under another protocol and on 40 samples: not in bold
    assert "| base_7B [1] | 25.0 |" in markdown and "arXiv 2311.16079" in markdown
    assert (
        "\\[1] base_7B: protocol lm_eval, shots not recorded. MMLU-Medical: n = 40 of 1,871, 95 %"
        " interval 14.2 to 40.2; PubMedQA: n = 40 of 500," in markdown
    )
    assert "**" not in markdown
    latex = (written / "tables" / "meditron.tex").read_text()
    assert (
        r"tuned \& merged [2] & 62.5" in latex
        and r"base\_7B" in latex
        and latex.count(r"\midrule") == 2
    )
    assert r"\par\footnotesize {}[2] tuned \& merged: protocol lm\_eval" in latex
    assert r"\textbf" not in latex


def test_differences_are_tested_and_corrected(written):
    rows = list(csv.DictReader((written / "tables" / "all.csv").open()))
    tested = [row for row in rows if row["p"]]
    assert len(tested) == 7 and all(
        row["metric"] == "accuracy" and row["model"] == "tuned & merged" for row in tested
    )
    # 15 samples that only the second has right: 2 / 2^15, times the seven tests
    assert float(tested[0]["p"]) == pytest.approx(2 / 2**15, rel=1e-3)
    assert float(tested[0]["p (Holm)"]) == pytest.approx(7 * 2 / 2**15, rel=1e-3)


def test_page_has_groups_calibration_and_errors(written):
    page = (written / "report.html").read_text()
    assert "mmlu_medical <span" in page and "MMedBench <span" in page
    assert "anatomy" in page and "Brier" in page
    assert "p &lt; 0.001</span>" in page and "corrected &lt; 0.001" in page
    assert "Which &lt;organ&gt;, medqa39?" in page  # the wrong item that the model was surest of
    assert page.count("<script") == 0


AVERAGES = {
    ("meditron", "fine-tuned MEDITRON-7B, top token"): 57.82,
    ("mmedbench", "GPT-4"): 75.31,
    ("mmedbench", "GPT-3.5"): 51.45,
    ("mmedlm_english", "Mistral (7B)"): 62.86,
}
"""Means of the rows whose printed average is another number; the table's source names each."""


def test_published_rows_have_a_value_for_each_column_and_an_average():
    for table in published_results.TABLES:
        digits = 1 if table.name in ("meditron", "biomistral") else 2
        for name, values in table.rows.items():
            assert len(values) == len(table.columns) + 1
            *scores, average = values
            if None in scores:
                assert average is None or not any(scores)
                continue
            mean = AVERAGES.get((table.name, name))
            if mean is not None:
                assert mean == pytest.approx(sum(scores) / len(scores), abs=0.005)
                assert f"{average:.{digits}f}" in table.source
                assert f"{mean:.{digits}f}" in table.source
                average = mean
            assert average == pytest.approx(sum(scores) / len(scores), abs=10**-digits), name


def test_columns_and_test_sets_are_those_of_the_papers():
    assert [table.name for table in published_results.TABLES] == [
        "meditron",
        "mmedbench",
        "mmedbench_bleu1",
        "mmedbench_rouge1",
        "mmedlm_english",
        "biomistral",
    ]
    sizes = {
        table.name: [column.samples[0] for column in table.columns]
        for table in published_results.TABLES
    }
    assert sizes["meditron"] == [1871, 500, 4183, 1273, 1273]
    assert sum(sizes["mmedbench"]) == 8518
    assert sizes["biomistral"] == [265, 100, 135, 272, 144, 173, 1273, 1273, 500, 4183]
