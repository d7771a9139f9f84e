"""Logit differences between Hugging Face and Megatron with equal weights, in fp32 and bf16.

The source of verify.py's bounds.

    python benchmarks/verify_bounds.py --tokenizer models/SmolLM2-135M --folder /scratch/bounds
    python benchmarks/verify_bounds.py --tokenizer models/SmolLM2-135M --folder /scratch/bounds \\
        --model models/SmolLM2-135M

Makes a random model of each family in fp32, imports it, and runs verify.py on it as a user would.
--model adds models that are there. The last column says how far the original's own code is from
itself when it computes in bf16 instead of fp32.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from galen import cli

ROOT = Path(__file__).parent.parent
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {
        "num_key_value_heads": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
    },
    "llama tied": {"num_key_value_heads": 4, "tie_word_embeddings": True},
    "mistral": {"num_key_value_heads": 4, "sliding_window": 64},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 4, "head_dim": 128},
}


def main() -> None:
    """Print a line for each model."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument(
        "--tokenizer",
        type=Path,
        required=True,
        help="Hugging Face folder with the tokenizer of the random models",
    )
    parser.add_argument("--folder", type=Path, required=True, help="temporary folder")
    parser.add_argument(
        "--model", type=Path, nargs="*", default=[], help="Hugging Face folders to measure too"
    )
    parser.add_argument(
        "--families",
        nargs="*",
        choices=FAMILIES,
        default=list(FAMILIES),
        help="random models (default: all)",
    )
    parser.add_argument(
        "--hidden", type=int, default=1024, help="width of the random models (default 1024)"
    )
    parser.add_argument(
        "--layers", type=int, default=12, help="layers of the random models (default 12)"
    )
    arguments = parser.parse_args()
    print(
        "| model | fp32 | bf16 | the original, bf16 against fp32 |\n|---|---|---|---|", flush=True
    )
    for model in arguments.model:
        print(f"| {model.name} | {' | '.join(differences(model, arguments.folder))} |", flush=True)
    for name in arguments.families:
        model = arguments.folder / "hf"
        make_model(model, name, arguments.tokenizer, arguments.hidden, arguments.layers)
        label = f"{name}, random, {arguments.layers} layers of {arguments.hidden}"
        print(f"| {label} | {' | '.join(differences(model, arguments.folder))} |", flush=True)
        shutil.rmtree(model)


def make_model(folder: Path, name: str, tokenizer: Path, hidden: int, layers: int) -> None:
    """Write a random model with width, depth and standard deviation (0.02) of a small real one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    words = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    common: dict[str, Any] = {
        "vocab_size": -(-len(words) // 128) * 128,
        "hidden_size": hidden,
        "intermediate_size": hidden * 11 // 4,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    }
    config = AutoConfig.for_model(name.split()[0], **(common | FAMILIES[name]))
    model = AutoModelForCausalLM.from_config(config)
    for parameter, weight in model.named_parameters():
        if "norm" in parameter or "bias" in parameter:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    model.save_pretrained(folder)
    words.save_pretrained(folder)


def differences(model: Path, folder: Path) -> list[str]:
    """Return the largest relative logit differences in fp32 and bf16, and the original's own.

    The original's own is between fp32 and bf16.
    """
    from checkpoints_convert import verify

    checkpoint = folder / "megatron"
    shutil.rmtree(checkpoint, ignore_errors=True)
    run("checkpoints_convert/hf_to_megatron.py", "--hf", model, "--output", checkpoint)
    found = []
    for precision in ("fp32", "bf16"):
        printed = run(
            "checkpoints_convert/verify.py",
            "--hf",
            model,
            "--megatron",
            checkpoint,
            "--dtype",
            precision,
        )
        number = re.search(r"largest relative difference (\S+),", printed)
        found.append(number[1] if number else "failed")
    shutil.rmtree(checkpoint)
    tokens = verify.tokens_of(model, verify.TEXT, 256, 1)
    first, second = (
        verify.reference_logits(model, tokens, precision)[0].float()
        for precision in ("fp32", "bf16")
    )
    return [*found, f"{max(verify.relative_differences(second, first)):.2e}"]


def run(*command: object) -> str:
    """Run a script of the repository and return what it printed, whatever its exit code."""
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1) or "error: " in done.stderr:
        raise SystemExit(done.stderr)
    return done.stdout


if __name__ == "__main__":
    cli.run(main)
