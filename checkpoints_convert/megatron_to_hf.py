"""Export a Megatron checkpoint as a Hugging Face folder that plain `transformers` loads.

    python checkpoints_convert/megatron_to_hf.py --megatron runs/pretrain/checkpoints --output runs/model
    python checkpoints_convert/megatron_to_hf.py --megatron runs/mmedlm/checkpoints --output runs/model --as-family llama

Configuration and tokenizer are those that came with the model at its import (the checkpoint's `hf` folder). Weights are
copied a piece at a time: memory does not grow with the model. Killed and started again, the same command goes on.
"""

import argparse
from pathlib import Path

from checkpoints_convert.input_hashes import InputHashes
from galen import cli
from megatron_ext.checkpoint_folder import find_iteration, weight_files

DTYPES = ("bf16", "fp16", "fp32")
SHARD_BYTES = 5 * 10**9  # transformers' own default


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--megatron", type=Path, required=True, metavar="DIR", help="checkpoint folder with latest_checkpointed_iteration.txt"
    )
    parser.add_argument("--iteration", type=int, help="iteration to export (default: the newest)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write; must not exist")
    parser.add_argument(
        "--hf", type=Path, metavar="DIR", help="take config.json and the tokenizer from here (default: the checkpoint's hf)"
    )
    parser.add_argument(
        "--as-family", metavar="NAME", help="write another family's names and configuration, for example llama for InternLM2"
    )
    parser.add_argument("--dtype", choices=DTYPES, help="precision of the weights written (default: their own)")
    parser.add_argument("--max-shard-bytes", type=float, default=None, metavar="N", help=f"largest file (default {SHARD_BYTES:.0e})")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that share the work (default 1)")
    arguments = parser.parse_args(argv)
    if arguments.workers < 1:
        parser.error("--workers must be at least 1")

    folder = find_iteration(arguments.megatron, arguments.iteration)
    with InputHashes([folder / ".metadata", *weight_files(folder)]) as inputs:
        from checkpoints_convert.exporting import Export, convert  # takes seconds, in which the hashes have begun

        job = Export(
            megatron=arguments.megatron,
            iteration=arguments.iteration,
            hf=arguments.hf,
            as_family=arguments.as_family,
            dtype=arguments.dtype,
            shard_bytes=int(arguments.max_shard_bytes or SHARD_BYTES),
        )
        convert(job, arguments.output, inputs, arguments.workers)
    return None


if __name__ == "__main__":
    cli.run(main)
