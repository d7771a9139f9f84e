r"""Average checkpoints of a run, or of several runs from the same base, into one checkpoint.

    galen average --megatron runs/pretrain/checkpoints --iterations 4000,5000,6000 \
        --output runs/average
    galen average --megatron runs/pretrain/checkpoints --iterations all --ema 0.8 \
        --output runs/ema
    galen average --megatron runs/a/checkpoints runs/b/checkpoints --weights 2,1 \
        --output runs/soup

The weights are averaged in float64 and rounded once; the optimizer state is left out. The result is
iteration 0 of a checkpoint that `galen export`, `evaluate` and `pretrain` take. Checkpoints are
read a slice at a time: memory does not grow with the model. Killed and started again, the same
command resumes.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoints_convert.conversion.arguments import add_dtype, add_execution, add_output, recorded
from galen import cli, iterations, lock
from galen.errors import DataError, UsageError
from galen.option_recipe import OptionParser

if TYPE_CHECKING:
    from megatron_ext.config.architecture import Architecture


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    arguments = _parser().parse(argv)
    folders = _iterations(arguments.megatron, arguments.iterations)
    weights = _weights(len(folders), arguments.weights, arguments.ema)

    from checkpoints_convert import families
    from checkpoints_convert.conversion import import_hf
    from checkpoints_convert.conversion.averaged_model import AveragedModel
    from checkpoints_convert.conversion.stored_model import StoredModel
    from checkpoints_convert.conversion.validate import check_tensors
    from checkpoints_convert.conversion.weight_tasks import all_tasks
    from checkpoints_convert.hf.folder import verify_companions
    from megatron_ext.checkpoint.checkpoint_folder import HF, weight_files
    from megatron_ext.checkpoint.torch_dist import TorchDist

    architecture = _architecture(folders)
    family = families.FAMILIES[architecture.family]
    companions = folders[0].parent / HF
    verify_companions(companions, arguments.no_verify)
    models = []
    for folder in folders:
        stored = TorchDist(folder)
        check_tensors(stored, family, architecture)
        models.append(StoredModel(stored, all_tasks(family, architecture), architecture))
    files = []
    known: dict[Path, dict[str, Any]] = {}
    for folder in folders:
        files += [folder / ".metadata", *weight_files(folder)]
        known |= recorded(folder, arguments.no_verify)
    job = import_hf.ExternalModel(
        source=AveragedModel(models, weights),
        files=files,
        family=family,
        architecture=architecture,
        hf_config=families.read_config(companions / "config.json"),
        tokenizer=companions,
        recorded=known,
        options={"weights": weights, "dtype": arguments.dtype},
        dtype=import_hf.DTYPES.get(arguments.dtype or ""),
    )
    with lock.hold(arguments.output):
        import_hf.import_external(job, arguments.output, arguments.workers)


def _parser() -> OptionParser:
    parser = OptionParser(__doc__)
    parser.add_argument(
        "--megatron",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="checkpoint folders with latest_checkpointed_iteration.txt",
    )
    parser.add_argument(
        "--iterations",
        metavar="N,N",
        help="iterations of each folder, or all, oldest first (default: the newest)",
    )
    parser.add_argument(
        "--weights",
        metavar="X,X",
        help="weight of each checkpoint, in the order of folders and iterations (default: equal)",
    )
    parser.add_argument(
        "--ema",
        type=float,
        metavar="DECAY",
        help="exponential moving average in this order, in place of --weights",
    )
    add_output(parser, "checkpoint folder to write")
    add_dtype(parser)
    add_execution(parser)
    return parser


def _iterations(checkpoints: list[Path], selection: str | None) -> list[Path]:
    """Return the folders of the iterations to average.

    Raises:
        UsageError: there is one alone, or one twice.
        DataError: one does not exist.
    """
    folders = []
    for checkpoint in checkpoints:
        for number in iterations.select(checkpoint, selection):
            folders.append(iterations.iteration_folder(checkpoint, number))
    resolved = {folder.resolve() for folder in folders}
    if len(resolved) < len(folders):
        raise UsageError("a checkpoint is named twice")
    if len(folders) < 2:
        raise UsageError(f"{folders[0]} is a single checkpoint: give several, see --iterations")
    return folders


def _weights(count: int, text: str | None, decay: float | None) -> list[float]:
    """Return the weight of each checkpoint.

    Raises:
        UsageError: they are wrong, or their number is.
    """
    from checkpoints_convert.conversion import averaged_model

    if text is not None and decay is not None:
        raise UsageError("--weights and --ema exclude each other")
    if decay is not None:
        if not 0 < decay < 1:
            raise UsageError("--ema must be between 0 and 1")
        return averaged_model.ema(count, decay)
    if text is None:
        return [1.0] * count
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--weights must be numbers with commas, not {text!r}") from None
    if len(weights) != count:
        raise UsageError(f"--weights has {len(weights)} numbers for {count} checkpoints")
    if not all(0 <= weight < math.inf for weight in weights):
        raise UsageError("--weights must be finite and at least 0")
    if not sum(weights):
        raise UsageError("--weights must have a positive sum")
    return weights


def _architecture(folders: list[Path]) -> "Architecture":
    """Return the architecture that all iterations have.

    Raises:
        DataError: two differ.
    """
    from checkpoints_convert.conversion.validate import differences
    from megatron_ext.config.architecture import read_architecture

    first = read_architecture(folders[0])
    for folder in folders[1:]:
        other = read_architecture(folder)
        if other != first:
            raise DataError(
                f"{folder} and {folders[0]} are of different models: {differences(first, other)}"
            )
    return first


if __name__ == "__main__":
    cli.run(main)
