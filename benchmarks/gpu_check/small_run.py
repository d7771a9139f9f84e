"""The small model, its documents and its recipe, for the checks that run `galen pretrain`."""

import dataclasses
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from galen import manifest

ROOT = Path(__file__).parents[2]
VOCAB_SIZE = 512
_TEXT = ROOT / "checkpoints_convert/conversion/verify_text.txt"
_EOD = "<|endoftext|>"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """Of the model and its sequences."""

    layers: int
    hidden: int
    mlp: int
    heads: int
    groups: int
    length: int
    """Tokens in a sequence; documents have up to twice as many."""
    documents: int
    save_interval: int
    precision: str
    workers: int


SIZES = {
    "small": Size(
        layers=8,
        hidden=512,
        mlp=1536,
        heads=8,
        groups=4,
        length=1024,
        documents=2000,
        save_interval=20,
        precision="bf16",
        workers=2,
    ),
    "tiny": Size(
        layers=2,
        hidden=64,
        mlp=96,
        heads=4,
        groups=2,
        length=64,
        documents=200,
        save_interval=5,
        precision="fp32",
        workers=0,
    ),
}


def write_model(folder: Path, size: Size) -> None:
    """Write a random Llama with a tokenizer, as a Hugging Face folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=size.hidden,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.groups,
        max_position_embeddings=size.length,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[size.precision]
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    _write_tokenizer(folder)


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[_EOD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(_TEXT)], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": _EOD, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def write_documents(prefix: Path, size: Size, tokenizer: Path) -> None:
    """Write documents that count in steps, which a model can learn, as `galen preprocess` does."""
    import numpy
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    from megatron_ext.data import token_files

    prefix.parent.mkdir(parents=True, exist_ok=True)
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=numpy.uint16)
    for ids in _documents(size):
        builder.add_document(numpy.array(ids), [len(ids)])
    builder.finalize(f"{prefix}.idx")
    manifest.write(
        token_files.manifest_path(str(prefix)),
        stage="preprocess",
        inputs=[],
        config={"append_eod": True},
        outputs=[f"{prefix}.idx"],
        counts={"documents": size.documents},
        tokenizer={
            "path": str(tokenizer),
            "sha256": manifest.sha256(tokenizer),
            "vocab_size": VOCAB_SIZE,
            "eod": {"token": _EOD, "id": 0},
        },
    )


def _documents(size: Size) -> Iterator[list[int]]:
    generator = random.Random(0)
    for _ in range(size.documents):
        length = generator.randrange(5, 2 * size.length)
        first = generator.randrange(VOCAB_SIZE)
        step = generator.randrange(1, 5)
        ids = [1 + (first + step * index) % 256 for index in range(length)]
        yield [*ids, 0]


def write_recipe(work: Path, output: Path, size: Size, **sections: dict[str, Any]) -> Path:
    """Write the recipe of a run over packed documents; `sections` change keys of its sections."""
    prefix = str(work / "tokens/documents_text_document")
    recipe: dict[str, Any] = {
        "output": str(output),
        "model": {"checkpoint": str(work / "megatron")},
        "data": {
            "train": [prefix],
            "validation": [prefix],
            "seq_length": size.length,
            "reset_attention_mask": True,
            "pad_documents_to_multiple_of": 16,
            "num_workers": size.workers,
        },
        "training": {
            "train_iters": 100_000,
            "micro_batch_size": 2,
            "global_batch_size": 8,
            "precision": size.precision,
            "eval_interval": 100_000,
            "eval_iters": 1,
            "save_interval": size.save_interval,
        },
        "optimizer": {"lr": 1e-3, "lr_warmup_iters": 2},
        "resilience": {"distributed_timeout_minutes": 2},
    }
    for section, keys in sections.items():
        recipe.setdefault(section, {}).update(keys)
    output.mkdir(parents=True, exist_ok=True)
    path = output / "input.yaml"
    path.write_text(json.dumps(recipe, indent=1), encoding="utf-8")
    return path


def read_log(output: Path) -> list[dict[str, Any]]:
    """Return the complete records of a run's log."""
    path = output / "log.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]
