"""Our rows in the papers' tables: bold under the table's conditions, else with a footnote."""

import dataclasses
import json
from pathlib import Path

import pytest

from evaluation.metrics import intervals
from evaluation.protocols.registry import get_protocol
from evaluation.reporting import paper_tables, tables
from evaluation.reporting.report_inputs import ModelScores, TaskScores
from evaluation.reporting.tables import Table
from evaluation.scoring.task_types import TASK_TYPES
from evaluation.tasks import task as task_files
from galen import recipe

SIZES = {
    "mmlu_medical": 1871,
    "pubmedqa": 500,
    "medmcqa": 4183,
    "medqa": 1273,
    "medqa_4options": 1273,
    "mmedbench_french": 622,
    "mmlu_biomistral": 1089,
}
SUBJECTS = {
    "clinical_knowledge": 265,
    "medical_genetics": 100,
    "anatomy": 135,
    "professional_medicine": 272,
    "college_biology": 144,
    "college_medicine": 173,
}


def scores(task: str, size: int, right: int, **summary: object) -> TaskScores:
    """The scores of a task, of which the first questions are right."""
    samples = {f"{n}": {"id": f"{n}", "correct": n < right} for n in range(size)}
    if task == "mmlu_biomistral":
        names = [name for name, count in SUBJECTS.items() for _ in range(count)]
        for sample, subject in zip(samples.values(), names, strict=False):
            sample["subject"] = subject
    estimate = intervals.accuracy([sample["correct"] for sample in samples.values()])
    entry = {"samples": size, **summary}
    return TaskScores(TASK_TYPES["multiple_choice"], {"accuracy": estimate}, samples, 0.25, entry)


def run(
    protocol: str, tasks: dict[str, TaskScores], name: str = "ours", **overrides: object
) -> ModelScores:
    """A run under a protocol, with the settings that `galen evaluate` records."""
    num_fewshot = overrides.pop("num_fewshot", None)
    settings = dataclasses.asdict(get_protocol(protocol, num_fewshot=num_fewshot)) | overrides
    recorded = json.loads(json.dumps(settings))
    return ModelScores(name, name, None, protocol, recorded, tasks, {}, Path(), name)


def full(names: tuple[str, ...] = ("pubmedqa", "medqa")) -> dict[str, TaskScores]:
    return {name: scores(name, SIZES[name], SIZES[name] // 2) for name in names}


def table(model: ModelScores, name: str = "meditron") -> Table:
    [found] = [table for table in paper_tables.paper_tables([model]) if table.name == name]
    return found


def test_truncated_prompts_bar_a_row_from_bold():
    tasks = full() | {"medqa": scores("medqa", 1273, 600, truncated_prompts=3)}
    found = table(run("meditron", tasks))
    assert not found.bold
    assert "MedQA: n = 1,273, 3 prompts of the task truncated to the model's" in found.footnotes[0]


@pytest.mark.parametrize(
    ("protocol", "overrides"),
    [
        ("meditron", {}),
        ("meditron", {"num_fewshot": 5}),
        ("meditron_chat", {}),
        ("meditron_chat_cot", {}),
        ("meditron_chat_sc_cot", {}),
    ],
)
def test_rows_under_the_conditions_of_the_paper_are_in_bold(protocol, overrides):
    found = table(run(protocol, full(), **overrides))
    assert found.bold == {0} and found.footnotes == ()
    assert found.rows[0][0] == "ours" and found.row_notes == ("",)
    markdown = tables.markdown([found])
    assert markdown.count("**") == 2 and "| **ours** |" in markdown
    assert r"\textbf{ours} &" in tables.latex(found)


@pytest.mark.parametrize(
    ("protocol", "overrides", "note"),
    [
        ("lm_eval", {}, "protocol lm_eval, 0 shots. "),
        ("meditron_zero_shot", {}, "protocol meditron_zero_shot, 0 shots. "),
        ("biomistral", {}, "protocol biomistral, 3 shots. "),
        ("meditron", {"num_fewshot": 4}, "protocol meditron, 4 shots. "),
        ("meditron", {"fewshot_seeds": [1]}, "protocol meditron, 3 shots, fewshot_seeds [1]. "),
        (
            "meditron_chat_sc_cot",
            {"num_samples": 3, "temperature": 1.0},
            "protocol meditron_chat_sc_cot, 0 shots, num_samples 3, temperature 1.0. ",
        ),
        ("meditron_chat", {"new_setting": "x"}, "0 shots, new_setting x. "),
    ],
)
def test_rows_under_other_conditions_have_a_footnote(protocol, overrides, note):
    found = table(run(protocol, full(), **overrides))
    assert found.bold == frozenset()
    assert found.rows[0][0] == "ours [1]"
    assert note in found.footnotes[0]
    # n and interval of each value
    assert "PubMedQA: n = 500, 95 % interval 45.6 to 54.4; MedQA: n = 1,273," in found.footnotes[0]
    assert "**" not in tables.markdown([found])


def test_part_of_a_test_set_has_a_footnote():
    tasks = full() | {"medqa": scores("medqa", 100, 50)}
    found = table(run("meditron", tasks))
    assert found.bold == frozenset()
    assert found.footnotes == (
        "ours: protocol meditron, 3 shots. PubMedQA: n = 500, 95 % interval 45.6 to 54.4; MedQA:"
        " n = 100 of 1,273, 95 % interval 40.4 to 59.6.",
    )


def test_settings_of_a_task_file_have_a_footnote():
    tasks = full() | {"medqa": scores("medqa", 1273, 636, settings={"prompt": {}})}
    found = table(run("meditron", tasks))
    assert found.bold == frozenset()
    assert "3 shots, prompt of the task differs. " in found.footnotes[0]


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        ({}, ""),
        ({"file": "elsewhere/test.jsonl", "fewshot_source": "elsewhere/train.jsonl"}, ""),
        ({"fewshot_examples": "own.jsonl"}, "3 shots, fewshot_examples of the task differs. "),
        ({"max_options": 2}, "3 shots, max_options of the task differs. "),
        ({"unknown": 2}, ""),
    ],
)
def test_other_few_shot_examples_have_a_footnote(tmp_path, changed, note):
    """The manifest has the task as it was scored; only the results are copied elsewhere."""
    _, specification = task_files.load("medqa")
    recorded = recipe.to_dict(specification) | {"files": {}} | changed
    model = dataclasses.replace(run("meditron", full()), folder=tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"config": {"tasks": {"medqa": recorded}}}))
    found = table(model)
    assert found.bold == (frozenset() if note else {0})
    assert note in " ".join(found.footnotes)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"config": []}', '{"config": {"tasks": {"medqa": 1}}}']
)
def test_a_damaged_manifest_is_ignored(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    assert table(dataclasses.replace(run("meditron", full()), folder=tmp_path)).bold == {0}


def test_runs_without_recorded_settings_are_not_comparable():
    model = dataclasses.replace(run("meditron", full()), settings={})
    found = table(model)
    assert found.bold == frozenset()
    assert "protocol meditron, shots not recorded. " in found.footnotes[0]


def test_an_older_run_without_a_new_setting_is_comparable():
    model = run("meditron", full())
    model.settings.pop("chain_of_thought")
    assert table(model).bold == {0}


def test_subjects_of_mmlu_are_complete_columns():
    tasks = {"mmlu_biomistral": scores("mmlu_biomistral", SIZES["mmlu_biomistral"], 400)}
    found = table(run("biomistral", tasks), "biomistral")
    assert found.bold == {0}
    assert found.rows[0][:4] == ["ours", "100.0", "100.0", "25.9"]  # 35 of 135
    limited = {"mmlu_biomistral": scores("mmlu_biomistral", 300, 300)}
    found = table(run("biomistral", limited), "biomistral")
    assert found.bold == frozenset()
    assert "Medical Genetics: n = 35 of 100" in found.footnotes[0]
    assert "Clinical KG: n = 265, 95 %" in found.footnotes[0]


def test_a_table_without_published_prompts_has_no_row_in_bold():
    for protocol in ("meditron", "biomistral", "lm_eval", "mmedbench"):
        found = table(run(protocol, full(("pubmedqa",))), "mmedlm_english")
        assert found.bold == frozenset() and found.footnotes
        assert found.note.startswith("The paper's prompts are not known")


def test_clean_scores_stand_beside_contaminated_ones():
    ids = [f"{n}" for n in range(273)]
    leaked = scores("medqa", 1273, 673, contaminated=273, contaminated_ids=ids)
    checked = scores("pubmedqa", 500, 250, contaminated=0, contaminated_ids=[])
    unchecked = scores("medmcqa", 4183, 2000)
    found = table(run("meditron", {"medqa": leaked, "pubmedqa": checked, "medmcqa": unchecked}))
    assert found.own == 2 and found.bold == {0}
    assert found.rows[0] == ["ours [1]", "", "50.0", "47.8", "52.9", "", ""]
    # 400 of the 1,000 clean ones; unknown for MedMCQA, which was not checked
    assert found.rows[1] == ["ours, clean subset [2]", "", "50.0", "", "40.0", "", ""]
    assert found.footnotes == (
        "ours: In the training corpus: 273 of 1,273 samples of MedQA; the next row is without"
        " them.",
        "ours, clean subset: protocol meditron, 3 shots. PubMedQA: n = 500, 95 % interval 45.6 to"
        " 54.4; MedQA: n = 1,000 of 1,273, 95 % interval 37.0 to 43.1.",
    )
    markdown = tables.markdown([found])
    assert "| **ours [1]** |" in markdown and "| ours, clean subset [2] |" in markdown


def test_an_entirely_contaminated_test_set_has_no_clean_value():
    ids = [f"{n}" for n in range(500)]
    tasks = {"pubmedqa": scores("pubmedqa", 500, 250, contaminated=500, contaminated_ids=ids)}
    found = table(run("meditron", tasks))
    assert found.rows[1][2] == ""


def test_all_models_have_one_clean_subset():
    """Samples that any model's check found are left out of all rows, as in the comparisons."""
    first = scores("pubmedqa", 500, 250, contaminated=2, contaminated_ids=["0", "1"])
    second = scores("pubmedqa", 500, 250, contaminated=2, contaminated_ids=["1", "499"])
    models = [
        run("meditron", {"pubmedqa": entry}, name)
        for name, entry in (("a", first), ("b", second), ("c", scores("pubmedqa", 500, 250)))
    ]
    found = paper_tables.paper_tables(models)[0]
    assert [row[0] for row in found.rows[: found.own]] == [
        "a [1]",
        "a, clean subset [2]",
        "b [3]",
        "b, clean subset [4]",
        "c [5]",
        "c, clean subset [6]",
    ]
    for index in (1, 3, 5):
        assert found.rows[index][2] == "49.9"  # 248 of 497
        assert "PubMedQA: n = 497 of 500," in found.footnotes[index]


def test_footnotes_are_numbered_by_row():
    models = [
        run("meditron", full(), "a"),
        run("lm_eval", full(), "b"),
        run("meditron", full(), "c", num_fewshot=1),
    ]
    found = paper_tables.paper_tables(models)[0]
    assert [row[0] for row in found.rows[:3]] == ["a", "b [1]", "c [2]"]
    assert found.bold == {0}
    assert [note.split(":")[0] for note in found.footnotes] == ["b", "c"]
    lines = tables.as_csv(found).splitlines()
    assert lines[1].endswith(",") and "protocol lm_eval" in lines[2]
