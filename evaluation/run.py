"""Score models on tasks: perplexity on documents, questions under the published protocols.

    python evaluation/run.py --model MODEL --tasks medqa,pubmedqa --protocol meditron \\
        --data DATA --output scores/base
    python evaluation/run.py --model MODEL --adapter RUN/adapter --tasks medqa \\
        --protocol meditron_chat --data DATA --output scores/tuned
    python evaluation/run.py --model A B C --tasks mmedbench_french --protocol mmedbench \\
        --data DATA --output scores --processes 8

Each scored sample is written to OUTPUT/samples/TASK.jsonl at once: started again after a kill, the
command goes on where it stopped. Results with 95 % intervals are in OUTPUT/results.json, the
prompts in OUTPUT/prompts/. Several models have a folder each below OUTPUT. A Megatron checkpoint is
exported to OUTPUT.models once and scored from there, at several iterations if asked. On Slurm,
`srun` with several tasks shares the work between them.
"""

import argparse
import contextlib
import importlib.util
import logging
import os
import subprocess
import sys
import textwrap
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from evaluation.backends import model_folder
from evaluation.metrics import contamination
from evaluation.protocols import few_shot, protocol
from evaluation.scoring import evaluator, megatron_export, run_task
from evaluation.tasks import task
from galen import checksums, cli, lock, manifest, recipe, worker
from galen.errors import DataError, MissingInputError, UsageError, install

logger = logging.getLogger(__name__)

_PART = "GALEN_EVALUATION_PART"
"""Environment variable with a child's rank and the number of `--processes`: `1/4`."""


def main(argv: list[str] | None = None) -> int | None:
    """Score what the command line asks for."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser().parse_args(argv)
    rank, of = _part(arguments.processes)
    # what the command line names is checked and read before the first model is exported, hashed or
    # loaded: a mistake is told at once
    settings, tasks = _asked(arguments)
    models = _models(arguments)
    contaminated = (
        contamination.read(arguments.contamination, arguments.contamination_threshold)
        if arguments.contamination
        else None
    )
    files = {name: run_task.input_files(task_, arguments.data) for name, task_ in tasks.items()}
    samples = {
        name: run_task.read_samples(task_, arguments.data, arguments.limit)
        for name, task_ in tasks.items()
    }
    examples = {
        name: _shots(name, task_, arguments.data, settings, samples[name])
        for name, task_ in tasks.items()
    }
    samples = {
        name: run_task.limited(tasks[name], found, arguments.limit)
        for name, found in samples.items()
    }
    with contextlib.ExitStack() as locks:
        for output in _outputs(arguments, [name for name, _, _ in models]):
            locks.enter_context(
                lock.hold(output if rank == 0 else output.with_name(f"{output.name}.rank{rank}"))
            )
        exported = _exported(arguments, models, rank)
        if rank == 0:
            logger.info("hashing the models and the data")
        plans = _plans(arguments, exported, settings, tasks, files, contaminated)
        _score(plans, samples, examples, argv, (rank, of), arguments.processes)
    return 0


def _outputs(arguments: argparse.Namespace, names: list[str]) -> list[Path]:
    """Return the folder of each model's scores."""
    return [arguments.output / name for name in names] if len(names) > 1 else [arguments.output]


def _score(
    plans: list[evaluator.Plan],
    samples: dict[str, list[Any]],
    examples: dict[str, dict[int, few_shot.FewShotExamples]],
    argv: list[str],
    part: tuple[int, int],
    processes: int,
) -> None:
    """Score each plan with this machine's processes, and print the results.

    This is process `part[0]` of `part[1]`; it starts the others of `processes`.
    """
    rank, of = part
    children: list[subprocess.Popen[bytes]] = []
    if _PART not in os.environ:  # else the process that started this one has done it
        for plan in plans:
            evaluator.claim(plan, rank)
        children = _start_children(argv, processes)
    try:
        for plan in plans:
            results = evaluator.evaluate(
                plan, samples, examples, rank, of, lambda: _check_children(children)
            )
            if results is not None:
                print(evaluator.table(results))
                print(f"results: {plan.output / evaluator.RESULTS}")
        for child in children:
            child.wait()
    finally:
        for child in children:
            child.terminate()  # nothing where it has ended already


def _asked(arguments: argparse.Namespace) -> tuple[protocol.Protocol, dict[str, task.Task]]:
    """Return the protocol and tasks of the command line; check numbers, backend, adapter."""
    counts = ("limit", "num_samples", "max_new_tokens", "max_batch_tokens")
    for name in (*counts, "processes", "tensor_parallel"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1")
    settings = protocol.protocol(
        arguments.protocol,
        num_fewshot=arguments.num_fewshot,
        fewshot_seeds=arguments.fewshot_seeds,
        num_samples=arguments.num_samples,
        max_new_tokens=arguments.max_new_tokens,
    )
    _check_backend(arguments)
    if arguments.adapter is not None:
        model_folder.check_adapter(arguments.adapter)
    return settings, _tasks(arguments.tasks, arguments.fewshot_examples)


def _shots(
    name: str, task_: task.Task, data: Path, settings: protocol.Protocol, samples: list[Any]
) -> dict[int, few_shot.FewShotExamples]:
    """Return the few-shot examples of a task by run; documents have none."""
    runs = run_task.runs(task_, settings)
    if isinstance(task_, task.PerplexityTask):
        return {run: {} for run in runs}
    return few_shot.choose(name, task_, data, settings, runs, samples)


def _plans(
    arguments: argparse.Namespace,
    models: list[tuple[str, Path]],
    settings: protocol.Protocol,
    tasks: dict[str, task.Task],
    files: dict[str, list[Path]],
    contaminated: contamination.Contaminated | None,
) -> list[evaluator.Plan]:
    """Return what each model, given by name and folder, is scored on."""
    for _, model in models:
        length = model_folder.context_length(model)
        for name, task_ in tasks.items():
            run_task.check_length(name, task_, length)
    return [
        evaluator.Plan(
            model=model,
            output=output,
            name=name,
            adapter=arguments.adapter,
            protocol_name=arguments.protocol,
            protocol=settings,
            tasks=tasks,
            max_batch_tokens=arguments.max_batch_tokens,
            dtype=arguments.dtype,
            device=arguments.device,
            backend=arguments.backend,
            tensor_parallel=arguments.tensor_parallel,
            contaminated=contaminated,
            configuration=(
                {}
                if _PART in os.environ
                else _configuration(arguments, model, name, settings, tasks, files)
            ),
            files=[path for paths in files.values() for path in paths],
        )
        for (name, model), output in zip(
            models, _outputs(arguments, [name for name, _ in models]), strict=True
        )
    ]


def _check_backend(arguments: argparse.Namespace) -> None:
    if arguments.backend != "vllm" and arguments.tensor_parallel > 1:
        raise UsageError("--tensor-parallel goes with --backend vllm")
    if arguments.backend == "vllm":
        if len(arguments.model) > 1 or arguments.iterations:
            raise UsageError(
                "--backend vllm scores one model a call: vLLM does not give a GPU's memory back"
                " before it ends"
            )
        if arguments.processes > 1 or arguments.device:
            raise UsageError(
                "--backend vllm chooses its GPUs itself: leave out --processes and --device, and"
                " see --tensor-parallel"
            )
        if arguments.adapter is not None:
            raise UsageError(
                "--backend vllm takes no --adapter; train with lora.merge=true and score RUN/model"
            )
        if importlib.util.find_spec("vllm") is None:
            raise UsageError(f"--backend vllm: vLLM is not installed; {install('vllm')}")


def _parser() -> argparse.ArgumentParser:
    built_in = ", ".join(sorted(path.stem for path in task.BUILT_IN.glob("*.yaml")))
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=textwrap.fill(f"built-in tasks: {built_in}", 100, break_on_hyphens=False),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="Hugging Face folders, or Megatron checkpoints",
    )
    parser.add_argument(
        "--iterations",
        metavar="N,N",
        help=(
            "of a Megatron checkpoint: which, or all (default: the newest, which its"
            " latest_checkpointed_iteration.txt names)"
        ),
    )
    parser.add_argument(
        "--adapter", type=Path, metavar="DIR", help="PEFT adapter on top of the model"
    )
    parser.add_argument(
        "--tasks",
        required=True,
        metavar="A,B",
        help="built-in tasks (below), or paths of task files",
    )
    parser.add_argument(
        "--protocol",
        default="lm_eval",
        help=f"one of: {', '.join(protocol.PROTOCOLS)} (default: lm_eval)",
    )
    parser.add_argument(
        "--fewshot-examples",
        type=Path,
        metavar="FILE",
        help="questions in Galen's layout to show, in order, in place of the task's",
    )
    parser.add_argument(
        "--num-fewshot",
        type=int,
        metavar="K",
        help="few-shot examples before each question (default: the protocol's)",
    )
    parser.add_argument(
        "--fewshot-seeds",
        type=_integers,
        metavar="N,N",
        help="seeds of the few-shot examples, one run each (default: the protocol's)",
    )
    parser.add_argument(
        "--num-samples",
        type=int,
        metavar="N",
        help="answers sampled for a question by self-consistency (default: 5)",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help="longest written answer (default: the protocol's)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder that the tasks' files are below",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for samples and results; of several models, one each",
    )
    parser.add_argument("--no-verify", action="store_true", help=checksums.HELP)
    parser.add_argument(
        "--name",
        help=(
            "how the report calls the model (default: the output folder's name); a finished run is"
            " renamed"
        ),
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="score only N samples of each task, chosen by a hash of their ids",
    )
    parser.add_argument(
        "--contamination",
        type=Path,
        metavar="FILE",
        help='JSONL of {"id", "ratio"}: n-grams of a sample that the corpus holds',
    )
    parser.add_argument(
        "--contamination-threshold",
        type=float,
        default=0.5,
        metavar="X",
        help="a sample counts from this ratio on (default: 0.5)",
    )
    parser.add_argument(
        "--backend",
        choices=("transformers", "vllm"),
        default="transformers",
        help="what computes (default: transformers)",
    )
    parser.add_argument(
        "--tensor-parallel",
        type=int,
        default=1,
        metavar="N",
        help="GPUs that share the model, with vllm (default: 1)",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="processes on this machine, one GPU each (default: 1)",
    )
    parser.add_argument(
        "--max-batch-tokens",
        type=int,
        metavar="N",
        help=(
            "padded tokens in a batch (default: 1024, on CUDA 16384, in vllm 262144; eight times as"
            " much where answers are written)"
        ),
    )
    parser.add_argument(
        "--dtype",
        choices=model_folder.DTYPES,
        help="precision of the weights (default: float32 on a CPU, bfloat16 on CUDA)",
    )
    parser.add_argument(
        "--device", help="for example cpu or cuda:0 (default: CUDA when there is one)"
    )
    return parser


def _integers(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"numbers with commas are wanted, not {text!r}") from None
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(
            f"{text} names a seed twice, which would be the same run again"
        )
    return found


def _tasks(names: str, shown: Path | None) -> dict[str, task.Task]:
    tasks: dict[str, task.Task] = {}
    for part in filter(None, (part.strip() for part in names.split(","))):
        name, specification = task.load(part)
        if name in tasks:
            raise UsageError(f"--tasks names {name!r} twice")
        if shown is not None and isinstance(specification, task.MultipleChoiceTask):
            specification = replace(specification, fewshot_examples=str(shown.resolve()))
        tasks[name] = specification
    if shown is not None and not shown.is_file():
        raise MissingInputError(f"--fewshot-examples: there is no file {shown}")
    if not tasks:
        raise UsageError("--tasks names no task")
    return tasks


def _models(arguments: argparse.Namespace) -> list[tuple[str, Path, int | None]]:
    """Return name and folder of each model, and of a Megatron checkpoint the iteration."""
    found: list[tuple[str, Path, int | None]] = []
    for model in arguments.model:
        if megatron_export.is_checkpoint(model):
            numbers = megatron_export.wanted_iterations(model, arguments.iterations)
            found += [(f"iter_{number:07d}", model, number) for number in numbers]
        elif arguments.iterations is not None:
            raise UsageError(f"--iterations is for Megatron checkpoints; {model} is none")
        else:
            found.append((model.resolve().name, model_folder.check_model(model), None))
    names = [name for name, _, _ in found]
    if len(found) > 1 and arguments.adapter is not None:
        raise UsageError("--adapter goes with one --model")
    if len(found) > 1 and (arguments.name or len(set(names)) < len(names)):
        raise UsageError(
            f"several models are named by their folders, which must differ ({', '.join(names)}),"
            " not by --name"
        )
    return found


def _exported(
    arguments: argparse.Namespace, models: list[tuple[str, Path, int | None]], rank: int
) -> list[tuple[str, Path]]:
    """Return name and folder of each model; exports Megatron checkpoints to OUTPUT.models."""
    exports = arguments.output.with_name(f"{arguments.output.name}.models")
    folders = [
        (
            folder
            if iteration is None
            else megatron_export.export(
                folder, iteration, exports / name, rank, not arguments.no_verify
            )
        )
        for name, folder, iteration in models
    ]
    names = (
        [name for name, _, _ in models]
        if len(models) > 1
        else [arguments.name or arguments.output.name]
    )
    return list(zip(names, folders, strict=True))


def _configuration(
    arguments: argparse.Namespace,
    model: Path,
    name: str,
    settings: protocol.Protocol,
    tasks: dict[str, task.Task],
    files: dict[str, list[Path]],
) -> dict[str, Any]:
    """Return all that decides the scores, with the hashes of all files read."""
    adapter: Path | None = arguments.adapter
    verify = not arguments.no_verify
    return {
        "model": {
            "name": name,
            "path": str(model.resolve()),
            "files": model_folder.hashes(model, verify),
        },
        "adapter": (
            {"path": str(adapter), "files": model_folder.hashes(adapter, verify)}
            if adapter
            else None
        ),
        "protocol": arguments.protocol,
        "settings": asdict(settings),
        "dtype": arguments.dtype,
        "backend": arguments.backend,
        "limit": arguments.limit,
        "tasks": {
            name: {
                **recipe.to_dict(specification),
                "files": {path.name: manifest.sha256(path) for path in files[name]},
            }
            for name, specification in tasks.items()
        },
    }


def _part(processes: int) -> tuple[int, int]:
    """Return this process' number and how many there are, from `--processes`, torchrun or srun."""
    if _PART in os.environ:
        number, _, of_all = os.environ[_PART].partition("/")
        return int(number), int(of_all)
    # not SLURM_NTASKS: the batch script itself has it too, before any task is started
    for rank, of in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")):
        if int(os.environ.get(of, "1")) > 1:
            if processes > 1:
                raise UsageError(
                    f"--processes is for one machine; here {os.environ[of]} processes were started"
                    " already"
                )
            return int(os.environ[rank]), int(os.environ[of])
    return 0, processes


def _start_children(argv: list[str], processes: int) -> list[subprocess.Popen[bytes]]:
    """Start this machine's other processes with the same command, each on the GPU of its number."""
    command = [sys.executable, str(Path(__file__).resolve()), *argv]
    environments = [
        {**os.environ, _PART: f"{rank}/{processes}", "LOCAL_RANK": str(rank)}
        for rank in range(1, processes)
    ]
    return [
        subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, preexec_fn=worker.die_with_parent
        )
        for environment in environments
    ]


def _check_children(children: list[subprocess.Popen[bytes]]) -> None:
    if any(child.poll() for child in children):
        raise DataError(
            "another process of this run has failed, its message stands above; start the same"
            " command again to go on"
        )


if __name__ == "__main__":
    cli.run(main)
