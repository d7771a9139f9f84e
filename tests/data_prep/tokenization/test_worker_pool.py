import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.data_prep.material import run, write_lines

DYING = """
import os, signal, sys
from multiprocessing.connection import Connection
from data_prep import preprocess
from data_prep.tokenization import worker_pool, write_tokens
from galen.errors import DataError

worker_pool.BLOCK_BYTES, write_tokens.SAVE_SECONDS = 1 << 12, 0.0
command, place, calls = os.getpid(), None, 0

def dies(owner, name, before, halfway, after):
    function = getattr(owner, name)
    def dying(*given, **named):
        global calls
        if os.getpid() == command or place not in (before, halfway, after):
            return function(*given, **named)
        calls += 1
        if calls == 4 and place == before:
            os.kill(os.getpid(), signal.SIGKILL)
        if calls == 4 and place == halfway:
            half = given[1][:9] if name == "_send" else 2
            function(given[0], half)
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*given, **named)
        if calls == 4 and place == after:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, dying)

dies(Connection, "_recv", "before it reads", "while it reads", "when it has read")
dies(worker_pool, "work", "before it works", None, "when it has worked")
dies(Connection, "_send", "before it sends", "while it sends", "when it has sent")
for place in sys.argv.pop(1).split(", "):
    try:
        preprocess.main(sys.argv[1:])
    except DataError as error:
        print(f"{place}: {error}", flush=True)
"""
PLACES = (
    "before it reads",
    "while it reads",
    "when it has read",
    "before it works",
    "when it has worked",
)
PLACES += ("before it sends", "while it sends", "when it has sent")


@pytest.mark.slow
def test_a_worker_that_dies_at_any_moment_ends_the_command_which_then_goes_on(
    tmp_path, tokenizer_folder
):
    source = write_lines(tmp_path / "a.jsonl.gz", [{"text": f"patient {n}"} for n in range(20000)])
    (tmp_path / "dying.py").write_text(DYING)
    command = [
        sys.executable,
        str(tmp_path / "dying.py"),
        ", ".join(PLACES),
        "--input",
        source,
        "--output-prefix",
        str(tmp_path / "p"),
    ]
    command += ["--tokenizer-model", str(tokenizer_folder), "--workers", "2"]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    said = [line.split(", perhaps")[0] for line in ended.stdout.splitlines()]
    assert said == [f"{place}: a worker was ended by SIGKILL" for place in PLACES]
    assert ended.stderr == ""
    run(tokenizer_folder, [source], tmp_path / "p")
    run(tokenizer_folder, [source], tmp_path / "undisturbed")
    assert (tmp_path / "p_text_document.bin").read_bytes() == (
        tmp_path / "undisturbed_text_document.bin"
    ).read_bytes()
