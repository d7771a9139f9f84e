"""A model against its base: prompts of its own, planted gains and losses, the pages."""

import dataclasses
import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from evaluation import progress
from evaluation import run as evaluation_run
from evaluation.metrics import chosen_prompts, hierarchical, intervals
from evaluation.metrics.intervals import Estimate
from evaluation.paired_verdict import (
    markdown,
    prompt_choice,
    study,
    study_recipe,
    task_verdict,
)
from evaluation.paired_verdict.study_recipe import StudyRecipe
from evaluation.reporting.report_inputs import ModelScores, TaskScores
from evaluation.scoring.task_types import TASK_TYPES
from galen.corpus_sources import CorpusSource
from galen.errors import DataError, UsageError

STUDIES = 200
MULTIPLE_CHOICE = TASK_TYPES["multiple_choice"]


def scores(correct, contaminated=None):
    """Return a task's scores from whether each answer is right."""
    samples = {
        f"q{number}": {"id": f"q{number}", "correct": bool(value), "answer": "A"}
        for number, value in enumerate(correct)
    }
    value = float(np.mean(correct))
    summary = {} if contaminated is None else {"contaminated": 1, "contaminated_ids": contaminated}
    return TaskScores(
        MULTIPLE_CHOICE, {"accuracy": Estimate(value, value, value)}, samples, None, summary
    )


def run(name, shots, tasks):
    """Return a model's run under one prompt."""
    settings = {"num_fewshot": shots}
    folder = Path(f"scores/{name}{shots}")
    return ModelScores(name, "m", None, "lm_eval", settings, tasks, {}, folder, name)


def answers(source, samples, gain, prompts):
    """Return for base and model the right answers under each prompt.

    A question is as hard for both; `gain` is the true difference of the accuracies, and prompts
    differ in how they suit a model.
    """
    ability = source.uniform(0.2, 0.8, samples)
    result = []
    for shift in (0.0, gain):
        quality = source.uniform(-0.1, 0.0, prompts)
        quality[source.integers(prompts)] = 0.0  # each model's best prompt is equally good
        result.append(
            [source.random(samples) < np.clip(ability + shift + item, 0, 1) for item in quality]
        )
    return result


def planted(source, gains, samples=200, prompts=3):
    """Return the runs of a study with planted gains, by task."""
    drawn = {task: answers(source, samples, gain, prompts) for task, gain in gains.items()}
    return [
        run(name, prompt, {task: scores(of[index][prompt]) for task, of in drawn.items()})
        for prompt in range(prompts)
        for index, name in enumerate(("base", "tuned"))
    ]


@pytest.fixture
def few_resamples(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 300)
    monkeypatch.setattr(chosen_prompts, "RESAMPLES", 600)
    monkeypatch.setattr(hierarchical, "RESAMPLES", 600)


@pytest.mark.slow
def test_equal_models_are_seldom_found_better(few_resamples):
    """With three prompts to choose from, at most 5 % of the studies err upwards.

    Many samples and few to choose on: the choice's own error is the largest one.
    """
    source = np.random.default_rng(11)
    found = 0
    for _ in range(STUDIES):
        runs = planted(source, dict.fromkeys("ab", 0.0), 800)
        result = study.judge(runs, "base", "tuned")
        found += any(item.outcome == "win" for item in result.tasks)
    # 5 % are allowed; a binomial test at 1 % of 200 studies
    assert found <= 0.05 * STUDIES + 2.33 * math.sqrt(STUDIES * 0.05 * 0.95)


@pytest.mark.slow
def test_the_stated_power_is_reached(few_resamples):
    source = np.random.default_rng(12)
    stated = []
    for _ in range(10):
        pilot = study.judge(planted(source, {"a": 0.0}, 400, 1), "base", "tuned")
        stated.append(pilot.tasks[0].minimum_difference)
    gain = float(np.mean(stated))
    found = 0
    for _ in range(STUDIES):
        # abilities from 0.2 to 0.8 leave room for the gain: no accuracy is clipped
        runs = planted(source, {"a": gain}, 400, 1)
        found += study.judge(runs, "base", "tuned").tasks[0].outcome == "win"
    assert found / STUDIES == pytest.approx(0.8, abs=0.05 + 1.96 * math.sqrt(0.16 / STUDIES))


def test_planted_gains_and_losses_are_found():
    source = np.random.default_rng(1)
    gains = {"medqa": 0.15, "pubmedqa": 0.0, "mmlu_general": -0.15}
    result = study.judge(planted(source, gains, 1500), "base", "tuned")
    assert [item.outcome for item in result.tasks] == ["win", "tie", "loss"]
    assert [item.is_general for item in result.tasks] == [False, False, True]
    assert result.medical.tasks == 2 and result.general.of_these_tasks.value < -0.1
    assert result.tasks[0].samples == 1200 and result.tasks[0].validation_samples == 300
    gains, losses, reach = study.sentences(result)
    assert "is better than base on 1, worse on 0, and not clearly different on 1" in gains
    assert "On 1 general task," in losses and "tuned is worse than base; the diff" in losses
    assert reach.startswith("A tie is not equality")
    difference = result.tasks[2].tuned.difference  # a single task has one interval
    assert result.general.of_these_tasks == difference
    perplexity = dataclasses.replace(result.tasks[1], metric="perplexity")
    only = dataclasses.replace(result, tasks=[result.tasks[0], perplexity], medical=result.general)
    assert "the difference on medqa is" in study.sentences(only)[0]
    assert reach.startswith("A tie is not equality: these test sets detect differences of")


def test_each_model_gets_its_own_prompt():
    """The first prompt suits the base alone: a fixed prompt finds a loss where there is a tie."""
    source = np.random.default_rng(2)
    hard = source.uniform(0.2, 0.8, 2000)
    right = source.random(2000) < hard
    same = source.random(2000) < hard
    poor = source.random(2000) < hard - 0.15
    runs = [
        run("base", 0, {"a": scores(right)}),
        run("tuned", 0, {"a": scores(poor)}),
        run("base", 5, {"a": scores(poor)}),
        run("tuned", 5, {"a": scores(same)}),
    ]
    [item] = study.judge(runs, "base", "tuned").tasks
    assert (item.outcome, item.fixed_outcome) == ("tie", "loss")
    assert "num_fewshot 0" in item.base_prompt and "num_fewshot 5" in item.model_prompt
    assert item.folders == ("scores/base0", "scores/tuned5")


def test_samples_that_prompts_are_chosen_on_are_not_scored():
    ids = [f"q{number}" for number in range(500)]
    split = prompt_choice.split("a", ids, 3, 0.2)
    assert len(split.validation) == 100 and not set(split.validation) & set(split.test)
    assert sorted([*split.validation, *split.test]) == sorted(ids)
    assert prompt_choice.split("a", ids[::-1], 2, 0.2).validation == tuple(
        id_ for id_ in ids[::-1] if id_ in split.validation
    )
    assert prompt_choice.split("a", ids, 1, 0.2).test == tuple(ids)
    with pytest.raises(DataError, match="too few"):
        prompt_choice.split("a", ids[:60], 3, 0.2)


def test_contaminated_samples_are_left_out_beside():
    source = np.random.default_rng(5)
    right = source.random(300) < 0.5
    found = [f"q{number}" for number in range(50)]
    better = right | (np.arange(300) < 50)
    runs = [
        run("base", 0, {"a": scores(right)}),
        run("tuned", 0, {"a": scores(better, contaminated=found)}),
    ]
    [item] = study.judge(runs, "base", "tuned").tasks
    assert item.contaminated == 50 and item.tuned.difference.value > 0.05
    assert item.clean.difference.value == 0


def test_samples_all_of_which_are_contaminated_are_named_so():
    found = [f"q{number}" for number in range(40)]
    runs = [
        run("base", 0, {"a": scores([True, False] * 20)}),
        run("tuned", 0, {"a": scores([True] * 40, contaminated=found)}),
    ]
    item = study.judge(runs, "base", "tuned")
    html = progress.render(item, runs, [])
    assert "all contaminated" in html and "none found" not in html


def test_one_prompt_is_not_called_the_best():
    runs = [run(name, 0, {"a": scores([True, False] * 20)}) for name in ("base", "tuned")]
    gains, *_ = study.sentences(study.judge(runs, "base", "tuned"))
    assert gains.startswith("On 1 medical task, with the same prompt for both, tuned is")


def test_a_lower_perplexity_is_a_win():
    """Also of the fixed prompt; it has no part in the means, and no points."""
    perplexity = TASK_TYPES["perplexity"]
    source = np.random.default_rng(4)
    hard = source.uniform(100, 300, 60)
    runs = []
    for name, factor in (("base", 1.0), ("tuned", 0.9)):
        samples = {
            f"d{number}": {"id": f"d{number}", "nll": value * factor, "tokens": 100, "bytes": 400}
            for number, value in enumerate(hard)
        }
        value = perplexity.estimate([list(samples.values())])
        metrics = {"perplexity": value}
        runs.append(run(name, 0, {"text": TaskScores(perplexity, metrics, samples, None, {})}))
    for base, model, outcome in (("base", "tuned", "win"), ("tuned", "base", "loss")):
        result = study.judge(runs, base, model)
        [item] = result.tasks
        assert (item.outcome, item.fixed_outcome, item.reach) == (outcome, outcome, "–")
        assert (item.tuned.difference.value < 0) == (outcome == "win")
        assert result.medical is None
        json.dumps(study.as_dict(result), allow_nan=False)


def test_a_handful_of_samples_shows_no_difference():
    few = [{"a": scores(right)} for right in ([True, False], [False, True])]
    runs = [run("base", 0, few[0]), run("tuned", 0, few[1])]
    item = study.judge(runs, "base", "tuned")
    assert item.tasks[0].reach == "none"
    assert study.sentences(item)[-1] == (
        "A tie is not equality: 1 test set is too small to detect any difference."
    )


def test_names_are_escaped():
    name = "<b>a|b</b>"
    runs = [run(name, 0, {"x|y": scores([True, False] * 20)}) for name in ("base", name)]
    item = study.judge(runs, "base", name)
    assert "<b>" not in progress.render(item, runs, [CorpusSource("<b>", 1, "<b>")])
    html = progress.render_overview([item, item])
    assert "<b>a" not in html and 'href="%3Cb%3Ea%7Cb%3C.b%3E.html"' in html
    text = markdown.text(item)
    assert "| x\\|y |" in text and "<b>" not in text.replace("\\<", "")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/b", "a.b"], "models a/b and a.b would have the same files"),
        (["Tuned", "tuned"], "would have the same files"),
        (["overview"], "cannot be named 'overview'"),
        ([".."], "cannot be named"),
        (["base"], "base is the base"),
    ],
)
def test_pages_do_not_overwrite_each_other(names, message, monkeypatch, tmp_path):
    runs = {name: run(name, 0, {"a": scores([True, False])}) for name in ["base", *names]}
    monkeypatch.setattr(progress.report_inputs, "read_scores", lambda folder: runs[folder])
    with pytest.raises(UsageError, match=message):
        progress.write(list(runs), tmp_path, base="base", models=names)


def test_other_models_under_the_same_name_are_refused(tmp_path):
    runs = []
    for number in (0, 1):
        item = run("base", number, {"a": scores([True, False])})
        folder = tmp_path / str(number)
        folder.mkdir()
        files = {"model.safetensors": str(number), "manifest.json": "x"}
        record = {"config": {"model": {"files": files}, "adapter": None}}
        (folder / "manifest.json").write_text(json.dumps(record))
        runs.append(dataclasses.replace(item, folder=folder))
    prompt_choice.check_same_model([runs[0], runs[0]])
    with pytest.raises(UsageError, match="both named base"):
        prompt_choice.check_same_model(runs)


def test_other_answers_under_another_prompt_are_refused():
    right = [True, False] * 100
    other = scores(right)
    other.samples["q0"]["answer"] = "B"
    runs = [
        run(name, prompt, {"a": other if (name, prompt) == ("tuned", 5) else scores(right)})
        for prompt in (0, 5)
        for name in ("base", "tuned")
    ]
    with pytest.raises(DataError, match="tuned5"):
        study.judge(runs, "base", "tuned")


def test_corrections_count_tasks_of_the_same_name():
    """Two judges of the same name: each task counts, and keeps its own p-value."""
    one = study.judge(planted(np.random.default_rng(3), {"a": 0.4}, 300, 1), "base", "tuned").tasks[
        0
    ]
    other = dataclasses.replace(one, tuned=dataclasses.replace(one.tuned, p=0.04))
    first, second = task_verdict.corrected([one, other])
    assert first.corrected_p == pytest.approx(2 * one.tuned.p)
    assert second.corrected_p == pytest.approx(0.04)


def test_models_need_the_same_candidates_and_samples():
    right = [True, False] * 100
    runs = [
        run("base", 0, {"a": scores(right)}),
        run("tuned", 0, {"a": scores(right)}),
        run("tuned", 5, {"a": scores(right)}),
    ]
    with pytest.raises(DataError, match="every model needs the same candidates"):
        study.judge(runs, "base", "tuned")
    runs = [run("base", 0, {"a": scores(right)}), run("tuned", 0, {"a": scores(right[:-1])})]
    with pytest.raises(DataError, match="has other samples"):
        study.judge(runs, "base", "tuned")
    with pytest.raises(UsageError, match="no run is of a model named x"):
        study.judge(runs, "base", "x")
    with pytest.raises(UsageError, match="is not one of the tasks: a"):
        study.judge(runs, "base", "tuned", general=["b"])


@pytest.fixture(scope="module")
def models(make_llama):
    return [
        make_llama(num_hidden_layers=1, max_position_embeddings=512, initializer_range=width)
        for width in (0.15, 0.3)
    ]


@pytest.fixture
def recipe(data, models, tmp_path):
    """A study of two tiny models, two tasks and two prompts."""
    questions = data / "questions" / "test.jsonl"
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    more = [{**row, "id": f"{row['id']}x{copy}"} for copy in range(12) for row in rows]
    questions.write_text("\n".join(map(json.dumps, more)) + "\n")
    for name in ("medical", "general"):
        (tmp_path / f"{name}.yaml").write_text(
            "kind: multiple_choice\nfile: questions/test.jsonl\n"
            "fewshot_source: questions/test.jsonl\n"
        )
    content = {
        "models": [
            {"name": name, "path": str(path)}
            for name, path in zip(("base", "tuned"), models, strict=True)
        ],
        "tasks": [str(tmp_path / "medical.yaml"), str(tmp_path / "general.yaml")],
        "general": [str(tmp_path / "general.yaml")],
        "prompts": [{"protocol": "lm_eval"}, {"protocol": "lm_eval_continuation"}],
        "settings": {"device": "cpu"},
        "validation_fraction": 0.3,
        "data": str(data),
        "output": str(tmp_path / "progress"),
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def in_process(monkeypatch):
    """Run `galen evaluate` here, and count its runs: each process would import for seconds."""
    commands = []

    def run(command, **_):
        commands.append(command)
        assert command[1:4] == ["-m", "galen", "evaluate"]
        evaluation_run.main(command[4:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(study_recipe.subprocess, "run", run)
    return commands


def test_a_study_from_models_to_pages(recipe, tmp_path, capsys, in_process):
    progress.main([str(recipe)])
    output = tmp_path / "progress"
    record = json.loads((output / "tuned.json").read_text())
    assert {item["task"]: item["is_general"] for item in record["tasks"]} == {
        "medical": False,
        "general": True,
    }
    assert all(item["num_prompts"] == 2 for item in record["tasks"])
    for item in record["tasks"]:
        for folder in item["folders"]:
            assert (Path(folder) / "samples" / f"{item['task']}.jsonl").is_file()
    html = " ".join((output / "tuned.html").read_text().split())
    assert "On 1 medical task, each model with its own best prompt" in html
    assert "General tasks: forgetting" in html and html.count("<svg") >= 2
    text = (output / "tuned.md").read_text()
    assert "| medical | 76 |" in text and "lm_eval_continuation" in text
    assert len(in_process) == 4
    assert capsys.readouterr().out.endswith("\n".join([*record["sentences"], ""]))
    before = (output / "runs" / "prompt0" / "base" / "samples" / "medical.jsonl").stat().st_mtime_ns
    progress.main([str(recipe), "general=[general]"])  # by its name
    after = (output / "runs" / "prompt0" / "base" / "samples" / "medical.jsonl").stat().st_mtime_ns
    assert before == after
    runs = [
        str(output / "runs" / f"prompt{number}" / name)
        for number in (0, 1)
        for name in ("base", "tuned")
    ]
    progress.main(
        [
            *runs,
            "--output",
            str(tmp_path / "again"),
            "--general",
            "general",
            "--validation-fraction",
            "0.3",
        ]
    )
    assert json.loads((tmp_path / "again" / "tuned.json").read_text()) == record


def test_a_wrong_study_is_refused_before_any_run(recipe, tmp_path):
    for override, message in (
        ("prompts=[{protocol: lm_evil}]", "lm_evil"),
        ("prompts=[{shots: 3}]", "unknown key 'shots'"),
        ("tasks=[nowhere]", "nowhere"),
        ("validation_fraction=2", "validation_fraction"),
        ("prompts=[{num_fewshot: many}]", "num_fewshot"),
        ("settings={limit: 50}", "too few"),
        ("data=nowhere", "nowhere"),
        ("corpus=nowhere", "nowhere"),
        ("judges=[nowhere]", "nowhere"),
        ("models=[{name: a, path: nowhere}, {name: b, path: nowhere}]", "nowhere"),
        ("models=[{name: a, path: x}, {name: b/c, path: x}, {name: b.c, path: x}]", "b/c and b.c"),
    ):
        with pytest.raises((UsageError, DataError), match=message):
            progress.main([str(recipe), override, "general=null"])
    with pytest.raises(UsageError, match="'drugs' is not one of the tasks: medical, general"):
        progress.main([str(recipe), "general=[drugs]"])
    assert not (tmp_path / "progress" / "runs").exists()


def test_iterations_of_a_run_are_models_of_their_own(tmp_path, models):
    checkpoint = tmp_path / "run" / "checkpoints"
    for number in (2, 4):
        folder = checkpoint / f"iter_{number:07d}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    (checkpoint / "latest_checkpointed_iteration.txt").write_text("4")
    options = StudyRecipe(
        models=[
            {"name": "base", "path": models[0]},
            {"name": "run", "path": checkpoint, "iterations": "2,4"},
        ],
        tasks=["medqa"],
        data=tmp_path,
        output=tmp_path / "progress",
    )
    found = [(model.name, model.iterations) for model in study_recipe.models(options)]
    assert found == [("base", None), ("run@2", 2), ("run@4", 4)]
    options.models.reverse()
    with pytest.raises(UsageError, match="the base has 2 iterations"):
        study_recipe.models(options)
    options.models.reverse()
    options.models[0].iterations = 3
    with pytest.raises(UsageError, match="is for Megatron checkpoints"):
        study_recipe.models(options)


def test_an_overview_of_several_models():
    source = np.random.default_rng(7)
    runs = planted(source, {"medqa": 0.1, "mmlu_general": -0.1}, 400, 1)
    later = planted(source, {"medqa": 0.1, "mmlu_general": -0.1}, 400, 1)
    runs.append(run("later", 0, later[1].tasks))
    html = progress.render_overview(
        [study.judge(runs, "base", name) for name in ("tuned", "later")]
    )
    assert "own best prompts" not in html  # there is one
    assert "2 models against base" in html and 'href="later.html"' in html and "<svg" in html
