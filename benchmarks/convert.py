"""Peak memory and speed of the converters on synthetic checkpoints, compared with `cp`.

    python benchmarks/convert.py --folder /scratch/convert --layers 8 32
    python benchmarks/convert.py --folder /scratch/convert --model qwen3-30b-a3b --layers 1 2 4

For each number of layers (Llama-2-7B has 32, 13.5 GB in bf16; Qwen3-30B-A3B 48, 61 GB, with 128
experts in each; qwen3-narrow has as many tensors, but tiny) it writes random weights,
copies them with `cp`, imports them, exports them again, copies them again, compares what came back,
and removes everything. Needs about three times the model's bytes of disk. `cp` is the mean of the
two copies: disks that are rented slow down when much is written. Each step begins with the inputs
out of the disk's cache and ends when the outputs are on the disk (`sync`). "cp, hashes" is `cp`
followed by `openssl dgst -sha256` of the copy and of the original, the hashes that a conversion
writes into its manifest. Peak memory is the largest resident set of the converter's process
(VmHWM), of all its processes with --workers. The last lines extrapolate from the first size and the
last, Llama to 70B and Qwen3 to all layers.
"""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from galen import cli

ROOT = Path(__file__).parent.parent
_NOISE = 2**25  # numbers


@dataclass(frozen=True)
class Model:
    """The widths of a published model, and the size to which the figures are extrapolated."""

    config: dict[str, Any]
    """config.json without the number of layers."""
    large: str = ""
    large_bytes: float | None = None
    """None for no extrapolation."""

    def shared(self) -> dict[str, tuple[int, ...]]:
        """Return the sizes of the tensors that exist once, by name."""
        vocab = (self.config["vocab_size"], self.config["hidden_size"])
        norm = (self.config["hidden_size"],)
        names = ("model.embed_tokens", "model.norm", "lm_head")
        sizes: tuple[tuple[int, ...], ...] = (vocab, norm, vocab)
        return {f"{name}.weight": size for name, size in zip(names, sizes, strict=True)}

    def layer(self) -> dict[str, tuple[int, ...]]:
        """Return the sizes of a layer's tensors, by name."""
        hidden = self.config["hidden_size"]
        head = self.config.get("head_dim", hidden // self.config["num_attention_heads"])
        queries = head * self.config["num_attention_heads"]
        keys = head * self.config["num_key_value_heads"]
        sizes: dict[str, tuple[int, ...]] = {
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, queries),
        }
        experts = self.config.get("num_experts")
        if experts is None:
            return sizes | _mlp("mlp", hidden, self.config["intermediate_size"])
        sizes |= {"self_attn.q_norm": (head,), "self_attn.k_norm": (head,)}
        sizes["mlp.gate"] = (experts, hidden)
        for expert in range(experts):
            width = self.config["moe_intermediate_size"]
            sizes |= _mlp(f"mlp.experts.{expert}", hidden, width)
        return sizes


def _mlp(name: str, hidden: int, width: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.gate_proj": (width, hidden),
        f"{name}.up_proj": (width, hidden),
        f"{name}.down_proj": (hidden, width),
    }


LLAMA_2_7B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}
QWEN3_30B_A3B = {
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rope_theta": 1e6,
    "rms_norm_eps": 1e-6,
}
NARROW = {"hidden_size": 64, "moe_intermediate_size": 32, "head_dim": 16, "vocab_size": 300}
MODELS = {
    "llama-2-7b": Model(LLAMA_2_7B, "Llama-2-70B", 138e9),
    "qwen3-30b-a3b": Model(QWEN3_30B_A3B, "Qwen3-30B-A3B", 61e9),
    "qwen3-narrow": Model(QWEN3_30B_A3B | NARROW),
}


def main() -> None:
    """Run the benchmark and print a table."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument(
        "--folder", type=Path, required=True, help="temporary folder; emptied at the end"
    )
    parser.add_argument(
        "--model", choices=MODELS, default="llama-2-7b", help="whose widths (default llama-2-7b)"
    )
    parser.add_argument(
        "--layers", type=int, nargs="+", default=[8, 32], help="layers of each model (default 8 32)"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that convert (default 1)")
    arguments = parser.parse_args()
    model = MODELS[arguments.model]
    rows = []
    for layers in arguments.layers:
        folder = arguments.folder / f"{layers}-layers"
        try:
            rows.append(measure(folder, model, layers, arguments.workers))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(json.dumps(rows[-1]), flush=True)
    print(
        "\n| model | cp | cp, hashes | import | export | peak import | peak export"
        " |\n|---|---|---|---|---|---|---|"
    )
    for row in rows:
        speeds = [
            f"{row['bytes'] / row[step] / 1e6:,.0f} MB/s"
            for step in ("cp", "hashed", "import", "export")
        ]
        peaks = [f"{row[f'{step}_peak'] / 2**30:.2f} GiB" for step in ("import", "export")]
        print(f"| {row['bytes'] / 1e9:.1f} GB | {' | '.join(speeds + peaks)} |")
    if len(rows) > 1 and model.large_bytes is not None:
        small = rows[0]
        large = rows[-1]
        for step in ("import", "export"):
            growth = (large[f"{step}_peak"] - small[f"{step}_peak"]) / (
                large["bytes"] - small["bytes"]
            )
            memory = large[f"{step}_peak"] + max(growth, 0) * (model.large_bytes - large["bytes"])
            rate = (large["bytes"] - small["bytes"]) / (large[step] - small[step])
            print(
                f"{model.large} from the scaling, {step}: {memory / 2**30:.2f} GiB,"
                f" {model.large_bytes / rate / 60:.0f} minutes"
            )


def measure(folder: Path, model: Model, layers: int, workers: int) -> dict[str, float]:
    """Return bytes, seconds and peak memory of each step for one model."""
    shutil.rmtree(folder, ignore_errors=True)
    make_model(folder / "hf", model, layers)
    size = sum(path.stat().st_size for path in (folder / "hf").glob("*.safetensors"))
    row: dict[str, float] = {"layers": layers, "bytes": size, "cp before": copy(folder)}
    row["hashed"] = copy(folder, "openssl dgst -sha256 copy/*.safetensors hf/*.safetensors")
    steps: dict[str, tuple[str, tuple[object, ...]]] = {
        "import": ("hf_to_megatron", ("--hf", folder / "hf", "--output", folder / "megatron")),
        "export": (
            "megatron_to_hf",
            ("--megatron", folder / "megatron", "--output", folder / "back"),
        ),
    }
    for step, (script, options) in steps.items():
        forget(folder)
        row[step], row[f"{step}_peak"] = run(
            ROOT / "checkpoints_convert" / f"{script}.py", *options, "--workers", workers
        )
        os.sync()
        print(f"{step}: {row[step]:.1f} s", file=sys.stderr, flush=True)
        if step == "export":
            shutil.rmtree(folder / "megatron")
    row["cp after"] = copy(folder)
    row["cp"] = (row["cp before"] + row["cp after"]) / 2
    compare(folder / "hf", folder / "back")
    return row


def copy(folder: Path, then: str = "true") -> float:
    """Return the seconds of `cp` and what follows it; the copy is removed again."""
    forget(folder)
    start = time.monotonic()
    subprocess.run(
        f"cp -r hf copy && sync && {then}",
        shell=True,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    seconds = time.monotonic() - start
    shutil.rmtree(folder / "copy")
    print(f"cp, {then.split()[0]}: {seconds:.1f} s", file=sys.stderr, flush=True)
    return seconds


def make_model(folder: Path, model: Model, layers: int) -> None:
    """Write a model folder with random weights, a file per 4 layers."""
    folder.mkdir(parents=True)
    groups = [model.shared()]
    for layer in range(layers):
        if layer % 4 == 0:
            groups.append({})
        groups[-1] |= {
            f"model.layers.{layer}.{name}.weight": size
            for name, size in sorted(model.layer().items())
        }
    _write_weights(folder, groups)
    config = {**model.config, "num_hidden_layers": layers, "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))


def _write_weights(folder: Path, groups: list[dict[str, tuple[int, ...]]]) -> None:
    """Write a file of random weights for each group of names and shapes."""
    from checkpoints_convert.hf.weights import header

    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(-(2**15), 2**15, (_NOISE,), dtype=torch.int16, generator=generator)
    for number, group in enumerate(groups):
        path = folder / f"model-{number:05d}.safetensors"
        with path.open("wb") as file:
            file.write(header({name: (torch.bfloat16, size) for name, size in group.items()}))
            for name, size in group.items():
                start = zlib.crc32(name.encode()) % (_NOISE // 2)  # different for each tensor
                remaining = math.prod(size)
                while remaining:
                    values = noise[start : start + remaining]
                    file.write(values.numpy().data)
                    remaining -= len(values)
                    start = 0


def forget(folder: Path) -> None:
    """Drop the files' pages from the disk cache, so that every step reads from the disk."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(*command: object) -> tuple[float, int]:
    """Run a script; return its seconds and its peak resident memory with children, in bytes."""
    import psutil

    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    watched = psutil.Process(process.pid)
    peak = 0
    while process.poll() is None:
        try:
            total = sum(
                _high_water(child.pid) for child in (watched, *watched.children(recursive=True))
            )
        except psutil.Error:
            total = 0
        peak = max(peak, total)
        time.sleep(0.05)
    os.sync()
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with {process.returncode}")
    return time.monotonic() - start, peak


def _high_water(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(peak[1]) * 1024 if peak else 0


def compare(before: Path, after: Path) -> None:
    """Check that exported weights are those that were imported."""
    from checkpoints_convert.hf.weights import Weights

    old = Weights(before)
    new = Weights(after)
    assert old.names() == new.names()
    for name in old.names():
        if not old.read(name).view(torch.int16).equal(new.read(name).view(torch.int16)):
            raise SystemExit(f"{name} changed in the round trip")


if __name__ == "__main__":
    cli.run(main)
