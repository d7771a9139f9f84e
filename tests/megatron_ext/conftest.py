import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy
import pytest

from megatron_ext import bootstrap
from tests.conftest import ROOT, import_model

bootstrap()

RECIPE = """
output: {output}
model: {{checkpoint: {checkpoint}}}
data:
  {{train: [{data}/train_text_document], validation: [{data}/validation_text_document],
    seq_length: 32, num_workers: 0}}
training:
  {{train_iters: 4, micro_batch_size: 2, global_batch_size: 8, precision: fp32,
    eval_interval: 2, eval_iters: 1, save_interval: 4}}
optimizer: {{lr: 1e-3, min_lr: 1e-4, lr_warmup_iters: 2}}
"""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, untied_llama) -> Path:
    """The untied tiny Llama as a Megatron checkpoint."""
    return import_model(untied_llama, tmp_path_factory.mktemp("megatron") / "checkpoint")


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Two small indexed datasets, written by Megatron's own builder.

    They count in steps, which a model can learn.
    """
    folder = tmp_path_factory.mktemp("data")
    random = numpy.random.default_rng(0)
    for name, documents in (("train", 100), ("validation", 30)):
        lengths = random.integers(5, 60, documents)
        steps = (
            (random.integers(0, 300) + numpy.arange(length) * random.integers(1, 4)) % 300
            for length in lengths
        )
        write(folder / f"{name}_text_document", steps)
    return folder


def write(prefix: Path, documents: Iterable[Sequence[int]]) -> Path:
    """Write documents of ids below 65,536 with Megatron's own builder; return the prefix.

    The result is an indexed dataset.
    """
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=numpy.uint16)
    for document in documents:
        builder.add_document(numpy.array(document), [len(document)])
    builder.finalize(f"{prefix}.idx")
    return prefix


def build_datasets(folder: Path, checkpoint: Path, prefix: Path, eod: int, *overrides: str):
    """Return the datasets of the recipe, with one file for train and validation."""
    from galen.recipe import load
    from megatron_ext.config.recipe import Recipe
    from megatron_ext.data import data_identity, tokenized
    from megatron_ext.data.token_files import Vocabulary

    file = folder / "r.yaml"
    file.write_text(RECIPE.format(output=folder / "out", checkpoint=checkpoint, data=folder))
    files = [f"data.train=[{prefix}]", f"data.validation=[{prefix}]"]
    run = load(Recipe, file, [*files, *overrides])
    fingerprints = {str(prefix): data_identity.fingerprint(str(prefix))}
    vocabulary = Vocabulary(vocab_size=300, eod=eod)
    return tokenized.build(run, vocabulary, folder / "cache", fingerprints)


@pytest.fixture
def group_of_one():
    """A process group of this process alone."""
    import torch

    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


class Started:
    """A run in progress: the ids of its processes.

    `wait` returns their exit codes and what they wrote.
    """

    def __init__(self, server: subprocess.Popen, pids: list[int], written: Path) -> None:
        self.server, self.pids, self.written = server, pids, written

    def wait(self) -> tuple[list[int], str]:
        return json.loads(self.server.stdout.readline()), self.written.read_text()


@pytest.fixture(scope="session")
def start_forked(tmp_path_factory):
    """Start a run over forked processes, which begin at once, from a recipe and overrides.

    With `torchrun` it is torchrun that starts them. With `missing`, they wait for so many more that
    never come. With `hold`, a folder, each process that is about to write a file of a checkpoint
    makes a file `writer_PID` there and waits for a file `go`. `module` is another one whose `main`
    is run.
    """
    names = (
        "pretrain",
        "hardware.platforms",
        "observability.metrics_logger",
        "data.tokenized",
        "training.trainer",
    )
    yield from starter(
        tmp_path_factory, *(f"megatron_ext.{name}" for name in names), "torch.distributed.run"
    )


def starter(tmp_path_factory, *modules: str):
    """Yield a function that runs the first module's `main` over forked processes.

    They have imported all of the modules.
    """
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.megatron_ext.fork_server", *modules],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout.readline() == '["ready"]\n'

    def start(
        processes: int,
        *argv: object,
        torchrun: bool = False,
        missing: int = 0,
        hold: Path | None = None,
        module: str = modules[0],
    ) -> Started:
        written = tmp_path_factory.mktemp("output") / "output.txt"
        written.touch()  # a test may read it before the processes begin
        request = {
            "module": module,
            "argv": [str(argument) for argument in argv],
            "processes": processes,
            "output": str(written),
        }
        request |= {"torchrun": torchrun, "missing": missing, "hold": hold and str(hold)}
        if hold:
            hold.mkdir()
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        return Started(server, json.loads(server.stdout.readline()), written)

    yield start
    server.stdin.close()
    server.wait()


@pytest.fixture(scope="session")
def pretrain_forked(tmp_path_factory, start_forked, checkpoint, data):
    """Run pretraining over forked processes; return its run folder.

    With check=False it returns exit codes and output.
    """

    def pretrain(
        processes: int,
        *overrides: str,
        output: Path | None = None,
        recipe: str = RECIPE,
        check: bool = True,
    ):
        output = output or tmp_path_factory.mktemp("run")
        output.mkdir(parents=True, exist_ok=True)
        recipe_path = output / "input.yaml"
        recipe_path.write_text(recipe.format(output=output, checkpoint=checkpoint, data=data))
        codes, written = start_forked(processes, recipe_path, *overrides).wait()
        if check:
            assert codes == [0] * processes, written[-6000:]
        return output if check else (codes, written)

    return pretrain


@pytest.fixture(scope="session")
def alone(pretrain_forked):
    """The run folder of the recipe on one process; not to be changed."""
    return pretrain_forked(1)


def log(output: Path, kind: str) -> list[dict]:
    return [
        record
        for record in map(json.loads, (output / "log.jsonl").read_text().splitlines())
        if record["kind"] == kind
    ]


def losses(output: Path, kind: str = "train") -> list[float]:
    return [record["loss"] for record in log(output, kind)]


def goodput(output: Path):
    """Return a run's goodput, after a comparison of the sum of its parts with the clock."""
    from megatron_ext.observability import run_state

    found = run_state.read(output).goodput
    lines = [json.loads(line) for line in (output / "goodput.jsonl").read_text().splitlines()]
    wall = lines[-1]["time"] - lines[0]["began"]
    outside = found.starts[0].parts["queue"] + found.starts[0].startup.get("launch", 0.0)
    if found.starts[-1].cause == "finished":
        assert found.seconds == pytest.approx(wall + outside, rel=0.01)
    else:  # of a killed start, from its last line to its end
        assert found.seconds >= 0.99 * (wall + outside)
    assert found.seconds == pytest.approx(found.ended - found.began)
    assert found.parts["unknown"] <= 0.01 * found.seconds
    assert found.damaged_lines == 0
    return found
