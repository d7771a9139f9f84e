"""A file-free training run for measurements: random weights, made-up text, `megatron_ext`."""

import dataclasses
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state

from megatron_ext.config.architecture import Architecture
from megatron_ext.config.layout_checks import check_layout
from megatron_ext.config.recipe import Recipe
from megatron_ext.hardware import parallel_groups, platforms
from megatron_ext.pretrain import build_model_chunks
from megatron_ext.training import optimizer
from megatron_ext.training.train_step import Batches, TrainStep

# sequences count up, by 1 to 8 at a time: a model can learn that, and its loss falls from the start
SPEEDS = 8


@dataclasses.dataclass(frozen=True)
class Step:
    """What one step gave."""

    loss: float
    grad_norm: float
    seconds: float


class SyntheticRun:
    """A run over all processes that torchrun started, or over one.

    Args:
        recipe: of the run; its data and checkpoint are not read.
        architecture: the model.
        weights: a file of initial weights; the first run writes it, the others load it.
    """

    def __init__(
        self,
        recipe: Recipe,
        architecture: Architecture,
        weights: Path | None = None,
    ) -> None:
        self.recipe = recipe
        self.architecture = architecture
        self.platform = platforms.current_platform()
        self.platform.check(self.recipe)
        torch.use_deterministic_algorithms(recipe.training.deterministic_mode)
        self.platform.init_distributed()
        check_layout(self.recipe, architecture, torch.distributed.get_world_size())
        parallel_groups.initialize(self.recipe.parallel, self.recipe.training.seed)
        self.platform.start_tp_overlap(self.recipe, architecture.hidden_size)
        chunks = build_model_chunks(self.platform, architecture, self.recipe)
        if weights is not None:
            _load_or_save_weights(chunks[0], weights)
        self.model = optimizer.wrap_model(chunks, self.recipe)
        self.optimizer = optimizer.build_optimizer(self.model, self.recipe)
        self.scheduler = optimizer.build_scheduler(self.optimizer, self.recipe)
        self.train_step = TrainStep(self.platform, self.recipe, self.model)
        self._batches = self._make_batches()

    @property
    def tokens_per_step(self) -> int:
        """Tokens in a global batch."""
        return self.recipe.training.global_batch_size * self.recipe.data.seq_length

    def step(self) -> Step:
        """Take an optimizer step (collective)."""
        training = self.recipe.training
        start = time.perf_counter()
        for chunk in self.model:
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        replicas = parallel_state.get_data_parallel_world_size()
        result = self.train_step.run(
            self._batches, training.global_batch_size // (training.micro_batch_size * replicas), []
        )
        self.scheduler.step(training.global_batch_size)
        with self.train_step.timers.phase("optimizer"):
            _, norm, _ = self.optimizer.step()
        torch.cuda.synchronize()
        return Step(result.loss, float(norm), time.perf_counter() - start)

    def _make_batches(self) -> Batches:
        rank = parallel_state.get_data_parallel_rank()
        size = self.recipe.training.micro_batch_size
        for number in itertools.count():
            first = (number * 1000 + rank) * size
            yield self._rows(range(first, first + size))

    def _rows(self, numbers: range) -> dict[str, torch.Tensor]:
        length = self.recipe.data.seq_length
        rows = []
        for number in numbers:
            generator = torch.Generator().manual_seed(number)
            first = int(torch.randint(self.architecture.vocab_size, (1,), generator=generator))
            rows.append(
                (first + torch.arange(length + 1) * (1 + number % SPEEDS))
                % self.architecture.vocab_size
            )
        sequences = torch.stack(rows)
        return {
            "tokens": sequences[:, :-1].contiguous(),
            "labels": sequences[:, 1:].contiguous(),
            "loss_mask": torch.ones(len(rows), length),
            "position_ids": torch.arange(length).repeat(len(rows), 1),
        }


def _load_or_save_weights(model: Any, path: Path) -> None:
    """Fill the weights from a file, or write the file."""
    names = dict(model.named_parameters())
    if not path.exists():
        torch.save({name: weight.detach().float().cpu() for name, weight in names.items()}, path)
        return
    stored = torch.load(path, weights_only=True)
    with torch.no_grad():
        for name, weight in names.items():
            weight.copy_(stored[name])


def steps(run: SyntheticRun, count: int) -> Iterator[Step]:
    """Yield `count` steps."""
    for _ in range(count):
        yield run.step()
