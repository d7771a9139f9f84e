"""Score a model on tasks: perplexity on documents, accuracy on multiple-choice questions.

    python evaluation/run.py --model MODEL --tasks pubmed_perplexity,mesh_topics --data DATA --output scores/base
    python evaluation/run.py --model MODEL --adapter RUN/adapter --tasks mesh_topics --data DATA --output scores/tuned

Each scored item is written to OUTPUT/items/TASK.jsonl at once: started again after a kill, the command goes on where it
stopped. Results with 95 % intervals stand in OUTPUT/results.json.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from evaluation import model_folder, output_folder, prompts, scoring, task
from evaluation.item_log import ItemLog
from galen import cli, manifest, recipe
from galen.atomic import write_text
from galen.errors import UsageError

RESULTS = "results.json"


def main(argv: list[str] | None = None) -> int | None:
    """Score what the command line asks for."""
    arguments = _parser().parse_args(argv)
    prompts.form(arguments.protocol)
    tasks = _tasks(arguments.tasks)
    for name in ("limit", "max_batch_tokens"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1")
    model_folder.check_model(arguments.model)
    if arguments.adapter is not None:
        model_folder.check_adapter(arguments.adapter)
    files = {name: scoring.input_files(task_, arguments.data) for name, task_ in tasks.items()}
    configuration = _configuration(arguments, tasks, files)
    output_folder.claim(arguments.output, configuration)
    results_path = arguments.output / RESULTS
    if results_path.exists() and (arguments.output / manifest.NAME).exists():
        print(f"{arguments.output} is already scored with this configuration; nothing to do")
        results = json.loads(results_path.read_text(encoding="utf-8"))
    else:
        results = _score(arguments, tasks, files, configuration)
    print(_table(results))
    print(f"results: {results_path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="Hugging Face model folder")
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="PEFT adapter on top of the model")
    parser.add_argument("--tasks", required=True, metavar="A,B", help="names from evaluation/tasks/, or paths of task files")
    parser.add_argument("--protocol", default="lm_eval", help=f"prompt form, one of: {', '.join(prompts.PROTOCOLS)} (default: lm_eval)")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder that the tasks' files are below")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for items and results; one per model")
    parser.add_argument("--name", help="how the report calls the model (default: the output folder's name)")
    parser.add_argument("--limit", type=int, metavar="N", help="score only the first N items of each task")
    parser.add_argument("--max-batch-tokens", type=int, metavar="N", help="padded tokens in a batch (default: 1024, on CUDA 16384)")
    parser.add_argument(
        "--dtype", choices=model_folder.DTYPES, help="precision of the weights (default: float32 on a CPU, bfloat16 on CUDA)"
    )
    parser.add_argument("--device", help="for example cpu or cuda:0 (default: CUDA when there is one)")
    return parser


def _tasks(names: str) -> dict[str, task.Task]:
    tasks: dict[str, task.Task] = {}
    for part in filter(None, (part.strip() for part in names.split(","))):
        name, specification = task.load(part)
        if name in tasks:
            raise UsageError(f"--tasks names {name!r} twice")
        tasks[name] = specification
    if not tasks:
        raise UsageError("--tasks names no task")
    return tasks


def _configuration(arguments: argparse.Namespace, tasks: dict[str, task.Task], files: dict[str, list[Path]]) -> dict[str, Any]:
    """Return all that decides the scores, with the hashes of all files read."""
    return {
        "model": {
            "name": arguments.name or arguments.output.name,
            "path": str(arguments.model),
            "files": model_folder.hashes(arguments.model),
        },
        "adapter": {"path": str(arguments.adapter), "files": model_folder.hashes(arguments.adapter)} if arguments.adapter else None,
        "protocol": arguments.protocol,
        "dtype": arguments.dtype,
        "limit": arguments.limit,
        "tasks": {
            name: {**recipe.to_dict(specification), "files": {path.name: manifest.sha256(path) for path in files[name]}}
            for name, specification in tasks.items()
        },
    }


def _score(
    arguments: argparse.Namespace, tasks: dict[str, task.Task], files: dict[str, list[Path]], configuration: dict[str, Any]
) -> dict[str, Any]:
    """Score all tasks, write results and manifest, and return the results."""
    # all input is read before the model is loaded: a mistake in it is told at once
    items = {name: scoring.read_items(specification, arguments.data, arguments.limit) for name, specification in tasks.items()}
    print("loading the model …", flush=True)
    from evaluation.backend_transformers import TransformersBackend

    started = time.monotonic()
    backend = TransformersBackend(arguments.model, arguments.adapter, arguments.dtype, arguments.device)
    max_batch_tokens = arguments.max_batch_tokens or (16384 if backend.device.type == "cuda" else 1024)
    print(f"{arguments.model} on {backend.device} in {backend.dtype}, loaded in {time.monotonic() - started:.0f} s", flush=True)
    summaries = {}
    for name, specification in tasks.items():
        with ItemLog(arguments.output / "items" / f"{name}.jsonl") as log:
            scoring.score(name, specification, items[name], arguments.protocol, backend, log, max_batch_tokens)
            summaries[name] = scoring.summarise(specification, [log.items[item.id] for item in items[name]])
    results = {
        "model": {
            "name": configuration["model"]["name"],
            "path": str(arguments.model),
            "adapter": str(arguments.adapter) if arguments.adapter else None,
        },
        "protocol": arguments.protocol,
        "tasks": summaries,
        "versions": manifest.versions(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_text(arguments.output / RESULTS, json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    manifest.write(
        arguments.output / manifest.NAME,
        stage="evaluate",
        inputs=[path for paths in files.values() for path in paths],
        config={**configuration, "device": str(backend.device), "dtype": backend.dtype},
        outputs=[arguments.output / RESULTS, *(arguments.output / "items" / f"{name}.jsonl" for name in tasks)],
        counts={"items": {name: len(items[name]) for name in tasks}},
        seconds=round(time.monotonic() - started, 1),
    )
    return results


def _table(results: dict[str, Any]) -> str:
    """Return the results as plain text, one line a metric."""
    rows = [("task", "items", "metric", "value", "95 % interval")]
    for name, summary in results["tasks"].items():
        for metric, estimate in summary["metrics"].items():
            interval = f"{estimate['low']:.4g} to {estimate['high']:.4g}"
            if metric == "accuracy":
                interval += f"  (chance {summary['chance']:.4g})"
            rows.append((name, str(summary["items"]), metric, f"{estimate['value']:.4g}", interval))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([results["model"]["name"], *lines])


if __name__ == "__main__":
    cli.run(main)
