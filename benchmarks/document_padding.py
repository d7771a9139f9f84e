"""Share of padding of tokenized documents under context parallelism.

    python benchmarks/document_padding.py TOKENS/train_text_document [PREFIX …]

For each file the lengths of its documents, and the fraction of the tokens of packed sequences that
is padding if each document is padded to a multiple of 2 x CP (`data.reset_attention_mask`). A
document divided between two sequences is padded once.
"""

from typing import Any

import numpy

from galen import cli
from megatron_ext.data import token_files

CONTEXT_SIZES = (2, 4, 8, 16)


def padding_fraction(lengths: Any, context_size: int) -> float:
    """Return the fraction of tokens that pad documents of these lengths."""
    multiple = 2 * context_size
    padded = -(-lengths // multiple) * multiple
    return float(1 - lengths.sum(dtype=numpy.int64) / padded.sum(dtype=numpy.int64))


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("prefixes", nargs="+", metavar="PREFIX", help="token files, no ending")
    for prefix in parser.parse_args(argv).prefixes:
        lengths = token_files.document_lengths(prefix)
        mean = lengths.mean()
        median = numpy.median(lengths)
        print(f"{prefix}: {len(lengths):,} documents of {mean:.0f} tokens (median {median:.0f})")
        for size in CONTEXT_SIZES:
            print(f"  CP{size}: {padding_fraction(lengths, size):.2%} padding")
    return 0


if __name__ == "__main__":
    cli.run(main)
