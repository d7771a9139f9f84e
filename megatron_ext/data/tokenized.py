"""Indexed datasets, checked against the model first, then read by Megatron Core's GPTDataset."""

import dataclasses
import logging
import os
import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

from galen import manifest
from galen.errors import DataError
from megatron_ext.config.architecture import Architecture
from megatron_ext.config.batch_rampup import BatchSchedule
from megatron_ext.config.recipe import Recipe
from megatron_ext.data.blend import Blend, BlendedSamples
from megatron_ext.data.passes import Passes, ReadOnce
from megatron_ext.data.sft import Conversations, InstructionSamples, role_prefix

_HEADER = struct.Struct("<9sQBQQ")  # magic, version, dtype code, sequences, document boundaries
_NO_EOD = -2  # an id that no data hold; -1 is the core's id of padding
_DTYPES = {4: numpy.int32, 8: numpy.uint16}

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What Megatron's dataset asks of a tokenizer: it needs no text here."""

    vocab_size: int
    eod: int

    @property
    def unique_identifiers(self) -> dict[str, int]:
        """Return what distinguishes this vocabulary from others in the dataset's cache."""
        return dataclasses.asdict(self)


def check(prefixes: list[str], architecture: Architecture, tokenizer: Path) -> Vocabulary:
    """Check that the files fit the model; return their vocabulary.

    They are complete, not empty, and as far as a manifest reports made with the model's tokenizer.
    The vocabulary's end-of-document token is negative where a file has none.

    Args:
        prefixes: paths of the .bin/.idx pairs without the ending.
        architecture: the model that will read them.
        tokenizer: tokenizer.json of the model.

    Raises:
        DataError: something does not fit; says which file and what to do.
    """
    ends = {prefix: _check_one(prefix, architecture, tokenizer) for prefix in prefixes}
    if len(set(ends.values()) - {_NO_EOD}) > 1:
        raise DataError(
            f"the data have different end-of-document tokens: {ends}; tokenize all with one"
            " --eod-token"
        )
    return Vocabulary(vocab_size=architecture.vocab_size, eod=min(ends.values()))


def read_prefixes(recipe: Recipe) -> list[str]:
    """Return the prefixes of all pairs of files that a run reads, those of roles included."""
    prefixes = recipe.data.prefixes
    return (
        prefixes + [role_prefix(prefix) for prefix in prefixes]
        if recipe.data.instruction
        else prefixes
    )


def token_count(prefix: str) -> int:
    """Return the number of tokens that the index of a pair of files speaks of."""
    index = Path(f"{prefix}.idx")
    return int(
        numpy.fromfile(index, numpy.int32, _header(index)[3], offset=_HEADER.size).sum(
            dtype=numpy.int64
        )
    )


def _header(index: Path) -> tuple[bytes, int, int, int, int]:
    """Return what an index begins with; zeros where it is too short."""
    with index.open("rb") as file:
        head = file.read(_HEADER.size)
    return _HEADER.unpack(head) if len(head) == _HEADER.size else (b"", 0, 0, 0, 0)


def _check_one(prefix: str, architecture: Architecture, tokenizer: Path) -> int:
    """Check a pair of files; return its end-of-document token, `_NO_EOD` if it is unknown."""
    index, binary = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
    for path in (index, binary):
        if not path.is_file():
            raise DataError(f"{path} is missing; {_nearest(prefix, path)}")
    code, sequences, boundaries = _check_header(index)
    itemsize = numpy.dtype(_DTYPES[code]).itemsize
    reads = os.environ.get("LOCAL_RANK", "0") == "0"  # the complete index: one process a machine
    if reads:
        _check_size(prefix, index, binary, itemsize)
    described = _manifest_of(prefix)
    if described.is_file():
        made = manifest.read(described, "preprocess")
        if reads:
            _check_index(index, described, made)
        _check_tokenizer(made["tokenizer"], described, architecture, tokenizer)
        return made["tokenizer"]["eod"]["id"] if made["config"]["append_eod"] else _NO_EOD
    if reads:
        _check_structure(index, sequences, boundaries, itemsize)
    return _NO_EOD


def _check_header(index: Path) -> tuple[int, int, int]:
    """Check how an index begins; return the code of its type, its sequences and boundaries."""
    magic, version, code, sequences, boundaries = _header(index)
    if magic != b"MMIDIDX\0\0" or version != 1 or code not in _DTYPES:
        raise DataError(f"{index} is not a Megatron index of 16 or 32 bit ids")
    if index.stat().st_size != _HEADER.size + 12 * sequences + 8 * boundaries:
        raise DataError(f"{index} is truncated or altered; tokenize again")
    return code, sequences, boundaries


def _check_size(prefix: str, index: Path, binary: Path, itemsize: int) -> None:
    """Check that the tokens of the index are those of the file, and that there are some."""
    tokens = token_count(prefix)
    if tokens == 0:
        raise DataError(f"{binary} holds no tokens: the corpus that it was made from is empty")
    if binary.stat().st_size != tokens * itemsize:
        raise DataError(
            f"{binary} has {binary.stat().st_size} bytes, but {index} has {tokens} tokens;"
            " tokenize again"
        )


def check_ids(prefixes: list[str], architecture: Architecture) -> None:
    """Check that files without a manifest hold no id that the model lacks (collective).

    Each process reads its share of all tokens.

    Raises:
        DataError: one does.
    """
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    for prefix in prefixes:
        if _manifest_of(prefix).is_file():
            continue
        binary = Path(f"{prefix}.bin")
        ids = numpy.memmap(binary, _DTYPES[_header(Path(f"{prefix}.idx"))[2]], "r")
        found: list[Any] = [None] * ranks
        torch.distributed.all_gather_object(
            found,
            int(ids[len(ids) * rank // ranks : len(ids) * (rank + 1) // ranks].max(initial=0)),
        )
        if max(found) >= architecture.vocab_size:
            raise DataError(
                f"{binary} holds the id {max(found)}, the model has {architecture.vocab_size}"
                " embedding rows: another tokenizer made it"
            )


def _manifest_of(prefix: str) -> Path:
    return Path(prefix.removesuffix("_document").rpartition("_")[0] + f"_{manifest.NAME}")


def _nearest(prefix: str, missing: Path) -> str:
    """Return what to do about a missing file.

    Most often the prefix is just misspelled.
    """
    stem = Path(prefix.removesuffix(".bin").removesuffix(".idx")).name
    near = [str(path.with_suffix("")) for path in sorted(missing.parent.glob(f"{stem}*.idx"))]
    return (
        f"did you mean {' or '.join(near[:3])}?"
        if near and prefix not in near
        else "make it with data_prep/preprocess.py"
    )


def _check_index(index: Path, where: Path, made: dict[str, Any]) -> None:
    """Check that an index is the one that was written."""
    for record in made["outputs"]:
        if Path(record["path"]).name == index.name and manifest.sha256(index) != record["sha256"]:
            raise DataError(f"{index} was altered since {where} was written; tokenize again")


def _check_structure(index: Path, sequences: int, boundaries: int, itemsize: int) -> None:
    """Check that an index's sequences are contiguous and that its documents cover them."""
    with index.open("rb") as file:
        file.seek(_HEADER.size)
        lengths = numpy.fromfile(file, numpy.int32, sequences).astype(numpy.int64)
        pointers = numpy.fromfile(file, numpy.int64, sequences)
        documents = numpy.fromfile(file, numpy.int64, boundaries)
    follow = pointers[0] == 0 and bool((pointers[1:] == lengths[:-1].cumsum() * itemsize).all())
    cover = (
        documents[0] == 0
        and documents[-1] == sequences
        and bool((numpy.diff(documents) >= 0).all())
    )
    if lengths.min() < 0 or not follow or not cover:
        raise DataError(
            f"{index} was altered: its sequences or documents do not follow each other; tokenize"
            " again"
        )


def _check_tokenizer(
    made_with: dict[str, Any], where: Path, architecture: Architecture, tokenizer: Path
) -> None:
    if made_with["vocab_size"] > architecture.vocab_size:
        raise DataError(
            f"{where}: tokenized with {made_with['path']}, which has {made_with['vocab_size']} ids;"
            f" the model has {architecture.vocab_size} embedding rows"
        )
    if tokenizer.is_file() and manifest.sha256(tokenizer) != made_with["sha256"]:
        raise DataError(
            f"{where}: tokenized with {made_with['path']}, which differs from the model's own"
            f" {tokenizer}; tokenize again with that one"
        )


@dataclasses.dataclass(frozen=True)
class Datasets:
    """What a run reads."""

    train: Any
    """Sample n of the run is train[n]."""
    validation: dict[str, ReadOnce]
    """A dataset for each source that has one; without sources the only one is "validation"."""
    weights: dict[str, float]
    """How much each validation counts in the loss of all."""
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
    recipe: Recipe,
    vocabulary: Vocabulary,
    cache: Path,
    tokenizer: Path,
    fingerprints: dict[str, str],
) -> Datasets:
    """Return the datasets of a run (collective: rank 0 writes the index cache, the others read it).

    Args:
        recipe: the run's.
        vocabulary: what `check` returned.
        cache: folder of the index cache.
        tokenizer: tokenizer.json of the model.
        fingerprints: by prefix, what distinguishes the files from others that were at the same path
            (`data_identity`).

    Raises:
        DataError: a file has too few tokens for one prediction.
    """
    data, training = recipe.data, recipe.training
    _remove_unreadable(cache)
    count = samples_needed(recipe)
    files = (
        _Conversations(recipe, tokenizer)
        if data.instruction
        else _Documents(recipe, vocabulary, cache, fingerprints)
    )
    if data.sources:
        blend = Blend(_phases(recipe, count))
        sources = {
            name: _trained_on(files, data.sources[name].train, blend.counts[name])
            for name in blend.names
            if blend.counts[name]
        }
        train: Any = BlendedSamples(blend, sources)
        read = {
            f"source {name}": (data.sources[name].train, dataset)
            for name, dataset in sources.items()
        }
    else:
        train = _trained_on(files, data.train, count)
        read = {"the training data": (data.train, train)}
    validated = {
        name: source.validation for name, source in data.sources.items() if source.validation
    } or {"validation": data.validation}
    wanted = training.eval_iters * training.global_batch_size
    validation = {
        name: ReadOnce([files.once(prefix) for prefix in prefixes], wanted, training.seed)
        for name, prefixes in (validated.items() if wanted else ())
    }
    weights = {name: data.sources[name].weight if data.sources else 1.0 for name in validation}
    epochs = [
        _epoch_count(recipe, name, prefixes, dataset) for name, (prefixes, dataset) in read.items()
    ]
    for name, dataset in validation.items():
        message = f"{name}: {len(dataset):,} of {dataset.available:,} sequences, each read once"
        epochs.append(EpochCount(message, exceeds_limit=False))
    return Datasets(train=train, validation=validation, weights=weights, epochs=epochs)


def _remove_unreadable(cache: Path) -> None:
    """Remove files that are no arrays of numbers from the index cache (collective).

    The core would unpickle them; it makes missing ones again.
    """
    if torch.distributed.get_rank() == 0:
        for path in sorted(cache.rglob("*.npy")):
            if not _is_array(path):
                path.unlink()
    torch.distributed.barrier()


def _is_array(path: Path) -> bool:
    """Say whether a file is an array of numbers, by its header."""
    with path.open("rb") as file:
        if file.read(6) != numpy.lib.format.MAGIC_PREFIX:
            return False
    try:
        numpy.lib.format.open_memmap(path, mode="r")
    except ValueError:
        return False
    return True


def _epoch_count(recipe: Recipe, name: str, prefixes: list[str], dataset: Any) -> EpochCount:
    """Return how often the run reads some files."""
    data = recipe.data
    tokens = sum(token_count(prefix) for prefix in prefixes)
    # not by tokens: a sequence may contain padding
    epochs = len(dataset) / dataset.per_pass
    message = (
        f"{name}: {len(dataset):,} sequences of {data.seq_length:,} tokens are read, where"
        f" {dataset.per_pass:,} hold all {tokens:,} tokens: {epochs:,.2f} epochs"
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
    spare = (
        recipe.resilience.max_skipped_steps
        if recipe.resilience.loss_spike_threshold is not None
        else 0
    )
    return (
        BatchSchedule(recipe.training).samples_after(recipe.training.train_iters)
        + spare * recipe.training.global_batch_size
    )


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
        (end - start, part) for start, end, part in zip(bounds, bounds[1:], weights, strict=False)
    ]


def _trained_on(files: "_Documents | _Conversations", prefixes: list[str], samples: int) -> Any:
    """Return a dataset of `samples` samples of one file or of several, which count by their tokens.

    Megatron's own blend without weights ends after one pass over the files.
    """
    if len(prefixes) == 1:
        return files.repeated(prefixes[0], samples)
    blend = Blend([(samples, {prefix: float(token_count(prefix)) for prefix in prefixes})])
    return BlendedSamples(
        blend,
        {prefix: files.repeated(prefix, count) for prefix, count in blend.counts.items() if count},
    )


class _Documents:
    """Sequences of documents, by Megatron Core's GPTDataset (collective)."""

    def __init__(
        self, recipe: Recipe, vocabulary: Vocabulary, cache: Path, fingerprints: dict[str, str]
    ) -> None:
        self._seed, self._cache, self._fingerprints = recipe.training.seed, cache, fingerprints
        self._config = partial(
            GPTDatasetConfig,
            random_seed=recipe.training.seed,
            sequence_length=recipe.data.seq_length,
            tokenizer=vocabulary,  # type: ignore[arg-type]
            # by them `batches.pack_documents` knows where documents begin
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
        # the core knows an index by the path of its files alone
        cache = self._cache / self._fingerprints[prefix][:16]
        config = self._config(
            blend_per_split=[None, ([prefix], None), None], path_to_cache=str(cache)
        )
        dataset = BlendedMegatronDatasetBuilder(
            GPTDataset, [0, None, 0], lambda: True, config
        ).build()[1]
        if dataset is None or not len(dataset):
            raise DataError(f"{prefix}.bin has too few tokens: a prediction needs two")
        # what the core keeps for all sequences is the mask of the first that it was asked for,
        # padding included
        dataset.masks_and_position_ids_are_cacheable = False
        return dataset

    def repeated(self, prefix: str, samples: int) -> Passes:
        """Return so many sequences of a file."""
        return Passes(self.once(prefix), samples, self._seed)


class _Conversations:
    """Sequences of conversations."""

    def __init__(self, recipe: Recipe, tokenizer: Path) -> None:
        self._data, self._seed, self._tokenizer = recipe.data, recipe.training.seed, tokenizer

    def once(self, prefix: str) -> InstructionSamples:
        """Return a file's conversations, each once."""
        return self._samples(prefix, None)

    def repeated(self, prefix: str, samples: int) -> InstructionSamples:
        """Return so many sequences of a file, reshuffled for each pass."""
        return self._samples(prefix, samples)

    def _samples(self, prefix: str, samples: int | None) -> InstructionSamples:
        length, packed = self._data.seq_length, self._data.reset_attention_mask
        return InstructionSamples(
            Conversations(prefix, self._tokenizer, length), samples, length, packed, self._seed
        )
