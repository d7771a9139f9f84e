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
from megatron_ext.data.token_files import manifest_path, role_prefix

ANSWER = 2
"""Number of the assistant's role in a role file."""
ANSWER_NAMES = ("assistant", "gpt", "answer")
"""How records call that role (data_prep/preprocess.py --instruction)."""

Ids = numpy.ndarray[Any, Any]

logger = logging.getLogger(__name__)


class Conversations:
    """The conversations of one pair of text and role files, with what of each is learnt.

    Args:
        prefix: path of the text file without its ending; the role file is beside it.
        tokenizer: tokenizer.json of the model, to know the tokens around an answer.
        length: tokens of a sequence; longer conversations are cut at their end.

    Raises:
        DataError: files do not belong together, or no conversation has an answer to learn.
    """

    def __init__(self, prefix: str, tokenizer: Path, length: int) -> None:
        self._role, self._text = (IndexedDataset(name) for name in (role_prefix(prefix), prefix))
        if not numpy.array_equal(self._text.sequence_lengths, self._role.sequence_lengths):
            raise DataError(f"{prefix} and {role_prefix(prefix)} differ in length; tokenize again")
        self._frame = _frame(prefix, tokenizer)
        self._length = length
        self.sizes = numpy.minimum(self._text.sequence_lengths, length)
        """Tokens of each conversation."""
        self.places = numpy.array(
            [place for place in range(len(self.sizes)) if self.learnt(place).any()],
            dtype=numpy.int64,
        )
        """Conversations with an answer to learn."""
        for place in self.places[:100]:
            roles = self._role[place][:length]
            if (
                self.learnt(place) & (roles == ANSWER) & (numpy.append(-1, roles[:-1]) != ANSWER)
            ).any():
                raise DataError(
                    f"{prefix}: it cannot be told where answers begin: their first tokens are not"
                    " those of the message's form"
                )
        if not len(self.places):
            raise DataError(
                f"{prefix}: no conversation has an answer within data.seq_length = {length} tokens"
            )
        if len(self.places) < len(self.sizes):
            without = len(self.sizes) - len(self.places)
            logger.warning(
                f"{prefix}: {without} of {len(self.sizes)} conversations have no answer within"
                f" {length} tokens"
            )

    def tokens(self, place: int) -> Ids:
        """Return a conversation's ids."""
        return self._text[place][: self._length].astype(numpy.int64)

    def learnt(self, place: int) -> Ids:
        """Return for each token of a conversation whether it is in the loss.

        An answer's content and the mark that ends it are.

        What the template writes before an answer (`<|im_start|>answer` and a line break) and behind
        its mark is not.
        """
        ids = self.tokens(place)
        learnt = self._role[place][: self._length] == ANSWER
        frame = self._frame
        for head in frame.heads:
            for start in _occurrences(ids, head):
                learnt[start : start + len(head)] = False
        for start in _occurrences(ids, frame.mark + frame.behind):
            learnt[start + len(frame.mark) : start + len(frame.mark) + len(frame.behind)] = False
        if (
            frame.eod is not None
            and ids[-1] == frame.eod
            and self._text.sequence_lengths[place] <= self._length
        ):
            learnt[-1] = False
        learnt[0] = False
        return learnt


@dataclasses.dataclass(frozen=True)
class Frame:
    """The ids around answers."""

    heads: list[list[int]]
    """Tokens before an answer, for each name of the role."""
    mark: list[int]
    """What ends an answer."""
    behind: list[int]
    """White space behind that."""
    eod: int | None
    """The end-of-document token, where one was appended."""


class InstructionSamples(torch.utils.data.Dataset):
    """Sequences of conversations, reshuffled for each pass.

    Args:
        conversations: where they come from.
        samples: sequences wanted; None for those of one pass.
        length: tokens of a sequence.
        packed: several conversations in a sequence.
        seed: decides the order.
    """

    def __init__(
        self,
        conversations: Conversations,
        samples: int | None,
        length: int,
        packed: bool,
        seed: int,
    ) -> None:
        self._conversations, self._length = conversations, length
        self._rows: list[Sequence[int]] = []
        generator = numpy.random.default_rng(seed)
        while not self._rows or (samples is not None and len(self._rows) < samples):
            order = generator.permutation(conversations.places)
            rows = (
                _rows(order, conversations.sizes, length)
                if packed
                else [[place] for place in order.tolist()]
            )
            self._rows += rows
        self._rows = self._rows[:samples]
        self.per_pass = len(rows)
        """Samples in which all is read once: packed in another order they may differ by a few."""

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, sample: int) -> dict[str, Tensor]:
        """Return `{tokens, labels, loss_mask, position_ids}`, each [sequence].

        Positions count from a conversation's beginning.
        """
        tokens, learnt = numpy.zeros(self._length, numpy.int64), numpy.zeros(self._length, bool)
        positions = numpy.arange(self._length)
        end = 0
        for place in self._rows[sample]:
            start, end = end, end + int(self._conversations.sizes[place])
            tokens[start:end] = self._conversations.tokens(place)
            learnt[start:end] = self._conversations.learnt(place)
            positions[end:] = numpy.arange(self._length - end)
        return {
            "tokens": torch.from_numpy(tokens),
            "labels": torch.from_numpy(numpy.append(tokens[1:], 0)),
            "loss_mask": torch.from_numpy(numpy.append(learnt[1:], False).astype(numpy.float32)),
            "position_ids": torch.from_numpy(positions),
        }


def _frame(prefix: str, tokenizer: Path) -> Frame:
    """Return the ids around a text file's answers, from the message format in its manifest."""
    from tokenizers import Tokenizer

    config = manifest.read(manifest_path(prefix), "preprocess")["config"]
    if "message" not in config:
        raise DataError(
            f"data.instruction: {prefix} was not made by `galen preprocess --instruction`"
        )
    if not tokenizer.is_file():
        raise DataError(
            f"data.instruction needs the model's {tokenizer.name}; there is no {tokenizer}"
        )
    encoder = Tokenizer.from_file(str(tokenizer))
    before, behind = config["message"].split("{content}", 1)
    heads = [_encode(encoder, before.replace("{role}", name)) for name in ANSWER_NAMES]
    mark = behind.rstrip()
    eod = config["eod"]["id"] if config.get("append_eod") and config.get("eod") else None
    return Frame(
        [head for head in heads if head],
        _encode(encoder, mark),
        _encode(encoder, behind[len(mark) :]),
        eod,
    )


def _encode(encoder: Any, text: str) -> list[int]:
    return encoder.encode(text, add_special_tokens=False).ids if text else []


def _occurrences(ids: Ids, wanted: Sequence[int]) -> list[int]:
    """Return the places where a run of ids begins."""
    if not wanted or len(wanted) > len(ids):
        return []
    windows = numpy.lib.stride_tricks.sliding_window_view(ids, len(wanted))
    return numpy.flatnonzero((windows == numpy.array(wanted)).all(1)).tolist()


def _rows(order: Ids, sizes: Ids, length: int) -> list[list[int]]:
    """Return conversations in rows of at most `length` tokens, in their order."""
    rows: list[list[int]] = []
    room = 0
    for place in order.tolist():
        if sizes[place] > room:
            rows.append([])
            room = length
        rows[-1].append(place)
        room -= int(sizes[place])
    return rows
