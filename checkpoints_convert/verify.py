r"""Prove that a Megatron checkpoint and a Hugging Face folder are the same model.

It compares weights and logits.

    galen verify --hf models/SmolLM2-135M --megatron runs/megatron
    galen verify --hf models/SmolLM2-135M --megatron runs/megatron \
        --tp 2 --pp 2

Weights are compared bit by bit, by name, a slice at a time. Logits are computed on real text, by
the original's own code and by Megatron under the requested layout (with --tp, sequence parallel),
and compared position by position: the largest difference over the vocabulary, relative to the
largest logit of the position. At most 1e-5 is allowed in fp32, which both sides compute on the CPU;
with --dtype bf16 three times the difference between the original in bf16 and in fp32. Exit code 1
when the two differ.
"""

import argparse
import dataclasses
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoints_convert.conversion.arguments import add_megatron, add_no_verify, positive
from galen import checksums, cli, pretrained
from galen.errors import DataError
from galen.option_recipe import OptionParser
from galen.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from checkpoints_convert.conversion.weight_tasks import WeightConversionTask
    from checkpoints_convert.hf.weights import Weights
    from checkpoints_convert.resumable_io.prefetch import Prefetcher
    from megatron_ext.checkpoint.torch_dist import TorchDist
    from megatron_ext.config.architecture import Architecture

logger = logging.getLogger(__name__)

TEXT = Path(__file__).parent / "conversion" / "verify_text.txt"
FP32_BOUND = 1e-5
"""Largest relative difference of a logit in fp32, where only the order of sums differs."""
BF16_FACTOR = 3.0
"""Largest relative difference in bf16, as a multiple of the original's own error.

In bf16 every result is rounded to 8 bits, so that the bound depends on the model: this many
times the difference of the original's own logits between bf16 and fp32. Equal weights came to 0.9
to 1.0 times (benchmarks/verify_bounds.py); two independent roundings differ by up to the sum of
both. Only fp32 is a proof.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = _parser()
    arguments = parser.parse(argv)
    if arguments.max_tokens < 2:
        parser.error("--max-tokens must be at least 2: a token alone attends to nothing")
    pretrained.check_folder(arguments.hf)
    if not arguments.weights_only:
        _check_layout(arguments)

    same = compare_weights(arguments.hf, arguments.megatron, arguments.iteration)
    if not arguments.weights_only:
        same &= compare_logits(arguments)
    if same:
        _verify(arguments)
    print("the same model" if same else "NOT the same model")
    return 0 if same else 1


def _parser() -> OptionParser:
    parser = OptionParser(__doc__)
    parser.add_argument("--hf", type=Path, required=True, metavar="DIR", help="Hugging Face folder")
    add_megatron(parser)
    parser.add_argument(
        "--tp",
        type=positive,
        default=1,
        metavar="N",
        help="tensor-parallel size of the Megatron side (default 1)",
    )
    parser.add_argument(
        "--pp",
        type=positive,
        default=1,
        metavar="N",
        help="pipeline-parallel size of the Megatron side (default 1)",
    )
    parser.add_argument(
        "--ep",
        type=positive,
        default=1,
        metavar="N",
        help="expert-parallel size of the Megatron side (default 1)",
    )
    parser.add_argument(
        "--dtype",
        choices=("fp32", "bf16"),
        default="fp32",
        help="precision of both forward passes (default fp32)",
    )
    parser.add_argument(
        "--text",
        type=Path,
        default=TEXT,
        metavar="FILE",
        help="text to compute logits on (default: a built-in page of text)",
    )
    parser.add_argument(
        "--max-tokens",
        type=positive,
        default=256,
        metavar="N",
        help="tokens of the text that are used (default 256)",
    )
    parser.add_argument(
        "--weights-only",
        action="store_true",
        help="do not compute logits (needs no memory for the model)",
    )
    add_no_verify(parser)
    parser.add_argument(
        "--worst", type=int, default=8, metavar="N", help="positions in the table (default 8)"
    )
    return parser


def _verify(arguments: argparse.Namespace) -> None:
    """Compare both folders with their manifests.

    A checkpoint made from an altered folder would pass as the same model.

    Raises:
        DataError: a file was altered since it was written.
    """
    from checkpoints_convert.hf.folder import verify_companions
    from megatron_ext.checkpoint.checkpoint_folder import HF, find_iteration

    for folder in (arguments.hf, find_iteration(arguments.megatron, arguments.iteration)):
        (checksums.log_skipped if arguments.no_verify else checksums.verify)(folder)
    verify_companions(folder.parent / HF, arguments.no_verify)


def _check_layout(arguments: argparse.Namespace) -> None:
    """Check before any work that the layout can divide the model.

    Raises:
        UsageError: it cannot; names possible sizes.
    """
    from megatron_ext.checkpoint.checkpoint_folder import find_iteration
    from megatron_ext.config.architecture import read_architecture
    from megatron_ext.config.layout_checks import check_division

    check_division(
        read_architecture(find_iteration(arguments.megatron, arguments.iteration)),
        arguments.tp,
        arguments.pp,
        arguments.ep,
    )


def compare_weights(hf: Path, megatron: Path, iteration: int | None) -> bool:
    """Compare all weights bit by bit and print those that differ, in value or precision."""
    from checkpoints_convert import families
    from checkpoints_convert.conversion.hub_weights import open_weights
    from checkpoints_convert.conversion.validate import (
        check_complete,
        check_tensors,
        differences,
    )
    from checkpoints_convert.conversion.weight_tasks import all_tasks
    from checkpoints_convert.resumable_io.prefetch import Prefetcher
    from megatron_ext.checkpoint.checkpoint_folder import find_iteration
    from megatron_ext.checkpoint.torch_dist import TorchDist
    from megatron_ext.config.architecture import read_architecture

    folder = find_iteration(megatron, iteration)
    family, architecture = families.find(hf / "config.json")
    stored = read_architecture(folder)
    if dataclasses.replace(stored, family=family.name) != architecture:
        print(f"configuration: {hf} and {folder} differ: {differences(architecture, stored)}")
        return False
    weights = open_weights(hf, family, architecture)
    source = TorchDist(folder)
    check_complete(weights, family, architecture)
    check_tensors(source, family, architecture)
    wrong: list[str] = []
    tasks = all_tasks(family, architecture)
    with Progress("weights", total=len(tasks), unit="tensors") as progress, Prefetcher() as reader:
        for task in tasks:
            if difference := _difference(task, architecture, weights, source, reader):
                wrong.append(difference)
            progress.update()
    for line in wrong[:10]:
        print(line)
    print(f"weights: {len(tasks) - len(wrong)} of {len(tasks)} Megatron tensors equal bit by bit")
    return not wrong


def _difference(
    task: "WeightConversionTask",
    architecture: "Architecture",
    weights: "Weights",
    source: "TorchDist",
    reader: "Prefetcher",
) -> str | None:
    """Return how a Megatron tensor differs from its Hugging Face tensors, or None."""
    from checkpoints_convert.conversion.validate import same_bits
    from checkpoints_convert.conversion.weight_tasks import megatron_slices

    dtype = source.dtype(task.megatron, task.index)
    hf_dtype = weights.dtype(task.hf[0])
    slices = list(megatron_slices(task, architecture, weights, hf_dtype))
    name = f"{task.megatron} ({task.label})"
    if dtype != hf_dtype:
        return f"{name}: {dtype} in the checkpoint, {hf_dtype} in {', '.join(task.hf)}"
    tensors = reader.read(slice_ for _, slice_ in slices)
    for (row, _), expected in zip(slices, tensors, strict=True):
        actual = source.rows(task.megatron, task.index, row, row + len(expected))
        if not same_bits(actual, expected):
            return f"{name} is not {', '.join(task.hf)}"
    return None


def compare_logits(arguments: argparse.Namespace) -> bool:
    """Compare the logits of both sides on text and return whether they are within the bound.

    Prints a table of the worst positions.
    """
    import torch
    from safetensors.torch import load_file, save_file

    from megatron_ext.checkpoint.checkpoint_folder import find_iteration
    from megatron_ext.config.architecture import read_architecture

    tokens = tokens_of(arguments.hf, arguments.text, arguments.max_tokens, arguments.tp)
    _warn_of_idle_window(
        read_architecture(find_iteration(arguments.megatron, arguments.iteration)), tokens.size(1)
    )
    expected = reference_logits(arguments.hf, tokens, arguments.dtype)
    with tempfile.TemporaryDirectory(prefix="galen-verify-") as folder:
        save_file({"tokens": tokens}, f"{folder}/tokens.safetensors")
        _megatron_logits(arguments, folder)
        actual = load_file(f"{folder}/logits.safetensors")["logits"]
    actual = actual[0, :, : expected.size(-1)].float()
    expected = expected[0].float()
    if expected.size(-1) != actual.size(-1) or not bool(torch.isfinite(actual).all()):
        raise DataError(
            f"Megatron gave logits of size {list(actual.shape)}, expected {list(expected.shape)},"
            " all of them finite"
        )
    scale = expected.abs().amax(-1)
    difference = relative_differences(actual, expected)
    agree = (actual.argmax(-1) == expected.argmax(-1)).tolist()
    worst = sorted(range(len(difference)), key=difference.__getitem__, reverse=True)[
        : arguments.worst
    ]
    layout = f"TP{arguments.tp} x PP{arguments.pp}"
    if arguments.ep > 1:
        layout += f" x EP{arguments.ep}"
    if arguments.tp > 1:
        layout += ", sequence parallel"
    bound = FP32_BOUND
    reason = ""
    if arguments.dtype == "bf16":
        own = max(relative_differences(expected, reference_logits(arguments.hf, tokens, "fp32")[0]))
        bound = BF16_FACTOR * own
        reason = f" ({BF16_FACTOR:g} times the original's own {own:.2e} between bf16 and fp32)"
    print(f"logits: {len(difference)} positions, {arguments.dtype}, Megatron under {layout}")
    print("position  token    relative difference  largest logit  same best token")
    for position in worst:
        print(
            f"{position:8}  {int(tokens[0, position]):7}  {difference[position]:19.2e} "
            f" {float(scale[position]):13.4f}  {'yes' if agree[position] else 'NO'}"
        )
    print(
        f"largest relative difference {max(difference):.2e}, bound {bound:.3g}{reason}; same best"
        f" token in {sum(agree)} of {len(agree)}"
    )
    return max(difference) <= bound


def _warn_of_idle_window(architecture: "Architecture", num_tokens: int) -> None:
    """Warn if no token of the text lies beyond the sliding window of another."""
    window = architecture.window_size
    if window is not None and num_tokens <= window:
        logger.warning(
            f"the {num_tokens} tokens of the text fit in the sliding window of {window}: the logits"
            " do not depend on it; to compare it, too, set --text and --max-tokens to a text of"
            f" more than {window} tokens"
        )


def relative_differences(actual: "Tensor", expected: "Tensor") -> list[float]:
    """Return each position's largest logit difference, relative to its largest expected logit.

    Logits are [sequence, vocabulary].
    """
    return ((actual - expected).abs().amax(-1) / expected.abs().amax(-1).clamp(min=1e-30)).tolist()


def tokens_of(hf: Path, text: Path, max_tokens: int, multiple: int) -> "Tensor":
    """Return [1, sequence] token ids of the text.

    Their number is a multiple of the tensor-parallel size (sequence parallel).
    """
    import torch

    try:
        content = text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the text {text}: {error}") from None
    try:
        tokenizer = pretrained.load_tokenizer(hf)
    except DataError as error:
        raise DataError(
            f"{hf}: no tokenizer for the logits' text ({error}); --weights-only needs none"
        ) from None
    ids = tokenizer(content)["input_ids"][:max_tokens]
    ids = ids[: len(ids) // multiple * multiple]
    if not ids:
        raise DataError(f"{text} gives no token")
    return torch.tensor([ids])


def reference_logits(hf: Path, tokens: "Tensor", precision: str) -> "Tensor":
    """Return the logits of the original's own code, [1, sequence, vocabulary]."""
    import importlib

    import torch

    from checkpoints_convert import families

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    family, _ = families.find(hf / "config.json")
    with torch.no_grad():
        if family.reference != "transformers":
            reference = importlib.import_module(family.reference)
            logits: torch.Tensor = reference.logits(hf, tokens, dtype)
            return logits
        import transformers

        auto_class = (
            transformers.AutoModelForCausalLM
            if family.text_config is None
            else transformers.AutoModelForImageTextToText
        )
        model = pretrained.load_model(auto_class, hf, dtype=dtype, use_safetensors=True)
        logits = model(tokens).logits
        return logits


def _megatron_logits(arguments: argparse.Namespace, folder: str) -> None:
    """Compute Megatron's logits in processes of their own, as many as the layout needs."""
    options: dict[str, Any] = {
        "--megatron": arguments.megatron,
        "--tp": arguments.tp,
        "--pp": arguments.pp,
        "--ep": arguments.ep,
        "--dtype": arguments.dtype,
    }
    if arguments.iteration is not None:
        options["--iteration"] = arguments.iteration
    processes = arguments.tp * arguments.pp * arguments.ep
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    if processes <= 1:
        launcher = []
    command = [
        sys.executable,
        *launcher,
        "-m",
        "checkpoints_convert.conversion.megatron_logits",
        "--folder",
        folder,
    ]
    done = subprocess.run(
        [*command, *(str(part) for item in options.items() for part in item)],
        capture_output=True,
        text=True,
        check=False,
        env=_environment(arguments.dtype),
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        raise DataError(
            errors[0].removeprefix("error: ")
            if errors
            else f"the Megatron side failed:\n{done.stderr[-3000:]}"
        )


def _environment(dtype: str) -> dict[str, str]:
    """Return the environment of the Megatron side; in fp32 it does not see a GPU.

    Transformer Engine multiplies fp32 matrices in TF32 (errors of about 1e-3), whatever PyTorch is
    set to. The original's logits are computed on the CPU, too.
    """
    if dtype != "fp32":
        return dict(os.environ)
    return os.environ | {"CUDA_VISIBLE_DEVICES": ""}


if __name__ == "__main__":
    cli.run(main)
