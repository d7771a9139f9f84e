"""Writes the logits and per-token losses of Megatron checkpoints for given token ids."""

import torch

from megatron_ext.checkpoint import checkpoint_folder
from megatron_ext.config import architecture
from megatron_ext.config.sections import Parallel
from megatron_ext.hardware import parallel_groups, platforms
from megatron_ext.model.build import build_model
from megatron_ext.training import training_state


def compute(platform, checkpoint, tokens):
    shape = architecture.read_architecture(checkpoint_folder.newest(checkpoint))
    model = build_model(platform, shape, 128).eval()
    training_state.load_weights(model, checkpoint)
    positions = torch.arange(tokens.size(1)).expand_as(tokens)
    with torch.no_grad():
        logits = model(tokens, positions, None)
        losses = model(tokens, positions, None, labels=tokens.roll(-1, 1))
    return {"logits": logits, "losses": losses}


def main(argv):
    """Run with the arguments IN.pt (CHECKPOINT OUT.pt)…"""
    source, *pairs = argv
    platform = platforms.current_platform()
    platform.init_distributed()
    parallel_groups.initialize(Parallel(), seed=1)
    for checkpoint, target in zip(pairs[::2], pairs[1::2], strict=True):
        torch.save(compute(platform, checkpoint, torch.load(source)), target)
