"""The model card: sources, training, scores and intended use, every figure from a manifest."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from evaluation.question_sets import rows
from finetune.publishing.scores import read_results
from galen import corpus_sources

CAUTION = (
    "This model is for research. It was not reviewed or approved for use on patients, and it makes"
    " mistakes: it states false things with confidence, knows nothing newer than its training"
    " texts, and may repeat their biases. Nothing it writes is medical advice. Do not use it to"
    " diagnose, to treat, or to decide about a person's care; a qualified person has to check"
    " whatever is taken from it."
)


def card(
    run: Mapping[str, Any],
    scores: Sequence[Path],
    corpora: Sequence[Path],
    name: str,
    license: str,
    base: str,
    languages: Sequence[str] | None = None,
    adapter: bool = False,
) -> str:
    """Return a model card in Markdown with the front matter that Hugging Face reads.

    Args:
        run: manifest of the fine-tuning run.
        scores: folders of evaluation/run.py.
        corpora: folders or manifests of data_prep/curate.py, what the base was further pretrained
            on.
        name: the model's name.
        license: SPDX identifier of the model's license.
        base: name of the base model.
        languages: ISO 639-1 codes; None takes those of the training questions.
        adapter: the model is an adapter for the base, not a model of its own.

    Raises:
        DataError: a manifest or results file is missing or damaged.
    """
    front: dict[str, Any] = {
        "license": license.lower(),
        "library_name": "peft" if adapter else "transformers",
        # names of the hub alone: another would be a link to nothing
        "base_model": base if base.count("/") == 1 else "",
    }
    front |= {"pipeline_tag": "text-generation", "tags": ["medical"]}
    front |= {
        "language": list(languages if languages is not None else run["counts"].get("languages", []))
    }
    front |= {"datasets": _datasets(run), "model-index": _model_index(run, scores, name)}
    front = {key: value for key, value in front.items() if value}
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {name}",
        f"## Intended use and caution\n\n{CAUTION}",
        f"## Use\n\n{_usage(base, adapter)}",
        f"## How it was made\n\n{_training(run, base)}",
        f"## Fine-tuning data\n\n{_questions(run)}",
        f"## Pretraining corpora\n\n{_corpora(corpora)}",
        f"## Scores\n\n{_scores(scores)}",
        f"## Contamination\n\n{_contamination(run, scores)}",
    ]
    return "\n\n".join(parts) + "\n"


def _datasets(run: Mapping[str, Any]) -> list[str]:
    """Return the names of those training data that come from the hub."""
    train = run["config"]["data"]["train"]
    sources = [
        source["source"]
        for source in ([train] if isinstance(train, str) else train)
        if not isinstance(source, str)
    ]
    names = [source.split(":")[1] for source in sources if source.startswith(rows.HUB)]
    return list(dict.fromkeys(names))


def _model_index(run: Mapping[str, Any], scores: Sequence[Path], name: str) -> list[dict[str, Any]]:
    """Return the scores in Hugging Face's format, without those of the base model."""
    entries = []
    for results in map(read_results, scores):
        model = results["model"]
        if not model.get("adapter") and model.get("path") == run["config"]["model"]["path"]:
            continue
        for task, summary in results["tasks"].items():
            metrics = [
                {
                    "type": metric,
                    "value": float(f"{value['value']:.4g}"),
                    "name": f"{metric} ({results['protocol']})",
                }
                for metric, value in summary["metrics"].items()
            ]
            dataset = {"name": task, "type": task}
            task_type = "question-answering"
            if summary.get("kind") == "perplexity":
                task_type = "text-generation"
            entries.append({"task": {"type": task_type}, "dataset": dataset, "metrics": metrics})
    return [{"name": name, "results": entries}] if entries else []


def _usage(base: str, adapter: bool) -> str:
    """Return lines of Python that load the folder and let the model write."""
    package, loader = "transformers", "AutoModelForCausalLM"
    if adapter:
        package, loader = "peft", "AutoPeftModelForCausalLM"
    needs = (
        f"The adapter needs its base model, `{base}`: put the path of its folder into"
        " `adapter_config.json` if it is not on the hub.\n\n"
    )
    return f"""{needs if adapter else ""}```python
from transformers import AutoTokenizer
from {package} import {loader}

folder = "."  # this folder, or its name on the hub
tokenizer = AutoTokenizer.from_pretrained(folder)
model = {loader}.from_pretrained(folder)
prompt = tokenizer("Question: Which vitamin prevents scurvy?\\nAnswer:", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=50)[0]))
```"""


def _names(modules: str | Sequence[str]) -> str:
    return modules if isinstance(modules, str) else ", ".join(modules)


def _training(run: Mapping[str, Any], base: str) -> str:
    config, counts = run["config"], run["counts"]
    lora = config["lora"]
    optimizer = config["optimizer"]
    training = config["training"]
    how = "all weights"
    if lora:
        how = (
            f"a low-rank adapter (r {lora['r']}, alpha {lora['alpha']}, dropout {lora['dropout']},"
            f" on {', '.join([_names(lora['target_modules']), *lora['target_parameters']])})"
        )
    bits = (
        f", the base in {config['model']['quantization']} meanwhile"
        if config["model"]["quantization"]
        else ""
    )
    batch = training["micro_batch_size"] * training["gradient_accumulation_steps"]
    batch *= counts["processes"]
    rows = {
        "base model": base,
        "trained": f"{how}{bits}; {counts['trained_weights']:,} weights",
        "steps": (
            f"{counts['steps']:,}"
            + (f", the weights of step {counts['best_step']:,} kept" if counts["best_step"] else "")
        ),
        "samples in a step": f"{batch}",
        "tokens": f"{counts['tokens']:,}",
        "learning rate": (
            f"{optimizer['lr']}, {optimizer['lr_decay_style']}, warm-up"
            f" {optimizer['lr_warmup_fraction']:.0%} of the steps"
        ),
        "weight decay": f"{optimizer['weight_decay']}",
        "longest sample": f"{config['data']['max_length']} tokens",
        "loss": "on the answers' tokens alone",
        "seed": f"{training['seed']}",
        "made with": ", ".join(
            f"{package} {version}" for package, version in run["versions"].items()
        ),
    }
    return "\n".join(
        ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]
    )


def _questions(run: Mapping[str, Any]) -> str:
    data, samples = run["config"]["data"], run["counts"]["samples"]
    lines = []
    for source in [data["train"]] if isinstance(data["train"], str) else data["train"]:
        if isinstance(source, str):
            lines.append(f"- `{Path(source).name}`, template {data['protocol']}")
        else:
            lines.append(
                f"- {source['set']} (`{Path(source['source']).name}`), templates"
                f" {', '.join(source['templates'] or [data['protocol']])}"
            )
    return "\n".join(
        [
            *lines,
            "",
            f"{samples['train']:,} samples for training, {samples['validation']:,} for validation.",
        ]
    )


def _corpora(corpora: Sequence[Path]) -> str:
    if not corpora:
        return "None given: the base model was taken as it was."
    sources = [source for folder in corpora for source in corpus_sources.read(folder)]
    total = sum(source.documents for source in sources) or 1  # of an empty corpus
    lines = [
        f"| {source.name} | {source.documents:,} | {source.documents / total:.1%} |"
        f" {source.license} |"
        for source in sources
    ]
    return "\n".join(["| source | documents | share | license |", "|---|---|---|---|", *lines])


def _scores(folders: Sequence[Path]) -> str:
    lines = []
    for results in map(read_results, folders):
        for task, summary in results["tasks"].items():
            for metric, estimate in summary["metrics"].items():
                interval = f"[{estimate['low']:.4g}, {estimate['high']:.4g}]"
                row = (
                    results["model"]["name"],
                    task,
                    results["protocol"],
                    metric,
                    f"{estimate['value']:.4g}",
                    interval,
                    summary["samples"],
                )
                lines.append(f"| {' | '.join(map(str, row))} |")
    if not lines:
        return "Not scored."
    return "\n".join(
        [
            "| model | task | protocol | metric | value | 95 % interval | items |",
            "|---" * 7 + "|",
            *lines,
        ]
    )


def _contamination(run: Mapping[str, Any], folders: Sequence[Path]) -> str:
    left_out = run["counts"]["records"]["excluded_as_contaminated"]
    tests = run["config"]["data"]["decontaminate_against"]
    lines = ["Fine-tuning data were not compared with test sets."]
    if tests:
        lines = [
            f"{left_out:,} training records were left out, since they hold a test question (13"
            " words in a row, or all of it)."
        ]
    for results in map(read_results, folders):
        for task, summary in results["tasks"].items():
            if "contaminated" in summary:
                clean = summary.get("clean")
                rest = (
                    f"; on the others {clean['value']:.4g} [{clean['low']:.4g},"
                    f" {clean['high']:.4g}]"
                    if clean
                    else ""
                )
                lines.append(
                    f"{task}: {summary['contaminated']:,} of {summary['samples']:,} samples are in"
                    f" the pretraining corpus{rest}."
                )
    return "\n\n".join(dict.fromkeys(lines))
