"""Any file of a folder cut off, altered or of the wrong types: each command works, or says so in one line.

GALEN_MUTATIONS, 3 where it is not set, is how many damages each command sees of each file.
"""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
import torch

from checkpoints_convert import (
    adopt,
    describe,
    hf_to_megatron,
    legacy_to_megatron,
    megatron_to_hf,
    megatron_to_nemo,
    nemo_to_megatron,
    verify,
)
from galen import cli
from tests.checkpoints_convert.test_legacy import write_ranks
from tests.conftest import import_model

MUTATIONS = int(os.environ.get("GALEN_MUTATIONS", "3"))
VALUES = [None, True, -1, 0, 3, 1.5, 1e300, 10**30, float("nan"), "", "x", "²", "\ud800", "../x", [], [[]], {}, {"a": {}}, [1, "x"]]


def alter_json(content, seeded):
    """Replace or remove one value, at any depth."""
    place = tree = json.loads(content)
    while isinstance(place, dict | list) and place:
        key = seeded.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or not place[key] or seeded.random() < 0.4:
            if seeded.random() < 0.2:
                del place[key]
            else:
                place[key] = seeded.choice(VALUES)
            break
        place = place[key]
    return json.dumps(tree).encode()


def mutate(path, seeded):
    content = path.read_bytes()
    kind = seeded.choice(["cut", "flip", "other", "json", "json"] if path.suffix == ".json" else ["cut", "flip", "flip", "other"])
    if kind == "cut":
        content = content[: seeded.randrange(len(content))]
    elif kind == "flip":
        altered = bytearray(content)
        for _ in range(seeded.randint(1, 4)):
            altered[seeded.randrange(min(len(altered), 4000))] = seeded.randrange(256)
        content = bytes(altered)
    elif kind == "other":
        content = seeded.choice([b"", b"null", b"[]", b"{}", b"\xff\xfe\x00", b"[" * 100_000, "²".encode(), b"9" * 5000])
    else:
        content = alter_json(content, seeded)
    path.write_bytes(content)
    return kind


@pytest.fixture(scope="module")
def folders(tmp_path_factory, make_model):
    """A folder of each kind without manifests, which would tell every damage."""
    base = tmp_path_factory.mktemp("whole")
    shutil.copytree(make_model("llama-3.2", num_hidden_layers=2), base / "hf")
    import_model(base / "hf", base / "megatron")
    megatron_to_nemo.main(["--megatron", str(base / "megatron"), "--output", str(base / "nemo")])
    (base / "nemo" / "manifest.json").unlink()
    shutil.copytree(base / "megatron", base / "managed")
    (base / "megatron" / "iter_0000000" / "manifest.json").unlink()
    write_ranks(make_model("llama-2", num_hidden_layers=2), base / "legacy", 1, 1)
    return base


def commands(folder, output):
    """Return each command by name, what it reads, and its arguments."""
    return {
        "hf_to_megatron": (hf_to_megatron.main, "hf", ["--hf", folder / "hf", "--output", output]),
        "describe_hf": (describe.main, "hf", [folder / "hf"]),
        "megatron_to_hf": (megatron_to_hf.main, "megatron", ["--megatron", folder / "megatron", "--output", output]),
        "managed": (megatron_to_hf.main, "managed", ["--megatron", folder / "managed", "--output", output]),
        "megatron_to_nemo": (megatron_to_nemo.main, "megatron", ["--megatron", folder / "megatron", "--output", output]),
        "describe": (describe.main, "megatron", [folder / "megatron"]),
        "adopt": (adopt.main, "megatron", ["--megatron", folder / "megatron", "--hf", folder / "hf"]),
        "nemo_to_megatron": (nemo_to_megatron.main, "nemo", ["--nemo", folder / "nemo", "--output", output]),
        "verify": (verify.main, "megatron", ["--hf", folder / "hf", "--megatron", folder / "megatron", "--weights-only"]),
        "verify_hf": (verify.main, "hf", ["--hf", folder / "hf", "--megatron", folder / "megatron", "--weights-only"]),
        "legacy_to_megatron": (legacy_to_megatron.main, "legacy", ["--legacy", folder / "legacy", "--vocab-size", 300, "--output", output]),
        "describe_legacy": (describe.main, "legacy", [folder / "legacy"]),
    }


@pytest.mark.parametrize("name", commands(Path(), Path()))
def test_one_line_or_success(tmp_path, folders, name, capsys):
    torch.set_num_threads(1)
    main, source, arguments = commands(tmp_path, tmp_path / "output")[name]
    files = [path.relative_to(folders / source) for path in sorted((folders / source).rglob("*")) if path.is_file()]
    chosen = [file for file in files if not file.name.endswith(".distcp") or file.name in ("__0_0.distcp", "__extra_states.distcp")]
    shutil.copytree(folders, tmp_path, dirs_exist_ok=True)
    for file in chosen:
        for number in range(MUTATIONS):
            seed = f"{name} {file} {number}"
            kind = mutate(tmp_path / source / file, random.Random(seed))
            with pytest.raises(SystemExit) as ended:
                cli.run(lambda: main([str(argument) for argument in arguments]))
            told = capsys.readouterr()
            assert ended.value.code in (0, 1), (seed, kind, told.err)
            if ended.value.code and "NOT the same model" not in told.out and not name.startswith("describe"):
                assert told.err.count("error: ") == 1, (seed, kind, told.err)
                assert "\n" not in told.err[told.err.index("error: ") :].strip(), (seed, kind, told.err)
            for path in (tmp_path / "output", tmp_path / ".output.partial"):
                shutil.rmtree(path, ignore_errors=True)
            if name == "adopt":
                shutil.rmtree(tmp_path / source)
                shutil.copytree(folders / source, tmp_path / source)
            shutil.copy(folders / source / file, tmp_path / source / file)
