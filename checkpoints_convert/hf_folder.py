"""A Hugging Face model folder: which files hold the tensors, what else comes with them, how many ids the tokenizer has. No torch here."""

import json
import shutil
from pathlib import Path

from galen import manifest
from galen.errors import DataError

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
INDEX = "model.safetensors.index.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")


def weight_files(folder: str | Path) -> list[Path]:
    """Return the files that transformers loads: `model.safetensors`, else those of the index, else all `.safetensors` files.

    Others may lie beside them: Mistral's models come with the same weights as `consolidated.safetensors`, under other names.

    Raises:
        DataError: the index is damaged, or a file that it names is missing.
    """
    whole, index = Path(folder, "model.safetensors"), Path(folder, INDEX)
    if whole.is_file():
        return [whole]
    if not index.is_file():
        return sorted(Path(folder).glob("*.safetensors"))
    try:
        files = sorted({index.with_name(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{index} is damaged: {type(error).__name__}: {error}") from None
    if missing := [path.name for path in files if not path.is_file()]:
        raise DataError(f"{index} names {len(missing)} files that are not there: {', '.join(missing[:3])}; fetch them")
    return files


def copy_companions(source: str | Path, target: str | Path) -> list[Path]:
    """Copy all but the weights (configuration, tokenizer, chat template, licence) and return what was written."""
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    names = [
        path.name
        for path in sorted(Path(source).iterdir())
        if path.is_file()
        and path.suffix not in _WEIGHTS
        and not path.name.endswith(".index.json")
        and not path.name.startswith(".")
        and path.name != manifest.NAME
    ]
    for name in names:
        shutil.copyfile(Path(source) / name, target / name)
    return [target / name for name in names]


def check_vocabulary(folder: str | Path, rows: int) -> None:
    """Check that every id that the folder's tokenizer can give has a row in the embedding.

    Raises:
        DataError: it has not; names both numbers and what to run.
    """
    path, largest = _largest_id(Path(folder))
    if largest >= rows:
        raise DataError(
            f"{path} gives ids up to {largest}, but the model has {rows} embedding rows (vocab_size in config.json): "
            "they belong to different models, or tokens were added without resizing the embedding; "
            "put the model's own tokenizer there and add the tokens with hf_to_megatron.py --add-special-tokens FILE"
        )


def tokenizer_ids(folder: str | Path) -> int | None:
    """Return the largest id that the folder's tokenizer can give, plus one; None when there is no tokenizer."""
    _, largest = _largest_id(Path(folder))
    return None if largest < 0 else largest + 1


def _largest_id(folder: Path) -> tuple[Path, int]:
    """Return the file that decides which ids there are and the largest of them, -1 for a folder without tokenizer."""
    if (path := folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        return path, max(Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True).values(), default=-1)
    if (path := folder / "tokenizer.model").is_file():
        from sentencepiece import SentencePieceProcessor

        added = folder / "added_tokens.json"
        ids = json.loads(added.read_text(encoding="utf-8")).values() if added.is_file() else ()
        return path, max([SentencePieceProcessor(model_file=str(path)).vocab_size() - 1, *ids])
    return path, -1
