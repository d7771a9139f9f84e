"""The text model of a multimodal Hugging Face folder: its companion files and tensors."""

import json
import logging
from pathlib import Path

from checkpoints_convert import families
from checkpoints_convert.hf.folder import copy_companions
from checkpoints_convert.hf.weights import Weights
from galen.atomic import write_text

logger = logging.getLogger(__name__)

_PROCESSORS = frozenset(
    {
        "preprocessor_config.json",
        "processor_config.json",
        "image_processor_config.json",
        "video_preprocessor_config.json",
    }
)
"""Companion files of the image part."""


def copy_text_companions(source: Path, target: Path) -> list[Path]:
    """Copy a folder's companion files; return those written.

    Of a multimodal folder, config.json becomes the text model's, and the files of the image part
    are left out. The tokenizer is kept.

    Raises:
        DataError: a file leads out of the folder or is damaged, or config.json is not supported.
    """
    path = source / "config.json"
    config = families.text_config(path) if path.is_file() else None
    if config is None:
        return copy_companions(source, target)
    written = copy_companions(source, target, left_out=_PROCESSORS)
    write_text(target / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    return written


def log_left_out(weights: Weights) -> None:
    """Log which tensors of a multimodal folder are left out, if any."""
    if not weights.left_out:
        return
    modules = {name.removeprefix("model.").partition(".")[0] for name in weights.left_out}
    logger.info(
        f"{weights.files[0].parent} is multimodal: its text model is converted;"
        f" {len(weights.left_out)} tensors are left out ({', '.join(sorted(modules))})"
    )
