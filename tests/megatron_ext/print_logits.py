"""Writes the logits and per-token losses of a Megatron checkpoint for given token ids. Usage: CHECKPOINT IN.pt OUT.pt"""

import sys

import torch

from megatron_ext import architecture, checkpoint_folder, checkpointing, layout, platforms
from megatron_ext.model import build_model
from megatron_ext.recipe import Parallel

if __name__ == "__main__":
    checkpoint, source, target = sys.argv[1:]
    platform = platforms.current()
    platform.init_distributed()
    layout.initialize(Parallel(), seed=1)
    shape = architecture.read(checkpoint_folder.newest(checkpoint))
    model = build_model(platform, shape, 128).eval()
    checkpointing.load_weights(model, checkpoint)
    tokens = torch.load(source)
    positions = torch.arange(tokens.size(1)).expand_as(tokens)
    with torch.no_grad():
        logits = model(tokens, positions, None)
        losses = model(tokens, positions, None, labels=tokens.roll(-1, 1))
    torch.save({"logits": logits, "losses": losses}, target)
