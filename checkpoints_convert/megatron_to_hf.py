r"""Export a Megatron checkpoint as a Hugging Face folder that plain `transformers` loads.

    galen export --megatron runs/pretrain/checkpoints \
        --output runs/model
    galen export --megatron runs/mmedlm/checkpoints \
        --output runs/model --as-family llama

Configuration and tokenizer are those that came with the model at its import (the checkpoint's `hf`
folder). Weights are copied a slice at a time: memory does not grow with the model. Killed and
started again, the same command resumes.
"""

from pathlib import Path

from checkpoints_convert.conversion.arguments import (
    add_dtype,
    add_execution,
    add_export,
    recorded,
)
from checkpoints_convert.hf.folder import verify_companions
from checkpoints_convert.resumable_io.input_hashes import InputHashes
from galen import cli, lock
from galen.option_recipe import OptionParser
from megatron_ext.checkpoint.checkpoint_folder import HF, find_iteration, weight_files


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = OptionParser(__doc__)
    add_export(parser)
    parser.add_argument(
        "--hf",
        type=Path,
        metavar="DIR",
        help="take config.json and the tokenizer from here (default: the checkpoint's hf)",
    )
    parser.add_argument(
        "--as-family",
        metavar="NAME",
        help="write another family's names and configuration, for example llama for InternLM2",
    )
    add_dtype(parser)
    parser.add_argument(
        "--max-shard-bytes",
        type=float,
        default=5e9,
        metavar="N",
        help="largest file (default 5e9, as in transformers)",
    )
    add_execution(parser)
    arguments = parser.parse(argv)

    folder = find_iteration(arguments.megatron, arguments.iteration)
    known = recorded(folder, arguments.no_verify)
    verify_companions(arguments.hf or folder.parent / HF, arguments.no_verify)
    with (
        lock.hold(arguments.output),
        InputHashes([folder / ".metadata", *weight_files(folder)], known) as inputs,
    ):
        # takes seconds, in which the hashes have begun
        from checkpoints_convert.conversion.export_hf import Export, convert

        job = Export(
            folder=folder,
            hf=arguments.hf,
            as_family=arguments.as_family,
            dtype=arguments.dtype,
            shard_bytes=int(arguments.max_shard_bytes),
        )
        convert(job, arguments.output, inputs, arguments.workers)


if __name__ == "__main__":
    cli.run(main)
