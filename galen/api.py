"""The commands as Python functions, for notebooks and scripts.

    from galen import api

    corpus = api.curate("examples/corpora/pubmed_sample.yaml", {"output": "corpus"})
    print(corpus.documents)

A function takes the options of its command (`galen VERB --help`) as keywords, `--json-keys text
title` as `json_keys=["text", "title"]` and a flag as `append_eod=True`. It writes the same files as
the command, and is resumed by the same call. It returns an object of `galen.api_results` with the
paths and numbers of the output, raises `UsageError` for wrong options and `DataError` for wrong
files, and never ends the process.
"""

import contextlib
import importlib
import io
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from galen import api_results, commands, iterations, json_file
from galen.api_call import (
    Overrides,
    as_command,
    assignments,
    recipe_words,
    run_command,
    word,
    words,
)
from galen.api_results import (
    Checkpoint,
    Corpus,
    Download,
    MetricAgreement,
    Output,
    Quantization,
    QuestionFile,
    Rationales,
    Scores,
    TokenFiles,
    TrainingRun,
)
from galen.errors import UsageError
from galen.stop_signals import EXIT_STOPPED


def download(source: str, output: str | Path, **options: Any) -> Download:
    """Download a corpus or benchmark, see `galen download --help`."""
    run_command("download", [source], {"output": output, **options})
    records = api_results.read_records(Path(output) / "downloads.jsonl")
    names = dict.fromkeys(record["name"] for record in records)
    return Download(Path(output), list(names))


def crawl(recipe: str | Path, overrides: Overrides | None = None, **options: Any) -> Path:
    """Crawl the website of a recipe, see `galen crawl --help`; return the folder of archives."""
    run_command("crawl", recipe_words(recipe, overrides), options)
    return Path(_output_of("data_prep.crawling.website", "Site", recipe, overrides))


def curate(recipe: str | Path, overrides: Overrides | None = None, **options: Any) -> Corpus:
    """Turn raw sources into the corpus of a recipe, see `galen curate --help`."""
    run_command("curate", recipe_words(recipe, overrides), options)
    output = _output_of("data_prep.curation.recipe", "CorpusRecipe", recipe, overrides)
    return Corpus(Path(output), api_results.read_manifest(output))


def report_corpus(corpus: str | Path, output: str | Path | None = None, **options: Any) -> Path:
    """Write the HTML report of a corpus, see `galen report-corpus --help`; return the file."""
    run_command("report-corpus", [corpus], {"output": output, **options})
    return Path(corpus) / "report.html" if output is None else Path(output)


def preprocess(
    input: str | Path | Sequence[str | Path],
    output_prefix: str | Path,
    tokenizer_model: str | Path,
    **options: Any,
) -> TokenFiles:
    """Tokenize documents into Megatron's files, see `galen preprocess --help`."""
    known = {"input": input, "output_prefix": output_prefix, "tokenizer_model": tokenizer_model}
    run_command("preprocess", [], {**known, **options})
    return TokenFiles(Path(output_prefix), api_results.read_manifest(output_prefix))


def merge_indexed(
    input: str | Path | Sequence[str | Path],
    output_prefix: str | Path,
) -> TokenFiles:
    """Join token files into one, see `galen merge-indexed --help`."""
    run_command("merge-indexed", [], {"input": input, "output_prefix": output_prefix})
    return TokenFiles(Path(output_prefix), api_results.read_manifest(output_prefix))


def split_indexed(
    input: str | Path, output_prefix: str | Path, lengths: Sequence[int]
) -> list[TokenFiles]:
    """Split token files by length, see `galen split-indexed --help`; return the shortest first."""
    options = {"input": input, "output_prefix": output_prefix, "lengths": lengths}
    run_command("split-indexed", [], options)
    names = [f"{first}-{last - 1}" for first, last in pairwise([0, *lengths])]
    names.append(str(lengths[-1]))
    prefixes = [Path(f"{output_prefix}_{name}") for name in names]
    return [TokenFiles(prefix, api_results.read_manifest(prefix)) for prefix in prefixes]


def inspect_tokens(prefix: str | Path, **options: Any) -> bool:
    """Print, check or compare token files; return whether those compared are equal."""
    return run_command("inspect-tokens", [prefix], options, codes=(0, 1)) == 0


def mesh_questions(
    corpus: str | Path, split: str, output: str | Path, **options: Any
) -> QuestionFile:
    """Make questions from a corpus, see `galen mesh-questions --help`."""
    run_command(
        "mesh-questions", [], {"corpus": corpus, "split": split, "output": output, **options}
    )
    return _question_file(output)


def import_hf(hf: str | Path, output: str | Path, **options: Any) -> Checkpoint:
    """Write the Megatron checkpoint of a Hugging Face model, see `galen import --help`."""
    run_command("import", [], {"hf": hf, "output": output, **options})
    return _checkpoint(output)


def export_hf(megatron: str | Path, output: str | Path, **options: Any) -> Checkpoint:
    """Write the Hugging Face folder of a Megatron checkpoint, see `galen export --help`."""
    run_command("export", [], {"megatron": megatron, "output": output, **options})
    return _checkpoint(output)


def verify(hf: str | Path, megatron: str | Path, **options: Any) -> bool:
    """Return whether two checkpoints are the same model, see `galen verify --help`."""
    return run_command("verify", [], {"hf": hf, "megatron": megatron, **options}, codes=(0, 1)) == 0


def inspect_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return family, sizes and layout of a checkpoint of any format."""
    folder = Path(word("path", path))
    with as_command("inspect-checkpoint"), commands.load("inspect-checkpoint") as module:
        described: dict[str, Any] = module.describe(folder)
    return described


def register_checkpoint(megatron: str | Path, hf: str | Path, **options: Any) -> Checkpoint:
    """Use a checkpoint of Megatron-LM in place, see `galen register --help`."""
    run_command("register", [], {"megatron": megatron, "hf": hf, **options})
    return _checkpoint(megatron)


def reshard(megatron: str | Path, output: str | Path, **options: Any) -> Checkpoint:
    """Make the optimizer state loadable by any layout, see `galen reshard --help`."""
    run_command("reshard", [], {"megatron": megatron, "output": output, **options})
    return _checkpoint(output)


def average(
    megatron: str | Path | Sequence[str | Path], output: str | Path, **options: Any
) -> Checkpoint:
    """Average checkpoints, see `galen average --help`."""
    folders = [megatron] if isinstance(megatron, str | Path) else words("megatron", megatron)
    run_command("average", [], {"megatron": folders, "output": output, **options})
    return _checkpoint(output)


def import_nemo(nemo: str | Path, output: str | Path, **options: Any) -> Checkpoint:
    """Write the Megatron checkpoint of a NeMo 2 model, see `galen import-nemo --help`."""
    run_command("import-nemo", [], {"nemo": nemo, "output": output, **options})
    return _checkpoint(output)


def export_nemo(megatron: str | Path, output: str | Path, **options: Any) -> Checkpoint:
    """Write the NeMo 2 folder of a Megatron checkpoint, see `galen export-nemo --help`."""
    run_command("export-nemo", [], {"megatron": megatron, "output": output, **options})
    return _checkpoint(output)


def import_legacy(legacy: str | Path, output: str | Path, **options: Any) -> Checkpoint:
    """Write the Megatron checkpoint of a Megatron-LLM model, see `galen import-legacy --help`."""
    run_command("import-legacy", [], {"legacy": legacy, "output": output, **options})
    return _checkpoint(output)


def plan(
    recipe: str | Path,
    gpus: int | None = None,
    gpu: str | None = None,
    overrides: Overrides | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Estimate memory and throughput of a run; return what `galen plan --json` prints.

    Sizes are in bytes, times in seconds. A layout that does not fit is an answer, not an error.
    With `compare`, a run folder, `gpus` and `gpu` are the run's.
    """
    arguments = recipe_words(recipe, overrides)
    sizes = {"gpus": gpus, "gpu": gpu}
    options |= {name: value for name, value in sizes.items() if value is not None}
    options["json"] = True
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run_command("plan", arguments, options, codes=(0, *_PLAN_CODES))
    answer: dict[str, Any] = json.loads(printed.getvalue())
    return answer


def pretrain(
    recipe: str | Path, overrides: Overrides | None = None, **options: Any
) -> TrainingRun | None:
    """Continue pretraining as a recipe says, see `galen pretrain --help`.

    Returns:
        The finished run, or None if it stopped early with a checkpoint: the same call resumes it.

    Raises:
        KeyboardInterrupt: a second Ctrl-C, or one before the first step, ended it immediately.
    """
    return _training_run("pretrain", "megatron_ext.config.recipe", recipe, overrides, options)


def run_state(run: str | Path) -> Any:
    """Return the `RunState` of a pretraining run, finished or not: what `galen monitor` shows."""
    folder = Path(word("run", run))
    with as_command("monitor"), commands.load("monitor") as module:
        return module.run_state.read(folder)


def finetune(
    recipe: str | Path, overrides: Overrides | None = None, **options: Any
) -> TrainingRun | None:
    """Fine-tune as a recipe says, see `galen finetune --help`.

    Returns:
        The finished run, or None if it stopped early with a checkpoint: the same call resumes it.

    Raises:
        KeyboardInterrupt: a second Ctrl-C, or one before the first step, ended it immediately.
    """
    return _training_run("finetune", "finetune.config.recipe", recipe, overrides, options)


def merge(recipe: str | Path, overrides: Overrides | None = None) -> Checkpoint:
    """Merge or ensemble models as a recipe says, see `galen merge --help`."""
    run_command("merge", recipe_words(recipe, overrides), {})
    return _checkpoint(_output_of("finetune.merge", "Recipe", recipe, overrides))


def quantize(
    model: str | Path,
    methods: str | Sequence[str],
    questions: str | Path,
    output: str | Path,
    **options: Any,
) -> Quantization:
    """Quantize a model and measure the cost, see `galen quantize --help`."""
    names = methods.split(",") if isinstance(methods, str) else words("methods", methods)
    known = {"model": model, "methods": ",".join(names), "questions": questions, "output": output}
    run_command("quantize", [], {**known, **options})
    return api_results.read_quantization(Path(output), Path(model), [n.strip() for n in names])


def publish(run: str | Path, output: str | Path, name: str, license: str, **options: Any) -> Output:
    """Write the model folder of a fine-tuning run with its card, see `galen publish --help`."""
    run_command(
        "publish", [], {"run": run, "output": output, "name": name, "license": license, **options}
    )
    return Output(Path(output), api_results.read_manifest(output))


def evaluate(
    model: str | Path, tasks: str | Sequence[str], output: str | Path, **options: Any
) -> Scores:
    """Score a model on tasks, see `galen evaluate --help`.

    For several models or iterations call it for each, or use `evaluate_recipe`.
    """
    if not isinstance(model, str | Path):
        raise UsageError(f"model: {model!r} is not one model; for several, call this for each")
    known = {"model": model, "tasks": tasks, "output": output}
    with_commas = {
        name: ",".join(map(str, value)) if isinstance(value, list | tuple) else value
        for name, value in {**known, **options}.items()
    }
    iterations = str(with_commas.get("iterations"))
    if iterations == "all" or "," in iterations:
        raise UsageError(f"iterations: {iterations} is not one; for several, call this for each")
    run_command("evaluate", [], with_commas)
    return Scores(Path(output), json_file.read_object(Path(output) / "results.json"))


def evaluate_recipe(recipe: str | Path, overrides: Overrides | None = None) -> list[dict[str, Any]]:
    """Score the models of a recipe, see `galen evaluate --help`; return each `results.json`."""
    from galen.recipe import load

    with as_command("evaluate"), commands.load("evaluate") as module:
        options = load(module.Recipe, word("recipe", recipe), assignments(overrides))
        results: list[dict[str, Any]] = module.evaluate(options)
    return results


def report(results: str | Path | Sequence[str | Path], output: str | Path, **options: Any) -> Path:
    """Write the HTML report of scored models, see `galen report --help`; return the file."""
    folders = [results] if isinstance(results, str | Path) else words("results", results)
    run_command("report", folders, {"output": output, **options})
    return Path(output)


def progress(
    runs: Sequence[str | Path], output: str | Path, **options: Any
) -> dict[str, dict[str, Any]]:
    """Compare models with the one they came from, see `galen progress --help`.

    Returns:
        The verdict on each model, as in OUTPUT/MODEL.json.
    """
    run_command("progress", words("runs", runs), {"output": output, **options})
    return api_results.read_progress(Path(output))


def judge(
    runs: str | Path | Sequence[str | Path],
    task: str,
    data: str | Path,
    output: str | Path,
    **options: Any,
) -> dict[str, dict[str, Any]]:
    """Score answers against rubrics, see `galen judge --help`.

    Returns:
        The scores of each model, as in its file below OUTPUT/scores.
    """
    folders = [runs] if isinstance(runs, str | Path) else words("runs", runs)
    run_command("judge", folders, {"task": task, "data": data, "output": output, **options})
    return api_results.read_judged(Path(output), Path(task).stem)


def judge_pairs(
    runs: Sequence[str | Path],
    task: str,
    data: str | Path,
    output: str | Path,
    **options: Any,
) -> dict[str, Any]:
    """Compare the answers of models pair by pair, see `galen judge-pairs --help`.

    Returns:
        The content of OUTPUT/pairs/TASK.json.
    """
    known = {"task": task, "data": data, "output": output}
    run_command("judge-pairs", words("runs", runs), {**known, **options})
    return json_file.read_object(Path(output) / "pairs" / f"{Path(task).stem}.json")


def judge_agreement(meta_eval: str | Path, output: str | Path, **options: Any) -> dict[str, Any]:
    """Measure a judge against physicians, see `galen judge-agreement --help`.

    Returns:
        The content of OUTPUT/agreement.json.
    """
    run_command("judge-agreement", [], {"meta_eval": meta_eval, "output": output, **options})
    return json_file.read_object(Path(output) / "agreement.json")


def rationales(run: str | Path, task: str, output: str | Path, **options: Any) -> Rationales:
    """Score the rationales of a scored model, see `galen rationales --help`."""
    run_command("rationales", [run], {"task": task, "output": output, **options})
    return api_results.read_rationales(Path(output))


def agreement(scores: str | Path, ratings: str | Path) -> dict[str, MetricAgreement]:
    """Return the agreement of each metric with judges, see `galen agreement --help`."""
    files = [Path(word("scores", scores)), Path(word("ratings", ratings))]
    with as_command("agreement"), commands.load("agreement") as module:
        measured = module.measure(*files)
    return {
        name: MetricAgreement(metric.tau.value, metric.tau.low, metric.tau.high, metric.best)
        for name, metric in measured.metrics.items()
    }


def build_benchmark(
    kind: str, reader: str, questions: str | Path, output: str | Path, **options: Any
) -> QuestionFile:
    """Write rationales or translations of questions, see `galen build-benchmark --help`."""
    known = {"reader": reader, "questions": questions, "output": output}
    run_command("build-benchmark", [kind], {**known, **options})
    return _question_file(output)


_PLAN_CODES = (3, 4)
"""Exit codes of `galen plan` for a layout that does not fit, and one that is impossible."""


def _training_run(
    verb: str,
    module: str,
    recipe: str | Path,
    overrides: Overrides | None,
    options: dict[str, Any],
) -> TrainingRun | None:
    """Return a finished run, or None if it stopped early."""
    arguments = recipe_words(recipe, overrides)
    code = run_command(verb, arguments, options, codes=(0, EXIT_STOPPED))
    if code == EXIT_STOPPED:
        return None
    output = _output_of(module, "Recipe", recipe, overrides)
    return TrainingRun(Path(output), api_results.read_manifest(output))


def _output_of(
    module: str, recipe_class: str, recipe: str | Path, overrides: Overrides | None
) -> str:
    """Return the output of a recipe."""
    from galen.recipe import load

    loaded: Any = getattr(importlib.import_module(module), recipe_class)
    return str(load(loaded, recipe, assignments(overrides)).output)


def _checkpoint(folder: str | Path) -> Checkpoint:
    """Return a model folder or the newest iteration of a Megatron checkpoint."""
    path = Path(folder)
    contents = path
    if (path / iterations.LATEST).is_file():
        iteration = iterations.latest_iteration(path)
        if iteration is not None:
            contents = iterations.iteration_folder(path, iteration)
    return Checkpoint(path, api_results.read_manifest(contents))


def _question_file(path: str | Path) -> QuestionFile:
    return QuestionFile(Path(path), len(api_results.read_records(Path(path))))
