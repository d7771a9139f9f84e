"""Reads the checkpoints of Megatron-LLM, the trainer of MEDITRON.

Each rank has one file, `mp_rank_XX[_YYY]/model_optim_rng.pt`.

The files are pickles; they are read by `safe_pickle`, which runs none of their code. Differences
from the model here:

- `dense_h_to_4h` holds the up projection above the gate (its GLU is `x1 * silu(x2)`), each rank its
  part of both;
- query and key rows are interleaved for rotary positions by pairs, as in Meta's code; Hugging
  Face's are in halves;
- the output layer is a bare parameter, `lm_head`.
"""

import logging
import math
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from galen.errors import DataError, malformed
from megatron_ext.checkpoint import safe_pickle
from megatron_ext.checkpoint.pickle_values import shown
from megatron_ext.checkpoint.stored_tensor import StoredTensor
from megatron_ext.config.architecture import Architecture

logger = logging.getLogger(__name__)

_FILE = "model_optim_rng.pt"
_RANK = re.compile(r"mp_rank_(\d+)(?:_(\d+))?")


def find_ranks(path: Path) -> list[Path]:
    """Return the rank folders of a checkpoint's newest iteration, or those in `path` itself."""
    if not list(path.glob(f"mp_rank_*/{_FILE}")) and not list(path.glob("iter_*/.metadata")):
        path = _newest(path)
    return sorted(
        folder.parent
        for folder in path.glob(f"mp_rank_*/{_FILE}")
        if _RANK.fullmatch(folder.parent.name)
    )


def _newest(path: Path) -> Path:
    """Return the folder that the tracker names (`release` for that word).

    If the tracker is damaged or missing, it is the newest folder with ranks.
    """
    tracker = path / "latest_checkpointed_iteration.txt"
    content = tracker.read_bytes()[:64] if tracker.is_file() else b""
    name = content.decode("ascii", errors="replace").strip()
    named = path / (f"iter_{int(name):07d}" if re.fullmatch(r"[0-9]{1,18}", name) else "release")
    existing = sorted({file.parent.parent for file in path.glob(f"iter_*/mp_rank_*/{_FILE}")})
    if name == "release" or not existing or list(named.glob(f"mp_rank_*/{_FILE}")):
        return named
    logger.warning(f"{tracker} names a missing iteration: using {existing[-1].name}")
    return existing[-1]


def is_legacy(path: Path) -> bool:
    """Return whether `path` holds the old layout."""
    return bool(find_ranks(path))


class Ranks:
    """A checkpoint of tensor x pipeline ranks as one model with Hugging Face's Llama names.

    It is a source of rows like a folder of safetensors; one tensor at a time is put together from
    the ranks.

    Raises:
        DataError: ranks are missing, or the model is not a Llama.
    """

    def __init__(self, path: Path) -> None:
        with malformed(path):
            self._read(path)

    def _read(self, path: Path) -> None:
        folders = find_ranks(path)
        if not folders:
            raise DataError(f"{path} holds no mp_rank_XX/{_FILE}")
        self.path = path
        self.files = [folder / _FILE for folder in folders]
        matches = [_RANK.fullmatch(folder.name) for folder in folders]
        ranks = [(int(match[2] or 0), int(match[1])) for match in matches if match]
        tensor = max(rank for _, rank in ranks) + 1
        pipeline = max(stage for stage, _ in ranks) + 1
        if len(ranks) != tensor * pipeline:
            raise DataError(
                f"{folders[0].parent} holds {len(ranks)} ranks, but their names imply {tensor} x"
                f" {pipeline} (tensor x pipeline)"
            )
        self.layout = (tensor, pipeline)
        contents = {
            rank: safe_pickle.read_archive(file)
            for rank, file in zip(ranks, self.files, strict=True)
        }
        self.arguments = self._arguments(contents[0, 0])
        self.heads = self.arguments.num_attention_heads
        self.groups = getattr(self.arguments, "num_attention_heads_kv", None) or self.heads
        self.head_size = (
            getattr(self.arguments, "kv_channels", None) or self.arguments.hidden_size // self.heads
        )
        self.iteration = contents[0, 0].get("iteration")
        self.stages = [
            [_flat(self._model(contents[stage, rank])) for rank in range(tensor)]
            for stage in range(pipeline)
        ]
        self.layers_per_stage = self.arguments.num_layers // pipeline
        self._last: tuple[str, Tensor] | None = None
        if self.layers_per_stage < 1:
            raise DataError(
                f"{path}: {self.arguments.num_layers} layers on {pipeline} pipeline stages"
            )

    def _model(self, content: Any) -> dict[Any, Any]:
        model = content.get("model") if isinstance(content, dict) else None
        model = model.get("language_model") if isinstance(model, dict) else None
        if not isinstance(model, dict):
            raise DataError(
                f"{self.files[0]} or another rank holds no language model: it is not a checkpoint"
                " of Megatron-LLM"
            )
        return model

    def _arguments(self, content: Any) -> Namespace:
        arguments = content.get("args") if isinstance(content, dict) else None
        if not isinstance(arguments, Namespace) or "model" not in content:
            raise DataError(
                f"{self.files[0]} holds no arguments and model: it is not a checkpoint of"
                " Megatron-LLM"
            )
        for name in ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads"):
            if type(value := getattr(arguments, name, None)) is not int or value < 1:
                raise DataError(
                    f"{self.files[0]} is damaged: its argument {name} is {shown(value)!r}"
                )
        return arguments

    def architecture(self, vocab_size: int) -> Architecture:
        """Return the architecture; the files have only the padded size of the vocabulary.

        Raises:
            DataError: an argument is not that of a Llama.
        """
        with malformed(self.files[0]):
            return self._architecture(vocab_size)

    def _architecture(self, vocab_size: int) -> Architecture:
        known = vars(self.arguments)
        for name, supported in _SUPPORTED.items():
            if name in known and known[name] not in supported:
                raise DataError(
                    f"{self.files[0]}: {name} = {shown(known[name])!r} is not supported (only"
                    f" {' or '.join(map(repr, supported))})"
                )
        rows = self.shape("model.embed_tokens.weight")[0]
        if vocab_size > rows:
            raise DataError(
                f"the tokenizer or --vocab-size give {vocab_size:,} ids, {self.path} has"
                f" {rows:,} padded rows"
            )
        return Architecture(
            family="llama",
            num_layers=known["num_layers"],
            hidden_size=known["hidden_size"],
            ffn_hidden_size=known["ffn_hidden_size"],
            num_attention_heads=self.heads,
            num_query_groups=self.groups,
            kv_channels=self.head_size,
            vocab_size=vocab_size,
            max_position_embeddings=known.get("max_position_embeddings") or known["seq_length"],
            rotary_base=float(known.get("rope_theta") or 10000.0),
            layernorm_epsilon=known["layernorm_epsilon"],
            share_embeddings_and_output_weights=known.get("tie_embed_logits", False),
        )

    def location(self, name: str) -> tuple[str, int]:
        """Return the file of a tensor's first part and the offset of its first byte."""
        part = self._parts(name)[0][0]
        return str(part.path), part.offset

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the size of a tensor under Llama's name."""
        parts, how = self._parts(name)
        rows, *width = parts[0].shape
        if how == "columns":
            return rows, sum(part.shape[1] for part in parts)
        if how == "qkv":
            rows = self.head_size * (self.heads if ".q_proj." in name else self.groups)
        elif how != "same":
            rows = sum(part.shape[0] for part in parts) // (2 if how == "glu" else 1)
        return (rows, *width)

    def dtype(self, name: str) -> torch.dtype:
        """Return the precision of a tensor under Llama's name."""
        return self._parts(name)[0][0].dtype

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return some rows of a tensor under Llama's name."""
        if self._last is None or self._last[0] != name:
            self._last = (name, self._read_tensor(name))
        return self._last[1][start:stop]

    def read_into(self, target: Tensor, name: str, start: int) -> None:
        """Fill `target` with the rows from `start` on."""
        target.copy_(self.rows(name, start, start + len(target)))

    def _read_tensor(self, name: str) -> Tensor:
        parts, how = self._parts(name)
        tensors = [part.read() for part in parts]
        if how == "same":
            return tensors[0]
        if how == "columns":
            return torch.cat(tensors, dim=1)
        if how == "rows":
            return torch.cat(tensors)
        if how == "glu":
            half = 0 if ".up_proj." in name else 1
            return torch.cat([tensor.chunk(2)[half] for tensor in tensors])
        return self._heads(torch.cat(tensors), "qkv".index(name.split(".self_attn.")[1][0]))

    def _heads(self, fused: Tensor, index: int) -> Tensor:
        """Return query, key or value (0, 1, 2) of the fused tensor, rotary rows in halves."""
        grouped = fused.view(self.groups, self.heads // self.groups + 2, self.head_size, -1)
        heads = (grouped[:, :-2], grouped[:, -2:-1], grouped[:, -1:])[index].flatten(0, 1)
        if index < 2:  # pairs (0, 1), (2, 3) … become the first and the second half
            heads = heads.unflatten(1, (self.head_size // 2, 2)).transpose(1, 2).flatten(1, 2)
        return heads.flatten(0, 1)

    def _parts(self, name: str) -> tuple[list[StoredTensor], str]:
        """Return the ranks' parts of a tensor and how they fit together."""
        if name in _NAMES:
            old, how = _NAMES[name]
            stage = 0 if name == "model.embed_tokens.weight" else len(self.stages) - 1
        else:
            match = re.fullmatch(r"model\.layers\.(\d+)\.(.*)", name)
            if match is None or match[2] not in _LAYER:
                raise KeyError(name)
            stage, layer = divmod(int(match[1]), self.layers_per_stage)
            old, how = _LAYER[match[2]]
            old = f"layers.{layer}.{old}"
        if any(old not in rank for rank in self.stages[stage]):
            raise DataError(
                f"{self.path} lacks {old} in stage {stage}, which has"
                f" {', '.join(sorted(self.stages[stage][0])[:6])} …"
            )
        return [rank[old] for rank in self.stages[stage]], how


_NAMES = {
    "model.embed_tokens.weight": ("word_embeddings.weight", "rows"),
    "model.norm.weight": ("final_layernorm.weight", "same"),
    "lm_head.weight": ("lm_head", "rows"),
}
_LAYER = {
    "input_layernorm.weight": ("input_layernorm.weight", "same"),
    "post_attention_layernorm.weight": ("post_attention_layernorm.weight", "same"),
    **{
        f"self_attn.{part}_proj.weight": ("attention.query_key_value.weight", "qkv")
        for part in "qkv"
    },
    "self_attn.o_proj.weight": ("attention.dense.weight", "columns"),
    **{f"mlp.{part}_proj.weight": ("mlp.dense_h_to_4h.weight", "glu") for part in ("gate", "up")},
    "mlp.down_proj.weight": ("mlp.dense_4h_to_h.weight", "columns"),
}
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "glu_activation": ("swiglu",),
    "use_rms_norm": (True,),
    "use_bias": (False,),
    "parallel_attn": (False,),
    "parallel_layernorm": (False,),
    "use_post_ln": (False,),
    "rope_scaling_factor": (1.0, 1, None),
    "sliding_window_size": (None,),
    "num_experts": (None,),
}


def _flat(tree: Any) -> dict[str, StoredTensor]:
    """Return a language model's tensors by their names in embedding, encoder and output layer."""
    tensors: dict[str, StoredTensor] = {}
    for name, value in tree.items():
        if isinstance(value, StoredTensor):
            tensors[str(name).replace("self_attention.", "attention.")] = value
        elif isinstance(value, dict):
            inner = _flat(value)
            if name in ("word_embeddings", "lm_head"):
                inner = {f"{name}.{key}": stored for key, stored in inner.items()}
            tensors |= inner
    return tensors


def describe(path: Path) -> dict[str, Any]:
    """Return the description of such a checkpoint that describe.py prints."""
    ranks = Ranks(path)
    names = (
        "num_layers",
        "hidden_size",
        "ffn_hidden_size",
        "num_attention_heads",
        "num_attention_heads_kv",
        "padded_vocab_size",
    )
    known = vars(ranks.arguments)
    count = sum(
        math.prod(stored.shape)
        for stage in ranks.stages
        for rank in stage
        for stored in rank.values()
    )
    return {
        "format": "Megatron-LLM, a pickle a rank (import with `galen import-legacy`)",
        "folder": path,
        **{name: shown(known[name]) for name in names if name in known},
        "parameters": count,
        "saved from": "TP{} x PP{}".format(*ranks.layout),
        "iteration": shown(ranks.iteration),
        "dtype": str(ranks.dtype("model.embed_tokens.weight")).removeprefix("torch."),
        "complete": "yes",
    }
