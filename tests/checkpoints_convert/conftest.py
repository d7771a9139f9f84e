"""The tiny models of all families, their checkpoints, and processes with Megatron imported."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkpoints_convert import tiny_models
from tests.conftest import import_model
from tests.megatron_ext.conftest import starter


class Made(dict):
    """What a function makes of a name, at the first use."""

    def __init__(self, make: Callable[[str], Path]) -> None:
        self.make = make

    def __missing__(self, name: str) -> Path:
        self[name] = self.make(name)
        return self[name]


@pytest.fixture(scope="session")
def make_model(tmp_path_factory, tiny_tokenizer):
    """Make a folder with a random model of tiny_models.py; options change its config.json."""

    def make(name: str, **options) -> Path:
        folder = tmp_path_factory.mktemp(name)
        tiny_models.make(folder, name, tiny_tokenizer, **options)
        return folder

    return make


@pytest.fixture(scope="session")
def models(make_model) -> Made:
    """The tiny model of each family by its name; not to be changed."""
    return Made(make_model)


@pytest.fixture(scope="session")
def checkpoints(models, tmp_path_factory) -> Made:
    """The same models as Megatron checkpoints; not to be changed."""
    folder = tmp_path_factory.mktemp("megatron")

    def make(name: str) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            tiny_models.register(patch)
            return import_model(models[name], folder / name)

    return Made(make)


@pytest.fixture(scope="session")
def start_side(tmp_path_factory):
    yield from starter(tmp_path_factory, "tests.checkpoints_convert.megatron_side")


@pytest.fixture(scope="session")
def megatron_side(start_side):
    """Run an action of megatron_side.py over so many forked processes."""

    def run(processes: int, *arguments: object) -> None:
        codes, written = start_side(processes, *arguments).wait()
        assert not any(codes), written[-6000:]

    return run


@pytest.fixture
def forked_logits(megatron_side, monkeypatch):
    """Run verify.py's other side in forked processes, which begin at once, not in new ones."""

    def run(command, **_):
        processes = (
            int(command[command.index("--nproc-per-node") + 1])
            if "--nproc-per-node" in command
            else 1
        )
        megatron_side(
            processes,
            "verify",
            *command[command.index("checkpoints_convert.conversion.megatron_logits") + 1 :],
        )
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
