"""Nothing is made from a file with a flipped bit and a recorded SHA-256, unless asked for."""

import json
import shutil

import pytest

from checkpoints_convert import (
    hf_to_megatron,
    megatron_to_hf,
    megatron_to_nemo,
    nemo_to_megatron,
    register_checkpoint,
    verify,
)
from galen import manifest
from galen.errors import DataError
from tests.conftest import import_model


@pytest.fixture(scope="module")
def made(make_model, tmp_path_factory):
    """A checkpoint, its export to Hugging Face and to NeMo."""
    folder = tmp_path_factory.mktemp("checksums")
    import_model(make_model("llama-3"), folder / "megatron")
    megatron_to_hf.main(
        [
            "--megatron",
            str(folder / "megatron"),
            "--output",
            str(folder / "hf"),
            "--max-shard-bytes",
            "200000",
        ]
    )
    megatron_to_nemo.main(
        ["--megatron", str(folder / "megatron"), "--output", str(folder / "nemo")]
    )
    return folder


def flip(path):
    """Flip one bit in the middle of a file; a text file remains valid text of its format."""
    content = bytearray(path.read_bytes())
    if path.suffix == ".json":
        content[content.index(b"\n")] = ord(" ")
    else:
        content[len(content) * 2 // 3] ^= 1
    path.write_bytes(content)


COMMANDS = {
    "to Hugging Face": (megatron_to_hf.main, "--megatron", "megatron", "iter_0000000/__3_0.distcp"),
    "to NeMo": (megatron_to_nemo.main, "--megatron", "megatron", "iter_0000000/__3_0.distcp"),
    "from Hugging Face": (hf_to_megatron.main, "--hf", "hf", "model-00002-of-00004.safetensors"),
    "from NeMo": (nemo_to_megatron.main, "--nemo", "nemo", "weights/__2_0.distcp"),
    "companions, to Hugging Face": (
        megatron_to_hf.main,
        "--megatron",
        "megatron",
        "hf/tokenizer.json",
    ),
    "companions, to NeMo": (megatron_to_nemo.main, "--megatron", "megatron", "hf/config.json"),
    "a small file": (hf_to_megatron.main, "--hf", "hf", "tokenizer.json"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_altered_file_is_refused(tmp_path, made, name, caplog):
    main, option, source, file = COMMANDS[name]
    copy, output = tmp_path / source, tmp_path / "output"
    shutil.copytree(made / source, copy)
    flip(copy / file)
    arguments = [option, str(copy), "--output", str(output)]
    with pytest.raises(DataError, match=rf"{file} was altered: its (SHA-256|content) is not"):
        main(arguments)
    assert (
        not (output / "config.json").exists()
        and not list(output.glob("iter_*"))
        and not (output / "context").exists()
    )
    assert "compar" not in caplog.text
    main([*arguments, "--no-verify"])
    assert "is read without comparing it with the SHA-256 in its manifest" in caplog.text
    assert output.is_dir()


@pytest.mark.parametrize("damage", ["tokenizer.json", "config.json"])
def test_altered_companions_of_a_checkpoint_are_reported(tmp_path, made, damage):
    megatron = tmp_path / "megatron"
    shutil.copytree(made / "megatron", megatron)
    path = megatron / "hf" / damage
    verify.main(["--hf", str(made / "hf"), "--megatron", str(megatron), "--weights-only"])
    flip(path)
    message = f"{path} was altered"
    with pytest.raises(DataError, match=message):
        verify.main(["--hf", str(made / "hf"), "--megatron", str(megatron), "--weights-only"])
    with pytest.raises(DataError, match=message):
        register_checkpoint.main(["--megatron", str(megatron), "--hf", str(megatron / "hf")])


def test_a_checkpoint_from_before_companions_had_a_manifest(tmp_path, made):
    shutil.copytree(made / "megatron", tmp_path / "megatron")
    (tmp_path / "megatron/hf/manifest.json").unlink()
    flip(tmp_path / "megatron/hf/tokenizer.json")
    megatron_to_hf.main(
        ["--megatron", str(tmp_path / "megatron"), "--output", str(tmp_path / "output")]
    )
    assert (tmp_path / "output/tokenizer.json").read_bytes() == (
        tmp_path / "megatron/hf/tokenizer.json"
    ).read_bytes()


def test_verify_says_which_file_was_altered(tmp_path, made, capsys):
    """An export of an altered checkpoint is the same model as that checkpoint."""
    shutil.copytree(made / "megatron", tmp_path / "megatron")
    flip(tmp_path / "megatron/iter_0000000/__3_0.distcp")
    megatron_to_hf.main(
        ["--megatron", str(tmp_path / "megatron"), "--output", str(tmp_path / "hf"), "--no-verify"]
    )
    arguments = [
        "--hf",
        str(tmp_path / "hf"),
        "--megatron",
        str(tmp_path / "megatron"),
        "--weights-only",
    ]
    with pytest.raises(DataError, match=r"__3_0\.distcp was altered"):
        verify.main(arguments)
    assert verify.main([*arguments, "--no-verify"]) == 0
    assert capsys.readouterr().out.endswith("the same model\n")


def test_a_folder_that_a_run_wrote_is_known_by_the_manifest_above(tmp_path, made):
    shutil.copytree(made / "hf", tmp_path / "run" / "model")
    (tmp_path / "run/model/manifest.json").unlink()
    files = sorted((tmp_path / "run/model").iterdir())
    manifest.write(
        tmp_path / "run/manifest.json",
        stage="finetune",
        inputs=[],
        config={},
        outputs=files,
        counts={},
    )
    assert set(manifest.recorded(tmp_path / "run/model")) == set(files)
    flip(tmp_path / "run/model/model-00001-of-00004.safetensors")
    with pytest.raises(DataError, match=r"model-00001-of-00004\.safetensors was altered"):
        hf_to_megatron.main(
            ["--hf", str(tmp_path / "run/model"), "--output", str(tmp_path / "output")]
        )


def test_evaluation_and_training_verify_checksums(tmp_path, made, caplog):
    from evaluation.backends import model_folder

    shutil.copytree(made / "hf", tmp_path / "hf")
    before = model_folder.hashes(tmp_path / "hf")
    flip(tmp_path / "hf" / "model-00002-of-00004.safetensors")
    with pytest.raises(DataError, match=r"model-00002-of-00004\.safetensors was altered"):
        model_folder.hashes(tmp_path / "hf")
    after = model_folder.hashes(tmp_path / "hf", verify=False)
    assert [name for name in before if before[name] != after[name]] == [
        "model-00002-of-00004.safetensors"
    ]
    assert "is read without comparing" in caplog.text


@pytest.mark.parametrize("damage", ["[]", "{}", '{"stage": "x"}', "", "\0", None])
def test_a_manifest_of_the_wrong_shape(tmp_path, made, damage):
    """Not one of ours, it is silent; damaged, it is an error."""
    shutil.copytree(made / "hf", tmp_path / "hf")
    path = tmp_path / "hf" / "manifest.json"
    if damage is None:
        content = json.loads(path.read_text())
        content["outputs"][2] = content["outputs"][2] | {"sha256": 5}
        damage = json.dumps(content)
    path.write_text(damage)
    arguments = ["--hf", str(tmp_path / "hf"), "--output", str(tmp_path / "output")]
    if damage == "{}":
        hf_to_megatron.main(arguments)
    else:
        with pytest.raises(DataError, match=r"manifest\.json"):
            hf_to_megatron.main(arguments)
