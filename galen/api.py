"""The commands as Python functions, for notebooks and scripts.

    from galen import api

    corpus = api.curate("examples/corpora/pubmed_sample.yaml", {"output": "corpus"})
    print(corpus.counts["kept"])

A function takes the options of its command (`galen VERB --help`) as keywords, `--json-keys text
title` as `json_keys=["text", "title"]` and a flag as `append_eod=True`, and does exactly what the
command does: same files, same restarts. It returns what was written and raises `UsageError` for
wrong options and `DataError` for wrong files; it never ends the process.
"""

import contextlib
import importlib
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galen import cli, commands, json_file, launch, manifest, stop_signals
from galen.errors import DataError, UsageError
from galen.stop_signals import EXIT_STOPPED

Overrides = Mapping[str, Any]
"""Values for dotted keys of a recipe."""


@dataclass(frozen=True)
class Output:
    """What a command wrote."""

    path: Path
    """Folder or prefix of the files."""
    manifest: dict[str, Any]
    """Its `manifest.json`: inputs with hashes, configuration, versions, outputs, counts."""

    @property
    def counts(self) -> dict[str, Any]:
        """Counts of the manifest: documents, tokens, records dropped by reason …."""
        return dict(self.manifest.get("counts") or {})


def download(source: str, output: str | Path, **options: Any) -> Path:
    """Download a corpus or benchmark, see `galen download --help`; return the folder."""
    _run("download", [source], {"output": output, **options})
    return Path(output)


def crawl(recipe: str | Path, overrides: Overrides | None = None, **options: Any) -> Path:
    """Crawl the website of a recipe, see `galen crawl --help`; return the folder of archives."""
    _run("crawl", _recipe(recipe, overrides), options)
    return Path(_output_of("data_prep.crawling.website", "Site", recipe, overrides))


def curate(recipe: str | Path, overrides: Overrides | None = None, **options: Any) -> Output:
    """Turn raw sources into the corpus of a recipe, see `galen curate --help`."""
    _run("curate", _recipe(recipe, overrides), options)
    return _output(_output_of("data_prep.curation.recipe", "CorpusRecipe", recipe, overrides))


def report_corpus(corpus: str | Path, output: str | Path | None = None, **options: Any) -> Path:
    """Write the HTML report of a corpus, see `galen report-corpus --help`; return the file."""
    _run("report-corpus", [str(corpus)], {"output": output, **options})
    return Path(corpus) / "report.html" if output is None else Path(output)


def preprocess(
    input: str | Sequence[str],
    output_prefix: str | Path,
    tokenizer_model: str | Path,
    **options: Any,
) -> Output:
    """Tokenize documents into Megatron's files, see `galen preprocess --help`."""
    known = {"input": input, "output_prefix": output_prefix, "tokenizer_model": tokenizer_model}
    _run("preprocess", [], {**known, **options})
    return _output_of_prefix(output_prefix)


def merge_indexed(
    input: str | Sequence[str],
    output_prefix: str | Path,
) -> Output:
    """Join token files into one, see `galen merge-indexed --help`."""
    _run("merge-indexed", [], {"input": input, "output_prefix": output_prefix})
    return _output_of_prefix(output_prefix)


def inspect_tokens(prefix: str | Path, **options: Any) -> bool:
    """Print, check or compare token files; return whether those compared are equal."""
    return _run("inspect-tokens", [str(prefix)], options, codes=(0, 1)) == 0


def mesh_questions(corpus: str | Path, split: str, output: str | Path, **options: Any) -> Path:
    """Make questions from a corpus, see `galen mesh-questions --help`; return the file."""
    _run("mesh-questions", [], {"corpus": corpus, "split": split, "output": output, **options})
    return Path(output)


def import_hf(hf: str | Path, output: str | Path, **options: Any) -> Path:
    """Write the Megatron checkpoint of a Hugging Face model; return its folder."""
    _run("import", [], {"hf": hf, "output": output, **options})
    return Path(output)


def export_hf(megatron: str | Path, output: str | Path, **options: Any) -> Output:
    """Write the Hugging Face folder of a Megatron checkpoint, see `galen export --help`."""
    _run("export", [], {"megatron": megatron, "output": output, **options})
    return _output(output)


def verify(hf: str | Path, megatron: str | Path, **options: Any) -> bool:
    """Return whether two checkpoints are the same model, see `galen verify --help`."""
    return _run("verify", [], {"hf": hf, "megatron": megatron, **options}, codes=(0, 1)) == 0


def inspect_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return family, sizes and layout of a checkpoint of any format."""
    with commands.load("inspect-checkpoint") as module:
        described: dict[str, Any] = module.describe(Path(path))
    return described


def register_checkpoint(megatron: str | Path, hf: str | Path, **options: Any) -> Path:
    """Use a checkpoint of Megatron-LM in place, see `galen register --help`; return its folder."""
    _run("register", [], {"megatron": megatron, "hf": hf, **options})
    return Path(megatron)


def import_nemo(nemo: str | Path, output: str | Path, **options: Any) -> Path:
    """Write the Megatron checkpoint of a NeMo 2 model, see `galen import-nemo --help`."""
    _run("import-nemo", [], {"nemo": nemo, "output": output, **options})
    return Path(output)


def export_nemo(megatron: str | Path, output: str | Path, **options: Any) -> Path:
    """Write the NeMo 2 folder of a Megatron checkpoint, see `galen export-nemo --help`."""
    _run("export-nemo", [], {"megatron": megatron, "output": output, **options})
    return Path(output)


def import_legacy(legacy: str | Path, output: str | Path, **options: Any) -> Path:
    """Write the Megatron checkpoint of a Megatron-LLM model, see `galen import-legacy --help`."""
    _run("import-legacy", [], {"legacy": legacy, "output": output, **options})
    return Path(output)


def plan(
    recipe: str | Path, gpus: int, gpu: str = "h100-80gb", overrides: Overrides | None = None
) -> dict[str, Any]:
    """Estimate memory and throughput of a run; return what `galen plan --json` prints.

    Sizes are in bytes, times in seconds. A layout that does not fit is an answer, not an error.
    """
    words = _recipe(recipe, overrides)
    options = {"gpus": gpus, "gpu": gpu, "json": True}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        _run("plan", words, options, codes=(0, *_PLAN_CODES))
    answer: dict[str, Any] = json.loads(printed.getvalue())
    return answer


def pretrain(
    recipe: str | Path, overrides: Overrides | None = None, **options: Any
) -> Output | None:
    """Continue pretraining as a recipe says, see `galen pretrain --help`.

    Returns:
        The finished run, or None when it stopped early with a checkpoint: the same call resumes it.
    """
    code = _run("pretrain", _recipe(recipe, overrides), options, codes=(0, EXIT_STOPPED))
    output = _output_of("megatron_ext.config.recipe", "Recipe", recipe, overrides)
    return _output(output) if code == 0 else None


def run_state(run: str | Path) -> Any:
    """Return the `RunState` of a pretraining run, finished or not: what `galen monitor` shows."""
    with commands.load("monitor") as module:
        return module.run_state.read(Path(run))


def finetune(
    recipe: str | Path, overrides: Overrides | None = None, **options: Any
) -> Output | None:
    """Fine-tune as a recipe says, see `galen finetune --help`.

    Returns:
        The finished run, or None when it stopped early with a checkpoint: the same call resumes it.
    """
    code = _run("finetune", _recipe(recipe, overrides), options, codes=(0, EXIT_STOPPED))
    output = _output_of("finetune.config.recipe", "Recipe", recipe, overrides)
    return _output(output) if code == 0 else None


def merge(recipe: str | Path, overrides: Overrides | None = None) -> Path:
    """Merge or ensemble models as a recipe says, see `galen merge --help`; return the output."""
    _run("merge", _recipe(recipe, overrides), {})
    return Path(_output_of("finetune.merge", "Recipe", recipe, overrides))


def quantize(
    model: str | Path, methods: str, questions: str | Path, output: str | Path, **options: Any
) -> Path:
    """Quantize a model and measure the cost, see `galen quantize --help`; return the folder."""
    known = {"model": model, "methods": methods, "questions": questions, "output": output}
    _run("quantize", [], {**known, **options})
    return Path(output)


def publish(run: str | Path, output: str | Path, name: str, license: str, **options: Any) -> Output:
    """Write the model folder of a fine-tuning run with its card, see `galen publish --help`."""
    _run("publish", [], {"run": run, "output": output, "name": name, "license": license, **options})
    return _output(output)


def evaluate(
    model: str | Path, tasks: str | Sequence[str], output: str | Path, **options: Any
) -> dict[str, Any]:
    """Score a model on tasks, see `galen evaluate --help`; return its `results.json`.

    Several models or iterations have a `results.json` each: `evaluation.run.evaluate` takes them.
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
    _run("evaluate", [], with_commas)
    return json_file.read_object(Path(output) / "results.json")


def evaluate_recipe(recipe: str | Path, overrides: Overrides | None = None) -> list[dict[str, Any]]:
    """Score the models of a recipe, see `galen evaluate --help`; return each `results.json`."""
    from galen.recipe import load

    with commands.load("evaluate") as module:
        options = load(module.Recipe, recipe, _assignments(overrides))
        results: list[dict[str, Any]] = module.evaluate(options)
    return results


def report(results: str | Path | Sequence[str | Path], output: str | Path, **options: Any) -> Path:
    """Write the HTML report of scored models, see `galen report --help`; return the file."""
    folders = [results] if isinstance(results, str | Path) else results
    _run("report", [str(folder) for folder in folders], {"output": output, **options})
    return Path(output)


def rationales(run: str | Path, task: str, output: str | Path, **options: Any) -> Path:
    """Score the rationales of a scored model, see `galen rationales --help`; return the file."""
    _run("rationales", [str(run)], {"task": task, "output": output, **options})
    return Path(output)


def agreement(scores: str | Path, ratings: str | Path) -> None:
    """Print how far metrics agree with judges, see `galen agreement --help`."""
    _run("agreement", [], {"scores": scores, "ratings": ratings})


def build_benchmark(
    kind: str, reader: str, questions: str | Path, output: str | Path, **options: Any
) -> Path:
    """Write rationales or translations of questions, see `galen build-benchmark --help`."""
    known = {"reader": reader, "questions": questions, "output": output}
    _run("build-benchmark", [kind], {**known, **options})
    return Path(output)


_PLAN_CODES = (3, 4)
"""Exit codes of `galen plan` for a layout that does not fit, and one that is impossible."""


def _run(
    verb: str, words: Sequence[str], options: Mapping[str, Any], codes: Sequence[int] = (0,)
) -> int:
    """Run a command in this process and return its exit code, one of `codes`.

    Raises:
        GalenError: the command refuses its options or files.
        DataError: it ends with another exit code, or the system refuses a file.
    """
    try:
        with _as_command(verb):
            code = commands.call(verb, [*words, *_flags(options)]) or 0
    except SystemExit as error:
        raise UsageError(f"{verb} ended with exit code {error.code}") from error
    except OSError as error:
        if (refusal := cli.os_error_message(error)) is None:
            raise
        raise DataError(refusal) from error
    if code not in codes:
        raise DataError(f"{verb} ended with exit code {code}")
    return code


@contextlib.contextmanager
def _as_command(verb: str) -> Iterator[None]:
    """While a command runs: messages call it by its verb. Afterwards its signals are given back."""
    words = sys.argv
    signals = [signal.Signals[name] for name in stop_signals.NAMES]
    handlers = {number: signal.getsignal(number) for number in signals}
    sys.argv = [f"galen {verb}"]
    os.environ[launch.API_FUNCTION] = f"galen.api.{verb.replace('-', '_')}"
    try:
        yield
    finally:
        sys.argv = words
        os.environ.pop(launch.API_FUNCTION, None)
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _flags(options: Mapping[str, Any]) -> list[str]:
    """Return options as on a command line."""
    words: list[str] = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif isinstance(value, list | tuple):
            words += [flag, *map(str, value)]
        elif value is not None and value is not False:
            words.append(f"{flag}={value}")
    return words


def _recipe(recipe: str | Path, overrides: Overrides | None) -> list[str]:
    return [str(recipe), *_assignments(overrides)]


def _assignments(overrides: Overrides | None) -> list[str]:
    """Return overrides as on a command line.

    Raises:
        UsageError: a value is none that YAML has.
    """
    if not isinstance(overrides or {}, Mapping):
        raise UsageError(f"overrides: {overrides!r} is not a dictionary of dotted keys and values")
    return [f"{key}={_yaml(key, value)}" for key, value in (overrides or {}).items()]


def _yaml(key: str, value: Any) -> str:
    """Return a value as JSON that YAML reads alike: it does not know JSON's pairs of surrogates."""

    def plain(other: Any) -> Any:
        if isinstance(other, os.PathLike):
            return os.fspath(other)
        if hasattr(other, "item"):  # a number of numpy or torch
            return other.item()
        raise TypeError(f"a {type(other).__name__} is not a value of a recipe")

    try:
        text = json.dumps(value, default=plain, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"override {key!r}: {error}") from None
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def _output_of(
    module: str, recipe_class: str, recipe: str | Path, overrides: Overrides | None
) -> str:
    """Return the output of a recipe."""
    from galen.recipe import load

    kind = getattr(importlib.import_module(module), recipe_class)
    return str(load(kind, recipe, _assignments(overrides)).output)


def _output(folder: str | Path) -> Output:
    return Output(Path(folder), manifest.read(Path(folder) / manifest.NAME))


def _output_of_prefix(prefix: str | Path) -> Output:
    path = Path(f"{prefix}_{manifest.NAME}")
    return Output(Path(prefix), manifest.read(path) if path.is_file() else {})
