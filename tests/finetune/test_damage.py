"""Damaged run folders, checkpoints, models and adapters: one line that names the file.

Nothing is lost.
"""

import json
import shutil

import pytest

from finetune import export, merge, train
from galen.errors import DataError, UsageError


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, tiny_llama, question_file):
    """A run that has two checkpoints and no result."""
    folder = tmp_path_factory.mktemp("damage")
    (folder / "recipe.yaml").write_text(
        f"model: {{path: {tiny_llama}}}\ndata: {{train: {question_file}, max_length: 160}}\nlora:"
        " {r: 2, alpha: 4}\noptimizer: {lr: 0.02}\ntraining: {train_iters: 2, micro_batch_size: 8,"
        f" save_interval: 1}}\noutput: {folder / 'run'}\n"
    )
    train.main([str(folder / "recipe.yaml")])
    (folder / "run" / "manifest.json").unlink()
    return folder


@pytest.fixture
def again(stopped, tmp_path):
    """The command line that goes on with a copy of the run."""
    shutil.copytree(stopped / "run", tmp_path / "run")
    return [str(stopped / "recipe.yaml"), f"output={tmp_path / 'run'}"]


LAST = "checkpoints/checkpoint-2"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "log.jsonl",
            b'{"kind": "train", "step": 1}\n{"kind": \n{"kind": "train", "step": 2}\n',
            r"log\.jsonl",
        ),
        ("log.jsonl", b'[1]\n{"kind": "train", "step": 2}\n', r"log\.jsonl"),
        ("log.jsonl", b"\xff\xfe\n", r"log\.jsonl"),
        ("configuration.json", b"{", r"configuration\.json"),
        ("configuration.json", b"[]", r"configuration\.json should hold one JSON object"),
        (f"{LAST}/trainer_state.json", b"[]", "checkpoint-2 is damaged"),
        (
            f"{LAST}/trainer_state.json",
            b'{"global_step": 7}',
            "checkpoint-2 is damaged .*of step 7",
        ),
        (f"{LAST}/trainer_state.json", b'{"global_step": 2, "nothing": 1}', "is damaged"),
        (f"{LAST}/training_state.json", b'{"dict": [["optimizer", 3]]}', "checkpoint-2 is damaged"),
        (f"{LAST}/training_state.json", b"\xff", "checkpoint-2 is damaged"),
        (f"{LAST}/training_state.safetensors", b"\0" * 100, "checkpoint-2 is damaged"),
        (f"{LAST}/adapter_model.safetensors", b"\0" * 100, "checkpoint-2 is damaged"),
    ],
)
def test_a_damaged_run_folder_is_reported(again, tmp_path, name, content, message):
    (tmp_path / "run" / name).write_bytes(content)
    if name.endswith("state.json") or "adapter" in name or "training" in name:
        (tmp_path / "run" / "log.jsonl").write_text("")
    with pytest.raises((DataError, UsageError), match=message) as told:
        train.main(again)
    assert "\n" not in str(told.value)


def test_a_checkpoint_without_weights_is_reported_and_the_previous_one_serves(again, tmp_path):
    (tmp_path / "run" / LAST / "adapter_model.safetensors").unlink()
    with pytest.raises(
        DataError,
        match=(
            r"checkpoint-2 is damaged .*remove that folder, and the same command resumes from the"
            r" previous one"
        ),
    ):
        train.main(again)
    shutil.rmtree(tmp_path / "run" / LAST)
    assert train.main(again) == 0


def test_a_planted_pickle_is_never_read(again, tmp_path):
    """Under every name that the Trainer by itself would load, in the last checkpoint."""
    import pickle

    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    names = (
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "scaler.pt",
        "training_args.bin",
        "pytorch_model.bin",
        "adapter_model.bin",
    )
    for name in names:
        (tmp_path / "run" / LAST / name).write_bytes(pickle.dumps(Attack()))
    assert train.main(again) == 0
    assert not (tmp_path / "owned").exists()


def test_a_checkpoint_holds_no_pickle(again, tmp_path):
    kinds = {path.suffix for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert kinds <= {".safetensors", ".json", ".jsonl", ".yaml", ".md"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"[]"),
        ("config.json", b'{"model_type": "llama", "hidden_size": "x"}'),
        ("config.json", b'{"model_type": 7}'),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"\xff\xff"),
        ("tokenizer_config.json", b"[1]"),
        ("model.safetensors", b"\0" * 64),
        ("generation_config.json", b"{"),
    ],
)
def test_a_damaged_model_is_reported(stopped, tiny_llama, tmp_path, name, content):
    model = shutil.copytree(tiny_llama, tmp_path / "model")
    (model / name).write_bytes(content)
    with pytest.raises((DataError, UsageError)) as told:
        train.main(
            [str(stopped / "recipe.yaml"), f"model.path={model}", f"output={tmp_path / 'run'}"]
        )
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run" / "adapter").exists()


@pytest.mark.parametrize("layers", [0, 1])
def test_a_model_of_more_layers_than_its_configuration_names_is_reported(
    stopped, tiny_llama, tmp_path, layers
):
    """`transformers` leaves the others out, and a part of the model would be trained."""
    model = shutil.copytree(tiny_llama, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(
        json.dumps(config | {"num_hidden_layers": layers, "layer_types": None})
    )
    with pytest.raises(
        DataError, match=rf"layers than its config\.json, for example model\.layers\.{layers}\."
    ):
        train.main(
            [str(stopped / "recipe.yaml"), f"model.path={model}", f"output={tmp_path / 'run'}"]
        )


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b'{"stage": "finetune"}',
        b'{"stage": "finetune", "config": {"model": 3}, "created": "x"}',
        b"\xff",
    ],
)
def test_a_damaged_manifest_of_a_run_is_reported(stopped, tmp_path, content):
    run = shutil.copytree(stopped / "run", tmp_path / "run")
    (run / "manifest.json").write_bytes(content)
    with pytest.raises(DataError, match="manifest"):
        export.main(
            [
                "--run",
                str(run),
                "--output",
                str(tmp_path / "out"),
                "--name",
                "n",
                "--license",
                "MIT",
            ]
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"model": {}, "protocol": "p", "tasks": {"a": 3}}',
        b'{"model": 3, "protocol": "p", "tasks": []}',
    ],
)
def test_damaged_scores_are_reported(tmp_path, content):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_bytes(content)
    (tmp_path / "r.yaml").write_text(
        json.dumps(
            {
                "ensemble": {"scores": [str(tmp_path / name) for name in "ab"]},
                "output": str(tmp_path / "o"),
            }
        )
    )
    with pytest.raises(DataError, match=r"results\.json"):
        merge.main([str(tmp_path / "r.yaml")])
    assert not (tmp_path / "o").exists()
