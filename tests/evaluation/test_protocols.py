"""Protocols from the command line to results on a tiny model."""

import json
import shutil
from dataclasses import replace

import pytest

from evaluation import question_sets, run
from evaluation.backends.encoding import Generated
from evaluation.metrics import aggregate
from evaluation.prompts import meditron
from evaluation.protocols import few_shot
from evaluation.protocols.protocol import Protocol
from evaluation.protocols.registry import PROTOCOLS, get_protocol
from evaluation.question_sets import question
from evaluation.question_sets.question import Question
from evaluation.reporting import paper_tables, published_results, report_inputs
from evaluation.scoring import generated_answers, megatron_export, multiple_choice
from evaluation.tasks import task
from galen import iterations
from galen.errors import DataError, UsageError
from tests.conftest import ROOT, import_model
from tests.conftest import run as run_command


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name, count in (("test", 8), ("train", 12)):
        with (folder / f"{name}.jsonl").open("w") as file:
            for n in range(count):
                options = {"A": "Heart", "B": "Liver", "C": "Rats", "D": "Salt"}
                record = {
                    "question": f"Which {name} organ, {n}?",
                    "options": options,
                    "answer_idx": "ABCD"[n % 4],
                    "meta_info": f"step{n % 2}",
                }
                file.write(json.dumps(record) + "\n")
    (folder / "medqa.yaml").write_text(
        "kind: multiple_choice\nfile: test.jsonl\nreader: medqa\nfewshot_source: train.jsonl\n"
    )
    return folder


@pytest.fixture
def arguments(tiny_llama, data, tmp_path):
    return [
        *(
            "--model",
            str(tiny_llama),
            "--tasks",
            str(data / "medqa.yaml"),
            "--data",
            str(data),
            "--output",
            str(tmp_path / "scores"),
        ),
        *("--device", "cpu"),
    ]


def results_of(folder):
    return json.loads((folder / "results.json").read_text())["tasks"]["medqa"]


def lines_of(folder, name):
    return {item["id"]: item for item in map(json.loads, (folder / name).read_text().splitlines())}


def test_few_shot_runs_have_one_set_of_few_shot_examples_each(arguments, tmp_path):
    assert run.main([*arguments, "--protocol", "biomistral", "--num-fewshot", "1"]) == 0
    entry, scores = results_of(tmp_path / "scores"), tmp_path / "scores"
    assert list(entry["runs"]) == ["1", "2", "3"] and entry["sd"] >= 0
    prompts = [lines_of(scores, f"prompts/medqa@{seed}.jsonl") for seed in (1, 2, 3)]
    shown = [
        {item["prompt"].split("**Question:**")[1] for item in by_id.values()} for by_id in prompts
    ]
    # the same for every question of a run
    assert all(len(example) == 1 for example in shown)
    assert len(set().union(*shown)) > 1  # and not in every run
    samples = [lines_of(scores, f"samples/medqa@{seed}.jsonl") for seed in (1, 2, 3)]
    mean = sum(item["correct"] for by_id in samples for item in by_id.values()) / 24
    assert entry["metrics"]["accuracy"]["value"] == pytest.approx(mean)
    assert set(entry["by_subject"]) == {"step0", "step1"}
    unparsed = sum(item["prediction"] is None for by_id in samples for item in by_id.values()) / 24
    assert entry["metrics"]["unparsed"]["value"] == pytest.approx(unparsed)
    for item in samples[0].values():
        assert item["argmax"] == max(item["logprobs"], key=item["logprobs"].get)
        assert item["prediction"] in (None, item["argmax"])


def test_fewshot_examples_stand_in_the_order_of_their_file(arguments, tmp_path):
    own = ROOT / "evaluation" / "protocols" / "worked_examples" / "chain_of_thought.jsonl"
    options = [
        "--fewshot-examples",
        str(own),
        "--protocol",
        "meditron_cot",
        "--max-new-tokens",
        "2",
        "--limit",
        "2",
    ]
    run.main([*arguments, *options, "--num-fewshot", "3", "--fewshot-seeds", "1,2"])
    [path] = (tmp_path / "scores" / "prompts").iterdir()  # two seeds would be the same run twice
    shown = question.read(own)[:3]
    parts = [
        f"{meditron.block(item)}\n{item.rationale.rstrip('.')}.\nThe answer is: {item.answer}"
        " ###\n\n"
        for item in shown
    ]
    for item in map(json.loads, path.read_text().splitlines()):
        assert "".join(parts) in item["prompt"]
        assert item["prompt"].endswith("D. Salt\nLet's think step by step.")
    with pytest.raises(
        DataError,
        match=(
            r"9 few-shot examples with a rationale are needed, .*chain_of_thought\.jsonl holds 5"
        ),
    ):
        run.main([*arguments, *options, "--num-fewshot", "9", "--output", str(tmp_path / "more")])


def test_shipped_worked_examples_suit_their_benchmarks():
    found = question.read(
        ROOT / "evaluation" / "protocols" / "worked_examples" / "chain_of_thought.jsonl"
    )
    assert [item.question_set for item in found] == [""] * 5 + ["pubmedqa"] * 3
    assert all(item.rationale and item.context for item in found[5:]) and all(
        item.rationale for item in found
    )
    assert {item.options[item.answer] for item in found[5:]} == {"yes", "no", "maybe"}
    assert len({item.answer for item in found[:5]}) == 4  # not always the same letter


def test_self_consistency_is_restarted_with_the_same_result(arguments, tmp_path):
    options = [
        *arguments,
        "--protocol",
        "meditron_sc_cot",
        "--num-samples",
        "3",
        "--max-new-tokens",
        "12",
        "--max-batch-tokens",
        "300",
    ]
    run.main(options)
    scores = tmp_path / "scores"
    log = scores / "samples" / "medqa.jsonl"
    whole, entry = log.read_bytes(), results_of(scores)
    assert {len(item["outputs"]) for item in lines_of(scores, "samples/medqa.jsonl").values()} == {
        3
    }
    assert {"accuracy", "accuracy_strict_match", "unparsed"} <= set(entry["metrics"])
    for name in ("results.json", "manifest.json"):
        (scores / name).unlink()
    log.write_bytes(whole[: len(whole) // 2])
    run.main(options)
    assert lines_of(scores, "samples/medqa.jsonl") == {
        item["id"]: item for item in map(json.loads, whole.splitlines())
    }
    assert results_of(scores) == entry


def equal_to_rounding(found, expected):
    """Compare results whose last bits depend on how many threads a process has."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(
            equal_to_rounding(found[key], expected[key]) for key in expected
        )
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(equal_to_rounding, found, expected))
    return found == (pytest.approx(expected, rel=1e-5) if isinstance(expected, float) else expected)


@pytest.mark.multiprocess
def test_several_models_and_processes_give_what_one_gives(arguments, tiny_llama, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny_llama, other)
    alone = [*arguments, "--protocol", "lm_eval", "--max-batch-tokens", "300"]
    run.main(alone)
    single = results_of(tmp_path / "scores")
    together = [
        *alone,
        "--model",
        str(tiny_llama),
        str(other),
        "--output",
        str(tmp_path / "many"),
        "--processes",
        "2",
    ]
    run_command("evaluation/run.py", *together)
    for name in (tiny_llama.name, "other"):
        assert equal_to_rounding(results_of(tmp_path / "many" / name), single)
        logs = sorted(path.name for path in (tmp_path / "many" / name / "samples").iterdir())
        assert logs == ["medqa.jsonl", "medqa.rank1.jsonl"]


def test_contaminated_items_are_set_apart(arguments, tmp_path):
    index = tmp_path / "index.jsonl"
    index.write_text(
        '{"id": "test:1", "ratio": 0.9}\n{"id": "test:2", "ratio": 0.2}\n{"id": "test:3", "ratio":'
        ' 1, "task": "other"}\n{"id": "test:4", "ratio": 1, "action": "dropped"}\n'
    )
    run.main(arguments)
    assert "clean" not in results_of(tmp_path / "scores")
    manifest = tmp_path / "scores" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"seconds": 99.5}))
    # the scores are there; only the results are written anew
    run.main([*arguments, "--contamination", str(index)])
    assert json.loads(manifest.read_text())["seconds"] == 99.5  # still how long the scoring took
    entry = results_of(tmp_path / "scores")
    assert (entry["contaminated"], entry["clean"]["samples"]) == (1, 7)
    samples = lines_of(tmp_path / "scores", "samples/medqa.jsonl")
    clean = [item["correct"] for id_, item in samples.items() if id_ != "test:1"]
    assert entry["clean"]["value"] == pytest.approx(sum(clean) / 7)
    index.write_text('{"id": "test:1", "ratio": 7}\n')
    with pytest.raises(
        DataError, match=r"index\.jsonl, line 1: key 'ratio' must be a number from 0 to 1, not 7"
    ):
        run.main([*arguments, "--contamination", str(index)])


def test_a_real_run_in_the_table_of_the_paper(arguments, make_llama, tmp_path, monkeypatch):
    """A run under MEDITRON's protocol differs from the table in the size of the test set only."""
    # a context in which all prompts fit
    arguments[arguments.index("--model") + 1] = str(make_llama(max_position_embeddings=2048))
    examples = tmp_path / "examples.jsonl"
    examples.write_text(
        "".join(
            json.dumps({"id": f"own:{n}", "question": f"Q{n}?", "options": {"A": "x", "B": "y"}})[
                :-1
            ]
            + ', "answer": "A"}\n'
            for n in range(3)
        )
    )
    run.main([*arguments, "--protocol", "meditron"])
    [table, _] = paper_tables.paper_tables([report_inputs.read_scores(tmp_path / "scores")])
    assert table.name == "meditron"
    assert table.footnotes[0].startswith(
        "scores: protocol meditron, 3 shots. MedQA: n = 8 of 1,273, 95 % interval "
    )
    column = replace(published_results.MEDITRON.columns[3], samples=(8,))
    monkeypatch.setattr(
        paper_tables, "TABLES", [replace(published_results.MEDITRON, columns=(column,))]
    )
    [table] = paper_tables.paper_tables([report_inputs.read_scores(tmp_path / "scores")])
    assert table.bold == {0} and table.footnotes == ()
    arguments[arguments.index("--output") + 1] = str(tmp_path / "own")
    run.main([*arguments, "--protocol", "meditron", "--fewshot-examples", str(examples)])
    [table] = paper_tables.paper_tables([report_inputs.read_scores(tmp_path / "own")])
    assert table.bold == frozenset()
    assert "fewshot_examples of the task differs. " in table.footnotes[0]


def test_few_shot_examples_are_the_same_in_any_order_and_never_scored(data):
    specification = task.load(str(data / "medqa.yaml"))[1]
    questions = specification.questions(data)
    chosen = few_shot.choose(
        "medqa", specification, data, get_protocol("meditron"), [1234], questions
    )[1234][""]
    lines = (data / "train.jsonl").read_text().splitlines()
    (data / "train.jsonl").write_text("\n".join(reversed(lines)) + "\n")
    again = few_shot.choose(
        "medqa", specification, data, get_protocol("meditron"), [1234], questions
    )[1234][""]
    assert len(chosen) == 3
    same = question_sets.read("medqa", data / "train.jsonl")
    assert {item.question for item in again} <= {item.question for item in same}
    (data / "train.jsonl").write_text((data / "test.jsonl").read_text())
    with pytest.raises(
        DataError,
        match=r"3 few-shot examples are needed, train\.jsonl holds 0 that are not scored",
    ):
        few_shot.choose("medqa", specification, data, get_protocol("meditron"), [1234], questions)


def test_mmlu_in_the_harness_form_shows_the_first_questions_of_each_subject(tmp_path):
    for split, count in (("test", 2), ("dev", 3)):
        (tmp_path / split).mkdir()
        for subject in ("anatomy", "virology"):
            lines = [f"{subject} {split} {n}?,a,b,c,d,A\n" for n in range(count)]
            (tmp_path / split / f"{subject}_{split}.csv").write_text("".join(lines))
    mmlu = task.MultipleChoiceTask(
        kind="multiple_choice", file="test", reader="mmlu", fewshot_source="dev"
    )
    questions = mmlu.questions(tmp_path)
    found = few_shot.choose(
        "mmlu", mmlu, tmp_path, get_protocol("lm_eval", num_fewshot=2), [0], questions
    )[0]
    assert {subject: [item.question for item in shown] for subject, shown in found.items()} == {
        subject: [f"{subject} dev 0?", f"{subject} dev 1?"] for subject in ("anatomy", "virology")
    }
    with pytest.raises(
        DataError, match="task mmlu, anatomy: 4 few-shot examples are needed, dev holds 3 that"
    ):
        few_shot.choose(
            "mmlu", mmlu, tmp_path, get_protocol("lm_eval", num_fewshot=4), [0], questions
        )


def test_a_limit_changes_no_few_shot_examples(arguments, data, tmp_path):
    """PubMedQA's few-shot examples come from all of its own file but the test questions."""
    (data / "own.yaml").write_text(
        "kind: multiple_choice\nfile: test.jsonl\nreader: medqa\nfewshot_source: both.jsonl\n"
    )
    (data / "both.jsonl").write_text(
        "".join((data / f"{name}.jsonl").read_text() for name in ("test", "train"))
    )
    run.main([*arguments, "--tasks", str(data / "own.yaml"), "--num-fewshot", "12", "--limit", "1"])
    [line] = (tmp_path / "scores" / "prompts" / "own.jsonl").read_text().splitlines()
    assert json.loads(line)["prompt"].count("Which train organ") == 12


def test_mistakes_are_reported_before_the_model_is_loaded(arguments, data):
    (data / "bare.yaml").write_text("kind: multiple_choice\nfile: test.jsonl\nreader: medqa\n")
    (data / "triples.yaml").write_text(
        "kind: multiple_choice\nfile: triples.json\nreader: biomistral\n"
    )
    sets = {
        "corpus_name": "MedQA",
        "question": "?",
        "options": {"A": "x", "B": "y"},
        "correct_answer_letter": "A",
    }
    (data / "triples.json").write_text(json.dumps([sets]))
    (data / "ids.yaml").write_text(
        "kind: multiple_choice\nfile: test.jsonl\nreader: medqa\nids: nowhere.json\n"
    )
    with pytest.raises(DataError, match=r"there is no file .*nowhere\.json"):
        run.main([*arguments, "--tasks", str(data / "ids.yaml")])
    with pytest.raises(
        DataError, match=r"30 few-shot examples are needed, train\.jsonl holds 12 that"
    ):
        run.main([*arguments, "--num-fewshot", "30"])
    assert not (data.parent / "scores").exists()
    for options, message in [
        (
            ["--protocol", "meditron", "--tasks", str(data / "bare.yaml")],
            "has no key 'fewshot_source'",
        ),
        (
            ["--protocol", "lm_eval", "--num-samples", "3"],
            "--num-samples is for protocols that generate",
        ),
        (["--protocol", "mmedbench", "--num-fewshot", "2"], "takes no few-shot examples"),
        (["--protocol", "meditron_cot", "--num-samples", "3"], "all samples would be the same"),
        (
            [
                "--protocol",
                "biomistral",
                "--num-fewshot",
                "4",
                "--tasks",
                str(data / "triples.yaml"),
            ],
            "have three sets of three examples",
        ),
        (
            ["--protocol", "lm_eval", "--num-fewshot", "1", "--tasks", str(data / "triples.yaml")],
            "have three sets of three examples",
        ),
        (["--protocol", "meditrn"], r"unknown protocol 'meditrn'; did you mean 'meditron'\?"),
    ]:
        with pytest.raises(UsageError, match=message):
            run.main([*arguments, *options])


def test_letter_items_by_top_token_and_by_argmax():
    question = Question("1", "", "?", {"A": "x", "B": "y"}, "B")
    item = multiple_choice.letter_sample(
        question, ["A", "A", "B"], [-3.0, -1.5, -2.0], 44, [11, 12, 13], " the"
    )
    assert (item["prediction"], item["correct"], item["argmax"], item["top"]) == (
        None,
        False,
        "A",
        " the",
    )
    assert item["logprobs"] == {"A": -1.5, "B": -2.0}
    item = multiple_choice.letter_sample(
        question, ["A", "A", "B"], [-3.0, -1.5, -1.0], 13, [11, 12, 13], "B"
    )
    assert (item["prediction"], item["correct"], item["correct_argmax"]) == ("B", True, True)


def generated(text):
    return [Generated(text, 12, True)]


def test_sets_of_answers_exact_and_partial():
    question = Question("1", "", "?", {"A": "x", "B": "y", "C": "z"}, "A,C", language="fr")
    item = generated_answers.generation_sample(
        question, PROTOCOLS["mmedbench"], generated("###Answer: OPTION A,C IS CORRECT.")
    )
    assert (
        item["prediction"],
        item["correct"],
        item["credit"],
        item["correct_strict_match"],
        item["language"],
    ) == ("A,C", True, 1.0, True, "fr")
    gone_on = generated(
        "###Rationale: x\n###Answer: OPTION A,C IS CORRECT.\n\n### Instruction:\nNext\n###Answer:"
        " OPTION B IS CORRECT."
    )
    assert (
        generated_answers.generation_sample(question, PROTOCOLS["mmedbench_rationale"], gone_on)[
            "prediction"
        ]
        == "A,C"
    )
    item = generated_answers.generation_sample(
        question, PROTOCOLS["mmedbench"], generated("La réponse est A et B.")
    )
    assert (item["prediction"], item["correct"], item["credit"], item["strict_match"]) == (
        "A,B",
        False,
        pytest.approx(1 / 3),
        None,
    )


@pytest.mark.parametrize(
    ("text", "prediction"),
    [
        ("<think>###Answer: A? No.</think>The answer is B.", "B"),
        ("<think>###Answer: A</think>###Rationale: x\n###Answer: OPTION B IS CORRECT.", "B"),
        ("<think>Perhaps ###Answer: OPTION A IS CORRECT, but", None),
    ],
)
def test_an_answer_marker_within_thinking_is_not_the_answer(text, prediction):
    question = Question("1", "", "?", {"A": "x", "B": "y"}, "B")
    sample = generated_answers.generation_sample(
        question, PROTOCOLS["mmedbench_rationale"], generated(text)
    )
    assert sample["prediction"] == prediction
    assert sample["truncated_thinking"] == [prediction is None]


def test_option_texts_are_compared_per_byte():
    from evaluation.prompts.template import Prompt

    question = Question("1", "", "?", {"A": "no", "B": "a longer option"}, "B")
    prompt = Prompt("", {"A": " no", "B": " a longer option"})
    item = multiple_choice.likelihood_sample(
        question, prompt, Protocol("lm_eval_continuation", metric="acc_bytes"), [-2.0, -6.0]
    )
    assert (item["prediction"], item["correct"]) == ("B", True)
    item = multiple_choice.likelihood_sample(
        question, prompt, Protocol("lm_eval_continuation"), [-2.0, -6.0]
    )
    assert (item["prediction"], item["correct"], item["correct_acc_bytes"]) == ("A", False, True)


def test_length_normalization_is_by_characters_or_bytes_as_in_the_harness():
    """`ü` is one character and two bytes; an empty option is never the likeliest per length."""
    from evaluation.prompts.template import Prompt

    question = Question("1", "", "?", {"A": "üüüü", "B": "five5", "C": ""}, "A")
    prompt = Prompt("", {"A": " üüüü", "B": " five5", "C": " "})
    values = [-4.4, -5.0, -3.0]
    found = {
        metric: multiple_choice.likelihood_sample(
            question, prompt, Protocol("lm_eval", metric=metric), values
        )
        for metric in ("acc", "acc_norm", "acc_bytes")
    }
    # per character -1.1, -1.0; per byte -0.55, -1.0
    assert [item["prediction"] for item in found.values()] == ["C", "B", "A"]
    for metric, item in found.items():
        assert (item["correct_acc_norm"], item["correct_acc_bytes"]) == (False, True)
        assert item["empty_option"]
        assert ("correct_acc" in item) == (metric != "acc")
    entry = aggregate.choice_entry([list(found.values())[1:]], [0])
    assert entry["samples_with_empty_option"] == 2
    metrics = {name: value["value"] for name, value in entry["metrics"].items()}
    assert metrics == {"accuracy": 0.5, "acc": 0, "acc_norm": 0, "acc_bytes": 1}


def test_a_question_with_options_of_equal_length_keeps_the_metrics_of_its_task():
    from evaluation.prompts.template import Prompt

    samples = []
    for id_, options in (("1", {"A": "1", "B": "2"}), ("2", {"A": "one", "B": "seventeen"})):
        question = Question(id_, "", "?", options, "B")
        prompt = Prompt("", {label: f" {text}" for label, text in options.items()})
        samples.append(
            multiple_choice.likelihood_sample(
                question, prompt, Protocol("lm_eval_continuation"), [-2.0, -4.0]
            )
        )
    metrics = aggregate.choice_entry([samples], [0])["metrics"]
    assert metrics["accuracy"]["value"] == 0
    assert metrics["acc_norm"]["value"] == metrics["acc_bytes"]["value"] == 0.5


@pytest.mark.multiprocess
def test_a_megatron_checkpoint_scores_as_the_model_it_came_from(arguments, tiny_llama, tmp_path):
    checkpoint = import_model(tiny_llama, tmp_path / "checkpoints")
    run.main(arguments)
    of_megatron = [
        *arguments,
        "--model",
        str(checkpoint),
        "--output",
        str(tmp_path / "of_megatron"),
    ]
    run.main(of_megatron)
    expected, found = (
        lines_of(tmp_path / name, "samples/medqa.jsonl") for name in ("scores", "of_megatron")
    )
    assert found == expected
    [export] = (tmp_path / "of_megatron.models").iterdir()
    (export / "manifest.json").unlink()  # now it could be any model
    with pytest.raises(DataError, match="exists already and was not made by this command"):
        run.main(of_megatron)


def test_mistakes_are_reported_before_a_checkpoint_is_exported(arguments, tmp_path):
    checkpoint = tmp_path / "checkpoints"
    for iteration in (5, 10):
        (checkpoint / f"iter_{iteration:07d}").mkdir(parents=True)
    (checkpoint / "latest_checkpointed_iteration.txt").write_text("10")
    for options, error, message in [
        (["--iterations", "5,x"], UsageError, "must be all or numbers"),
        (["--iterations", "7"], DataError, "holds no iteration 7; there are 5, 10"),
        (
            ["--iterations", "all", "--name", "x"],
            UsageError,
            r"several models are named by their folders, .*iter_0000005, iter_0000010",
        ),
        (
            ["--contamination", str(tmp_path / "none.jsonl")],
            DataError,
            r"there is no file .*none\.jsonl",
        ),
    ]:
        with pytest.raises(error, match=message):
            run.main([*arguments, "--model", str(checkpoint), *options])
    with pytest.raises(UsageError, match="--iterations is for Megatron checkpoints"):
        run.main([*arguments, "--iterations", "all"])
    assert not (tmp_path / "scores").exists() and not (tmp_path / "scores.models").exists()


def test_the_pointer_of_a_checkpoint_is_obeyed(tmp_path, caplog):
    """A run rolled back, or killed while copying, has folders newer than its pointer's."""
    for iteration, files in (
        (5, ["metadata.json", ".metadata"]),
        (10, ["metadata.json", ".metadata"]),
        (15, [".metadata"]),
    ):
        folder = tmp_path / f"iter_{iteration:07d}"
        folder.mkdir()
        for name in files:
            (folder / name).write_text("{}")
    pointer = tmp_path / "latest_checkpointed_iteration.txt"
    pointer.write_text("5")
    assert iterations.select(tmp_path, None) == [5]
    assert iterations.select(tmp_path, "all") == [5]
    assert iterations.select(tmp_path, "10,5") == [10, 5]
    assert caplog.text == ""
    pointer.write_text("15x")
    assert iterations.select(tmp_path, None) == [10]
    assert "should hold the number of an iteration" in caplog.text
    pointer.unlink()
    assert megatron_export.is_checkpoint(tmp_path)
    assert iterations.select(tmp_path, "all") == [5, 10]
