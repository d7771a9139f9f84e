"""Peak memory and speed of the converters on synthetic Llama checkpoints, compared with `cp`.

    python benchmarks/convert.py --folder /scratch/convert --layers 8 32

For each number of layers (32 is the shape of Llama-2-7B, 13.5 GB in bf16) it writes random weights,
copies them with `cp`, imports them, exports them again, copies them again, compares what came back,
and removes everything. Needs about three times the model's bytes of disk. `cp` is the mean of the
two copies: disks that are rented slow down when much is written. Each step begins with the inputs
out of the disk's cache and ends when the outputs are on the disk (`sync`). "cp, hashes" is `cp`
followed by `openssl dgst -sha256` of the copy and of the original, the hashes that a conversion
writes into its manifest. Peak memory is the largest resident set of the converter's process
(VmHWM), of all its processes with --workers. The last lines extrapolate to 70B from the first size
and the last.
"""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from galen import cli

ROOT = Path(__file__).parent.parent
# Llama-2-7B
HIDDEN = 4096
FFN = 11008
HEADS = 32
VOCAB = 32000
BYTES_70B = 138e9  # Llama-2-70B in bf16


def main() -> None:
    """Run the benchmark and print a table."""
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument(
        "--folder", type=Path, required=True, help="temporary folder; emptied at the end"
    )
    parser.add_argument(
        "--layers", type=int, nargs="+", default=[8, 32], help="layers of each model (default 8 32)"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that convert (default 1)")
    arguments = parser.parse_args()
    rows = []
    for layers in arguments.layers:
        folder = arguments.folder / f"{layers}-layers"
        try:
            rows.append(measure(folder, layers, arguments.workers))
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
    if len(rows) > 1:
        small = rows[0]
        large = rows[-1]
        for step in ("import", "export"):
            growth = (large[f"{step}_peak"] - small[f"{step}_peak"]) / (
                large["bytes"] - small["bytes"]
            )
            memory = large[f"{step}_peak"] + max(growth, 0) * (BYTES_70B - large["bytes"])
            rate = (large["bytes"] - small["bytes"]) / (large[step] - small[step])
            print(
                f"70B from the scaling, {step}: {memory / 2**30:.2f} GiB,"
                f" {BYTES_70B / rate / 60:.0f} minutes"
            )


def measure(folder: Path, layers: int, workers: int) -> dict[str, float]:
    """Return bytes, seconds and peak memory of each step for one model."""
    shutil.rmtree(folder, ignore_errors=True)
    make_model(folder / "hf", layers)
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


def make_model(folder: Path, layers: int) -> None:
    """Write a Llama folder with random weights, a file per 4 layers."""
    folder.mkdir(parents=True)
    names: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCAB, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCAB, HIDDEN),
    }
    groups = [names]
    for layer in range(layers):
        if layer % 4 == 0:
            groups.append({})
        attention = {f"self_attn.{part}_proj": (HIDDEN, HIDDEN) for part in "qkvo"}
        mlp = {
            "mlp.gate_proj": (FFN, HIDDEN),
            "mlp.up_proj": (FFN, HIDDEN),
            "mlp.down_proj": (HIDDEN, FFN),
        }
        norms = {"input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,)}
        groups[-1] |= {
            f"model.layers.{layer}.{name}.weight": size
            for name, size in (attention | mlp | norms).items()
        }
    _write_weights(folder, groups)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": layers,
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_attention_heads": HEADS,
        "vocab_size": VOCAB,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))


def _write_weights(folder: Path, groups: list[dict[str, tuple[int, ...]]]) -> None:
    """Write a file of random weights for each group of names and shapes."""
    from checkpoints_convert.hf.weights import header

    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(-(2**15), 2**15, (FFN * HIDDEN,), dtype=torch.int16, generator=generator)
    for number, group in enumerate(groups):
        path = folder / f"model-{number:05d}.safetensors"
        with path.open("wb") as file:
            file.write(header({name: (torch.bfloat16, size) for name, size in group.items()}))
            for name, size in group.items():
                start = sum(name.encode()) * 8  # different bytes for each tensor
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
