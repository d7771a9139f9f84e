"""Writes a Hugging Face model as iteration 0 of a Megatron checkpoint, a piece at a time."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from checkpoints_convert import bridge_config, families, vocabulary
from checkpoints_convert.family import Family
from checkpoints_convert.hf_folder import TOKENIZERS, Weights, check_vocabulary, copy_companions
from checkpoints_convert.input_hashes import InputHashes
from checkpoints_convert.mappings import Rows, height
from checkpoints_convert.output_file import OutputFile
from checkpoints_convert.read_ahead import Piece, ReadAhead
from checkpoints_convert.shapes import extra_states
from checkpoints_convert.steps import Step, begin, finished, record, run_steps
from checkpoints_convert.units import Unit, check_shapes, fill_megatron_rows, padded_shape, pieces, units
from galen.atomic import write_text
from galen.errors import DataError
from megatron_ext import checkpoint_folder, torch_dist
from megatron_ext.architecture import Architecture

STAGE = "hf_to_megatron"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Import:
    """What to import and how."""

    hf: Path
    dtype: str | None = None
    special_tokens: Path | None = None
    new_rows: str = "mean"
    seed: int = 0
    tensor_parallel: int = 1

    @property
    def options(self) -> dict[str, Any]:
        """What decides the output, beside the model's files."""
        tokens = None if self.special_tokens is None else vocabulary.read_tokens(self.special_tokens)
        initial = {} if tokens is None else {"new_rows": self.new_rows} | ({"seed": self.seed} if self.new_rows != "mean" else {})
        return {"dtype": self.dtype, "special_tokens": tokens, "tensor_model_parallel_size": self.tensor_parallel, **initial}


@dataclass(frozen=True)
class WritePart(Step):
    """Writes some units into one `.distcp` file."""

    source: Any
    units: tuple[Unit, ...]
    architecture: Architecture
    dtype: torch.dtype | None
    tensor_parallel: int

    def run(self, output: OutputFile, reader: ReadAhead) -> list[dict[str, Any]]:
        """Write the file and return its entries."""
        parts = [(unit, *part) for unit in self.units for part in pieces(unit, self.architecture, self._dtype(unit), self.tensor_parallel)]
        tensors = reader.read(self._piece(unit, runs) for unit, _, runs in parts)
        entries = []
        for (unit, place, _), tensor in zip(parts, tensors, strict=True):
            size = padded_shape(unit, self.architecture, self.tensor_parallel)
            offset: tuple[int, ...] = (place, *(0 for _ in size[1:]))
            whole = size
            if unit.layer is not None:
                tensor, offset, whole = tensor[None], (unit.layer, *offset), (self.architecture.num_layers, *size)
            entries.append(torch_dist.write_entry(output, self.file, unit.megatron, whole, offset, tensor))
        return [dataclasses.asdict(entry) for entry in entries]

    def _dtype(self, unit: Unit) -> torch.dtype:
        return self.dtype or self.source.dtype(unit.hf[0])

    def _piece(self, unit: Unit, runs: list[Rows]) -> Piece:
        shape = (height(runs), *self.source.shape(unit.hf[0])[1:])
        return Piece(shape, self._dtype(unit), lambda target: fill_megatron_rows(target, unit, runs, self.source))


def convert(job: Import, output: Path, inputs: InputHashes, workers: int = 1) -> None:
    """Write the model that `job` names, whose files are `inputs`, as iteration 0 of the Megatron checkpoint `output`.

    Raises:
        DataError: the model cannot be converted, or `output` holds another one.
    """
    family, architecture = families.find(job.hf / "config.json")
    check_vocabulary(job.hf, architecture.vocab_size)
    weights = Weights(job.hf)
    if _finished(output, inputs.paths, {"family": family.name, **job.options}):
        return
    check_complete(weights, family, architecture)
    if not any((job.hf / name).is_file() for name in TOKENIZERS):
        print(
            f"note: {job.hf} has no tokenizer, so an export will have none either; verify.py needs it, or --weights-only", file=sys.stderr
        )
    extension = None
    if job.special_tokens is not None:
        extension = vocabulary.extend(job.hf, vocabulary.read_tokens(job.special_tokens), architecture.vocab_size)
        architecture = dataclasses.replace(architecture, vocab_size=extension.vocab_size)
    source: Any = weights
    if extension is not None:
        names = [mapping.hf[0] for mapping in (*family.mappings(architecture),) if mapping.megatron in vocabulary.VOCABULARY]
        source = vocabulary.ExtendedWeights(weights, names, extension, job.new_rows, job.seed)
    _write(job, family, architecture, source, extension, output, inputs, workers)
    print(f"{output}: {family.name}, {architecture.parameters:,} parameters, iteration 0")


def _write(
    job: Import,
    family: Family,
    architecture: Architecture,
    source: Any,
    extension: "vocabulary.Extension | None",
    output: Path,
    inputs: InputHashes,
    workers: int,
) -> None:
    """Write what came with the model, then the iteration."""
    output.mkdir(parents=True, exist_ok=True)
    copy_companions(job.hf, output / checkpoint_folder.HF)
    if extension is not None:
        extension.write(output / checkpoint_folder.HF)
    config = {"family": family.name, **job.options}
    _write_iteration(source, family, architecture, output, inputs, config, DTYPES.get(job.dtype or ""), job.tensor_parallel, workers)


def write_source(ranks: Any, family: Family, architecture: Architecture, tokenizer: Path | None, output: Path, workers: int) -> None:
    """Write a model that comes from another trainer's files, with a new config.json.

    Raises:
        DataError: it lacks a tensor or one has another size, or `output` holds a checkpoint.
    """
    if _finished(output, ranks.files, {"family": family.name}):
        return
    for unit in (unit for part in units(family, architecture) for unit in part):
        if unit.megatron not in vocabulary.VOCABULARY:
            check_shapes(unit, architecture, ranks, ranks.path)
    output.mkdir(parents=True, exist_ok=True)
    companions = output / checkpoint_folder.HF
    if tokenizer is not None:
        copy_companions(tokenizer, companions)
    companions.mkdir(exist_ok=True)
    write_text(companions / "config.json", json.dumps(family.config(architecture), indent=2) + "\n")
    with InputHashes(ranks.files) as inputs:
        _write_iteration(ranks, family, architecture, output, inputs, {"family": family.name}, None, 1, workers)
    print(f"{output}: {family.name}, {architecture.parameters:,} parameters, iteration 0")


def _finished(output: Path, inputs: Sequence[Path], config: dict[str, Any]) -> bool:
    iteration = checkpoint_folder.latest_iteration(output)
    return iteration is not None and finished(output, checkpoint_folder.iteration_folder(output, iteration), STAGE, inputs, config)


def _write_iteration(
    source: Any,
    family: Family,
    architecture: Architecture,
    output: Path,
    inputs: InputHashes,
    config: dict[str, Any],
    dtype: torch.dtype | None,
    tensor_parallel: int,
    workers: int,
) -> None:
    """Write the iteration and its manifest; they appear together."""

    def place(unit: Unit) -> tuple[str, int]:
        return min(source.place(name) for name in unit.hf)

    steps = [
        WritePart(f"__{number}_0.distcp", source, tuple(sorted(part, key=place)), architecture, dtype, tensor_parallel)
        for number, part in enumerate(units(family, architecture))
    ]
    steps.sort(key=lambda step: place(step.units[0]))  # the inputs are read from their first byte to their last, or nearly so
    total = sum(unit.nbytes(architecture, dtype or source.dtype(unit.hf[0])) for step in steps for unit in step.units)
    with checkpoint_folder.new_iteration(output, 0) as folder:
        begin(folder, inputs.paths, config)
        entries, hashes = run_steps("import", folder, steps, workers, inputs, total)
        written = dtype or source.dtype(family.shared[0].hf[0])
        common = common_state(architecture, tensor_parallel, written)
        found = [torch_dist.Entry.from_json(entry) for part in entries for entry in part]
        torch_dist.finish(folder, found, common, extra_states(architecture))
        architecture.write(folder)
        bridge_config.write(folder, architecture, tensor_parallel, written)
        files = [path for path in sorted(folder.iterdir()) if path.is_file()]
        record(folder, STAGE, inputs.paths, hashes, config, files, architecture)


# Arguments of Megatron-LM that Megatron-Bridge reads without asking whether they are there, at their defaults.
_BRIDGE_READS: dict[str, Any] = {
    "multi_latent_attention": False,
    "heterogeneous_layers_config_path": None,
    "no_persist_layer_norm": False,
    "overlap_p2p_comm": False,
    "num_experts": None,
    "rotary_interleaved": False,
    "decoder_first_pipeline_num_layers": None,
    "decoder_last_pipeline_num_layers": None,
    "fp8_param_gather": False,
    "bias_swiglu_fusion": True,
    "bias_gelu_fusion": False,
    "squared_relu": False,
    "init_method_xavier_uniform": False,
    "config_logger_dir": "",
    "cp_comm_type": ["p2p"],
    "is_hybrid_model": False,
}


def common_state(architecture: Architecture, tensor_parallel: int, dtype: torch.dtype) -> dict[str, Any]:
    """Return the arguments that Megatron-LM (--use-checkpoint-args) and Megatron-Bridge read from a checkpoint."""
    return torch_dist.megatron_arguments(
        num_layers=architecture.num_layers,
        hidden_size=architecture.hidden_size,
        ffn_hidden_size=architecture.ffn_hidden_size,
        num_attention_heads=architecture.num_attention_heads,
        num_query_groups=architecture.num_query_groups,
        group_query_attention=architecture.num_query_groups != architecture.num_attention_heads,
        kv_channels=architecture.kv_channels,
        max_position_embeddings=architecture.max_position_embeddings,
        seq_length=architecture.max_position_embeddings,
        position_embedding_type="rope",
        rotary_base=int(architecture.rotary_base),
        rotary_percent=1.0,
        use_rope_scaling=architecture.rope_scaling_factor is not None,
        rope_scaling_factor=architecture.rope_scaling_factor or 8.0,
        norm_epsilon=architecture.layernorm_epsilon,
        layernorm_epsilon=architecture.layernorm_epsilon,
        normalization="RMSNorm",
        swiglu=True,
        add_bias_linear=False,
        add_qkv_bias=architecture.add_qkv_bias,
        qk_layernorm=architecture.qk_layernorm,
        window_size=None if architecture.window_size is None else (architecture.window_size - 1, 0),
        untie_embeddings_and_output_weights=not architecture.share_embeddings_and_output_weights,
        padded_vocab_size=architecture.padded_vocab_size(tensor_parallel),
        tensor_model_parallel_size=tensor_parallel,
        pipeline_model_parallel_size=1,
        iteration=0,
        consumed_train_samples=0,
        consumed_valid_samples=0,
        ckpt_format="torch_dist",
        **_BRIDGE_READS,
        params_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
    )


def check_complete(weights: Weights, family: Family, architecture: Architecture) -> None:
    """Check that the folder's tensors are those of the model, in number and size: a surplus one would silently be lost.

    Raises:
        DataError: they are not.
    """
    wanted = [unit for part in units(family, architecture) for unit in part]
    expected = {name for unit in wanted for name in unit.hf}
    folder = weights.files[0].parent
    if missing := expected - weights.names():
        raise DataError(f"{folder} lacks {len(missing)} tensors that config.json calls for: {_some(missing)}")
    for unit in wanted:
        check_shapes(unit, architecture, weights, folder)
    surplus = {name for name in weights.names() - expected if not name.endswith("rotary_emb.inv_freq")}
    if architecture.share_embeddings_and_output_weights and surplus == set(family.output.hf):
        embedding, output = family.shared[0].hf[0], family.output.hf[0]
        if not _same(weights, embedding, output):
            raise DataError(f"config.json ties {output} to the embedding, but the file holds a different tensor")
        surplus = set()
    if surplus:
        raise DataError(
            f"{len(surplus)} tensors have no place in a {family.name} model: {_some(surplus)}; is model_type in config.json right?"
        )


def _same(weights: Weights, first: str, second: str) -> bool:
    """Compare two tensors bit by bit, some rows at a time."""
    rows = weights.shape(first)[0]
    return weights.shape(second)[0] == rows and all(
        weights.rows(first, start, min(start + 4096, rows)).equal(weights.rows(second, start, min(start + 4096, rows)))
        for start in range(0, rows, 4096)
    )


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (" …" if len(names) > 5 else "")
