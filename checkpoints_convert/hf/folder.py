"""Reads a Hugging Face model folder: its tensor files, companion files and number of token ids.

No torch here.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from galen import checksums, json_file, links, manifest, pretrained
from galen.errors import DataError

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
INDEX = "model.safetensors.index.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")


def weight_files(folder: str | Path) -> list[Path]:
    """Return the files that transformers loads.

    It loads `model.safetensors`, else those of the index, else all `.safetensors` files.

    Other files may exist: Mistral's models come with the same weights as
    `consolidated.safetensors`, under other names.

    Raises:
        DataError: the index is damaged, or a file that it names is missing.
    """
    single_file = Path(folder, "model.safetensors")
    index = Path(folder, INDEX)
    if single_file.is_file():
        return [single_file]
    if not index.is_file():
        return sorted(Path(folder).glob("*.safetensors"))
    file_by_tensor = json_file.read_object(index).get("weight_map")
    if not isinstance(file_by_tensor, dict):
        raise DataError(f"{index} is damaged: weight_map is missing, or no object")
    for tensor, name in file_by_tensor.items():
        if (
            not isinstance(name, str)
            or Path(name).name != name
            or "\0" in name
            or not name.endswith(".safetensors")
        ):
            raise DataError(
                f"{index} is damaged: {tensor} should be in a .safetensors file beside it, not in"
                f" {name!r}"
            )
    files = sorted({index.with_name(name) for name in file_by_tensor.values()})
    if missing := [path.name for path in files if not path.is_file()]:
        raise DataError(
            f"{index} names {len(missing)} missing files: {', '.join(missing[:3])}; download them"
        )
    return files


def copy_companions(
    source: str | Path, target: str | Path, left_out: Collection[str] = ()
) -> list[Path]:
    """Copy all but the weights and return the files written.

    These are configuration, tokenizer, chat template and license.

    Args:
        source: a Hugging Face folder.
        target: the folder to copy to.
        left_out: names of files that are not copied.

    Raises:
        DataError: one is a symbolic link that leads out of the folder, or nowhere, or is damaged.
    """
    check_companions(source)
    target = Path(target)
    if target.is_symlink():
        target.unlink()
    target.mkdir(parents=True, exist_ok=True)
    paths = [path for path in _companions(source) if path.name not in left_out]
    return links.copy_files(paths, Path(source), target)


def check_companions(source: str | Path) -> None:
    """Check that the companion files are not visibly damaged.

    Raises:
        DataError: one is a symbolic link that leads out of the folder, or nowhere, or is no JSON
            in spite of its name.
    """
    for path in _companions(source):
        links.check(path, Path(source))
        if path.suffix == ".json":
            json_file.check(path)


def _companions(source: str | Path) -> list[Path]:
    return [
        path
        for path in sorted(Path(source).iterdir())
        if (path.is_file() or not path.exists())  # a dangling link is an error
        and path.suffix not in _WEIGHTS
        and not path.name.endswith(".index.json")
        and not path.name.startswith(".")
        and path.name != manifest.NAME
    ]


def seal_companions(folder: Path) -> None:
    """Write the manifest against which a checkpoint's companion files are checked when read."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    # a kill leaves .NAME.partial
    files = [folder / name for name in names if name != manifest.NAME and not name.startswith(".")]
    manifest.write(
        folder / manifest.NAME,
        stage="companions",
        inputs=[],
        config={},
        outputs=files,
        counts={"files": len(files)},
    )


def verify_companions(folder: Path, no_verify: bool) -> None:
    """Compare all but the weights with the manifest of a folder, where it has one.

    With `no_verify`, only log that this is skipped.

    Raises:
        DataError: one is missing or was altered; says which.
    """
    if not no_verify:
        checksums.verify(folder, but=_WEIGHTS)
    elif manifest.recorded(folder):
        checksums.log_skipped(folder)


def check_vocabulary(folder: str | Path, rows: int) -> None:
    """Check that every id that the folder's tokenizer can give has a row in the embedding.

    Placeholders of images need none.

    Raises:
        DataError: it has not; names both numbers and what to run.
    """
    path, largest = _largest_id(Path(folder), pretrained.PLACEHOLDER_TOKENS)
    if largest >= rows:
        raise DataError(
            f"{path} gives ids up to {largest}, but the model has {rows} embedding rows (vocab_size"
            " in config.json): they belong to different models, or tokens were added without"
            " resizing the embedding; use the model's own tokenizer and add the tokens with"
            " `galen import --add-special-tokens FILE`"
        )


def tokenizer_ids(folder: str | Path) -> int | None:
    """Return the largest id that the folder's tokenizer can give, plus one; None without one."""
    _, largest = _largest_id(Path(folder))
    return None if largest < 0 else largest + 1


def read_tokenizer(path: Path) -> Any:
    """Read a tokenizer.json.

    Raises:
        DataError: it is damaged.
    """
    from tokenizers import Tokenizer

    with pretrained.reading(path):
        return Tokenizer.from_file(str(path))


def _largest_id(folder: Path, ignored: Collection[str] = ()) -> tuple[Path, int]:
    """Return the file that determines the token ids and the largest id but those of `ignored`.

    The id is -1 for a folder without tokenizer.
    """
    if (path := folder / "tokenizer.json").is_file():
        vocabulary = read_tokenizer(path).get_vocab(with_added_tokens=True)
        return path, max((vocabulary[token] for token in vocabulary.keys() - ignored), default=-1)
    if (path := folder / "tokenizer.model").is_file():
        from sentencepiece import SentencePieceProcessor

        added = folder / "added_tokens.json"
        tokens = json_file.read_object(added) if added.is_file() else {}
        ids = [tokens[token] for token in tokens.keys() - ignored]
        if not all(isinstance(id, int) for id in ids):
            raise DataError(f"{added} should name an id for each token")
        with pretrained.reading(path):
            return path, max([SentencePieceProcessor(model_file=str(path)).vocab_size() - 1, *ids])
    return path, -1
