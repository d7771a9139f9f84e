"""Every built-in task under `lm_eval` protocols against the harness' own task, to the character.

The harness' prompts come from its own task files (the installed package `lm_eval`), not from
copies of them.
"""

import dataclasses
import fnmatch
import importlib

import numpy as np
import pytest
import yaml

from evaluation.metrics import aggregate
from evaluation.prompts.registry import get_template
from evaluation.protocols import few_shot, task_settings
from evaluation.protocols.registry import get_protocol
from evaluation.question_sets.question import Question
from evaluation.scoring import multiple_choice
from evaluation.tasks import task

pytest.importorskip("lm_eval", reason="lm-eval is in the extra `test`")
harness_tasks = importlib.import_module("tests.evaluation.harness_tasks")

COUNTERPARTS = {
    "medqa_4options": "medqa_4options",
    "medmcqa": "medmcqa",
    "pubmedqa": "pubmedqa",
    "mmlu_medical": "mmlu_*",
    "mmlu_biomistral": "mmlu_*",
    "mmlu_general": "mmlu_*",
    "headqa": "headqa_es",
    "truthfulqa": "truthfulqa_mc1",
}
"""Built-in tasks that the harness has, too. `headqa` on the English file is `headqa_en`."""
WITHOUT = (
    "afrimedqa",
    "biomistral_*",
    "mmedbench_*",
    "frenchmedmcqa",
    "healthbench*",
    "igakuqa",
    "medbullets_op*",
    "medcalc_bench",
    "medqa",  # with five options
    "medxpertqa",
    "mesh_topics",
    "pubmed_perplexity",
    "rumeddanet",
    "truthfulqa_health",  # a part of TruthfulQA with four options
)
CASES = [
    # task and protocol of Galen, task of the harness, name of Galen's file, its records
    ("medqa_4options", "lm_eval", "medqa_4options", "test.jsonl", harness_tasks.medqa),
    ("medmcqa", "lm_eval", "medmcqa", "dev.json", harness_tasks.medmcqa),
    ("pubmedqa", "lm_eval", "pubmedqa", "ori.jsonl", harness_tasks.pubmedqa),
    ("mmlu_medical", "lm_eval", "mmlu_anatomy", "test.jsonl", harness_tasks.mmlu),
    (
        "mmlu_biomistral",
        "lm_eval_continuation",
        "mmlu_anatomy_continuation",
        "a.jsonl",
        harness_tasks.mmlu,
    ),
    (
        "mmlu_general",
        "lm_eval",
        "mmlu_us_foreign_policy",
        "a.jsonl",
        harness_tasks.us_foreign_policy,
    ),
    (
        "mmlu_general",
        "lm_eval_continuation",
        "mmlu_us_foreign_policy_continuation",
        "a.jsonl",
        harness_tasks.us_foreign_policy,
    ),
    ("headqa", "lm_eval", "headqa_es", "es.jsonl", harness_tasks.headqa),
    ("headqa", "lm_eval_continuation", "headqa_en", "test_en.jsonl", harness_tasks.headqa),
    ("truthfulqa", "lm_eval", "truthfulqa_mc1", "validation.jsonl", harness_tasks.truthfulqa),
    (
        "truthfulqa",
        "lm_eval_continuation",
        "truthfulqa_mc1",
        "validation.jsonl",
        harness_tasks.truthfulqa,
    ),
]


def both(tmp_path, name, protocol, harness_name, file, build, num_fewshot):
    """Return Galen's questions, its prompts, and the harness' task, over the same records."""
    pairs = [build(number) for number in range(26)]
    test, train = pairs[:20], pairs[20:]
    harness_tasks.write(tmp_path / file, [ours for ours, _ in test])
    harness_tasks.write(tmp_path / "train.json", [ours for ours, _ in train])
    _, specification = task.load(name)
    specification = dataclasses.replace(
        specification,
        file=file,
        ids=None,
        fewshot_source="train.json" if num_fewshot else None,
        fewshot_sampler="first_n",
    )
    settings = get_protocol(protocol, num_fewshot=num_fewshot)
    questions = specification.questions(tmp_path)
    examples = few_shot.choose(name, specification, tmp_path, settings, [0], questions)[0]
    if num_fewshot and not task_settings.takes_first(specification, settings):
        examples = {"": specification.fewshot_candidates(tmp_path)[:num_fewshot]}
    template = task_settings.template(specification, settings)
    ours = [template(item, examples.get(item.subject) or examples[""]) for item in questions]
    splits = {
        "train": [theirs for _, theirs in train],
        "dev": [theirs for _, theirs in train],
        "validation": [theirs for _, theirs in test],
        "test": [theirs for _, theirs in test],
    }
    return questions, ours, harness_tasks.load(harness_name, splits, num_fewshot)


@pytest.mark.parametrize("num_fewshot", [0, 3])
@pytest.mark.parametrize("case", CASES, ids=[f"{c[0]}-{c[1]}-{c[2]}" for c in CASES])
def test_prompts_and_continuations_are_the_harness_own_to_the_character(
    tmp_path, case, num_fewshot
):
    if num_fewshot and case[0] == "truthfulqa":
        pytest.skip("the harness has no few-shot examples for it")
    questions, ours, theirs = both(tmp_path, *case, num_fewshot)
    expected = harness_tasks.prompts(theirs)
    assert len(ours) == len(expected) == 20
    for item, prompt, (context, continuations) in zip(questions, ours, expected, strict=True):
        assert prompt.text == context
        found = list(prompt.continuations.values())
        if case[0] == "truthfulqa":  # Galen's order hides that the first one is right
            found, continuations = sorted(found), sorted(continuations)
        assert found == continuations
        assert item.language == ("en" if case[2] != "headqa_es" else "es")
    docs = list(theirs.eval_docs)
    for item, prompt, doc in zip(questions, ours, docs, strict=True):
        target = theirs.doc_to_target(doc)
        if isinstance(target, int):
            target = theirs.doc_to_choice(doc)[target]
        assert prompt.continuations[item.answer] == f" {target}"


@pytest.mark.parametrize("case", CASES, ids=[f"{c[0]}-{c[1]}-{c[2]}" for c in CASES])
def test_metrics_are_the_harness_own(tmp_path, case):
    """`acc`, `acc_norm` and `acc_bytes` of the same log-likelihoods, question by question."""
    questions, ours, theirs = both(tmp_path, *case, 0)
    theirs._metric_fn_list = dict.fromkeys(("acc", "acc_norm", "acc_bytes"))
    rng = np.random.default_rng(3)
    samples = []
    results = []
    docs = list(theirs.eval_docs)
    for item, prompt, doc in zip(questions, ours, docs, strict=True):
        by_text = {text: -float(rng.gamma(3)) for text in prompt.continuations.values()}
        values = [by_text[text] for text in prompt.continuations.values()]
        sample = multiple_choice.likelihood_sample(item, prompt, get_protocol(case[1]), values)
        choices = theirs.doc_to_choice(doc)
        with np.errstate(divide="ignore"):  # an empty choice
            result = theirs.process_results(doc, [(by_text[f" {text}"], False) for text in choices])
        assert (sample["correct"], sample["correct_acc_norm"], sample["correct_acc_bytes"]) == (
            result["acc"],
            result["acc_norm"],
            result["acc_bytes"],
        )
        samples.append(sample)
        results.append(result)
    metrics = aggregate.choice_entry([samples], [0])["metrics"]
    for ours_name, name in (("accuracy", "acc"), ("acc_norm",) * 2, ("acc_bytes",) * 2):
        expected = np.mean([result[name] for result in results])
        assert metrics[ours_name]["value"] == pytest.approx(expected)


@pytest.mark.parametrize("protocol", ["lm_eval", "lm_eval_continuation"])
def test_every_subject_of_mmlu_has_the_harness_description(protocol):
    folder, suffix = ("default", "") if protocol == "lm_eval" else ("continuation", "_continuation")
    paths = sorted((harness_tasks.TASKS / "mmlu" / folder).glob("mmlu_*.yaml"))
    assert len(paths) == 57
    for path in paths:
        config = yaml.safe_load(path.read_text())
        item = Question("1", "", "?", {"A": "a", "B": "b"}, "A", "mmlu")
        item = dataclasses.replace(item, subject=config["dataset_name"])
        assert config["task"] == f"mmlu_{item.subject}{suffix}"
        prompt = get_template(protocol)(item).text
        assert prompt.startswith(config["description"])
        assert prompt.removeprefix(config["description"]).startswith(("?", "Question: ?"))


def test_every_built_in_task_has_a_counterpart_or_is_known_to_have_none():
    for path in task.BUILT_IN.glob("*.yaml"):
        without = any(fnmatch.fnmatch(path.stem, pattern) for pattern in WITHOUT)
        assert (path.stem in COUNTERPARTS) != without, f"compare {path.stem} with the harness"
    assert {case[0] for case in CASES} == set(COUNTERPARTS)
