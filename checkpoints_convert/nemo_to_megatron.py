"""Import a checkpoint folder of NeMo 2 (`weights/`, `context/`) as a `torch_dist` checkpoint.

    python checkpoints_convert/nemo_to_megatron.py --nemo runs/nemo --output runs/megatron
    python checkpoints_convert/nemo_to_megatron.py --nemo runs/nemo --hf models/Mistral-7B-v0.3 --output runs/megatron

Llama, Mistral, Qwen2 and Qwen3 models of nemo.collections.llm. Nothing of the folder is run: the configuration is read from
`context/model.yaml`, the pickles of `weights/` as data. Weights only, no optimizer state. NeMo need not be installed. With --hf,
config.json and tokenizer are those of the model that the run began with; NeMo keeps no exact number of positions for Mistral and Qwen3.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galen import cli
from galen.errors import DataError

if TYPE_CHECKING:
    from checkpoints_convert.family import Family
    from megatron_ext.architecture import Architecture


def main(argv: list[str] | None = None) -> int | None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nemo", type=Path, required=True, metavar="DIR", help="folder with weights/ and context/")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="checkpoint folder to write")
    parser.add_argument("--hf", type=Path, metavar="DIR", help="take config.json and tokenizer from here; weights are not needed")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that share the work (default 1)")
    arguments = parser.parse_args(argv)
    if arguments.workers < 1:
        parser.error("--workers must be at least 1")

    from checkpoints_convert import importing, nemo_config
    from checkpoints_convert.exporting import check_tensors
    from checkpoints_convert.stored_model import StoredModel
    from megatron_ext.torch_dist import TorchDist

    family, architecture, tokenizer = _model(arguments.nemo, arguments.hf)
    stored = TorchDist(arguments.nemo / nemo_config.WEIGHTS, nemo_config.PREFIX)
    check_tensors(stored, family, architecture)
    importing.write_source(StoredModel(stored, family, architecture), family, architecture, tokenizer, arguments.output, arguments.workers)
    return None


def _model(nemo: Path, hf: Path | None) -> "tuple[Family, Architecture, Path | None]":
    """Return the family, the shape, and the folder of the tokenizer.

    Raises:
        DataError: the configuration cannot be carried over, or is not that of `hf`.
    """
    from checkpoints_convert import families, nemo_config
    from checkpoints_convert.exporting import differences
    from checkpoints_convert.hf_folder import check_vocabulary, tokenizer_ids

    tokenizer: Path | None = hf or nemo / nemo_config.CONTEXT / nemo_config.TOKENIZER
    if tokenizer is None or not tokenizer.is_dir():
        tokenizer = None
    if hf is None:
        architecture = nemo_config.read(nemo, tokenizer_ids(tokenizer))
        if tokenizer is not None:
            check_vocabulary(tokenizer, architecture.vocab_size)
        return families.FAMILIES[architecture.family], architecture, tokenizer
    family, wanted = families.find(hf / "config.json")
    found = nemo_config.read(nemo, wanted.vocab_size, wanted.max_position_embeddings)
    if found != wanted:
        raise DataError(f"{hf / 'config.json'} describes another model than {nemo}: {differences(wanted, found)}")
    check_vocabulary(hf, wanted.vocab_size)
    config: dict[str, Any] = families.read_config(hf / "config.json")
    return dataclasses.replace(family, config=lambda _: config), wanted, tokenizer


if __name__ == "__main__":
    cli.run(main)
