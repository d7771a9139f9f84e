"""Datasets of a run: token files, read by Megatron Core's GPTDataset and blended over the steps."""

import dataclasses
import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

from galen.errors import DataError
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.batch_rampup import BatchSchedule
from megatron_ext.config.recipe import Recipe
from megatron_ext.data import best_fit
from megatron_ext.data.best_fit import BestFitDocuments
from megatron_ext.data.blend import Blend, BlendedSamples
from megatron_ext.data.padded_documents import PaddedDocuments, PaddedDocumentsConfig
from megatron_ext.data.passes import Passes, ReadOnce
from megatron_ext.data.sft import Conversations, InstructionSamples
from megatron_ext.data.token_files import (
    Vocabulary,
    manifest_path,
    token_count,
    token_dtype,
    tokenizer_path,
)

logger = logging.getLogger(__name__)


def check_ids(prefixes: list[str], architecture: Architecture) -> None:
    """Check that files without a manifest hold no id beyond the model's vocabulary (collective).

    Each process reads a contiguous range of all tokens.

    Raises:
        DataError: a file holds such an id.
    """
    rank = torch.distributed.get_rank()
    ranks = torch.distributed.get_world_size()
    for prefix in prefixes:
        if manifest_path(prefix).is_file():
            continue
        binary = Path(f"{prefix}.bin")
        ids = numpy.memmap(binary, token_dtype(prefix), "r")
        own = ids[len(ids) * rank // ranks : len(ids) * (rank + 1) // ranks]
        largest_ids: list[Any] = [None] * ranks
        torch.distributed.all_gather_object(largest_ids, int(own.max(initial=0)))
        if max(largest_ids) >= architecture.vocab_size:
            raise DataError(
                f"{binary} holds the id {max(largest_ids)}, the model has"
                f" {architecture.vocab_size} embedding rows: another tokenizer made it"
            )


@dataclasses.dataclass(frozen=True)
class Datasets:
    """Datasets of a run."""

    train: Any
    """Sample n of the run is train[n]."""
    validation: dict[str, ReadOnce]
    """A dataset for each source that has one; without sources the only one is "validation"."""
    weights: dict[str, float]
    """Weight of each validation dataset in the mean loss."""
    epochs: list["EpochCount"]
    """How often the run reads each source."""

    def log_epochs(self) -> None:
        """Log how often the run reads each source; warn above the recipe's limit."""
        for count in self.epochs:
            logger.log(logging.WARNING if count.exceeds_limit else logging.INFO, count.message)


@dataclasses.dataclass(frozen=True)
class EpochCount:
    """How often a run reads a source."""

    message: str
    exceeds_limit: bool


def build(
    recipe: Recipe, vocabulary: Vocabulary, cache: Path, fingerprints: dict[str, str]
) -> Datasets:
    """Return the datasets of a run (collective: rank 0 writes the index cache, the others read it).

    Args:
        recipe: the run's.
        vocabulary: result of `token_files.check_run`.
        cache: folder of the index cache.
        fingerprints: hash of each pair of files by prefix (`data_identity`); other files at the
            same path have another index in the cache.

    Raises:
        DataError: a file has too few tokens for one prediction.
    """
    _remove_unreadable(cache)
    reader: _Documents | _Conversations
    if recipe.data.instruction:
        reader = _Conversations(recipe)
    else:
        reader = _Documents(recipe, vocabulary, cache, fingerprints)
    train, epochs = _training_data(recipe, reader)
    validation = _validation_data(recipe, reader)
    for name, dataset in validation.items():
        message = f"{name}: {len(dataset):,} of {dataset.available:,} sequences, each read once"
        epochs.append(EpochCount(message, exceeds_limit=False))
    sources = recipe.data.sources
    weights = {name: sources[name].weight if sources else 1.0 for name in validation}
    return Datasets(train=train, validation=validation, weights=weights, epochs=epochs)


def _training_data(
    recipe: Recipe, reader: "_Documents | _Conversations"
) -> tuple[Any, list[EpochCount]]:
    """Return the training dataset, and how often it reads each source."""
    data = recipe.data
    samples = samples_needed(recipe)
    if not data.sources:
        train = _token_weighted(reader, data.train, samples)
        return train, [_epoch_count(recipe, "training data", train)]
    blend = Blend(_phases(recipe, samples))
    sources = {
        name: _token_weighted(reader, data.sources[name].train, count)
        for name, count in blend.counts.items()
        if count
    }
    epochs = [_epoch_count(recipe, f"source {name}", dataset) for name, dataset in sources.items()]
    return BlendedSamples(blend, sources), epochs


def _validation_data(recipe: Recipe, reader: "_Documents | _Conversations") -> dict[str, ReadOnce]:
    """Return the validation datasets by source; none if validation is disabled."""
    data = recipe.data
    samples = recipe.training.eval_iters * recipe.training.global_batch_size
    if not samples:
        return {}
    prefixes = {name: source.validation for name, source in data.sources.items()}
    if not any(prefixes.values()):
        prefixes = {"validation": data.validation}
    datasets = {}
    for name, source_prefixes in prefixes.items():
        if source_prefixes:
            files = [reader.once(prefix) for prefix in source_prefixes]
            datasets[name] = ReadOnce(files, samples, recipe.training.seed)
    return datasets


def _remove_unreadable(cache: Path) -> None:
    """Remove files that are not arrays of numbers from the index cache (collective).

    Megatron Core would unpickle them; it rebuilds missing ones.
    """
    if torch.distributed.get_rank() == 0:
        for path in sorted(cache.rglob("*.npy")):
            if not _is_array(path):
                path.unlink()
    torch.distributed.barrier()


def _is_array(path: Path) -> bool:
    """Return whether a file is an array of numbers, by its header."""
    with path.open("rb") as file:
        if file.read(6) != numpy.lib.format.MAGIC_PREFIX:
            return False
    try:
        numpy.lib.format.open_memmap(path, mode="r")
    except ValueError:
        return False
    return True


def _epoch_count(recipe: Recipe, name: str, dataset: Any) -> EpochCount:
    """Return how often the run reads some files."""
    data = recipe.data
    samples = f"{len(dataset):,} of {dataset.per_pass:,}"
    per_epoch = ""
    if len(dataset) > dataset.per_pass:
        samples = f"{len(dataset):,}"
        per_epoch = f", {dataset.per_pass:,} per epoch"
    # not by tokens: a sequence may contain padding
    epochs = len(dataset) / dataset.per_pass
    message = (
        f"{name}: reads {samples} sequences of {data.seq_length:,} tokens{per_epoch}"
        f" ({epochs:,.2f} epochs)"
    )
    if epochs <= data.warn_above_epochs:
        return EpochCount(message, exceeds_limit=False)
    message += (
        f", more than data.warn_above_epochs = {data.warn_above_epochs:g}; the model will memorize"
        " these texts: use more data or fewer steps (training.train_iters), and check the"
        " validation loss"
    )
    return EpochCount(message, exceeds_limit=True)


def samples_needed(recipe: Recipe) -> int:
    """Return the samples that a run may read.

    They are those of its steps, and those that it may skip after a loss spike.
    """
    training = recipe.training
    samples = BatchSchedule(training).samples_after(training.train_iters)
    if recipe.resilience.loss_spike_threshold is not None:
        samples += recipe.resilience.max_skipped_steps * training.global_batch_size
    return samples


def _phases(recipe: Recipe, count: int) -> list[tuple[int, dict[str, float]]]:
    """Return the number of samples and the weights of each phase.

    Skipped samples count towards the phase that the run is in.
    """
    schedule = BatchSchedule(recipe.training)
    weights = [
        {name: source.weight for name, source in recipe.data.sources.items() if source.weight},
        *(phase.weights for phase in recipe.data.phases),
    ]
    bounds = [0, *(schedule.samples_after(phase.start_step) for phase in recipe.data.phases), count]
    return [
        (end - start, phase_weights)
        for start, end, phase_weights in zip(bounds, bounds[1:], weights, strict=False)
    ]


def _token_weighted(
    reader: "_Documents | _Conversations", prefixes: list[str], samples: int
) -> Any:
    """Return a dataset of `samples` samples of one file, or of several weighted by their tokens.

    Megatron's own blend without weights ends after one pass over the files.
    """
    if len(prefixes) == 1:
        return reader.repeated(prefixes[0], samples)
    blend = Blend([(samples, {prefix: float(token_count(prefix)) for prefix in prefixes})])
    datasets = {
        prefix: reader.repeated(prefix, count) for prefix, count in blend.counts.items() if count
    }
    return BlendedSamples(blend, datasets)


class _Documents:
    """Sequences of documents, by Megatron Core's GPTDataset (collective)."""

    def __init__(
        self, recipe: Recipe, vocabulary: Vocabulary, cache: Path, fingerprints: dict[str, str]
    ) -> None:
        self._seed = recipe.training.seed
        self._cache = cache
        self._fingerprints = fingerprints
        self._dataset_class: type[GPTDataset] = GPTDataset
        self._multiple = recipe.document_multiple
        self._data = recipe.data
        self._masked = vocabulary.eod if recipe.data.eod_mask_loss else None
        config_class: Any = GPTDatasetConfig
        if self._multiple > 1:
            self._dataset_class = PaddedDocuments
            config_class = partial(PaddedDocumentsConfig, document_multiple=self._multiple)
        self._config = partial(
            config_class,
            random_seed=recipe.training.seed,
            sequence_length=recipe.data.seq_length,
            tokenizer=vocabulary,  # type: ignore[arg-type]
            # `batches.pack_documents` finds the documents' starts by them
            reset_position_ids=recipe.data.reset_attention_mask,
            reset_attention_mask=False,  # it keeps them apart without a mask in memory
            eod_mask_loss=recipe.data.eod_mask_loss,
            create_attention_mask=False,  # causal masks are built into the attention kernels
            drop_last_partial_validation_sequence=False,
        )

    def once(self, prefix: str) -> Any:
        """Return a file's documents, each once, shuffled.

        The last sequence is filled up with padding.

        The core does that for validation alone. Its epochs of training are one shuffle of all
        repetitions, in which a document may follow itself.
        """
        # the core identifies an index by the path of its files alone
        name = self._fingerprints[prefix][:16]
        if self._multiple > 1:
            name += f"_padded_to_{self._multiple}"
        cache = self._cache / name
        if self._data.packing_strategy == "bfd":
            length = self._data.seq_length
            rows = best_fit.cached_rows(prefix, cache, length, self._multiple, self._seed)
            packed = BestFitDocuments(prefix, rows, length, self._masked)
            if not len(packed):
                raise DataError(f"{prefix}.bin has no tokens")
            return packed
        config = self._config(
            blend_per_split=[None, ([prefix], None), None], path_to_cache=str(cache)
        )
        dataset = BlendedMegatronDatasetBuilder(
            self._dataset_class, [0, None, 0], lambda: True, config
        ).build()[1]
        if dataset is None or not len(dataset):
            raise DataError(f"{prefix}.bin has too few tokens: a prediction needs two")
        # the core would cache the mask of the first sequence read, padding included, for all
        dataset.masks_and_position_ids_are_cacheable = False
        return dataset

    def repeated(self, prefix: str, samples: int) -> Passes:
        """Return so many sequences of a file."""
        return Passes(self.once(prefix), samples, self._seed)


class _Conversations:
    """Sequences of conversations."""

    def __init__(self, recipe: Recipe) -> None:
        self._data = recipe.data
        self._multiple = recipe.document_multiple
        self._seed = recipe.training.seed
        self._tokenizer = tokenizer_path(recipe)

    def once(self, prefix: str) -> InstructionSamples:
        """Return a file's conversations, each once."""
        return self._samples(prefix, None)

    def repeated(self, prefix: str, samples: int) -> InstructionSamples:
        """Return so many sequences of a file, reshuffled for each pass."""
        return self._samples(prefix, samples)

    def _samples(self, prefix: str, samples: int | None) -> InstructionSamples:
        length = self._data.seq_length
        return InstructionSamples(
            Conversations(prefix, self._tokenizer, length),
            samples,
            length,
            packed=self._data.reset_attention_mask,
            multiple=self._multiple,
            seed=self._seed,
        )
