"""A protocol under one model: its own generation settings in place of those left to it."""

import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluation.backends.sampling import model_defaults
from evaluation.chat_models import conversation
from evaluation.protocols.protocol import Protocol
from galen.errors import UsageError

logger = logging.getLogger(__name__)

_SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty")


def resolve(protocol: Protocol, folder: Path) -> Protocol:
    """Return a protocol with the model's own settings where it leaves them to the model.

    Args:
        protocol: with None for such settings.
        folder: of the model, with its generation_config.json, if any.

    Raises:
        DataError: the model's settings are damaged.
        UsageError: several answers would be the same.
    """
    if protocol.scoring != "generation":
        return protocol
    own = model_defaults(folder)
    neutral = Protocol(protocol.template)
    values: dict[str, Any] = {}
    for key in _SAMPLING:
        if getattr(protocol, key) is None:
            value = getattr(own, key)
            values[key] = getattr(neutral, key) if value is None else value
    if protocol.model_max_new_tokens and own.max_new_tokens is not None:
        values["max_new_tokens"] = own.max_new_tokens
    resolved = replace(protocol, **values)
    if resolved.num_samples > 1 and not resolved.temperature:
        raise UsageError(
            f"--num-samples: {folder.name} decodes greedily, so that all samples would be the same;"
            " give --temperature"
        )
    unused = [
        key
        for key in ("top_p", "top_k")
        if getattr(protocol, key) not in (None, getattr(neutral, key))
    ]
    if unused and not resolved.temperature:
        logger.warning(f"{' and '.join(unused)} have no effect: decoding is greedy")
    return resolved


def sampling(protocol: Protocol) -> dict[str, Any]:
    """Return the generation settings in use, for the results."""
    return {key: getattr(protocol, key) for key in (*_SAMPLING, "max_new_tokens")}


def identity(declared: Protocol, resolved: Protocol) -> dict[str, Any]:
    """Return what belongs to a run's identity beside the protocol's declared settings."""
    entries: dict[str, Any] = {}
    if resolved != declared:
        entries["sampling"] = sampling(resolved)
    if declared.chat_template not in (conversation.NO_TEMPLATE, conversation.OWN_TEMPLATE):
        template = conversation.read_template(declared.chat_template)
        entries["chat_template_sha256"] = hashlib.sha256(template.encode()).hexdigest()
    return entries
