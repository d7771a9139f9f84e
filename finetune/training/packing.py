"""Checks that a model keeps packed samples apart.

`transformers` builds the attention mask of packed samples from their positions, but not in all
models (5.24 not in gpt-oss): there a sample would attend to those before it, without a message.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from finetune.data.batch import collate_packed
from finetune.data.sample import Sample
from galen.errors import UsageError

_LAYERS = 2
"""Layers of the check, of which each has the same kind of mask as all others."""
_BOUND = 0.1
"""Mean difference of logits, relative to their standard deviation; rounding stays far below."""


@torch.no_grad()
def check(model: Any) -> None:
    """Compare the logits of a sample alone with those behind another one.

    Raises:
        UsageError: they differ.
    """
    first, second = ([3, 4, 5, 6, 7, 8], [9, 10, 11, 12, 13, 14])
    was_training = model.training
    model.eval()
    with _few_layers(model):
        packed_sv = _logits(model, first, second)[len(first) :]
        alone_sv = _logits(model, second)
    model.train(was_training)
    if (packed_sv - alone_sv).abs().mean() > _BOUND * alone_sv.std():
        raise UsageError(
            f"data.packing: {model.config.model_type} models of this version of transformers"
            " ignore the bounds of packed samples, which would attend to each other; set"
            " data.packing: false"
        )


def _logits(model: Any, *samples: list[int]) -> Tensor:
    """Return the logits of samples in a row, [positions, vocabulary]."""
    made = collate_packed([[Sample.of(sample[:-1], sample[-1:]) for sample in samples]])
    del made["labels"]
    made.pop("logits_to_keep", None)
    inputs = {
        name: value.to(model.device) if isinstance(value, Tensor) else value
        for name, value in made.items()
    }
    logits: Tensor = model(**inputs).logits
    return logits[0, : sum(map(len, samples))].float()


@contextlib.contextmanager
def _few_layers(model: Any) -> Iterator[None]:
    """Let a model have only its first layers inside the block, if it has a list of them."""
    decoder = model.get_decoder()
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, torch.nn.ModuleList):
        yield
        return
    decoder.layers = layers[:_LAYERS]
    try:
        yield
    finally:
        decoder.layers = layers
