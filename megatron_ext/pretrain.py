"""Train a model further on tokenised documents, on one process or thousands.

    torchrun --nproc-per-node 2 -m megatron_ext.pretrain examples/demo/pretrain.yaml training.train_iters=20

Started again after a kill, the same command goes on from the last checkpoint in the run folder.
"""

import dataclasses
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from galen import cli, manifest, recipe
from galen.atomic import write_text
from galen.errors import DataError, UsageError
from megatron_ext import architecture as architectures
from megatron_ext import checkpoint_folder
from megatron_ext.recipe import Recipe, check_layout

RECIPE = "recipe.yaml"
# What may differ when a run goes on: how it is spread and watched, not what it computes.
_MAY_CHANGE = {"parallel", "training.micro_batch_size", "training.save_interval", "training.keep_checkpoints", "training.log_interval"}
_MAY_CHANGE |= {"training.eval_interval", "training.recompute_granularity", "data.num_workers"}


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    parser = cli.recipe_parser(__doc__ or "", Recipe)
    arguments = parser.parse_args(argv)
    pretrain(recipe.load(Recipe, arguments.recipe, arguments.overrides))
    return None


def pretrain(run: Recipe) -> None:
    """Train as the recipe says.

    Raises:
        UsageError: the layout is impossible.
        DataError: checkpoint, data and tokenizer do not fit each other, or the run folder holds another run.
    """
    output = Path(run.output)
    weights = checkpoint_folder.newest(run.model.checkpoint)
    architecture = architectures.of_model(run.model.checkpoint, run.model.architecture)
    check_layout(run, architecture, int(os.environ.get("WORLD_SIZE", "1")))
    _check_same_run(output, run)
    if (output / manifest.NAME).is_file():
        return _say(f"{output} is finished already; nothing to do")

    from megatron_ext import tokenised_data  # the heavy imports begin here

    vocabulary = tokenised_data.check(
        [*run.data.train, *run.data.validation], architecture, Path(run.model.checkpoint) / checkpoint_folder.HF / "tokenizer.json"
    )
    if run.data.eod_mask_loss and vocabulary.eod < 0:
        raise DataError("data.eod_mask_loss needs to know the end-of-document token: tokenise with data_prep/preprocess.py --append-eod")
    trainer = _prepare(run, architecture, vocabulary)
    trainer.run()
    if trainer.log:
        _finish(run, weights, trainer.progress)
    trainer.platform.leave_distributed()


def _check_same_run(output: Path, run: Recipe) -> None:
    """Refuse to mix two runs in one folder."""
    path = output / RECIPE
    if not path.is_file():
        return
    before, now = _flat(recipe.to_dict(recipe.load(Recipe, path))), _flat(recipe.to_dict(run))
    changed = [key for key in now if before.get(key) != now[key] and key != "output" and not _may_change(key)]
    if changed:
        differences = "; ".join(f"{key}: {before.get(key)} there, {now[key]} now" for key in changed)
        raise UsageError(f"{output} holds another run ({differences}); choose another output, or remove that folder")


def _may_change(key: str) -> bool:
    return any(key == name or key.startswith(name + ".") for name in _MAY_CHANGE)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a tree by their dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves


def _prepare(run: Recipe, architecture: architectures.Architecture, vocabulary: Any) -> Any:
    """Join the process group, build everything and restore it to where the run stands; return the trainer."""
    import torch

    from megatron_ext import checkpointing, layout, optimization, platforms, tokenised_data
    from megatron_ext.model import build_model
    from megatron_ext.run_log import RunLog
    from megatron_ext.training import Trainer

    output = Path(run.output)
    checkpoints = output / "checkpoints"
    platform = platforms.current()
    platform.init_distributed()
    layout.initialize(run.parallel, run.training.seed)
    first = torch.distributed.get_rank() == 0
    if first:
        _start_folder(run)
    torch.distributed.barrier()
    model = build_model(platform, architecture, run.data.seq_length, **layout.model_options(run))
    resumed = checkpoint_folder.latest_iteration(checkpoints) is not None
    if not resumed:
        checkpointing.load_weights(model, run.model.checkpoint)
    wrapped = optimization.wrap_model(model, run)
    optimizer = optimization.build_optimizer(wrapped, run)
    scheduler = optimization.build_scheduler(optimizer, run)
    progress = checkpointing.load(checkpoints, wrapped, optimizer, scheduler) if resumed else checkpointing.Progress()
    train, validation = tokenised_data.build(run, vocabulary, output / "data_cache")
    log = RunLog(output, progress.iteration, run.training.train_iters) if first else None
    if first:
        sizes = "x".join(str(size) for size in layout.sizes())
        _say(f"{architecture.parameters:,} parameters on {platform.name}, tensor x pipeline x data parallel = {sizes}")
        if resumed:
            _say(f"going on after step {progress.iteration}")
    return Trainer(
        platform=platform,
        recipe=run,
        architecture=architecture,
        model=wrapped,
        optimizer=optimizer,
        scheduler=scheduler,
        progress=progress,
        train=train,
        validation=validation,
        log=log,
    )


def _start_folder(run: Recipe) -> None:
    """Create the run folder: the resolved recipe, and what an export will need beside the weights."""
    output = Path(run.output)
    output.mkdir(parents=True, exist_ok=True)
    source, target = Path(run.model.checkpoint) / checkpoint_folder.HF, output / "checkpoints" / checkpoint_folder.HF
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    write_text(output / RECIPE, recipe.dump(run))


def _finish(run: Recipe, weights: Path, progress: Any) -> None:
    """Write the manifest: its presence says that the run is finished."""
    output = Path(run.output)
    checkpoint = checkpoint_folder.newest(output / "checkpoints")
    manifest.write(
        output / manifest.NAME,
        stage="pretrain",
        inputs=[weights / ".metadata", *(Path(f"{prefix}.idx") for prefix in (*run.data.train, *run.data.validation))],
        config=recipe.to_dict(run),
        outputs=[output / "log.jsonl", *sorted(path for path in checkpoint.iterdir() if path.is_file())],
        counts=dataclasses.asdict(progress),
    )
    _say(f"finished: {progress.iteration} steps, {progress.consumed_tokens:,} tokens in {progress.seconds:,.0f} s; checkpoint {checkpoint}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    cli.run(main)
