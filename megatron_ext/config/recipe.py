"""The recipe of a pretraining run: its sections, and the checks across several of them.

Names are Megatron-LM's, without the dashes.
"""

import dataclasses
from pathlib import Path

from pydantic.dataclasses import dataclass

from galen import recipe
from galen.errors import OutputConflictError, UsageError
from galen.recipe import STRICT, ResumeMayChange
from megatron_ext.config.checks import (
    check_attention,
    check_batches,
    check_data,
    check_determinism,
    check_documents,
    check_intervals,
    check_parallel,
    check_precision,
    check_profile,
    check_schedule,
    chunks_per_document,
)
from megatron_ext.config.moe_section import Moe
from megatron_ext.config.offload_checks import check_offloading
from megatron_ext.config.run_sections import Profile, Resilience, Wandb
from megatron_ext.config.sections import Data, Model, Optimizer, Parallel, Training


@dataclass(kw_only=True, config=STRICT)
class Recipe:
    """A pretraining run."""

    output: ResumeMayChange[str]
    """Run folder: checkpoints/, log.jsonl, tensorboard/, recipe.yaml, manifest.json."""
    model: Model
    """Where the model comes from."""
    data: Data
    """Training and validation data: either train and validation, or sources."""
    training: Training
    """Steps, batch size, precision, validation and checkpoints."""
    optimizer: Optimizer
    """AdamW and its schedule."""
    parallel: ResumeMayChange[Parallel] = dataclasses.field(default_factory=Parallel)
    """Parallelism."""
    moe: Moe = dataclasses.field(default_factory=Moe)
    """Training of a mixture of experts: losses of the router, and capacity."""
    resilience: Resilience = dataclasses.field(default_factory=Resilience)
    """Preemption, hangs, stragglers, failed steps."""
    profile: ResumeMayChange[Profile | None] = None
    """Profile of some steps; null for none."""
    wandb: ResumeMayChange[Wandb | None] = None
    """Logging to Weights & Biases; null disables it."""

    def __post_init__(self) -> None:
        """Check what concerns several keys."""
        check_data(self.data, self.training)
        check_parallel(self.parallel, self.training)
        check_documents(self.data, self.parallel)
        check_attention(self.training, self.parallel)
        check_determinism(self.training, self.parallel)
        check_precision(self.training, self.optimizer)
        check_offloading(self.training, self.parallel)
        check_batches(self.training)
        check_intervals(self.training)
        check_profile(self.profile, self.training)
        check_schedule(self.optimizer, self.training)

    @property
    def pads_sequences(self) -> bool:
        """Whether sequences contain padding."""
        is_packed = self.data.instruction or self.data.packing_strategy == "bfd"
        return is_packed or self.document_multiple > 1

    @property
    def document_multiple(self) -> int:
        """Tokens of which each document's length in a sequence is a multiple; 1: no padding."""
        if not self.data.reset_attention_mask:
            return 1
        if self.data.pad_documents_to_multiple_of is not None:
            return self.data.pad_documents_to_multiple_of
        return chunks_per_document(self.parallel)


def from_run(path: Path) -> Recipe:
    """Return the recipe in a run folder.

    Raises:
        OutputConflictError: it is no recipe of pretraining, or one of another version.
    """
    try:
        return recipe.load(Recipe, path)
    except UsageError as error:
        reason = str(error).splitlines()[0].partition("; known: ")[0]
        raise OutputConflictError(
            f"{path.parent} is not the folder of a pretraining run of this version of Galen"
            f" ({reason}); resume it with the version that started it, or start a new run from its"
            f" weights with model.checkpoint={path.parent / 'checkpoints'} and another output"
        ) from None
