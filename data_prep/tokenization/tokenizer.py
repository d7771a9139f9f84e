"""The model's tokenizer: a Hugging Face folder, a `tokenizer.json` or a SentencePiece `.model`.

It returns the ids of the text alone: no special tokens are added, nothing is truncated or padded.
It is the reference for the faster encoders.
"""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from galen import json_file, manifest, shipped
from galen.errors import DataError, malformed


class TextTokenizer(Protocol):
    """Interface of a tokenizer."""

    path: Path
    """The vocabulary file."""

    vocab_size: int
    """One more than the highest id it can produce."""

    default_bos: str | None
    """The beginning-of-document token in its files, if any."""

    default_eod: str | None
    """The end-of-document token in its files, if any."""

    unknown: int | None
    """Id of the unknown token, if it has one."""

    special: dict[str, int]
    """The tokens that were added, and their ids."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens shown as they are written."""

    def token_id(self, token: str) -> int | None:
        """Return the id of a token of the vocabulary, or None."""

    def token(self, token_id: int) -> str | None:
        """Return the token of an id in the vocabulary, or None."""

    def fingerprint(self) -> str:
        """Return the SHA-256 of the vocabulary file.

        With added tokens, that of its hash and of these.
        """


def load_tokenizer(path: str | Path, special: Sequence[str] = ()) -> TextTokenizer:
    """Load a tokenizer.

    Args:
        path: a Hugging Face folder, a tokenizer.json or a SentencePiece model.
        special: tokens to append to the vocabulary, in this order; existing ones keep their id.

    Raises:
        DataError: there is none, or it is damaged.
    """
    file = _vocabulary_file(Path(path))
    try:
        if file.suffix == ".json":
            return HuggingFaceTokenizer(file, special)
        return SentencePieceTokenizer(file, special)
    except Exception as error:  # the libraries raise plain Exception and RuntimeError
        raise DataError(f"{file} is not a tokenizer that can be read: {error}") from None


def _vocabulary_file(path: Path) -> Path:
    """Return the vocabulary file at a path.

    Raises:
        DataError: there is none.
    """
    if path.is_dir():
        for name in ("tokenizer.json", "tokenizer.model", "vocab.json"):
            if (path / name).is_file():
                return path / name
        raise DataError(f"the folder {path} holds neither tokenizer.json nor tokenizer.model")
    if not path.is_file():
        raise DataError(
            f"the tokenizer {path} does not exist; it must be a folder or file on this machine,"
            " nothing is downloaded"
        )
    return path


def read_special_tokens(path: str | Path) -> list[str]:
    """Read tokens to add: one a line; empty lines and lines that begin with `# ` are skipped.

    Raises:
        DataError: the file cannot be read, or names a token twice.
    """
    try:
        lines = shipped.resolve(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the special tokens {path}: {error}") from None
    tokens = [line.strip() for line in lines if line.strip() and not line.startswith("# ")]
    repeated = sorted({token for token in tokens if tokens.count(token) > 1})
    if repeated:
        raise DataError(f"{path}: repeated tokens: {', '.join(repeated)}")
    if not tokens:
        raise DataError(f"{path}: contains no token")
    return tokens


class HuggingFaceTokenizer:
    """A `tokenizer.json`, or a folder with vocab.json and merges.txt."""

    def __init__(self, path: Path, special: Sequence[str] = ()) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # parallel work is by processes
        from tokenizers import AddedToken, Tokenizer

        self.path = path
        if path.name == "vocab.json":
            self._tokenizer = _from_vocab_and_merges(path.parent)
        else:
            self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        if special:
            self._tokenizer.add_special_tokens(
                [AddedToken(token, special=True, normalized=False) for token in special]
            )
        self.vocab_size = _ids_in_use(self._tokenizer)
        self.special: dict[str, int] = {
            token: self._tokenizer.token_to_id(token) or 0 for token in special
        }
        config = path.with_name("tokenizer_config.json")
        self.default_bos = _named_token(config, "bos_token")
        self.default_eod = _named_token(config, "eos_token")
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        self.unknown = None if unknown is None else self._tokenizer.token_to_id(unknown)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text."""
        return [
            encoding.ids
            for encoding in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens shown as they are written."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def token_id(self, token: str) -> int | None:
        """Return the id of a token of the vocabulary, or None."""
        return self._tokenizer.token_to_id(token)

    def token(self, token_id: int) -> str | None:
        """Return the token of an id in the vocabulary, or None."""
        return self._tokenizer.id_to_token(token_id)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the vocabulary file.

        With added tokens, that of its hash and of these.
        """
        files = [self.path]
        if self.path.name == "vocab.json":
            files.append(self.path.with_name("merges.txt"))
        return _fingerprint(files, self.special)

    def to_json(self) -> str:
        """Return the tokenizer, added tokens included, as a tokenizer.json."""
        return self._tokenizer.to_str()

    def added_tokens(self) -> list[str]:
        """Return the tokens outside the model's own vocabulary, in the order of their ids."""
        return [
            token.content for _, token in sorted(self._tokenizer.get_added_tokens_decoder().items())
        ]

    def lacks_bytes(self) -> bool:
        """Return whether the vocabulary is a byte-level one without all 256 bytes."""
        from tokenizers import pre_tokenizers

        if getattr(self._tokenizer.model, "byte_fallback", False):
            return False
        missing = sum(
            self._tokenizer.token_to_id(byte) is None
            for byte in pre_tokenizers.ByteLevel.alphabet()
        )
        return 0 < missing < 200  # else it is not a byte-level vocabulary


class SentencePieceTokenizer:
    """A SentencePiece `.model`.

    The text is split at added tokens, and the segments between them are encoded separately, as
    Megatron-LM's SentencePiece tokenizer does.
    """

    def __init__(self, path: Path, special: Sequence[str] = ()) -> None:
        from sentencepiece import SentencePieceProcessor

        self.path = path
        self.processor = SentencePieceProcessor(model_file=str(path))
        self._model_size = self.processor.vocab_size()
        """Tokens of the model, without added ones."""
        self.vocab_size = self._model_size
        self.special: dict[str, int] = {}
        for token in special:
            token_id = self.token_id(token)
            if token_id is None:
                token_id = self.vocab_size
                self.vocab_size += 1
            self.special[token] = token_id
        self._by_id = {token_id: token for token, token_id in self.special.items()}
        bos = self.processor.bos_id()
        eos = self.processor.eos_id()
        unknown = self.processor.unk_id()
        self.default_bos = self.processor.id_to_piece(bos) if bos >= 0 else None
        self.default_eod = self.processor.id_to_piece(eos) if eos >= 0 else None
        self.unknown = unknown if unknown >= 0 else None
        self.splitter = re.compile(f"({'|'.join(map(re.escape, special))})") if special else None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text."""
        if self.splitter is None:
            return self._encode_plain(list(texts))
        result = []
        for text in texts:
            # text, added token, text, …, text
            segments = self.splitter.split(text)
            first, *others = self._encode_plain(segments[::2])
            ids = list(first)
            for token, segment in zip(segments[1::2], others, strict=True):
                ids.append(self.special[token])
                ids += segment
            result.append(ids)
        return result

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens shown as they are written."""
        texts: list[str] = []
        for is_plain, group in groupby(map(int, ids), self._is_plain):
            if is_plain:
                texts.append(self.processor.decode(list(group)))
            else:
                texts += [self.token(token_id) or f"<{token_id}?>" for token_id in group]
        return "".join(texts)

    def _is_plain(self, token_id: int) -> bool:
        return (
            0 <= token_id < self._model_size
            and token_id not in self._by_id
            and not self.processor.is_control(token_id)
        )

    def token_id(self, token: str) -> int | None:
        """Return the id of a token of the vocabulary, or None."""
        if token in self.special:
            return self.special[token]
        token_id = self.processor.piece_to_id(token)
        return token_id if self.processor.id_to_piece(token_id) == token else None

    def token(self, token_id: int) -> str | None:
        """Return the token of an id in the vocabulary, or None."""
        if token_id in self._by_id:
            return self._by_id[token_id]
        return self.processor.id_to_piece(token_id) if 0 <= token_id < self._model_size else None

    def fingerprint(self) -> str:
        """Return the SHA-256 of the vocabulary file.

        With added tokens, that of its hash and of these.
        """
        return _fingerprint([self.path], self.special)

    def _encode_plain(self, texts: list[str]) -> list[list[int]]:
        return self.processor.encode(texts, add_bos=False, add_eos=False, num_threads=1)


def _ids_in_use(tokenizer: Any) -> int:
    """Return one more than the highest id.

    The complete vocabulary, which is slow to read, is needed only if it has gaps.
    """
    size: int = tokenizer.get_vocab_size(with_added_tokens=True)
    if None not in map(tokenizer.id_to_token, range(size)):
        return size
    return 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())


def _fingerprint(files: Sequence[Path], special: dict[str, int]) -> str:
    hashes = [manifest.sha256(path) for path in files]
    if len(hashes) == 1 and not special:
        return hashes[0]
    return hashlib.sha256(json.dumps([hashes, special], sort_keys=True).encode()).hexdigest()


def _from_vocab_and_merges(folder: Path) -> Any:
    """Return the tokenizer of a folder with vocab.json and merges.txt, as GPT-2's.

    transformers knows its pre-tokenizer.
    """
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False
    ).backend_tokenizer


def _named_token(config: Path, name: str) -> str | None:
    """Return a token of a tokenizer_config.json, for example `eos_token`.

    The file has it as a string, or as an object with its content.
    """
    if not config.is_file():
        return None
    token: Any = json_file.read_object(config).get(name)
    with malformed(config):
        return token["content"] if isinstance(token, dict) else token
