"""Fine-tune a Hugging Face model, in full, by LoRA or by QLoRA.

On questions, prompts and completions, or conversations.

    galen finetune examples/finetune/mesh_topics_lora.yaml model.path=MODEL \\
        data.train=questions.jsonl output=RUN
    galen finetune --nproc-per-node 8 RECIPE.yaml
    # on each of four machines
    galen finetune --nproc-per-node 8 --nnodes 4 --rdzv-endpoint node0:29500 RECIPE.yaml

Questions are rendered as in `evaluation/`, and the loss is on the answer only. RUN/log.jsonl
holds the losses, RUN/adapter (or RUN/model without LoRA) the result. After a kill, the same command
resumes from the last checkpoint, with the same result as an uninterrupted run. Ctrl-C, SIGTERM and
SIGUSR2 save a checkpoint after the current step and end the run with exit code 75; a second Ctrl-C
ends it immediately. torchrun and srun can start the processes, too (docs/finetune.md).
"""

import contextlib
import logging
from pathlib import Path
from typing import Any

from tqdm import tqdm

from evaluation.backends import model_folder
from evaluation.question_sets.question import Question
from finetune.config.recipe import Recipe
from finetune.data import chat, training_data
from finetune.data.training_data import TrainingData
from finetune.parallel import processes
from galen import cli, launch, lock, manifest, recipe, run_folder, stop_signals
from galen.run_identity import Identity

logger = logging.getLogger(__name__)

_ADVICE = (
    "see `dmesg` or the job's log. The same command resumes from the last checkpoint. A run with"
    " another output needs less memory with fewer processes, training.micro_batch_size=1,"
    " training.gradient_checkpointing=true or a shorter data.max_length"
)


def main(argv: list[str] | None = None) -> int | None:
    """Fine-tune as the recipe says."""
    arguments, options = launch.parse_recipe(__doc__ or "", Recipe, argv)
    if launch.is_requested(arguments):
        command_line = [arguments.recipe, *arguments.overrides]
        return launch.start(arguments, Path(__file__).resolve(), command_line, _ADVICE)
    with launch.report_lost_nodes(_ADVICE):
        return finetune(options)


def finetune(options: Recipe) -> int:
    """Fine-tune, as one of the processes of a run; return the exit code."""
    if options.data.chat_template is not None:
        chat.read_template(options.data.chat_template)
    model = model_folder.check_model(options.model.path)
    data = training_data.read(options.data)
    run = Path(options.output)
    result = run / ("adapter" if options.lora else "model")
    files: dict[str, dict[str, str]] = {}
    with contextlib.ExitStack() as locks:

        def begin() -> bool:
            """Lock the run folder, and return whether the run is unfinished."""
            locks.enter_context(lock.hold(run))
            finished = (run / manifest.NAME).exists()
            files["model"] = model_folder.hashes(model, options.model.verify_checksums)
            files["data"] = {str(path): manifest.sha256(path) for path in data.files}
            # with another number of them, a step has other samples
            config = recipe.to_dict(options)
            del config["output"]
            config |= {"files": files, "processes": processes.count()}
            run_folder.bind(run, Identity(config))
            if finished:
                logger.info(f"{run} is already complete; the result is in {result}")
            return not finished

        return _train(options, data, run, result, files) if processes.first_decides(begin) else 0


def _train(
    options: Recipe, data: TrainingData, run: Path, result: Path, files: dict[str, dict[str, str]]
) -> int:
    """Train and write the manifest; return the exit code."""
    processes.log_once(
        f"{len(data.train):,} training and {len(data.validation):,} validation samples; excluded:"
        f" {len(data.contaminated):,} in test sets, {data.without_rationale:,} without the"
        " rationale their template needs"
    )
    from finetune.training.run import train_model

    counts = train_model(options, data, run, result)
    if counts is None:
        return stop_signals.EXIT_STOPPED
    if processes.is_first():
        counts["records"] = {
            "excluded_as_contaminated": len(data.contaminated),
            "excluded_without_rationale": data.without_rationale,
        }
        counts["languages"] = sorted(
            {item.record.language for item in data.train if isinstance(item.record, Question)}
        )
        results = [run / name for name in ("adapter", "model") if (run / name).is_dir()]
        _write_manifest(options, files, run, results, counts)
        print(_summary(counts, results))
    return 0


def _write_manifest(
    options: Recipe,
    files: dict[str, dict[str, str]],
    run: Path,
    results: list[Path],
    counts: dict[str, Any],
) -> None:
    read = {Path(options.model.path) / name: digest for name, digest in files["model"].items()}
    read |= {Path(name): digest for name, digest in files["data"].items()}
    weights = sorted(path for folder in results for path in folder.iterdir() if path.is_file())
    manifest.write(
        run / manifest.NAME,
        stage="finetune",
        inputs=[manifest.describe_file(path, digest) for path, digest in read.items()],
        config=recipe.to_dict(options),
        outputs=[
            run / "log.jsonl",
            run / "recipe.yaml",
            *([run / "contamination.jsonl"] if options.data.decontaminate_against else []),
            *weights,
        ],
        counts=counts,
    )


def _summary(counts: dict[str, Any], results: list[Path]) -> str:
    best = f", the best at step {counts['best_step']:,}" if counts["best_step"] else ""
    elapsed = (
        f"{counts['tokens']:,} tokens in {tqdm.format_interval(counts['seconds_since_start'])}"
    )
    return (
        f"done: {counts['steps']:,} steps{best}, {elapsed}; the result is in"
        f" {' and '.join(map(str, results))}"
    )


if __name__ == "__main__":
    cli.run(main)
