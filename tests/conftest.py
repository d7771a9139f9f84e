"""Fixtures of several rooms' tests.

They are a tiny real tokenizer, tiny random Llama models, and a way to run a command.
"""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from galen import log

ROOT = Path(__file__).parent.parent

TEXTS = [
    "Aspirin lowers the risk of stroke in adults with atrial fibrillation.",
    (
        "Serum sodium [Na+] below 135 mmol/L defines hyponatraemia; age <5 years and weight >10 kg"
        " were required."
    ),
    "La metformine est le traitement de première intention du diabète de type 2.",
    "Patients received 10 mg of the drug every day for twelve weeks, and the dose was then halved.",
]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Return a scheduler that gives a group of tests to one process, for `--dist loadgroup`.

    pytest-xdist 3.8 appends its groups to an attribute that pytest 9.2 no longer reads.
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group(nodeid.partition("::")[0])

    return GroupScheduling(config, log)


def group(path):
    """Return the group of a test file's tests: the file, or all that share the one Slurm."""
    return "slurm" if path.startswith("tests/slurm/") else path


def pytest_collection_modifyitems(config, items):
    """Let the longest groups run first in processes of pytest-xdist, so that both end together."""
    if not hasattr(config, "workerinput"):  # not one of its processes
        return

    def order(item):
        path = str(item.path.relative_to(ROOT))
        is_long = any(map(item.get_closest_marker, ("slow", "multiprocess")))
        return group(path) != "slurm", not is_long

    items.sort(key=order)


@pytest.fixture(autouse=True)
def _log_levels():
    """Restore the loggers' levels, which a command's `--log-level` sets for the whole process."""
    loggers = [logging.getLogger(package) for package in log.PACKAGES]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory) -> Path:
    """A folder with a byte-level BPE tokenizer of 300 ids; <|endoftext|> is id 0."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"eos_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast"}'
    )
    return folder


@pytest.fixture(scope="session")
def make_llama(tmp_path_factory, tiny_tokenizer):
    """Make a folder with a random Llama of 4 layers, 4 heads in 2 groups, and the tiny tokenizer.

    Options change its config.
    """

    def make(**options) -> Path:
        import shutil

        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        config = {
            "vocab_size": 300,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "tie_word_embeddings": True,
            "initializer_range": 0.2,
        }
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("llama")
        LlamaForCausalLM(LlamaConfig(**(config | options))).save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tiny_tokenizer / name, folder / name)
        return folder

    return make


@pytest.fixture(scope="session")
def tied_llama(make_llama) -> Path:
    return make_llama()


@pytest.fixture(scope="session")
def untied_llama(make_llama) -> Path:
    return make_llama(tie_word_embeddings=False)


def command(*arguments: object) -> list[str]:
    """Return the command line that runs a script or module of the repository with this Python."""
    return [sys.executable, *map(str, arguments)]


def run(*arguments: object, check: bool = True, **options) -> subprocess.CompletedProcess:
    """Run a script or module of the repository, as a user would, with one thread.

    It fails with the command's output when the command fails.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    done = subprocess.run(
        command(*arguments), cwd=ROOT, env=environment, capture_output=True, text=True, **options
    )
    if check and done.returncode:
        pytest.fail(
            f"{' '.join(command(*arguments))} ended with"
            f" {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
        )
    return done


def import_model(hf: Path, output: Path) -> Path:
    """Import a Hugging Face model into a Megatron checkpoint, in this process.

    Tests that start from one need no other.
    """
    from checkpoints_convert import hf_to_megatron

    hf_to_megatron.main(["--hf", str(hf), "--output", str(output)])
    return output
