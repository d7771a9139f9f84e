r"""Rewrite a `dp_reshardable` checkpoint as `fully_reshardable`, Megatron's format for any layout.

    galen reshard --megatron RUN/checkpoints --output CHECKPOINT

A run writes its periodic checkpoints as dp_reshardable (training.dist_ckpt_optim_fully_reshardable
decides). Galen resumes from either format under any layout; Megatron-LM and Megatron-Bridge load a
dp_reshardable one only under the tensor and pipeline parallelism that wrote it. All values stay the
same.
"""

from checkpoints_convert.conversion.arguments import (
    add_execution,
    add_megatron,
    add_output,
    recorded,
)
from galen import cli, lock
from galen.errors import UsageError
from galen.option_recipe import OptionParser


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = OptionParser(__doc__)
    add_megatron(parser)
    add_output(parser, "checkpoint folder to write")
    add_execution(parser)
    arguments = parser.parse(argv)

    from checkpoints_convert.conversion import reshard_optimizer
    from checkpoints_convert.resumable_io.input_hashes import InputHashes
    from megatron_ext.checkpoint import checkpoint_folder

    checkpoint = arguments.megatron
    if arguments.output.resolve() == checkpoint.resolve():
        raise UsageError(f"--output {arguments.output} is the input; choose another folder")
    with lock.hold(arguments.output):
        folder = checkpoint_folder.find_iteration(checkpoint, arguments.iteration)
        job = reshard_optimizer.Reshard(checkpoint, folder, arguments.output)
        files = reshard_optimizer.input_files(folder)
        with InputHashes(files, recorded(folder, arguments.no_verify)) as inputs:
            reshard_optimizer.convert(job, inputs, arguments.workers)


if __name__ == "__main__":
    cli.run(main)
