"""The recipe of an evaluation: models, tasks, protocol and further settings."""

import importlib.util
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from evaluation.backends import model_folder
from evaluation.protocols.protocol import Protocol
from evaluation.protocols.registry import get_protocol
from galen import recipe
from galen.errors import UsageError, install


@dataclass(kw_only=True, config=recipe.STRICT)
class Recipe:
    """Which models are scored on which tasks, and how."""

    model: list[Path]
    """Hugging Face folders, or Megatron checkpoints."""
    iterations: int | str | None = None
    """Of a Megatron checkpoint: numbers with commas, or all; null: the newest."""
    adapter: Path | None = None
    """PEFT adapter on top of the model."""
    tasks: list[str]
    """Built-in tasks, paths of task files, or lm_eval:NAME, a task of lm-evaluation-harness."""
    lm_eval_include_path: Path | None = None
    """Folder of further task files of lm-evaluation-harness."""
    protocol: str = "lm_eval"
    """Protocol: prompt template, few-shot examples, answer extraction."""
    fewshot_examples: Path | None = None
    """Questions in Galen's layout to show, in order, in place of the task's."""
    num_fewshot: int | None = None
    """Few-shot examples before each question; null: the protocol's number."""
    fewshot_seeds: list[int] | None = None
    """Seeds of the few-shot examples, one run each; null: the protocol's."""
    num_samples: int | None = None
    """Answers sampled for a question by self-consistency; null: the protocol's number."""
    max_new_tokens: int | None = None
    """Maximum length of a generated answer in tokens; null: the protocol's."""
    data: Path
    """Folder that contains the tasks' files."""
    output: Path
    """Folder for samples and results; of several models, one each below it."""
    verify_checksums: bool = True
    """Compare models with the SHA-256 in their manifest.json."""
    name: str | None = None
    """The model's name in reports; null: the output folder's name."""
    limit: int | None = None
    """Score only so many samples of each task, chosen by a hash of their ids; null: all."""
    contamination: Path | None = None
    """JSONL of {"id", "ratio"}: the fraction of a sample's n-grams that the corpus contains."""
    contamination_threshold: float = 0.5
    """Ratio from which on a sample counts as contaminated."""
    backend: Literal["transformers", "vllm"] = "transformers"
    """Library that runs the model."""
    tensor_parallel: int = 1
    """GPUs that share the model, with vllm."""
    processes: int = 1
    """Processes on this machine, one GPU each."""
    max_batch_tokens: int | None = None
    """Padded tokens in a batch; null: 1024, on CUDA 16384, in vllm 262144 (generation: × 8)."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Precision of the weights; null: float32 on a CPU, bfloat16 on CUDA."""
    device: str | None = None
    """For example cpu or cuda:0; null: CUDA if available."""


_AT_LEAST_ONE = (
    "limit",
    "num_samples",
    "max_new_tokens",
    "max_batch_tokens",
    "processes",
    "tensor_parallel",
)


def check_recipe(options: Recipe) -> Protocol:
    """Check numbers, backend and adapter; return the protocol with the recipe's settings.

    Raises:
        UsageError: a value is wrong, or two exclude each other.
        DataError: the adapter is not one.
    """
    for name in _AT_LEAST_ONE:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1")
    if not options.model:
        raise UsageError("--model names no model")
    seeds = options.fewshot_seeds
    if seeds is not None and (not seeds or len(set(seeds)) < len(seeds)):
        raise UsageError("--fewshot-seeds must name one seed or several different ones")
    settings = get_protocol(
        options.protocol,
        num_fewshot=options.num_fewshot,
        fewshot_seeds=None if seeds is None else tuple(seeds),
        num_samples=options.num_samples,
        max_new_tokens=options.max_new_tokens,
    )
    _check_backend(options)
    if options.adapter is not None:
        model_folder.check_adapter(options.adapter)
    return settings


def _check_backend(options: Recipe) -> None:
    if options.backend != "vllm":
        if options.tensor_parallel > 1:
            raise UsageError("--tensor-parallel goes with --backend vllm")
        return
    if len(options.model) > 1 or options.iterations is not None:
        raise UsageError(
            "--backend vllm scores one model a call: vLLM does not free a GPU's memory before it"
            " ends"
        )
    if options.processes > 1 or options.device:
        raise UsageError(
            "--backend vllm chooses its GPUs: leave out --processes and --device, and see"
            " --tensor-parallel"
        )
    if options.adapter is not None:
        raise UsageError(
            "--backend vllm takes no --adapter; train with lora.merge=true and score RUN/model"
        )
    if importlib.util.find_spec("vllm") is None:
        raise UsageError(f"--backend vllm: vLLM is not installed; {install('vllm')}")
