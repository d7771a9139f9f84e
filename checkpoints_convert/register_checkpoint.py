r"""Register a `torch_dist` checkpoint of Megatron-LM or Megatron-Bridge with Galen, in place.

    galen register --megatron runs/from-megatron-lm \
        --hf models/Llama-2-7b

Its weights are not copied. Checks that its tensors are those of the model that the Hugging Face
folder describes, and adds the missing files: `architecture.json`, `manifest.json` (the
SHA-256 of each file) and `hf/` (configuration and tokenizer). After this the checkpoint can be
trained, verified and exported.
"""

from pathlib import Path

from checkpoints_convert.conversion.arguments import add_megatron_folder, add_no_verify
from galen import cli, lock
from galen.option_recipe import OptionParser


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = OptionParser(__doc__)
    add_megatron_folder(parser)
    parser.add_argument(
        "--hf",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with config.json and tokenizer; weights are not needed",
    )
    add_no_verify(parser)
    arguments = parser.parse(argv)

    from checkpoints_convert import families
    from checkpoints_convert.conversion import registration
    from checkpoints_convert.hf.folder import check_vocabulary, verify_companions
    from megatron_ext.checkpoint import checkpoint_folder

    verify_companions(arguments.hf, arguments.no_verify)
    family, architecture = families.find(arguments.hf / "config.json")
    check_vocabulary(arguments.hf, architecture.vocab_size)
    with lock.hold(arguments.megatron):
        folder = checkpoint_folder.newest(arguments.megatron)
        registration.register(folder, arguments.hf, family, architecture)
    print(f"{folder}: {family.name}, {architecture.parameters:,} parameters")


if __name__ == "__main__":
    cli.run(main)
