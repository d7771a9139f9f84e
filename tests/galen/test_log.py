import logging
import re
import subprocess
import sys

from galen import log

COMMAND = """
import logging
from galen import cli

def main():
    cli.ArgumentParser("A command.").parse_args()
    for name in ("data_prep.curate", "some_library"):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            logging.getLogger(name).log(level, "%s speaks", name)

cli.run(main)
"""
TIME = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", re.MULTILINE)


def run(*options: str, **environment: str) -> str:
    command = [sys.executable, "-c", COMMAND, *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr


def test_time_level_and_message() -> None:
    lines = run()
    assert len(TIME.findall(lines)) == 3
    assert TIME.sub("", lines).splitlines() == [
        "INFO data_prep.curate speaks",
        "WARNING data_prep.curate speaks",
        "WARNING some_library speaks",
    ]


def test_level_of_the_command_line() -> None:
    assert "DEBUG data_prep.curate speaks" in run("--log-level", "debug")
    assert "INFO" not in run("--log-level", "warning")


def test_rank_of_several_processes() -> None:
    assert "INFO rank 3: data_prep.curate speaks" in run(RANK="3", WORLD_SIZE="8")
    assert "INFO rank 2: data_prep.curate speaks" in run(SLURM_PROCID="2", SLURM_NTASKS="4")
    assert "INFO data_prep.curate speaks" in run(RANK="0", WORLD_SIZE="1")


def test_configured_twice_says_a_line_once(capsys) -> None:
    log.configure()
    log.configure("error")
    logging.getLogger("galen.test").error("once")
    log.configure()
    assert capsys.readouterr().err.count("once") == 1


def test_started_processes_log_from_the_same_level_on() -> None:
    logging.getLogger("galen").setLevel("NOTSET")
    assert log.level_option() == []
    log.configure("warning")
    assert log.level_option() == ["--log-level=warning"]
