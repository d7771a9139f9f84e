"""Megatron's own model for tests, in processes that have imported it already.

They are forked by tests/megatron_ext/fork_server.py.

verify …                     what `python -m checkpoints_convert.conversion.megatron_logits …` does
matrix FOLDER                train the tiny models at all layouts (family_matrix.py)
pretrain RECIPE…             train by each recipe in this process, one after the other
logits TOKENS OUT CHECKPOINT…    write the logits of several checkpoints
save CHECKPOINT FOLDER       load a checkpoint and save it with Megatron's own writer
"""

import os
import traceback
from pathlib import Path

from safetensors.torch import load_file, save_file

from checkpoints_convert.conversion import megatron_logits
from megatron_ext import pretrain
from megatron_ext.checkpoint import checkpoint_folder
from megatron_ext.checkpoint.sharded import ShardedWriter
from megatron_ext.config import architecture
from megatron_ext.config.sections import Parallel
from megatron_ext.hardware import parallel_groups, platforms
from megatron_ext.model.build import build_model
from megatron_ext.training import training_state
from tests.checkpoints_convert import family_matrix


def main(argv):
    action, *arguments = argv
    if action == "verify":
        return megatron_logits.main(arguments)
    platforms.current_platform()
    if action == "matrix":
        return family_matrix.run(*arguments)
    if action == "pretrain":
        return train(arguments)
    platforms.current_platform().init_distributed()
    parallel_groups.initialize(Parallel(), seed=1)
    return {"logits": write_logits, "save": save}[action](*arguments)


def train(recipes):
    del os.environ["RANK"]  # each run is of one process, as in a notebook
    for recipe in recipes:
        try:
            pretrain.main([recipe])
        except Exception:
            Path(recipe).with_suffix(".error").write_text(traceback.format_exc())
    return 0


def write_logits(tokens, target, *checkpoints):
    ids = load_file(tokens)["tokens"]
    logits = {}
    for checkpoint in checkpoints:
        folder = checkpoint_folder.newest(checkpoint)
        model = architecture.read_architecture(folder)
        computed = megatron_logits.compute(folder, model, ids, 1, 1, 1, "fp32")
        logits[checkpoint] = computed.contiguous()
    save_file(logits, target)


def save(checkpoint, target):
    model = build_model(
        platforms.current_platform(),
        architecture.read_architecture(checkpoint_folder.newest(checkpoint)),
        128,
    )
    training_state.load_weights(model, checkpoint)
    Path(target).mkdir()
    ShardedWriter().save(
        training_state._without_extra_state(
            model.sharded_state_dict(metadata=dict(training_state._METADATA))
        ),
        target,
    )
