"""Adds special tokens to a model.

They get the same ids in the tokenizer, in config.json and as rows of the embeddings.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from checkpoints_convert.hf.folder import read_tokenizer
from checkpoints_convert.hf.weights import Weights
from galen import json_file
from galen.atomic import write_text
from galen.errors import DataError


def read_tokens(path: Path) -> list[str]:
    """Read a file of special tokens, one a line, in the order of their ids.

    Empty lines and lines that begin with `# ` do not count.

    Raises:
        DataError: the file is missing, empty, or names a token twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the special tokens {path}: {error}") from None
    tokens = [line.strip() for line in lines if line.strip() and not line.startswith("# ")]
    if not tokens:
        raise DataError(f"{path} names no token; write one a line")
    if duplicates := sorted({token for token in tokens if tokens.count(token) > 1}):
        raise DataError(f"{path} names {duplicates[0]!r} twice")
    return tokens


@dataclass(frozen=True)
class Extension:
    """New tokens and their ids."""

    tokens: tuple[str, ...]
    first: int
    """Id of the first; the others follow."""
    vocab_size: int
    """Rows of the embedding afterwards."""

    def write(self, folder: Path) -> None:
        """Add the tokens to the tokenizer in `folder` and set the row count in its config.json."""
        from tokenizers import AddedToken

        tokenizer = read_tokenizer(folder / "tokenizer.json")
        tokenizer.add_special_tokens(
            [AddedToken(token, special=True, normalized=False) for token in self.tokens]
        )
        for number, token in enumerate(self.tokens):
            if tokenizer.token_to_id(token) != self.first + number:
                raise DataError(
                    f"{folder}: {token!r} got the id {tokenizer.token_to_id(token)} instead of"
                    f" {self.first + number}"
                )
        tokenizer.save(str(folder / "tokenizer.json"))
        settings = folder / "tokenizer_config.json"
        if settings.is_file():
            content = json_file.read_object(settings)
            if isinstance(content.get("added_tokens_decoder"), dict):
                plain = {
                    "lstrip": False,
                    "normalized": False,
                    "rstrip": False,
                    "single_word": False,
                    "special": True,
                }
                content["added_tokens_decoder"] |= {
                    str(self.first + n): {"content": token, **plain}
                    for n, token in enumerate(self.tokens)
                }
                write_text(settings, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        config = json_file.read_object(folder / "config.json")
        config["vocab_size"] = self.vocab_size
        write_text(folder / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def extend(folder: Path, tokens: Sequence[str], rows: int) -> Extension:
    """Give each token the next free id of the tokenizer in `folder`, whose model has `rows` rows.

    Raises:
        DataError: tokenizer.json is missing, or has a token already.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise DataError(
            f"{path} is missing: special tokens can be added only to a tokenizer.json"
            " (save_pretrained writes one)"
        )
    known = read_tokenizer(path).get_vocab(with_added_tokens=True)
    if already := [token for token in tokens if token in known]:
        raise DataError(
            f"{path} has {already[0]!r} already, as id {known[already[0]]} ({len(already)} of"
            f" {len(tokens)} tokens)"
        )
    first = max(known.values(), default=-1) + 1
    return Extension(tuple(tokens), first, max(rows, first + len(tokens)))


class ExtendedWeights:
    """A model's weights with a row for each new token in the tensors named `names`.

    A new row is the mean of the rows that had an id before, or a sample of a normal distribution
    with the mean and the deviation of each of their columns, from a generator seeded with `seed`
    and the tensor's name. Rows that the model has beyond its tokenizer's ids and that no new token
    takes stay as they are. Ids of the tokenizer without a row (placeholders of images) get a new
    one.
    """

    def __init__(
        self,
        weights: Weights,
        names: Sequence[str],
        extension: Extension,
        initialization: str,
        seed: int,
    ) -> None:
        self.weights = weights
        self.extension = extension
        self._new = {name: self._rows(name, initialization, seed) for name in names}

    def location(self, name: str) -> tuple[str, int]:
        """Return the file of a tensor and the offset of its first byte."""
        return self.weights.location(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the size of a tensor, new rows included."""
        size = self.weights.shape(name)
        return (self.extension.vocab_size, *size[1:]) if name in self._new else size

    def dtype(self, name: str) -> torch.dtype:
        """Return the precision of a tensor."""
        return self.weights.dtype(name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return some rows, new ones at their ids."""
        if name not in self._new:
            return self.weights.rows(name, start, stop)
        new = self._new[name]
        old = self.weights.shape(name)[0]
        first = min(self.extension.first, old)
        end = first + len(new)
        parts = [
            self._old(name, start, min(stop, first)),
            new[max(start - first, 0) : max(stop - first, 0)],
            self._old(name, max(start, end), min(stop, old)),
        ]
        return torch.cat(parts)

    def read_into(self, target: Tensor, name: str, start: int) -> None:
        """Fill `target` with the rows from `start` on."""
        if name in self._new:
            target.copy_(self.rows(name, start, start + len(target)))
        else:
            self.weights.read_into(target, name, start)

    def _old(self, name: str, start: int, stop: int) -> Tensor:
        return (
            self.weights.rows(name, start, max(start, stop))
            if stop > start
            else self._new[name][:0]
        )

    def _rows(self, name: str, initialization: str, seed: int) -> Tensor:
        shape = self.weights.shape(name)
        width = shape[1]
        count = min(self.extension.first, shape[0])
        total = torch.zeros(width, dtype=torch.float64)
        squares = torch.zeros_like(total)
        for start in range(0, count, 4096):
            rows = self.weights.rows(name, start, min(start + 4096, count)).double()
            total += rows.sum(0)
            squares += rows.pow(2).sum(0)
        mean = total / count
        num_new = self.extension.first - count + len(self.extension.tokens)
        new = mean.expand(num_new, width)
        if initialization == "normal":
            deviation = (squares / count - mean.pow(2)).clamp(min=0).sqrt()
            generator = torch.Generator().manual_seed(seed * 1_000_003 + sum(name.encode()))
            new = mean + deviation * torch.randn(
                num_new, width, generator=generator, dtype=torch.float64
            )
        return new.to(self.weights.dtype(name))
