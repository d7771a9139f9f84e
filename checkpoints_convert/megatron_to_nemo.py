"""Export a Megatron checkpoint as a folder of NeMo 2 (`weights/`, `context/`) that nemo.collections.llm loads.

    python checkpoints_convert/megatron_to_nemo.py --megatron runs/pretrain/checkpoints --output runs/nemo

Llama, Mistral, Qwen2 and Qwen3; the tokenizer is the one that came with the model at its import. Weights only, no optimizer state.
NeMo need not be installed. Killed and started again, the same command goes on.
"""

import argparse
from pathlib import Path

from galen import cli

DTYPES = ("bf16", "fp16", "fp32")


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--megatron", type=Path, required=True, metavar="DIR", help="checkpoint folder with latest_checkpointed_iteration.txt"
    )
    parser.add_argument("--iteration", type=int, help="iteration to export (default: the newest)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write; must not exist")
    parser.add_argument("--as-family", choices=("llama",), help="write an InternLM2 as a Llama: NeMo has no InternLM2")
    parser.add_argument("--dtype", choices=DTYPES, help="precision of the weights written (default: their own)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that share the work (default 1)")
    arguments = parser.parse_args(argv)
    if arguments.workers < 1:
        parser.error("--workers must be at least 1")

    from checkpoints_convert.nemo_export import NemoExport, convert

    job = NemoExport(megatron=arguments.megatron, iteration=arguments.iteration, as_family=arguments.as_family, dtype=arguments.dtype)
    convert(job, arguments.output, arguments.workers)
    return None


if __name__ == "__main__":
    cli.run(main)
