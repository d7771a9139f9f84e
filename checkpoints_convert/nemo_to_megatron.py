r"""Import a checkpoint folder of NeMo 2 (`weights/`, `context/`) as a `torch_dist` checkpoint.

    galen import-nemo --nemo runs/nemo --output runs/megatron
    galen import-nemo --nemo runs/nemo \
        --hf models/Mistral-7B-v0.3 --output runs/megatron

Llama, Mistral, Qwen2 and Qwen3 models of nemo.collections.llm. Nothing of the folder is run: the
configuration is read from `context/model.yaml`, the pickles of `weights/` as data. Weights only, no
optimizer state. NeMo need not be installed. With --hf, config.json and tokenizer are those of the
model that the run began with; NeMo keeps no exact number of positions for Mistral and Qwen3.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoints_convert.conversion.arguments import add_execution, add_output, recorded
from galen import cli, lock
from galen.errors import DataError
from galen.option_recipe import OptionParser

if TYPE_CHECKING:
    from megatron_ext.config.architecture import Architecture


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = OptionParser(__doc__)
    parser.add_argument(
        "--nemo", type=Path, required=True, metavar="DIR", help="folder with weights/ and context/"
    )
    add_output(parser, "checkpoint folder to write")
    parser.add_argument(
        "--hf",
        type=Path,
        metavar="DIR",
        help="take config.json and tokenizer from here; weights are not needed",
    )
    add_execution(parser)
    arguments = parser.parse(argv)

    from checkpoints_convert.conversion import import_hf
    from checkpoints_convert.conversion.stored_model import StoredModel
    from checkpoints_convert.conversion.validate import check_tensors
    from checkpoints_convert.conversion.weight_tasks import all_tasks
    from checkpoints_convert.families import FAMILIES
    from checkpoints_convert.interop import nemo_config
    from megatron_ext.checkpoint.checkpoint_folder import weight_files
    from megatron_ext.checkpoint.torch_dist import TorchDist

    known = recorded(arguments.nemo, arguments.no_verify)
    architecture, config, tokenizer = _model(arguments.nemo, arguments.hf)
    family = FAMILIES[architecture.family]
    folder = arguments.nemo / nemo_config.WEIGHTS
    stored = TorchDist(folder, nemo_config.PREFIX)
    check_tensors(stored, family, architecture)
    source = StoredModel(stored, all_tasks(family, architecture), architecture)
    files = [folder / ".metadata", *weight_files(folder)]
    job = import_hf.ExternalModel(source, files, family, architecture, config, tokenizer, known)
    with lock.hold(arguments.output):
        import_hf.import_external(job, arguments.output, arguments.workers)


def _model(nemo: Path, hf: Path | None) -> "tuple[Architecture, dict[str, Any], Path | None]":
    """Return the model's architecture, its config.json, and the tokenizer's folder or None.

    Raises:
        DataError: the configuration is not supported, or is not that of `hf`.
    """
    from checkpoints_convert import families
    from checkpoints_convert.conversion.validate import differences
    from checkpoints_convert.hf.folder import check_vocabulary, tokenizer_ids
    from checkpoints_convert.interop import nemo_config

    if hf is not None:
        _, expected = families.find(hf / "config.json")
        actual = nemo_config.read(nemo, expected.vocab_size, expected.max_position_embeddings)
        if actual != expected:
            raise DataError(
                f"{hf / 'config.json'} describes another model than {nemo}:"
                f" {differences(expected, actual)}"
            )
        check_vocabulary(hf, expected.vocab_size)
        return expected, families.read_config(hf / "config.json"), hf
    tokenizer = nemo / nemo_config.CONTEXT / nemo_config.TOKENIZER
    architecture = nemo_config.read(nemo, tokenizer_ids(tokenizer))
    check_vocabulary(tokenizer, architecture.vocab_size)
    return (
        architecture,
        families.FAMILIES[architecture.family].config(architecture),
        tokenizer if tokenizer.is_dir() else None,
    )


if __name__ == "__main__":
    cli.run(main)
