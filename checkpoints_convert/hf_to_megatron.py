"""Import a Hugging Face checkpoint as a Megatron `torch_dist` checkpoint.

    galen import --hf models/SmolLM2-135M --output runs/megatron
    galen import --hf models/Llama-2-7b --output runs/megatron \\
        --add-special-tokens examples/special_tokens/meditron.txt

The result loads under any tensor, pipeline and data parallelism. Weights are copied bit by bit in
their own precision, one slice at a time: memory does not grow with the model. Killed and started
again, the same command resumes.
"""

from pathlib import Path

from checkpoints_convert.conversion.arguments import (
    add_dtype,
    add_execution,
    add_output,
    positive,
    recorded,
)
from checkpoints_convert.hf.folder import weight_files
from checkpoints_convert.resumable_io.input_hashes import InputHashes
from galen import cli, lock, pretrained
from galen.option_recipe import OptionParser


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = _parser()
    arguments = parser.parse(argv)

    pretrained.check_folder(arguments.hf)
    known = recorded(arguments.hf, arguments.no_verify)
    with (
        lock.hold(arguments.output),
        InputHashes([arguments.hf / "config.json", *weight_files(arguments.hf)], known) as inputs,
    ):
        # takes seconds, in which the hashes have begun
        from checkpoints_convert.conversion.import_hf import Import, convert

        job = Import(
            hf=arguments.hf,
            dtype=arguments.dtype,
            special_tokens=arguments.add_special_tokens,
            new_rows=arguments.new_rows,
            seed=arguments.seed,
            tensor_parallel=arguments.tensor_model_parallel_size,
        )
        convert(job, arguments.output, inputs, arguments.workers)


def _parser() -> OptionParser:
    parser = OptionParser(__doc__)
    parser.add_argument(
        "--hf",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with config.json, *.safetensors and the tokenizer",
    )
    add_output(parser, "checkpoint folder to write; must not hold a checkpoint")
    add_dtype(parser)
    parser.add_argument(
        "--add-special-tokens",
        type=Path,
        metavar="FILE",
        help="one token a line: gives each the next free id and a row in the embedding",
    )
    parser.add_argument(
        "--new-rows",
        choices=("mean", "normal"),
        default="mean",
        help=(
            "initial values of new rows: the mean of the old (default), or a normal sample with"
            " the old rows' mean and deviation"
        ),
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of --new-rows normal (default 0)")
    parser.add_argument(
        "--tensor-model-parallel-size",
        type=positive,
        default=1,
        metavar="N",
        help="pad the vocabulary to a multiple of 128 x N; any other size loads too (default 1)",
    )
    add_execution(parser)
    return parser


if __name__ == "__main__":
    cli.run(main)
