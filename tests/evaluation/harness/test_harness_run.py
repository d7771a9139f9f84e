"""Harness tasks as a user runs them: restart, identity, groups, files, report."""

import json
import shutil

import pytest

from evaluation import report, run
from evaluation.harness import benchmark, task_index
from evaluation.tasks.task import LmEvalTask
from galen.errors import DataError, UsageError

SHORT = "lm_eval:arc_easy,lm_eval:nq_open,lm_eval:wikitext"
"""Three types of output."""
LOGS = ["lm_eval.arc_easy.jsonl", "lm_eval.nq_open.jsonl", "lm_eval.wikitext.jsonl"]


@pytest.fixture
def arguments(long_llama, harness_data, tmp_path):
    """A function that returns the command line for some tasks."""

    def make(tasks, *options, output="scores", model=long_llama):
        words = ["--model", model, "--tasks", tasks, "--data", harness_data, "--device", "cpu"]
        words += ["--output", tmp_path / output, *options]
        return [str(word) for word in words]

    return make


def entry(folder, name):
    return json.loads((folder / "results.json").read_text())["tasks"][name]


def test_a_killed_run_resumes_without_asking_again(arguments, tmp_path, monkeypatch):
    options = ["--lm-eval-gen-kwargs", "max_gen_toks=8", "--max-batch-tokens", "60"]
    run.main(arguments(SHORT, *options))
    scores, complete = tmp_path / "scores", tmp_path / "complete"
    shutil.copytree(scores, complete)
    # as a kill leaves it: the first task is finished, the second cut within a line
    for name in ("results.json", "manifest.json", f"samples/{LOGS[2]}"):
        (scores / name).unlink()
    log = scores / "samples" / LOGS[1]
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    generated = []
    from evaluation.backends.transformers_backend import TransformersBackend

    original = TransformersBackend.generate

    def generate(self, requests, batching):
        for batch in original(self, requests, batching):
            generated.extend(index for index, _ in batch)
            yield batch

    monkeypatch.setattr(TransformersBackend, "generate", generate)
    run.main(arguments(SHORT, *options))
    for name in LOGS:
        assert (scores / "samples" / name).read_bytes() == (
            complete / "samples" / name
        ).read_bytes()
    assert 0 < len(generated) < 6, "only batches with missing documents"
    first, second = (
        json.loads((folder / "results.json").read_text()) for folder in (complete, scores)
    )
    assert first["tasks"] == second["tasks"]


@pytest.mark.multiprocess
def test_several_processes_give_the_same_samples(arguments, tmp_path):
    options = ["--limit", "5", "--lm-eval-gen-kwargs", "max_gen_toks=4"]
    run.main(arguments(SHORT, *options))
    run.main(arguments(SHORT, *options, "--processes", "2", output="two"))
    for name in ("arc_easy", "nq_open", "wikitext"):
        one, two = (entry(tmp_path / folder, f"lm_eval:{name}") for folder in ("scores", "two"))
        assert one["metrics"].keys() == two["metrics"].keys()
        for metric, estimate in one["metrics"].items():
            assert two["metrics"][metric]["value"] == pytest.approx(estimate["value"], rel=1e-4)
    assert list((tmp_path / "two" / "samples").glob("*.rank1.jsonl"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-fewshot", "1"], "num_fewshot: not set → 1"),
        (["--fewshot-seeds", "7"], "fewshot_seed"),
        (["--lm-eval-gen-kwargs", "max_gen_toks=3"], "generation_kwargs"),
        (["--limit", "3"], "limit"),
        (["--chat-template", "auto"], "chat_template"),
    ],
)
def test_other_settings_are_another_run(arguments, options, message):
    run.main(arguments("lm_eval:arc_easy", "--limit", "2"))
    with pytest.raises(UsageError, match=f"belongs to another run .*{message}"):
        run.main(
            arguments(
                "lm_eval:arc_easy",
                *(options if "--limit" in options else ["--limit", "2", *options]),
            )
        )


def test_changed_data_of_a_group_are_another_run(arguments, harness_data, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(harness_data, data)
    words = arguments("lm_eval:multimedqa", "--limit", "1", "--data", str(data))
    run.main(words)
    path = data / "cais" / "mmlu" / "virology"
    assert not path.exists()
    path = data / "cais" / "mmlu" / "anatomy" / "test.jsonl"
    path.write_text(path.read_text().replace("heart", "lung"))
    benchmark._loaded.cache_clear()
    with pytest.raises(UsageError, match=r"belongs to another run .*anatomy/test\.jsonl"):
        run.main(words)


def test_a_tag_is_a_list_of_tasks(arguments, tmp_path):
    assert task_index.expand(LmEvalTask(task="headqa")) == ["headqa_en", "headqa_es"]
    assert task_index.expand(LmEvalTask(task="mmlu")) == ["mmlu"]
    with pytest.raises(DataError, match=r"EleutherAI/headqa \(configuration es\).*SPLIT\.jsonl"):
        run.main(arguments("lm_eval:headqa"))


@pytest.mark.slow
def test_report_compares_harness_tasks(arguments, tmp_path, make_llama):
    other = make_llama(num_hidden_layers=1, max_position_embeddings=640, initializer_range=0.3)
    tasks = f"{SHORT},lm_eval:multimedqa,lm_eval:cola"
    options = ["--lm-eval-gen-kwargs", "max_gen_toks=4", "--limit", "3"]
    run.main(arguments(tasks, *options))
    run.main(arguments(tasks, *options, output="other", model=other))
    report.main(
        [
            str(tmp_path / "scores"),
            str(tmp_path / "other"),
            "--output",
            str(tmp_path / "r.html"),
            "--tables",
            str(tmp_path / "tables"),
        ]
    )
    html = (tmp_path / "r.html").read_text()
    assert "word_perplexity" in html and "multimedqa" in html and "mcc_of_samples" in html
    table = next(path for path in (tmp_path / "tables").glob("all.csv")).read_text()
    rows = [line for line in table.splitlines() if "lm_eval:multimedqa" in line and "other" in line]
    assert any(",acc," in row for row in rows)
    perplexities = [entry(tmp_path / name, "lm_eval:wikitext") for name in ("scores", "other")]
    assert all(item["lower_is_better"] for item in perplexities)


def test_models_scored_with_other_few_shot_examples_are_not_compared(arguments, tmp_path):
    run.main(arguments("lm_eval:arc_easy", "--limit", "2"))
    run.main(arguments("lm_eval:arc_easy", "--limit", "2", "--num-fewshot", "1", output="other"))
    with pytest.raises(DataError, match=r"different task files .*num_fewshot"):
        report.main(
            [
                str(tmp_path / "scores"),
                str(tmp_path / "other"),
                "--output",
                str(tmp_path / "r.html"),
            ]
        )


def test_contaminated_documents_are_left_out(arguments, tmp_path):
    path = tmp_path / "contamination.jsonl"
    path.write_text('{"id": "0", "ratio": 0.9}\n{"id": "1", "ratio": 0.1}\n')
    run.main(arguments("lm_eval:wikitext", "--limit", "3"))
    run.main(arguments("lm_eval:wikitext", "--limit", "3", "--contamination", str(path)))
    of_task = entry(tmp_path / "scores", "lm_eval:wikitext")
    assert of_task["contaminated"] == 1
    assert of_task["clean"]["samples"] == 2
    assert of_task["clean"]["value"] > 1


@pytest.mark.parametrize(
    ("tasks", "options", "message"),
    [
        ("lm_eval:arc_esy", [], r"has no task 'arc_esy'; did you mean 'arc_easy'\?"),
        ("lm_eval:humaneval", [], "runs code that the model writes"),
        ("lm_eval:cola", ["--lm-eval-gen-kwargs", "x"], "expected KEY=VALUE"),
        ("lm_eval:squad_completion", [], "reads the data set hazyresearch/based-squad"),
        ("mesh_topics", ["--lm-eval-include-path", "."], "goes with tasks named lm_eval:NAME"),
        ("lm_eval:arc_easy", ["--fewshot-seeds", "1,2"], "takes one seed"),
        ("lm_eval:arc_easy", ["--lm-eval-include-path", "/nowhere"], "there is no folder /nowhere"),
        ("lm_eval:arc_easy,lm_eval:arc_easy", [], "twice"),
    ],
)
def test_wrong_use_is_one_message(arguments, tasks, options, message):
    with pytest.raises((UsageError, DataError), match=message):
        run.main(arguments(tasks, *options))


def test_without_the_harness_the_message_says_how_to_install_it(arguments, monkeypatch):
    monkeypatch.setattr(task_index, "manager", task_index.manager.__wrapped__)  # not cached
    find = task_index.importlib.util.find_spec
    monkeypatch.setattr(
        task_index.importlib.util,
        "find_spec",
        lambda name: None if name == "lm_eval" else find(name),
    )
    with pytest.raises(UsageError, match=r"not installed; pip install -e '\.\[harness\]'"):
        run.main(arguments("lm_eval:arc_easy"))


def test_a_conversation_has_the_system_prompt_and_turns(arguments, tmp_path):
    template = tmp_path / "template.jinja"
    template.write_text(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
    )
    options = ["--chat-template", str(template), "--system-prompt", "Be brief."]
    options += ["--num-fewshot", "1", "--limit", "2", "--fewshot-as-multiturn"]
    run.main(arguments("lm_eval:arc_easy", *options))
    line = (tmp_path / "scores/prompts/lm_eval.arc_easy.jsonl").read_text().splitlines()[0]
    prompt = json.loads(line)["prompt"]
    assert prompt.startswith("<system>Be brief.\n<user>Question:")
    assert prompt.count("<user>") == 2 and prompt.endswith("\n<assistant>")
    [path] = (tmp_path / "scores").rglob("samples_arc_easy_*.jsonl")
    written = json.loads(path.read_text().splitlines()[0])
    assert written["arguments"]["gen_args_0"]["arg_0"] == prompt
    [path] = (tmp_path / "scores").rglob("results_*.json")
    assert json.loads(path.read_text())["system_instruction"] == "Be brief."


OWN_TASK = """
task: heart_quiz
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
repeats: 3
generation_kwargs: {{until: ["\\n"], do_sample: true, temperature: 1.0, max_gen_toks: 4}}
process_results: !function own.process_results
metric_list:
  - metric: length
    aggregation: !function own.longest
    higher_is_better: true
filter_list:
  - name: all
    filter: [{{function: take_first_k, k: 3}}]
"""
OWN_CODE = """
def process_results(doc, results):
    return {"length": max(map(len, results[0]))}

def longest(items):
    return max(items)
"""


@pytest.fixture
def own(tmp_path):
    """A folder with a task of one's own: repeated sampling, own metric and aggregation."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"question": "A", "answer": "B"}\n' * 3)
    (folder / "heart.yaml").write_text(OWN_TASK.format(file=folder / "rows.jsonl"))
    (folder / "own.py").write_text(OWN_CODE)
    return folder


def test_a_task_of_ones_own(arguments, own, tmp_path):
    run.main(arguments("lm_eval:heart_quiz", "--lm-eval-include-path", str(own)))
    of_task = entry(tmp_path / "scores", "lm_eval:heart_quiz")
    assert of_task["primary_metric"] == "length,all_of_samples"
    lines = (tmp_path / "scores/samples/lm_eval.heart_quiz.jsonl").read_text().splitlines()
    samples = list(map(json.loads, lines))
    assert all(len(set(sample["responses"][0])) == 3 for sample in samples), "sampled"
    lengths = [max(map(len, sample["responses"][0])) for sample in samples]
    assert [sample["score"] for sample in samples] == lengths
    assert of_task["metrics"]["length,all"]["value"] == max(lengths)
    (own / "own.py").write_text(OWN_CODE.replace("max(items)", "min(items)"))
    benchmark._loaded.cache_clear()
    with pytest.raises(UsageError, match=r"belongs to another run .*own\.py"):
        run.main(arguments("lm_eval:heart_quiz", "--lm-eval-include-path", str(own)))


def test_a_task_file_may_name_a_task_of_the_harness(arguments, tmp_path):
    path = tmp_path / "arc.yaml"
    path.write_text("kind: lm_eval\ntask: arc_easy\nnum_fewshot: 1\n")
    run.main(arguments(str(path), "--limit", "2"))
    of_task = entry(tmp_path / "scores", "arc")
    assert of_task["settings"]["num_fewshot"] == {"arc_easy": 1}
    path.write_text("kind: lm_eval\ntask: headqa\n")
    with pytest.raises(UsageError, match="'headqa' is a list of tasks"):
        run.main(arguments(str(path), output="other"))


def test_options_without_effect_are_refused(arguments):
    """The harness' tasks sample as they say themselves."""
    for options in (["--temperature", "0.7"], ["--thinking-budget", "9", "--budget-forcing"]):
        with pytest.raises(UsageError, match=f"{options[0]}.*no effect on tasks of lm-evaluation"):
            run.main(arguments("lm_eval:nq_open", "--protocol", "reasoning", *options))
