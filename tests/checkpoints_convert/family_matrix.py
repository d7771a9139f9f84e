"""Logits and training of the tiny models at all layouts, in processes that Megatron divides anew.

`run(folder)` is one of PROCESSES processes. Those of a layout form groups of its size, which share
the models: layouts of one and two processes are computed by several groups at a time. In `folder`,
`models.json` has the checkpoint of each model and its layouts, `tokens.safetensors` the tokens
[step, sequence of the global batch, position]. For each model and layout there are then
`MODEL-LAYOUT.json` (`losses` and `grad_norms` by step, or `error`) and, without context
parallelism, `MODEL-LAYOUT.safetensors` (`logits` of the first step).
"""

import dataclasses
import datetime
import json
import math
import os
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state
from safetensors.torch import load_file, save_file

from checkpoints_convert.conversion import megatron_logits
from megatron_ext.checkpoint import checkpoint_folder
from megatron_ext.config.architecture import read_architecture
from megatron_ext.config.layout_checks import check_layout
from megatron_ext.config.moe_section import Moe
from megatron_ext.config.recipe import Recipe
from megatron_ext.config.sections import Data, Model, Optimizer, Training
from megatron_ext.hardware import parallel_groups, platforms
from megatron_ext.pretrain import build_model_chunks
from megatron_ext.training import training_state
from megatron_ext.training.optimizer import (
    build_optimizer,
    build_scheduler,
    prepare_grads,
    update,
    wrap_model,
)
from megatron_ext.training.train_step import Batches, TrainStep
from tests.checkpoints_convert.layouts import BOUND, LAYOUTS, PROCESSES, Layout

TIMEOUT_MINUTES = 1.0
"""Of a collective, if another process has failed."""


def run(folder: str) -> int:
    models = json.loads((Path(folder) / "models.json").read_text())
    for layout in LAYOUTS.values():
        names = [name for name, model in models.items() if layout.name in model["layouts"]]
        Group(Path(folder), layout).run(names, models)
    return 0


class Group:
    """The processes of one layout that this process belongs to."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder = folder
        self.layout = layout
        self.tokens = load_file(folder / "tokens.safetensors")["tokens"]
        self.number, self.rank = divmod(int(os.environ["RANK"]), layout.processes)
        self.joined = 0

    def run(self, names: list[str], models: dict[str, Any]) -> None:
        """Compute this group's part of the models; an error concerns one of them only."""
        self.join()
        for name in names[self.number :: PROCESSES // self.layout.processes]:
            start = time.perf_counter()
            try:
                result = self.compute(name, **models[name])
            except Exception:
                result = {"error": traceback.format_exc()}
                self.leave()  # others may wait in a collective
                self.join()
            self.write(name, result | {"seconds": time.perf_counter() - start})
        self.leave()

    def join(self) -> None:
        name = f"store-{self.layout.name}-{self.number}-{self.joined}"
        store = torch.distributed.FileStore(str(self.folder / name), self.layout.processes)
        torch.distributed.init_process_group(
            "gloo",
            store=store,
            rank=self.rank,
            world_size=self.layout.processes,
            timeout=datetime.timedelta(minutes=TIMEOUT_MINUTES),
        )
        parallel_groups.initialize(self.layout.parallel, 1, TIMEOUT_MINUTES)
        self.joined += 1

    def leave(self) -> None:
        parallel_state.destroy_model_parallel()
        torch.distributed.destroy_process_group()

    def write(self, name: str, result: dict[str, Any]) -> None:
        """Write a result: that of the first process, or the error of any."""
        file = self.folder / f"{name}-{self.layout.name}.json"
        if "error" in result:
            file = file.with_suffix(f".error-{self.rank}.json")
        if self.rank == 0 or "error" in result:
            file.write_text(json.dumps(result))

    def compute(
        self, name: str, *, checkpoint: str, micro_batch_size: int, **_: Any
    ) -> dict[str, Any]:
        """Return the losses and gradient norms of a model; write its logits."""
        architecture = read_architecture(checkpoint_folder.newest(checkpoint))
        recipe = self.recipe(checkpoint, micro_batch_size, architecture.is_moe)
        check_layout(recipe, architecture, self.layout.processes)
        model = build_model_chunks(platforms.current_platform(), architecture, recipe)
        training_state.load_weights(model, checkpoint)
        if self.layout.computes_logits:
            logits = megatron_logits._forward(model[0].eval(), self.tokens[0, :, :-1])
            if logits is not None and parallel_state.get_tensor_model_parallel_rank() == 0:
                file = self.folder / f"{name}-{self.layout.name}.safetensors"
                save_file({"logits": logits.contiguous()}, file)
        return self.train(recipe, model)

    def train(self, recipe: Recipe, model: list[Any]) -> dict[str, Any]:
        """Take steps as the trainer does."""
        wrapped = wrap_model(model, recipe)
        optimizer = build_optimizer(wrapped, recipe)
        scheduler = build_scheduler(optimizer, recipe)
        step = TrainStep(platforms.current_platform(), recipe, wrapped)
        batches = self.batches(recipe.training.micro_batch_size)
        replicas = parallel_state.get_data_parallel_world_size()
        sequences = self.tokens.size(1)
        losses = []
        grad_norms = []
        for _ in range(self.layout.steps or len(self.tokens)):
            for chunk in wrapped:
                chunk.train()
                chunk.zero_grad_buffer()
            optimizer.zero_grad()
            micro_batches = sequences // (replicas * recipe.training.micro_batch_size)
            result = step.run(batches, micro_batches, [0.0])
            grad_norm = prepare_grads(optimizer)
            assert math.isfinite(grad_norm)
            scheduler.step(sequences)
            update(optimizer, grad_norm)
            losses.append(result.loss)
            grad_norms.append(grad_norm)
        return {"losses": losses, "grad_norms": grad_norms}

    def batches(self, size: int) -> Batches:
        """Yield this replica's micro-batches of `size` sequences."""
        rank = parallel_state.get_data_parallel_rank()
        replicas = parallel_state.get_data_parallel_world_size()
        for step in self.tokens:
            for micro_batch in step.split(size)[rank::replicas]:
                yield _batch(micro_batch, self.layout.documents)

    def recipe(self, checkpoint: str, micro_batch_size: int, is_moe: bool) -> Recipe:
        steps, sequences, positions = self.tokens.shape
        moe = Moe(moe_aux_loss_coeff=self.layout.aux_loss_coeff) if is_moe else Moe()
        return Recipe(
            output=str(self.folder),
            model=Model(checkpoint=checkpoint),
            data=Data(
                train=["none"], seq_length=positions - 1, reset_attention_mask=self.layout.documents
            ),
            training=Training(
                train_iters=steps,
                micro_batch_size=micro_batch_size,
                global_batch_size=sequences,
                precision="fp32",
                eval_iters=0,
            ),
            optimizer=Optimizer(lr=1e-4, adam_eps=1e-4),
            parallel=dataclasses.replace(self.layout.parallel),
            moe=moe,
        )


def _batch(tokens: torch.Tensor, documents: bool) -> dict[str, torch.Tensor]:
    inputs = tokens[:, :-1].contiguous()
    positions = torch.arange(inputs.size(1))
    if documents:
        positions[BOUND:] -= BOUND
    return {
        "tokens": inputs,
        "labels": tokens[:, 1:].contiguous(),
        "loss_mask": torch.ones(inputs.shape),
        "position_ids": positions.expand_as(inputs).contiguous(),
    }
