r"""Continue pretraining a model on tokenized documents, on one process or thousands.

    galen pretrain --nproc-per-node 2 examples/demo/pretrain.yaml \
        training.train_iters=20
    # on each of four machines:
    galen pretrain --nproc-per-node 8 --nnodes 4 \
        --rdzv-endpoint node0:29500 RECIPE.yaml

After a kill, the same command resumes from the last checkpoint in the run folder. Its exit code is
that of the run, and its last line the run's last message. torchrun and srun can start the
processes, too (docs/pretraining/launchers.md).
"""

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from galen import checksums, cli, launch, links, lock, manifest, recipe, run_identity
from galen.atomic import write_text
from galen.errors import DataError, UsageError, raise_on_all_ranks
from galen.stop_signals import EXIT_STOPPED
from megatron_ext import bootstrap
from megatron_ext.checkpoint import checkpoint_folder
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.recipe import Recipe
from megatron_ext.hardware import host_memory, process_environment
from megatron_ext.observability import phase_clock, wandb_logger
from megatron_ext.observability.phase_clock import PhaseClock
from megatron_ext.resilience import watchdog
from megatron_ext.resilience.launch import ADVICE, dead_processes
from megatron_ext.resilience.signals import STOPPED, PreemptionHandler
from megatron_ext.training import preflight
from megatron_ext.training.preflight import RECIPE, Inputs

logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    arguments, run = launch.parse_recipe(__doc__ or "", Recipe, argv)
    if not launch.is_requested(arguments):
        return pretrain(run)
    world_size = launch.world_size(arguments)
    if preflight.check(run, world_size, arguments.nproc_per_node, launching=True) is None:
        return 0
    command_line = [arguments.recipe, *arguments.overrides]
    with process_environment.applied(run, arguments.nproc_per_node):
        return launch.start(arguments, "megatron_ext.pretrain", command_line, ADVICE)


def pretrain(run: Recipe) -> int:
    """Train by a recipe.

    Returns the exit code: 0 if the run is finished, 75 if it stopped early with a checkpoint.

    Raises:
        UsageError: the layout is impossible, or the platform lacks what the recipe asks for.
        DataError: checkpoint, data and tokenizer do not match, or the run folder holds another
            run.
    """
    clock = PhaseClock(phase_clock.process_start())
    world_size, local_world_size = _world_sizes()
    inputs = preflight.check(run, world_size, local_world_size)
    if inputs is None:
        return 0
    with process_environment.applied(run):
        return _pretrain(run, inputs, clock)


def _pretrain(run: Recipe, inputs: Inputs, clock: PhaseClock) -> int:
    """Train with the environment of the run's layout; return the exit code."""
    output = Path(run.output)
    weights = checkpoint_folder.newest(run.model.checkpoint)
    bootstrap()
    from megatron_ext.hardware import platforms

    platform = platforms.current_platform()
    platform.check(run)
    platform.check_model(run, inputs.architecture)
    if platform.device.type == "cpu":
        host_memory.check(inputs.architecture, run, *_world_sizes())
    report_lost_nodes = partial(launch.report_lost_nodes, ADVICE, partial(dead_processes, output))
    with (
        platforms.single_process_groups(),
        platforms.deterministic_algorithms(run.training.deterministic_mode),
        report_lost_nodes(),  # also where the lock is released
        contextlib.ExitStack() as resources,
        report_lost_nodes(),  # before the clock records the error
    ):
        trainer = _prepare(run, inputs, resources, clock)
        reason = trainer.run()
        if trainer.log:
            if reason is None:
                _finish(run, weights, trainer.progress)
            else:
                _stopped_early(run, reason, trainer.progress, trainer.preemption)
            trainer.log.close()
        clock.end("finished" if reason is None else "stopped", reason or "")
    if "RANK" in os.environ:
        trainer.platform.leave_distributed()
    return 0 if reason is None else EXIT_STOPPED


def _world_sizes() -> tuple[int, int]:
    """Return the number of the run's processes, and of those on this machine."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    return world_size, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _stopped_early(run: Recipe, reason: str, progress: Any, preemption: PreemptionHandler) -> None:
    """Record why the run stopped, and remove the trigger file."""
    record = {"reason": reason, "iteration": progress.iteration, "exit_code": EXIT_STOPPED}
    write_text(Path(run.output) / STOPPED, json.dumps(record) + "\n")
    preemption.trigger_file.unlink(missing_ok=True)
    if progress.iteration:
        checkpoint = checkpoint_folder.newest(Path(run.output) / "checkpoints")
        message = (
            f"stopped after step {progress.iteration} ({reason}), checkpoint written: {checkpoint}"
        )
    else:
        message = f"stopped before the first step ({reason}), with nothing to save yet"
    cli.report_to_launcher(f"{message}; exit code {EXIT_STOPPED}", EXIT_STOPPED)
    logger.info(f"{message}; to resume: {launch.command()}")


def check_same_everywhere(recipes: Sequence[dict[str, Any]]) -> None:
    """Check that all processes were started with the same recipe, given that of each.

    With many nodes, one may read an old copy.

    Raises:
        UsageError: names the process and the keys.
    """
    for rank, other in enumerate(recipes):
        differences = [
            f"{key}: {first} on process 0, {own} on process {rank}"
            for key, first, own in run_identity.config_differences(recipes[0], other)
        ]
        if differences:
            raise_on_all_ranks(
                UsageError(
                    f"process {rank} was started with another recipe than process 0"
                    f" ({'; '.join(differences)})"
                )
            )


def _prepare(
    run: Recipe, inputs: Inputs, resources: contextlib.ExitStack, clock: PhaseClock
) -> Any:
    """Join the process group, build and restore the training state, and return the trainer.

    The run folder is locked until `resources` is closed.
    """
    import torch

    from megatron_ext.data import data_identity, token_files, tokenized
    from megatron_ext.hardware import parallel_groups, platforms
    from megatron_ext.observability.metrics_logger import RunLog
    from megatron_ext.training.trainer import Trainer

    output = Path(run.output)
    architecture = inputs.architecture
    platform = platforms.current_platform()
    cpus = platform.bind_cpus()
    clock.enter("process_group")
    preemption = _join(run, platform)
    is_first_rank = torch.distributed.get_rank() == 0
    _lock(output, resources, is_first_rank)
    if is_first_rank:
        _start_folder(run, clock)
    resources.push(clock.close)
    wandb_run = wandb_logger.start(run.wandb, output) if is_first_rank else None
    torch.distributed.barrier()
    clock.enter("data_index")
    tokenized.check_ids(run.data.prefixes, architecture)
    platform.start_tp_overlap(run, architecture.hidden_size)
    clock.enter("checkpoint_load")
    checkpoint = _checkpoint_to_resume(output / "checkpoints", is_first_rank)
    clock.enter("data_index")
    fingerprints = data_identity.check(
        output, token_files.read_prefixes(run), resumed=checkpoint is not None
    )
    state, progress = _build_state(run, architecture, platform, checkpoint, clock)
    clock.enter("data_index")
    data = tokenized.build(run, inputs.vocabulary, output / "data_cache", fingerprints)
    clock.enter("model")
    log = None
    if is_first_rank:
        log = RunLog(output, progress.iteration, run.training.train_iters, wandb_run)
        _log_start(run, architecture, platform, cpus, data)
        if checkpoint is not None:
            logger.info(f"resuming from step {progress.iteration}")
    trainer = Trainer(
        platform=platform,
        recipe=run,
        architecture=architecture,
        state=state,
        progress=progress,
        data=data,
        preemption=preemption,
        clock=clock,
        log=log,
    )
    limit = trainer.watchdog.limit
    clock.write(
        "ready",
        progress.iteration,
        layout=parallel_groups.describe_layout(),
        device=platform.device_name,
        hang_limit=limit,
    )
    return trainer


def _join(run: Recipe, platform: Any) -> PreemptionHandler:
    """Join the process group and divide it by the layout; return the requests to stop."""
    import torch

    from megatron_ext.hardware import parallel_groups

    # longer than the watchdog's, which can name the process that hangs
    timeout = 2 * run.resilience.distributed_timeout_minutes
    platform.init_distributed(timeout)
    # only now: until all processes have met, a signal ends the process at once
    preemption = PreemptionHandler(
        run.resilience.exit_duration_in_mins,
        Path(run.resilience.exit_trigger_file or Path(run.output) / "stop"),
    )
    recipes: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(recipes, recipe.to_dict(run))
    check_same_everywhere(recipes)
    parallel_groups.initialize(run.parallel, run.training.seed, timeout)
    return preemption


def _build_state(
    run: Recipe,
    architecture: Architecture,
    platform: Any,
    checkpoint: Path | None,
    clock: PhaseClock,
) -> tuple[Any, Any]:
    """Return the training state and the run's progress, restored if there is a checkpoint."""
    import torch

    from megatron_ext.training import training_state
    from megatron_ext.training.optimizer import build_optimizer, build_scheduler, wrap_model

    clock.enter("model")
    model = build_model_chunks(platform, architecture, run)
    if checkpoint is None:
        _verify(run, torch.distributed.get_rank() == 0)
        with clock.phase("checkpoint_load"):
            training_state.load_weights(model, run.model.checkpoint)
    wrapped = wrap_model(model, run)
    optimizer = build_optimizer(wrapped, run)
    scheduler = build_scheduler(optimizer, run)
    state = training_state.TrainState(model=wrapped, optimizer=optimizer, scheduler=scheduler)
    if checkpoint is None:
        return state, training_state.Progress()
    with clock.phase("checkpoint_load"):
        return state, training_state.load(checkpoint, state)


def _log_start(
    run: Recipe, architecture: Architecture, platform: Any, cpus: str | None, data: Any
) -> None:
    from megatron_ext.hardware import parallel_groups
    from megatron_ext.planner import comparison

    active = f" ({architecture.active_parameters:,} active)" if architecture.is_moe else ""
    logger.info(
        f"{architecture.parameters:,} parameters{active} on {platform.name},"
        f" {parallel_groups.describe_layout()}"
    )
    gpus, _ = _world_sizes()
    if plan := comparison.expectation(run, architecture, gpus, platform.device_name):
        logger.info(plan)
    if environment := process_environment.describe(run):
        logger.info(f"environment: {environment}")
    if cpus:
        logger.info(f"bound to the processors of the GPU's NUMA node: {cpus}")
    data.log_epochs()


def _lock(output: Path, resources: contextlib.ExitStack, is_first_rank: bool) -> None:
    """Lock the run folder by the first process; all end if another run holds it (collective).

    Raises:
        DataError: another run holds it; only the first process reports that.
    """
    import torch

    refusal: list[DataError | None] = [None]
    if is_first_rank:
        try:
            resources.enter_context(lock.hold(output))
        except DataError as error:
            refusal = [error]
    torch.distributed.broadcast_object_list(refusal, src=0)
    if refusal[0] is not None:
        raise_on_all_ranks(refusal[0])


def _verify(run: Recipe, is_first_rank: bool) -> None:
    """Compare the initial checkpoint with its manifest, unless that is disabled (collective)."""
    from megatron_ext.checkpoint import integrity

    folder = checkpoint_folder.newest(run.model.checkpoint)
    if run.model.verify_checksums:
        integrity.verify(folder)
    elif is_first_rank:
        checksums.log_skipped(folder)


def build_model_chunks(platform: Any, architecture: Architecture, run: Recipe) -> list[Any]:
    """Return this process's model chunks: one, or several under an interleaved pipeline."""
    from megatron_ext.hardware import parallel_groups
    from megatron_ext.model.build import build_model

    chunks = run.parallel.virtual_pipeline_model_parallel_size
    options = parallel_groups.model_options(run)
    stages = range(chunks) if chunks else [None]
    return [
        build_model(platform, architecture, run.data.seq_length, vp_stage=stage, **options)
        for stage in stages
    ]


def _checkpoint_to_resume(checkpoints: Path, is_first_rank: bool) -> Path | None:
    """Return the run's newest intact checkpoint, None if there is none yet (collective)."""
    from megatron_ext.checkpoint import integrity

    folder, problems = integrity.newest_intact(checkpoints)
    if is_first_rank:
        for problem in problems:
            logger.warning(f"damaged checkpoint, renamed to damaged_iter_…: {problem}")
    if problems and folder is None:
        raise_on_all_ranks(
            DataError(
                f"all checkpoints in {checkpoints} are damaged ({problems[0]}); remove that folder"
                " to start from the beginning"
            )
        )
    return folder


def _start_folder(run: Recipe, clock: PhaseClock) -> None:
    """Create the run folder with the resolved recipe and the tokenizer."""
    output = Path(run.output)
    output.mkdir(parents=True, exist_ok=True)
    source = Path(run.model.checkpoint) / checkpoint_folder.HF
    target = output / "checkpoints" / checkpoint_folder.HF
    if source.is_dir():
        links.copy_folder(source, target)
    (output / STOPPED).unlink(missing_ok=True)
    clock.open(output)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    clock.write("start", **phase_clock.start_fields(clock, output, ranks))
    watchdog.clear(output)
    write_text(output / RECIPE, recipe.dump(run))


def _finish(run: Recipe, weights: Path, progress: Any) -> None:
    """Write the manifest, which marks the run as finished."""
    output = Path(run.output)
    checkpoint = checkpoint_folder.newest(output / "checkpoints")
    # with their hashes: a checkpoint of a terabyte is too much to read for one process
    files = manifest.read(checkpoint)["outputs"]
    manifest.write(
        output / manifest.NAME,
        stage="pretrain",
        inputs=[weights / ".metadata", *(Path(f"{prefix}.idx") for prefix in run.data.prefixes)],
        config=recipe.to_dict(run),
        outputs=[
            output / "log.jsonl",
            checkpoint / manifest.NAME,
            *({**file, "path": checkpoint / file["path"]} for file in files),
        ],
        counts=dataclasses.asdict(progress),
    )
    logger.info(
        f"finished: {progress.iteration} steps, {progress.consumed_tokens:,} tokens in"
        f" {progress.seconds:,.0f} s of training; checkpoint {checkpoint}"
    )


if __name__ == "__main__":
    cli.run(main)
