"""Loads a checkpoint into Megatron's model and saves it with Megatron's own writer. Usage: CHECKPOINT FOLDER"""

import sys
from pathlib import Path

from megatron_ext import architecture, checkpoint_folder, checkpointing, layout, platforms
from megatron_ext.dist_checkpoint import ShardedWriter
from megatron_ext.model import build_model
from megatron_ext.recipe import Parallel

if __name__ == "__main__":
    checkpoint, target = sys.argv[1:]
    platform = platforms.current()
    platform.init_distributed()
    layout.initialize(Parallel(), seed=1)
    model = build_model(platform, architecture.read(checkpoint_folder.newest(checkpoint)), 128)
    checkpointing.load_weights(model, checkpoint)
    Path(target).mkdir()
    ShardedWriter().save(checkpointing._without_extra_state(model.sharded_state_dict(metadata=dict(checkpointing._METADATA))), target)
