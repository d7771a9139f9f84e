"""Sequences of documents that are each padded to a multiple of a number of tokens.

Context parallelism divides every document of a packed sequence into equal chunks. The padding is at
a document's end, where causal attention hides it from the tokens before, and has no loss.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy
import torch
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDataset
from torch import Tensor


@dataclasses.dataclass
class PaddedDocumentsConfig(GPTDatasetConfig):
    """The core's configuration of a dataset, and the padding."""

    document_multiple: int = 1
    """Documents are padded to a multiple of this many tokens; the sequence length is one, too."""


def padded_length(length: Any, multiple: int) -> Any:
    """Return a length, or an array of lengths, rounded up to a multiple."""
    return -(-length // multiple) * multiple


def build_sequence(
    parts: Sequence[tuple[Any, int]], length: int, masked: int | None
) -> dict[str, Tensor]:
    """Return `{tokens, labels, loss_mask, position_ids, padding}`, each [sequence].

    Positions count from the beginning of each part; `padding` is true where no part has a token.

    Args:
        parts: ids of each part of a document, with the next one if the document continues, and the
            part's padded size.
        length: tokens of the sequence.
        masked: id without a loss after it; None for none.
    """
    tokens = numpy.zeros(length, numpy.int64)
    labels = numpy.zeros(length, numpy.int64)
    loss_mask = numpy.zeros(length, numpy.float32)
    positions = numpy.arange(length)
    padding = numpy.ones(length, bool)
    end = 0
    for ids, size in parts:
        own = ids[:size]
        start = end
        end = start + size
        tokens[start : start + len(own)] = own
        with_label = slice(start, start + len(ids) - 1)
        labels[with_label] = ids[1:]
        loss_mask[with_label] = 1.0
        positions[start:end] = numpy.arange(size)
        padding[start : start + len(own)] = False
    positions[end:] = numpy.arange(length - end)
    if masked is not None:
        loss_mask[tokens == masked] = 0.0
    return {
        "tokens": torch.from_numpy(tokens),
        "labels": torch.from_numpy(labels),
        "loss_mask": torch.from_numpy(loss_mask),
        "position_ids": torch.from_numpy(positions),
        "padding": torch.from_numpy(padding),
    }


class _PaddedLengths(IndexedDataset):
    """Token files that report the lengths of padded documents; their tokens are unchanged."""

    document_multiple = 1

    @property
    def sequence_lengths(self) -> Any:
        """Return the padded length of each document, int32."""
        return padded_length(super().sequence_lengths, self.document_multiple)


class PaddedDocuments(GPTDataset):
    """Sequences of padded documents; the core shuffles and divides them as it does unpadded ones.

    The core sees documents of the padded lengths. A sequence's length is a multiple of
    `document_multiple`, so that a document divided between sequences is padded in its last one
    only. As in a document alone, its last token has no label.
    """

    config: PaddedDocumentsConfig

    @staticmethod
    def build_low_level_dataset(dataset_path: str, config: GPTDatasetConfig) -> IndexedDataset:
        """Return the token files of a prefix."""
        assert isinstance(config, PaddedDocumentsConfig)
        dataset = _PaddedLengths(dataset_path, mmap=config.mmap_bin_files)
        dataset.document_multiple = config.document_multiple
        return dataset

    @staticmethod
    def numel_low_level_dataset(low_level_dataset: IndexedDataset) -> int:
        """Return the number of documents, without computing their padded lengths."""
        return len(low_level_dataset.index)

    def __getitem__(self, sample: int | None) -> dict[str, Tensor]:
        """Return `{tokens, labels, loss_mask, position_ids, padding}`, each [sequence].

        Positions count from the beginning of a document or of its part in this sequence; `padding`
        is true where no document has a token.
        """
        parts = [
            (self._ids(document, offset, size + 1), size)  # one more for the last label
            for document, offset, size in self._parts(sample or 0)
        ]
        masked = self.config.tokenizer.eod if self.config.eod_mask_loss else None
        return build_sequence(parts, self.config.sequence_length, masked)

    def _parts(self, sample: int) -> list[tuple[int, int, int]]:
        """Return a sample's documents, each with the offset and padded size of its part."""
        row = int(self.shuffle_index[sample])
        first, first_offset = (int(value) for value in self.sample_index[row])
        last, last_offset = (int(value) for value in self.sample_index[row + 1])
        multiple = self.config.document_multiple
        parts = []
        for index in range(first, last + 1):
            document = int(self.document_index[index])
            # the core ends the last sample one token early, at the last label
            start = padded_length(first_offset, multiple) if index == first else 0
            stop = padded_length(self._length(document), multiple)
            if index == last:
                stop = padded_length(last_offset, multiple)
            if stop > start:
                parts.append((document, start, stop - start))
        return parts

    def _length(self, document: int) -> int:
        return int(self.dataset.index.sequence_lengths[document])

    def _ids(self, document: int, offset: int, size: int) -> Any:
        """Return the ids of a document from an offset on, at most `size`."""
        available = self._length(document) - offset
        return self.dataset.get(document, offset=offset, length=min(size, available))
