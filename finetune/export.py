"""Export a fine-tuned model into a folder of its own, with a model card; upload it on request.

    galen publish --run RUN --output DIR --name my-medical-model \\
        --license apache-2.0 --scores scores/tuned --corpus corpus
    galen publish --run RUN --output DIR --name my-medical-model \\
        --license apache-2.0 --push OWNER/NAME

DIR holds the merged or fully trained model, or the adapter where RUN has no model, its tokenizer,
README.md (the card) and manifest.json. Nothing leaves this machine without --push, which needs a
token of the Hugging Face hub. With --push an existing export is uploaded with your changes to the
card.
"""

import argparse
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.publishing import model_card
from finetune.publishing.scores import read_results
from galen import cli, json_file, links, manifest
from galen.atomic import atomic_folder
from galen.errors import DataError, UsageError, one_line
from galen.run_folder import RunFolder
from galen.run_identity import Identity

logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int | None:
    """Export, and upload when asked."""
    arguments = _parser().parse_args(argv)
    if arguments.push is not None and arguments.push.count("/") != 1:
        raise UsageError(f"--push: write OWNER/NAME, not {arguments.push!r}")
    run = manifest.read(arguments.run, "finetune")
    source = next(
        (arguments.run / name for name in ("model", "adapter") if (arguments.run / name).is_dir()),
        None,
    )
    if source is None:
        raise DataError(f"{arguments.run} holds no model and no adapter; did the run finish?")
    base = arguments.base or _base_name(run, arguments.run)
    config = {
        "run": run.get("created"),
        "name": arguments.name,
        "license": arguments.license,
        "base": base,
        "language": arguments.language,
    }
    config |= {"scores": [_scores_hash(path) for path in arguments.scores]}
    config |= {"corpus": [path.name for path in arguments.corpus]}
    if RunFolder(arguments.output, "export").finished(Identity(config)) is not None:
        logger.info(f"{arguments.output} is already complete")
    else:
        _write(arguments, run, source, base, config)
        print(f"done: {arguments.output}")
    if arguments.push is not None:
        _push(arguments.output, arguments.push)
        print(f"uploaded to {arguments.push}")
    return 0


def _write(
    arguments: argparse.Namespace,
    run: Mapping[str, Any],
    source: Path,
    base: str,
    config: Mapping[str, Any],
) -> None:
    """Write weights and tokenizer of `source`, card and manifest, without paths of this machine."""
    details = (arguments.scores, arguments.corpus, arguments.name, arguments.license)
    try:
        card = model_card.card(run, *details, base, arguments.language, source.name == "adapter")
    except (LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"a manifest or results.json of the run, scores or corpora is damaged: {error!r:.200}"
        ) from None
    with atomic_folder(arguments.output) as temporary:
        links.copy_files(
            [path for path in sorted(source.iterdir()) if path.is_file()], source, temporary
        )
        _name_base(temporary / "adapter_config.json", base)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        written = sorted(path for path in temporary.iterdir() if path.is_file())
        read = {
            f"{source.name}/{path.name}": source / path.name
            for path in written
            if path.name != "README.md"
        }
        read |= {
            f"scores/{path.name}/results.json": path / "results.json" for path in arguments.scores
        }
        manifest.write(
            temporary / manifest.NAME,
            stage="export",
            inputs=[manifest.describe_file(path) | {"path": name} for name, path in read.items()],
            config=config,
            outputs=written,
            counts={"files": len(written)},
        )


def _scores_hash(folder: Path) -> str:
    read_results(folder)
    return manifest.sha256(folder / "results.json")


def _base_name(run: Mapping[str, Any], folder: Path) -> str:
    """Return the name of the base model's folder.

    Raises:
        DataError: the run's manifest is damaged.
    """
    try:
        return Path(run["config"]["model"]["path"]).name
    except (LookupError, TypeError) as error:
        raise DataError(f"the manifest of {folder} is damaged: {error!r:.200}") from None


def _name_base(path: Path, base: str) -> None:
    """Let an adapter name its base model by its name instead of a path of this machine.

    Raises:
        DataError: the adapter's configuration is damaged.
    """
    if not path.is_file():
        return
    config = json_file.read_object(path) | {"base_model_name_or_path": base}
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument(
        "--run", type=Path, required=True, metavar="DIR", help="finished run of `galen finetune`"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder of the exported model"
    )
    parser.add_argument("--name", required=True, help="the model's name in its card")
    parser.add_argument(
        "--license",
        required=True,
        help="its license (SPDX); the base model's and the data's bind it",
    )
    parser.add_argument(
        "--base",
        metavar="OWNER/NAME",
        help="the base model on the hub, which the card links to (default: its folder's name, as"
        " text)",
    )
    parser.add_argument(
        "--language",
        nargs="*",
        metavar="CODE",
        help="ISO 639-1 codes (default: those of the training questions)",
    )
    parser.add_argument(
        "--scores",
        type=Path,
        nargs="*",
        default=[],
        metavar="DIR",
        help="results folders of `galen evaluate`",
    )
    parser.add_argument(
        "--corpus",
        type=Path,
        nargs="*",
        default=[],
        metavar="DIR",
        help="curated corpora that the base was pretrained on",
    )
    parser.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="upload the folder to this repository of the Hugging Face hub, private when new",
    )
    return parser


def _push(folder: Path, repository: str) -> None:
    """Upload a folder to the hub.

    Raises:
        DataError: the hub refuses or cannot be reached; the exported folder stays.
    """
    from huggingface_hub import HfApi

    hub = HfApi()
    try:
        hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(
            folder_path=folder, repo_id=repository, commit_message="Model, tokenizer and card"
        )
    except (
        Exception
    ) as error:  # whatever the client's HTTP library raises: no network, no token, refused
        raise DataError(
            f"{folder} is written, but was not uploaded: {one_line(error)}; the same command tries"
            " it again"
        ) from error


if __name__ == "__main__":
    cli.run(main)
