"""Conversations for supervised fine-tuning.

Text and role files of `preprocess.py --instruction`, with the loss on the answers alone.

A sequence holds one conversation, or with `data.reset_attention_mask` as many as fit, none seeing
another; the rest is padding.
"""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from megatron.core.datasets.indexed_dataset import IndexedDataset
from torch import Tensor

from galen import manifest
from galen.errors import DataError
from megatron_ext.data.padded_documents import padded_length
from megatron_ext.data.token_files import manifest_path, role_prefix

ANSWER = 2
"""Id of the assistant's role in a role file."""
ANSWER_NAMES = ("assistant", "gpt", "answer")
"""Names of that role in records (data_prep/preprocess.py --instruction)."""

Ids = numpy.ndarray[Any, Any]

logger = logging.getLogger(__name__)


class Conversations:
    """The conversations of one pair of text and role files, with the loss mask of each.

    Args:
        prefix: path of the text file without its ending; the role file is beside it.
        tokenizer: tokenizer.json of the model, to encode the template around an answer.
        length: tokens of a sequence; longer conversations are truncated.

    Raises:
        DataError: files do not belong together, or no conversation has an answer in the loss.
    """

    def __init__(self, prefix: str, tokenizer: Path, length: int) -> None:
        self._role = IndexedDataset(role_prefix(prefix))
        self._text = IndexedDataset(prefix)
        if not numpy.array_equal(self._text.sequence_lengths, self._role.sequence_lengths):
            raise DataError(f"{prefix} and {role_prefix(prefix)} differ in length; tokenize again")
        self._template = _template(prefix, tokenizer)
        self._length = length
        self.sizes = numpy.minimum(self._text.sequence_lengths, length)
        """Tokens of each conversation."""
        with_answer = [index for index in range(len(self.sizes)) if self.loss_mask(index).any()]
        self.indices = numpy.array(with_answer, dtype=numpy.int64)
        """Conversations with an answer in the loss."""
        self._check_answers(prefix)

    def _check_answers(self, prefix: str) -> None:
        """Check that there are answers, and that the template is recognized before them."""
        for index in self.indices[:100]:
            is_answer = self._role[index][: self._length] == ANSWER
            first_tokens = is_answer & numpy.append(True, ~is_answer[:-1])
            if (self.loss_mask(index) & first_tokens).any():
                raise DataError(
                    f"{prefix}: the start of answers is not recognized: their first tokens are not"
                    " those of the message template"
                )
        if not len(self.indices):
            raise DataError(
                f"{prefix}: no conversation has an answer within data.seq_length ="
                f" {self._length} tokens"
            )
        without = len(self.sizes) - len(self.indices)
        if without:
            logger.warning(
                f"{prefix}: {without} of {len(self.sizes)} conversations have no answer within"
                f" {self._length} tokens"
            )

    def tokens(self, index: int) -> Ids:
        """Return a conversation's ids."""
        return self._text[index][: self._length].astype(numpy.int64)

    def loss_mask(self, index: int) -> Ids:
        """Return for each token of a conversation whether it is in the loss.

        An answer's content and its end mark are; the template's text before an answer
        (`<|im_start|>answer` and a line break) and after the end mark is not.
        """
        ids = self.tokens(index)
        mask = self._role[index][: self._length] == ANSWER
        template = self._template
        for head in template.heads:
            for start in _occurrences(ids, head):
                mask[start : start + len(head)] = False
        for start in _occurrences(ids, template.end_mark + template.tail):
            tail_start = start + len(template.end_mark)
            mask[tail_start : tail_start + len(template.tail)] = False
        is_complete = self._text.sequence_lengths[index] <= self._length
        if template.eod is not None and ids[-1] == template.eod and is_complete:
            mask[-1] = False
        mask[0] = False
        return mask


@dataclasses.dataclass(frozen=True)
class Template:
    """The ids around answers."""

    heads: list[list[int]]
    """Tokens before an answer, for each name of the role."""
    end_mark: list[int]
    """Tokens that end an answer."""
    tail: list[int]
    """White space after the end mark."""
    eod: int | None
    """The end-of-document token, if one was appended."""


class InstructionSamples(torch.utils.data.Dataset):
    """Sequences of conversations, reshuffled for each pass.

    Args:
        conversations: the conversations of a pair of files.
        samples: number of sequences; None for those of one pass.
        length: tokens of a sequence.
        packed: put several conversations into a sequence.
        multiple: each is padded to a multiple of this many tokens; `length` is one, too.
        seed: of the order.
    """

    def __init__(
        self,
        conversations: Conversations,
        samples: int | None,
        length: int,
        packed: bool,
        multiple: int,
        seed: int,
    ) -> None:
        self._conversations = conversations
        self._length = length
        self._multiple = multiple
        self._rows: list[Sequence[int]] = []
        generator = numpy.random.default_rng(seed)
        while not self._rows or (samples is not None and len(self._rows) < samples):
            order = generator.permutation(conversations.indices)
            rows = [[index] for index in order.tolist()]
            if packed:
                rows = _pack(order, padded_length(conversations.sizes, multiple), length)
            self._rows += rows
        self._rows = self._rows[:samples]
        self.per_pass = len(rows)
        """Samples of one pass; packed in another order, they may differ by a few."""

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, sample: int) -> dict[str, Tensor]:
        """Return `{tokens, labels, loss_mask, position_ids, padding}`, each [sequence].

        Positions count from a conversation's beginning; `padding` is true where none has a token.
        """
        tokens = numpy.zeros(self._length, numpy.int64)
        loss_mask = numpy.zeros(self._length, bool)
        positions = numpy.arange(self._length)
        padding = numpy.ones(self._length, bool)
        end = 0
        for index in self._rows[sample]:
            start = end
            size = int(self._conversations.sizes[index])
            end = start + padded_length(size, self._multiple)
            tokens[start : start + size] = self._conversations.tokens(index)
            loss_mask[start : start + size] = self._conversations.loss_mask(index)
            positions[start:end] = numpy.arange(end - start)
            padding[start : start + size] = False
        positions[end:] = numpy.arange(self._length - end)
        # the label of a position is the next token
        label_mask = numpy.append(loss_mask[1:], False).astype(numpy.float32)
        return {
            "tokens": torch.from_numpy(tokens),
            "labels": torch.from_numpy(numpy.append(tokens[1:], 0)),
            "loss_mask": torch.from_numpy(label_mask),
            "position_ids": torch.from_numpy(positions),
            "padding": torch.from_numpy(padding),
        }


def _template(prefix: str, tokenizer: Path) -> Template:
    """Return the ids around a text file's answers, from the message format in its manifest."""
    from tokenizers import Tokenizer

    config = manifest.read(manifest_path(prefix), "preprocess")["config"]
    if "message" not in config:
        raise DataError(
            f"data.instruction: {prefix} was not made by `galen preprocess --instruction`"
        )
    if not tokenizer.is_file():
        raise DataError(
            f"data.instruction needs the model's {tokenizer.name}; {tokenizer} is missing"
        )
    encoder = Tokenizer.from_file(str(tokenizer))
    before, after = config["message"].split("{content}", 1)
    heads = [_encode(encoder, before.replace("{role}", name)) for name in ANSWER_NAMES]
    end_mark = after.rstrip()
    eod = config["eod"]["id"] if config.get("append_eod") and config.get("eod") else None
    return Template(
        heads=[head for head in heads if head],
        end_mark=_encode(encoder, end_mark),
        tail=_encode(encoder, after[len(end_mark) :]),
        eod=eod,
    )


def _encode(encoder: Any, text: str) -> list[int]:
    return encoder.encode(text, add_special_tokens=False).ids if text else []


def _occurrences(ids: Ids, pattern: Sequence[int]) -> list[int]:
    """Return the start positions of a sequence of ids."""
    if not pattern or len(pattern) > len(ids):
        return []
    windows = numpy.lib.stride_tricks.sliding_window_view(ids, len(pattern))
    return numpy.flatnonzero((windows == numpy.array(pattern)).all(1)).tolist()


def _pack(order: Ids, sizes: Ids, length: int) -> list[list[int]]:
    """Return conversations in rows of at most `length` tokens, in their order."""
    rows: list[list[int]] = []
    free = 0
    for index in order.tolist():
        if sizes[index] > free:
            rows.append([])
            free = length
        rows[-1].append(index)
        free -= int(sizes[index])
    return rows
