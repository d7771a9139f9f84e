"""`slurm/preprocess.sh`: a job array and its merge give the bytes of one run.

Here it uses the stand-in `apptainer` of this folder.
"""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.conftest import TEXTS, run


def test_array_equals_one_run(cluster, contained, tmp_path, tiny_tokenizer):
    corpus, output = tmp_path / "two words", tmp_path / "the output"
    corpus.mkdir()
    for part in range(3):
        lines = [
            json.dumps({"text": f"{number}. {TEXTS[number % 4]}"})
            for number in range(part, 40 + part)
        ]
        (corpus / f"part {part}.jsonl").write_text("\n".join(lines) + "\n")
    options = ["--input", corpus, "--tokenizer-model", tiny_tokenizer, "--append-eod"]
    run("data_prep/preprocess.py", *options, "--output-prefix", tmp_path / "alone", "--workers", 1)
    site = contained("apptainer", (tmp_path, tiny_tokenizer, sys.prefix, sys.base_prefix))
    with Path(site["GALEN_SITE"]).open("a") as settings:
        settings.write(f"GALEN_SBATCH=('--output={tmp_path}/log-%A_%a')\n")
    array = cluster.sbatch(
        *("--array=0-2", "--cpus-per-task=1", "--mem=1G", f"--output={tmp_path}/log-%A_%a"),
        *("slurm/preprocess.sh", *options, "--output-prefix", output / "joined"),
        **site,
    )

    def describe():
        return "\n".join(path.read_text() for path in sorted(tmp_path.glob("log-*")))

    cluster.wait(array, describe)
    merged = [line for line in describe().splitlines() if line.startswith("Submitted batch job")]
    assert len(merged) == 1, describe()
    assert cluster.wait(int(merged[0].split()[-1]), describe)["JobState"] == "COMPLETED", describe()
    for ending in ("bin", "idx"):
        expected = (tmp_path / f"alone_text_document.{ending}").read_bytes()
        assert (output / f"joined_text_document.{ending}").read_bytes() == expected
    if "GALEN_TEST_SITE" not in os.environ:
        assert describe().count("apptainer starts") == 4 and "in /images/my galen" in describe()


SLEEPER = """#!/bin/bash
if [[ "$*" == *preprocess.py* && -z ${{SLURM_RESTART_COUNT:-}} ]]; then sleep 600 & wait; fi
exec {python} "$@"
"""


@pytest.mark.slow
def test_only_tasks_at_their_time_limit_are_requeued(cluster, site, tmp_path, tiny_tokenizer):
    """The array's number is also the job number of one of its tasks: the last one to start."""
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in TEXTS * 5)
    )
    options = [
        "--input",
        tmp_path / "in.jsonl",
        "--tokenizer-model",
        tiny_tokenizer,
        "--append-eod",
    ]
    run("data_prep/preprocess.py", *options, "--output-prefix", tmp_path / "alone", "--workers", 1)
    sleeper = tmp_path / "python"  # each task's first start lasts until its limit
    sleeper.write_text(SLEEPER.format(python=sys.executable))
    sleeper.chmod(0o755)
    settings = tmp_path / "site.sh"
    settings.write_text(
        f"source '{site['GALEN_SITE']}'\n"
        f"GALEN_PYTHON={sleeper}\n"
        f"GALEN_SBATCH=(--output={tmp_path}/log-%A_%a)\n"
    )
    array = cluster.sbatch(
        *(
            "--array=0-2",
            "--cpus-per-task=1",
            "--mem=1G",
            "--time=2",
            f"--output={tmp_path}/log-%A_%a",
        ),
        *("slurm/preprocess.sh", *options, "--output-prefix", tmp_path / "joined"),
        **{**site, "GALEN_SITE": str(settings)},
    )

    def describe():
        return "\n".join(
            f"{path.name}: {path.read_text()}" for path in sorted(tmp_path.glob("log-*"))
        )

    ended = [cluster.wait(f"{array}_{task}", describe) for task in range(3)]
    assert [(job["JobState"], job["Restarts"]) for job in ended] == [("COMPLETED", "1")] * 3, (
        describe()
    )
    assert str(array) in {job["JobId"] for job in ended}
    merge = next(line for line in describe().splitlines() if "Submitted batch job" in line)
    assert cluster.wait(int(merge.split()[-1]), describe)["JobState"] == "COMPLETED", describe()
    for ending in ("bin", "idx"):
        expected = (tmp_path / f"alone_text_document.{ending}").read_bytes()
        assert (tmp_path / f"joined_text_document.{ending}").read_bytes() == expected
