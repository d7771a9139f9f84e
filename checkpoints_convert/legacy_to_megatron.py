r"""Import a checkpoint of Megatron-LLM (MEDITRON's trainer) as a `torch_dist` checkpoint.

    galen import-legacy --legacy runs/meditron-7b \
        --tokenizer models/meditron --output runs/megatron

Its files are `mp_rank_XX/model_optim_rng.pt`; ranks of any tensor and pipeline parallelism are
merged. They are pickles: they are read without running anything in them, and refused when they hold
more than a checkpoint does. Weights only, no optimizer state.
"""

from pathlib import Path

from checkpoints_convert.conversion.arguments import add_execution, add_output, positive
from galen import cli, lock
from galen.errors import DataError
from galen.option_recipe import OptionParser


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = _parser()
    arguments = parser.parse(argv)
    if arguments.tokenizer is None and arguments.vocab_size is None:
        parser.error(
            "give --tokenizer or --vocab-size: the files know only the padded size of the"
            " vocabulary"
        )

    from checkpoints_convert.conversion import import_hf
    from checkpoints_convert.conversion.validate import check_shapes
    from checkpoints_convert.conversion.weight_tasks import all_tasks
    from checkpoints_convert.families import FAMILIES
    from checkpoints_convert.families.megatron_shapes import VOCAB_TENSORS
    from checkpoints_convert.hf.folder import tokenizer_ids, verify_companions
    from checkpoints_convert.interop import megatron_lm_legacy

    if arguments.tokenizer is not None:
        verify_companions(arguments.tokenizer, arguments.no_verify)
    ranks = megatron_lm_legacy.Ranks(arguments.legacy)
    size = arguments.vocab_size or tokenizer_ids(arguments.tokenizer)
    if size is None:
        raise DataError(f"{arguments.tokenizer / 'tokenizer.json'} is missing")
    family = FAMILIES["llama"]
    architecture = ranks.architecture(size)
    for task in all_tasks(family, architecture):
        if task.megatron not in VOCAB_TENSORS:  # these are padded in the files too
            check_shapes(task, architecture, ranks, arguments.legacy)
    config = family.config(architecture)
    job = import_hf.ExternalModel(
        ranks, ranks.files, family, architecture, config, arguments.tokenizer
    )
    with lock.hold(arguments.output):
        import_hf.import_external(job, arguments.output, arguments.workers)


def _parser() -> OptionParser:
    parser = OptionParser(__doc__)
    parser.add_argument(
        "--legacy",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with latest_checkpointed_iteration.txt or mp_rank_*",
    )
    add_output(parser, "checkpoint folder to write")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="folder with tokenizer.json; its ids are the vocabulary",
    )
    parser.add_argument(
        "--vocab-size",
        type=positive,
        metavar="N",
        help="rows that belong to a token (default: the tokenizer's ids)",
    )
    add_execution(parser)
    return parser


if __name__ == "__main__":
    cli.run(main)
