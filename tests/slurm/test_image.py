"""The Dockerfile's build context and content.

The image itself needs a registry, and is not built here.
"""

import re
import subprocess
import tomllib

import pytest

from tests.slurm.cluster import ROOT

# As NVIDIA's container 25.11 lists them.
LISTED = """
apex==0.1
flash_attn==2.7.4.post1
numpy=={numpy}
pytorch-triton==3.5.0+git2c06b0d9
setuptools==70.3.0
{torch}
torchvision==0.25.0a0+ca221243
transformer_engine==2.9.0+70f53666
triton_kernels==1.0.0
"""
TORCH = "torch==2.10.0a0+b558c986e8.nv25.11"


def hold(folder, numpy, torch):
    """Run the Dockerfile's first step with this list of packages."""
    lines = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace(
        "\\\n", ""
    )
    step = next(line.removeprefix("RUN ") for line in lines.splitlines() if line.startswith("RUN "))
    python = folder / "python"
    python.write_text(f"#!/bin/sh\ncat << END{LISTED.format(numpy=numpy, torch=torch)}END\n")
    python.chmod(0o755)
    held = folder / "held.txt"
    done = subprocess.run(
        ["sh", "-c", step.replace("/etc/galen-held.txt", str(held))],
        env={"PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, held.read_text().split()


@pytest.mark.parametrize(("numpy", "retained"), [("1.26.4", []), ("2.2.6", ["numpy==2.2.6"])])
def test_builds_that_no_index_has_are_held(tmp_path, numpy, retained):
    done, held = hold(tmp_path, numpy, TORCH)
    assert done.returncode == 0, done
    builds = [
        "pytorch-triton==3.5.0+git2c06b0d9",
        TORCH,
        "torchvision==0.25.0a0+ca221243",
        "transformer_engine==2.9.0+70f53666",
    ]
    assert held == ["flash_attn==2.7.4.post1", *retained, *builds]


def test_a_base_image_without_pytorch_is_refused(tmp_path):
    done, _ = hold(tmp_path, "2.2.6", "")
    assert done.returncode == 1 and "the base image has no PyTorch" in done.stderr


def test_all_packages_go_into_the_image():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    rooms = [pattern.rstrip("*") for pattern in setuptools["packages"]["find"]["include"]]
    assert "galen" in rooms
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {f"!{room}" for room in rooms} <= set(ignored)
