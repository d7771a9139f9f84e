"""Score models on tasks: perplexity on documents, questions under the published protocols.

    python evaluation/run.py --model MODEL --tasks medqa,pubmedqa --protocol meditron --data DATA --output scores/base
    python evaluation/run.py --model MODEL --adapter RUN/adapter --tasks medqa --protocol meditron_chat --data DATA --output scores/tuned
    python evaluation/run.py --model A B C --tasks mmedbench_french --protocol mmedbench --data DATA --output scores --processes 8

Each scored item is written to OUTPUT/items/TASK.jsonl at once: started again after a kill, the command goes on where it
stopped. Results with 95 % intervals stand in OUTPUT/results.json, the prompts in OUTPUT/prompts/. Several models have a folder each
below OUTPUT. On Slurm, `srun` with several tasks shares the work between them.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation import contamination, evaluator, model_folder, protocol, scoring, task
from galen import cli, manifest, recipe
from galen.errors import UsageError

_PART = "GALEN_EVALUATION_PART"
"""Environment variable by which `--processes` tells a child its number and how many there are: `1/4`."""


def main(argv: list[str] | None = None) -> int | None:
    """Score what the command line asks for."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser().parse_args(argv)
    settings = protocol.protocol(
        arguments.protocol,
        shots=arguments.shots,
        runs=arguments.seeds,
        branches=arguments.branches,
        max_new_tokens=arguments.max_new_tokens,
    )
    tasks = _tasks(arguments.tasks)
    for name in ("limit", "max_batch_tokens", "processes"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1")
    for model in arguments.model:
        model_folder.check_model(model)
    if arguments.adapter is not None:
        if len(arguments.model) > 1:
            raise UsageError("--adapter goes with one --model")
        model_folder.check_adapter(arguments.adapter)
    files = {name: scoring.input_files(task_, arguments.data) for name, task_ in tasks.items()}
    contaminated = contamination.read(arguments.contamination, arguments.contamination_share) if arguments.contamination else None
    plans = [
        evaluator.Plan(
            model=model,
            output=output,
            name=name,
            adapter=arguments.adapter,
            protocol_name=arguments.protocol,
            protocol=settings,
            tasks=tasks,
            data=arguments.data,
            limit=arguments.limit,
            max_batch_tokens=arguments.max_batch_tokens,
            dtype=arguments.dtype,
            device=arguments.device,
            contaminated=contaminated,
            configuration=_configuration(arguments, model, name, settings, tasks, files),
            files=[path for paths in files.values() for path in paths],
        )
        for model, output, name in _outputs(arguments)
    ]
    rank, of = _part(arguments.processes)
    # all input is read before the first model is loaded: a mistake in it is told at once
    items = {name: scoring.read_items(task_, arguments.data, arguments.limit) for name, task_ in tasks.items()}
    for plan in plans:
        evaluator.claim(plan, rank)
    children = _start_children(argv, arguments.processes) if rank == 0 and _PART not in os.environ else []
    for plan in plans:
        results = evaluator.evaluate(plan, items, rank, of)
        if results is not None:
            print(evaluator.table(results))
            print(f"results: {plan.output / evaluator.RESULTS}")
    for child in children:
        child.wait()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, nargs="+", required=True, metavar="DIR", help="Hugging Face model folders")
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="PEFT adapter on top of the model")
    parser.add_argument("--tasks", required=True, metavar="A,B", help="names from evaluation/tasks/, or paths of task files")
    parser.add_argument("--protocol", default="lm_eval", help=f"one of: {', '.join(protocol.PROTOCOLS)} (default: lm_eval)")
    parser.add_argument("--shots", type=int, metavar="K", help="demonstrations before each question (default: the protocol's)")
    parser.add_argument(
        "--seeds", type=_integers, metavar="N,N", help="seeds of the demonstrations, one run each (default: the protocol's)"
    )
    parser.add_argument("--branches", type=int, metavar="N", help="answers sampled for a question by self-consistency (default: 5)")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="longest written answer (default: the protocol's)")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder that the tasks' files are below")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder for items and results; of several models, one each"
    )
    parser.add_argument("--name", help="how the report calls the model (default: the output folder's name)")
    parser.add_argument("--limit", type=int, metavar="N", help="score only the first N items of each task")
    parser.add_argument(
        "--contamination", type=Path, metavar="FILE", help='JSONL of {"id", "share"}: n-grams of an item that the corpus holds'
    )
    parser.add_argument(
        "--contamination-share", type=float, default=0.5, metavar="X", help="an item counts from this share on (default: 0.5)"
    )
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="processes on this machine, one GPU each (default: 1)")
    parser.add_argument(
        "--max-batch-tokens",
        type=int,
        metavar="N",
        help="padded tokens in a batch (default: 1024, on CUDA 16384; eight times as much where answers are written)",
    )
    parser.add_argument(
        "--dtype", choices=model_folder.DTYPES, help="precision of the weights (default: float32 on a CPU, bfloat16 on CUDA)"
    )
    parser.add_argument("--device", help="for example cpu or cuda:0 (default: CUDA when there is one)")
    return parser


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


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


def _outputs(arguments: argparse.Namespace) -> list[tuple[Path, Path, str]]:
    """Return model, output folder and name of each model."""
    if len(arguments.model) == 1:
        return [(arguments.model[0], arguments.output, arguments.name or arguments.output.name)]
    names = [model.resolve().name for model in arguments.model]
    if arguments.name or len(set(names)) < len(names):
        raise UsageError(f"several models are named by their folders, which must differ ({', '.join(names)}), not by --name")
    return [(model, arguments.output / name, name) for model, name in zip(arguments.model, names, strict=True)]


def _configuration(
    arguments: argparse.Namespace,
    model: Path,
    name: str,
    settings: protocol.Protocol,
    tasks: dict[str, task.Task],
    files: dict[str, list[Path]],
) -> dict[str, Any]:
    """Return all that decides the scores, with the hashes of all files read."""
    return {
        "model": {"name": name, "path": str(model), "files": model_folder.hashes(model)},
        "adapter": {"path": str(arguments.adapter), "files": model_folder.hashes(arguments.adapter)} if arguments.adapter else None,
        "protocol": arguments.protocol,
        "settings": asdict(settings),
        "dtype": arguments.dtype,
        "limit": arguments.limit,
        "tasks": {
            name: {**recipe.to_dict(specification), "files": {path.name: manifest.sha256(path) for path in files[name]}}
            for name, specification in tasks.items()
        },
    }


def _part(processes: int) -> tuple[int, int]:
    """Return this process' number and how many there are, from `--processes`, torchrun or Slurm."""
    for rank, of in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if _PART not in os.environ and int(os.environ.get(of, "1")) > 1:
            if processes > 1:
                raise UsageError(f"--processes is for one machine; here {os.environ[of]} processes were started already")
            return int(os.environ[rank]), int(os.environ[of])
    number, _, of_all = os.environ.get(_PART, f"0/{processes}").partition("/")
    return int(number), int(of_all)


def _start_children(argv: list[str], processes: int) -> list[subprocess.Popen[bytes]]:
    """Start the other processes of this machine with the same command; each takes the GPU of its number."""
    command = [sys.executable, str(Path(__file__).resolve()), *argv]
    environments = [{**os.environ, _PART: f"{rank}/{processes}", "LOCAL_RANK": str(rank)} for rank in range(1, processes)]
    return [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for environment in environments]


if __name__ == "__main__":
    cli.run(main)
