"""With any file of a folder damaged, each command works or reports it in one line.

A file is truncated, altered or has the wrong types.

tests/damage.py says how many damages each command sees of each file.
"""

import random
import shutil
from pathlib import Path

import pytest
import torch

from checkpoints_convert import (
    describe,
    hf_to_megatron,
    legacy_to_megatron,
    megatron_to_hf,
    megatron_to_nemo,
    nemo_to_megatron,
    register_checkpoint,
    verify,
)
from tests.checkpoints_convert.interop.test_megatron_lm_legacy import write_ranks
from tests.conftest import import_model
from tests.damage import MUTATIONS, check_one_line, ended, mutate


@pytest.fixture(scope="module")
def folders(tmp_path_factory, make_model):
    """A folder of each format without manifests, which would report every damage."""
    base = tmp_path_factory.mktemp("whole")
    shutil.copytree(make_model("llama-3.2", num_hidden_layers=2), base / "hf")
    import_model(base / "hf", base / "megatron")
    megatron_to_nemo.main(["--megatron", str(base / "megatron"), "--output", str(base / "nemo")])
    (base / "nemo" / "manifest.json").unlink()
    shutil.copytree(base / "megatron", base / "managed")
    for part in ("iter_0000000", "hf"):
        (base / "megatron" / part / "manifest.json").unlink()
    write_ranks(make_model("llama-2", num_hidden_layers=2), base / "legacy", 1, 1)
    return base


def commands(folder, output):
    """Return each command by name, what it reads, and its arguments."""
    return {
        "hf_to_megatron": (hf_to_megatron.main, "hf", ["--hf", folder / "hf", "--output", output]),
        "describe_hf": (describe.main, "hf", [folder / "hf"]),
        "megatron_to_hf": (
            megatron_to_hf.main,
            "megatron",
            ["--megatron", folder / "megatron", "--output", output],
        ),
        "managed": (
            megatron_to_hf.main,
            "managed",
            ["--megatron", folder / "managed", "--output", output],
        ),
        "megatron_to_nemo": (
            megatron_to_nemo.main,
            "megatron",
            ["--megatron", folder / "megatron", "--output", output],
        ),
        "describe": (describe.main, "megatron", [folder / "megatron"]),
        "register_checkpoint": (
            register_checkpoint.main,
            "megatron",
            ["--megatron", folder / "megatron", "--hf", folder / "hf"],
        ),
        "nemo_to_megatron": (
            nemo_to_megatron.main,
            "nemo",
            ["--nemo", folder / "nemo", "--output", output],
        ),
        "verify": (
            verify.main,
            "megatron",
            ["--hf", folder / "hf", "--megatron", folder / "megatron", "--weights-only"],
        ),
        "verify_hf": (
            verify.main,
            "hf",
            ["--hf", folder / "hf", "--megatron", folder / "megatron", "--weights-only"],
        ),
        "legacy_to_megatron": (
            legacy_to_megatron.main,
            "legacy",
            ["--legacy", folder / "legacy", "--vocab-size", 300, "--output", output],
        ),
        "describe_legacy": (describe.main, "legacy", [folder / "legacy"]),
    }


@pytest.mark.parametrize("name", commands(Path(), Path()))
def test_one_line_or_success(tmp_path, folders, name, capsys):
    torch.set_num_threads(1)
    main, source, arguments = commands(tmp_path, tmp_path / "output")[name]
    files = [
        path.relative_to(folders / source)
        for path in sorted((folders / source).rglob("*"))
        if path.is_file()
    ]
    chosen = [
        file
        for file in files
        if not file.name.endswith(".distcp")
        or file.name in ("__0_0.distcp", "__extra_states.distcp")
    ]
    shutil.copytree(folders, tmp_path, dirs_exist_ok=True)
    for file in chosen:
        for number in range(MUTATIONS):
            seed = f"{name} {file} {number}"
            mutation = mutate(tmp_path / source / file, random.Random(seed))
            code, out, err = ended(main, arguments, capsys)
            assert code in (0, 1), (seed, mutation, err)
            if "NOT the same model" not in out and not name.startswith("describe"):
                check_one_line(code, err, (seed, mutation))
            for path in (tmp_path / "output", tmp_path / ".output.partial"):
                shutil.rmtree(path, ignore_errors=True)
            if name == "register_checkpoint":
                shutil.rmtree(tmp_path / source)
                shutil.copytree(folders / source, tmp_path / source)
            shutil.copy(folders / source / file, tmp_path / source / file)
