r"""Export a Megatron checkpoint as a NeMo 2 folder that nemo.collections.llm loads.

    galen export-nemo --megatron runs/pretrain/checkpoints \
        --output runs/nemo

The folder holds `weights/` and `context/`. Supported are Llama, Mistral, Qwen2 and Qwen3; the
tokenizer is the one that came with the model at its import. Weights only, no optimizer state. NeMo
need not be installed. Killed and started again, the same command resumes.
"""

from checkpoints_convert.conversion.arguments import (
    add_dtype,
    add_execution,
    add_export,
    recorded,
)
from checkpoints_convert.hf.folder import verify_companions
from galen import cli, lock
from galen.option_recipe import OptionParser
from megatron_ext.checkpoint.checkpoint_folder import HF, find_iteration


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = OptionParser(__doc__)
    add_export(parser)
    parser.add_argument(
        "--as-family",
        choices=("llama",),
        help="write an InternLM2 as a Llama: NeMo has no InternLM2",
    )
    add_dtype(parser)
    add_execution(parser)
    arguments = parser.parse(argv)

    from checkpoints_convert.interop.nemo_export import NemoExport, convert

    folder = find_iteration(arguments.megatron, arguments.iteration)
    known = recorded(folder, arguments.no_verify)
    verify_companions(folder.parent / HF, arguments.no_verify)
    with lock.hold(arguments.output):
        convert(
            NemoExport(folder, arguments.as_family, arguments.dtype),
            arguments.output,
            arguments.workers,
            known,
        )


if __name__ == "__main__":
    cli.run(main)
