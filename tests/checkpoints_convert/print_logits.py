"""Writes the Megatron logits of several checkpoints, one process for all. Usage: TOKENS OUT CHECKPOINT…"""

import sys

from safetensors.torch import load_file, save_file

from checkpoints_convert.megatron_logits import compute
from megatron_ext import architecture, checkpoint_folder, checkpointing, platforms  # noqa: F401

if __name__ == "__main__":
    tokens, target, *checkpoints = sys.argv[1:]
    platforms.current().init_distributed()
    logits = {}
    for checkpoint in checkpoints:
        folder = checkpoint_folder.newest(checkpoint)
        logits[checkpoint] = compute(folder, architecture.read(folder), load_file(tokens)["tokens"], 1, 1, "fp32").contiguous()
    save_file(logits, target)
