"""Options of Megatron-LM's preprocess_data.py that have another name here, or no counterpart."""

from collections.abc import Sequence

from galen.errors import UsageError

MEGATRON_LM = {
    **dict.fromkeys(
        ("--tokenizer-type", "--vocab-size", "--make-vocab-size-divisible-by"),
        "omit it, --tokenizer-model has it",
    ),
    **dict.fromkeys(
        ("--vocab-file", "--merge-file"),
        "--tokenizer-model FOLDER that contains vocab.json and merges.txt",
    ),
    **dict.fromkeys(
        ("--tokenizer-special-tokens", "--vocab-extra-ids"),
        "--add-special-tokens FILE, one token per line",
    ),
    "--tokenizer-hf-no-include-special-tokens": (
        "omit it, only --append-eod and --prepend-bos add tokens"
    ),
    "--tokenizer-hf-include-special-tokens": "--prepend-bos and --append-eod, as needed",
    "--trust-remote-code": "omit it, no code of a tokenizer is run",
    "--partitions": "omit it, --workers uses all cores; for several machines --shards N",
    "--keep-sequential-samples": "omit it, records keep their order",
    **dict.fromkeys(
        ("--find-optimal-num-workers", "--workers-to-check", "--performance-dir"),
        "omit it, use one worker per core",
    ),
    **dict.fromkeys(("--log-interval", "--dataset-impl", "--use-gigatoken"), "omit it"),
}
"""Options of Megatron-LM's preprocess_data.py missing in this command, and their replacements."""


def refuse_options_of_megatron_lm(words: Sequence[str]) -> None:
    """Refuse options of Megatron-LM, with their replacements.

    Raises:
        UsageError: an option is Megatron-LM's.
    """
    names = [word.partition("=")[0] for word in words]
    hints = [f"{name}: {MEGATRON_LM[name]}" for name in names if name in MEGATRON_LM]
    if hints:
        heading = "these are options of Megatron-LM's preprocess_data.py; here"
        raise UsageError("\n       ".join([heading, *hints]))
