"""Logs a run's figures to Weights & Biases if the recipe asks for it. Only rank 0 sends."""

import importlib.util
import uuid
from pathlib import Path
from typing import Any

from galen import keys
from galen.atomic import write_text
from galen.errors import UsageError, install
from megatron_ext.config.run_sections import Wandb

RUN_ID = "wandb_id.txt"


def check(options: Wandb | None) -> None:
    """Check that the package is installed if the recipe needs it, before anything long begins.

    Raises:
        UsageError: it is not.
    """
    if options is not None and importlib.util.find_spec("wandb") is None:
        raise UsageError(
            f"the recipe has a section wandb, and wandb is not installed: {install('wandb')},"
            " or set wandb=null"
        )


def start(options: Wandb | None, folder: Path) -> Any:
    """Return the run at Weights & Biases, the same one after every restart; None if disabled.

    Args:
        options: the recipe's section.
        folder: run folder; it holds recipe.yaml, and stores the run's id and unsent data.

    Raises:
        UsageError: the key is missing, or the service cannot be reached.
    """
    if options is None:
        return None
    import wandb

    file = folder / RUN_ID
    if not file.is_file():
        write_text(file, uuid.uuid4().hex + "\n")
    try:
        run = wandb.init(
            project=options.project,
            entity=options.entity,
            name=options.name or folder.name,
            group=options.group,
            tags=options.tags,
            mode=options.mode,
            id=file.read_text(encoding="utf-8").strip(),
            resume="allow",
            dir=str(folder),
            config={"recipe": (folder / "recipe.yaml").read_text(encoding="utf-8")},
        )
    except wandb.errors.Error as error:
        raise UsageError(
            f"Weights & Biases: {keys.hide(str(error))}. Set WANDB_API_KEY or run `wandb login`; "
            "without a network wandb.mode=offline; or wandb=null"
        ) from None
    # a resumed run logs some steps again
    run.define_metric("*", step_metric="step")
    return run
