"""Conversions started at once: one writes, the others say who does, and the result is whole."""

import os
import shutil
import subprocess

import pytest

from checkpoints_convert import (
    hf_to_megatron,
    megatron_to_hf,
    megatron_to_nemo,
    nemo_to_megatron,
    register_checkpoint,
)
from galen import lock
from galen.errors import DataError
from tests.checkpoints_convert.killed_at import content
from tests.conftest import ROOT, command, import_model


@pytest.fixture(scope="module")
def model(make_model):
    return make_model("llama-3")


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    return import_model(model, tmp_path_factory.mktemp("locks") / "megatron")


@pytest.mark.multiprocess
@pytest.mark.parametrize("script", ["hf_to_megatron", "megatron_to_hf"])
def test_eight_at_once(tmp_path, model, checkpoint, script):
    source_options = ["--hf", model] if script == "hf_to_megatron" else ["--megatron", checkpoint]
    output = tmp_path / "output"
    start = command(f"checkpoints_convert/{script}.py", *source_options, "--output", output)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            start,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(8)
    ]
    outputs = [process.communicate()[0] for process in started]
    writers = [text for text in outputs if f"{output}: llama" in text]
    assert len(writers) == 1, outputs
    for process, text in zip(started, outputs, strict=True):
        if text is writers[0] or "is already complete" in text:
            assert process.returncode == 0
        else:
            assert process.returncode == 1
            assert (
                f"error: {output} is being written by {script}.py (process " in text
                and "Traceback" not in text
            )
    (hf_to_megatron if script == "hf_to_megatron" else megatron_to_hf).main(
        [*map(str, source_options), "--output", str(tmp_path / "alone")]
    )
    assert content(output) == content(tmp_path / "alone")
    assert {path.name for path in tmp_path.iterdir()} == {"output", "alone"}


def test_every_command_respects_the_lock(tmp_path, model, checkpoint):
    nemo = tmp_path / "nemo"
    megatron_to_nemo.main(["--megatron", str(checkpoint), "--output", str(nemo)])
    shutil.copytree(checkpoint, tmp_path / "registered")
    for main, options, output in (
        (hf_to_megatron.main, ["--hf", model, "--output"], tmp_path / "a"),
        (megatron_to_hf.main, ["--megatron", checkpoint, "--output"], tmp_path / "b"),
        (megatron_to_nemo.main, ["--megatron", checkpoint, "--output"], tmp_path / "c"),
        (nemo_to_megatron.main, ["--nemo", nemo, "--output"], tmp_path / "d"),
        (register_checkpoint.main, ["--hf", model, "--megatron"], tmp_path / "registered"),
    ):
        with lock.hold(output):
            with pytest.raises(
                DataError, match=r"is being written by .* wait for it, or end it first"
            ):
                main([*map(str, options), str(output)])
            assert output.name == "registered" or not output.exists()


def test_a_note_of_a_killed_start_that_is_damaged_counts_as_none(tmp_path, model, monkeypatch):
    """Begun, ended in the middle, each of its notes damaged: the same bytes in the end."""
    from checkpoints_convert.conversion import import_hf

    import_model(model, tmp_path / "expected")
    original, count = import_hf.WriteDistcp.run, iter(range(100))

    def dies(self, output, reader):
        if next(count) == 4:
            raise KeyboardInterrupt
        return original(self, output, reader)

    for number, damage in enumerate(
        (b"", b"{}", b"[]\n[]", b"\xff\xfe", b'x\n{"result": [], "sha256": ""}')
    ):
        output, count = tmp_path / str(number), iter(range(100))
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(import_hf.WriteDistcp, "run", dies)
            import_model(model, output)
        notes = list(output.glob(".iter_*/.*.distcp.json"))
        assert notes
        for note in notes:
            note.write_bytes(damage)
        if number == 3:
            next(output.glob(".iter_*/.identity.json")).write_bytes(damage)
        import_model(model, output)
        assert content(output) == content(tmp_path / "expected")


def test_a_partial_folder_that_is_a_link_is_not_followed(tmp_path, checkpoint):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("file")
    (tmp_path / ".out.partial").symlink_to(tmp_path / "elsewhere")
    for main in (megatron_to_hf.main, megatron_to_nemo.main):
        main(["--megatron", str(checkpoint), "--output", str(tmp_path / "out")])
        assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["file"]
        shutil.rmtree(tmp_path / "out")
        (tmp_path / ".out.partial").symlink_to(tmp_path / "elsewhere")


def test_an_import_does_not_mix_with_existing_files(tmp_path, model, checkpoint):
    """Above all not with its own input, whose files it would replace."""
    nemo = tmp_path / "nemo"
    megatron_to_nemo.main(["--megatron", str(checkpoint), "--output", str(nemo)])
    shutil.copytree(model, tmp_path / "base" / "hf", symlinks=True)
    (tmp_path / "base" / "notes.txt").write_text("notes")
    for main, option, source, output in (
        (hf_to_megatron.main, "--hf", model, model),
        (hf_to_megatron.main, "--hf", tmp_path / "base" / "hf", tmp_path / "base"),
        (nemo_to_megatron.main, "--nemo", nemo, nemo),
    ):
        before = content(output)
        with pytest.raises(
            DataError, match=r"is not a Megatron checkpoint, it holds .*; choose another --output"
        ):
            main([option, str(source), "--output", str(output)])
        assert content(output) == before
    (tmp_path / "base" / "notes.txt").unlink()
    # its hf/ is what it would write
    hf_to_megatron.main(["--hf", str(tmp_path / "base" / "hf"), "--output", str(tmp_path / "base")])
    assert (
        content(tmp_path / "base" / "iter_0000000").keys()
        == content(checkpoint / "iter_0000000").keys()
    )
    assert (tmp_path / "base" / "hf" / "config.json").read_bytes() == (
        model / "config.json"
    ).read_bytes()
