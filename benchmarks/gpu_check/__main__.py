"""Check this machine's GPUs for training, in stages, within a budget of minutes.

    make gpu-check                                      # 12 minutes, on all GPUs
    make gpu-check MINUTES=4                            # what fits into 4 minutes
    make gpu-check GPU_ARGS="--stages loss_curves"      # some stages
    make gpu-check GPU_ARGS="--platform cpu"            # small models on CPUs, in a minute

Each check runs in processes of its own, with a time limit: a crash or hang ends only that check,
and the stacks of its threads are in its log. Each result is on disk as soon as it is known, as
OUTPUT/STAGE.json; OUTPUT/report.json and report.txt hold all of them. The same command continues a
check that was broken off or that the budget ended: what has passed is not repeated (--again
repeats it). Stages, cheap ones and those most likely to fail first:

{stages}

Nothing is installed. Without Transformer Engine the checks in FP8 are skipped, with the reason.
Checks of small models run at the same time (--jobs), those that measure time alone. The exit code
is 1 if a check failed, 2 if this machine cannot run any.
"""

import contextlib
import logging
import os
import shutil
import signal
import sys
import textwrap
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from galen import cli, lock  # noqa: E402
from galen.errors import UsageError  # noqa: E402
from gpu_check import checks, processes, report  # noqa: E402
from gpu_check.checks import STAGES, Check, Scale  # noqa: E402
from gpu_check.session import Session  # noqa: E402

_SAME = ("platform", "device", "gpus", "versions")
"""Facts of the environment that results of one folder share."""

_OUTPUTS = {
    "cuda": ROOT / "benchmarks/results/gpu_check",
    "cpu": ROOT / "runs/gpu_check_cpu",
}
_MARK = ".gpu_check"

logger = logging.getLogger("galen.gpu_check")


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    arguments = _parser().parse_args(argv)
    stages = _stages(arguments.stages)
    if not arguments.minutes > 0 or arguments.jobs < 1:
        raise UsageError("--minutes must be above 0, and --jobs at least 1")
    output = (arguments.output or _OUTPUTS[arguments.platform]).absolute()
    work = arguments.work.absolute()
    if output == work or work in output.parents:
        raise UsageError(f"--output must be outside of --work ({work}), which is removed")
    output.mkdir(parents=True, exist_ok=True)
    _claim(work)
    variables = {}
    if arguments.platform == "cpu":
        variables = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        os.environ |= variables
        with contextlib.suppress(ImportError):  # the environment's check names it
            processes.preload()
    session = Session(output, work, arguments.minutes, arguments.jobs, variables)
    signal.signal(signal.SIGTERM, _interrupt)
    with lock.hold(output / "report.json"), lock.hold(work / "logs"):
        session.load()
        session.on_record = lambda: report.write(session, stages)
        _run(session, stages, arguments.platform, arguments.again)
        print(report.write(session, stages))
    complete = not report.count(session.records, "failed", "timeout", "skipped")
    if complete and not arguments.keep_work:
        shutil.rmtree(work)
    return 1 if report.count(session.records, "failed", "timeout") else 0


def _claim(work: Path) -> None:
    """Create the working folder with a mark, by which it may be removed at the end.

    Raises:
        UsageError: a folder of something else.
    """
    if work.exists() and any(work.iterdir()) and not (work / _MARK).exists():
        raise UsageError(f"--work: {work} is not empty and has not been made by this check")
    work.mkdir(parents=True, exist_ok=True)
    (work / _MARK).touch()


def _run(session: Session, stages: list[str], platform: str, again: bool) -> None:
    """Run the environment's check, then those of the stages.

    Raises:
        UsageError: this machine lacks what all need, or differs from that of earlier results.
    """
    environment = checks.environment(platform)
    earlier = session.records.pop(environment.id, None)
    session.run([environment])
    record = session.records[environment.id]
    if record["status"] != "passed":
        _restore(session, environment, earlier)
        lines = record.get("log") or [record["reason"]]
        raise UsageError("\n".join(lines).removeprefix("error: "))
    facts = record["result"]
    changes = [fact for fact in _SAME if earlier and earlier["result"].get(fact) != facts[fact]]
    if earlier and changes and again:
        session.clear()
        session.save(environment, record)
    elif earlier and changes:
        _restore(session, environment, earlier)
        before = {fact: earlier["result"].get(fact) for fact in changes}
        now = {fact: facts[fact] for fact in changes}
        raise UsageError(
            f"{session.output} has results of another environment ({before}; now {now}): choose"
            " another --output, or replace them with --again"
        )
    session.facts = facts
    for problem in session.facts["problems"]:
        logger.warning(problem)
    unsupported = session.facts["unsupported"]
    scale = Scale(
        gpus=session.facts["gpus"],
        cpu=platform == "cpu",
        fp8="" if "fp8_tensorwise" in unsupported else "tensorwise",
        transformer_engine="transformer_engine" not in unsupported,
    )
    session.run(_selected(checks.all_checks(scale), stages, set(unsupported)), again)


def _restore(session: Session, environment: Check, earlier: dict[str, Any] | None) -> None:
    """Keep the environment of earlier results, if there are any."""
    if earlier is not None:
        session.facts = earlier["result"]
        session.save(environment, earlier)


def _selected(available: list[Check], stages: list[str], unsupported: set[str]) -> list[Check]:
    """Return the checks of the stages and those of other stages that they need."""
    by_id = {check.id: check for check in available}
    ids = {check.id for check in available if check.stage in stages}
    added = {id for id in ids if not unsupported & set(by_id[id].requires)}
    while added:
        added = {need for id in added for need in by_id[id].needs} - ids
        ids |= added
    return [check for check in available if check.id in ids]


def _stages(names: str) -> list[str]:
    stages = [name.strip() for name in names.split(",")]
    for name in stages:
        if name not in STAGES:
            raise UsageError(f"--stages: unknown stage {name!r}; they are {', '.join(STAGES)}")
    return stages


def _interrupt(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _parser() -> cli.ArgumentParser:
    width = max(map(len, STAGES))
    lines = []
    for name, proves in STAGES.items():
        first = f"    {name:{width}}  "
        lines.append(textwrap.fill(proves, 100, initial_indent=first, subsequent_indent=" " * 17))
    parser = cli.ArgumentParser(str(__doc__).format(stages="\n".join(lines)))
    parser.add_argument(
        "--minutes",
        type=float,
        default=12,
        help="budget; checks that would exceed it are skipped [12]",
    )
    parser.add_argument(
        "--stages",
        default=",".join(STAGES),
        metavar="A,B",
        help="stages to run, with the checks that they need [all]",
    )
    parser.add_argument(
        "--platform", choices=("cuda", "cpu"), default="cuda", help="cpu: small models [cuda]"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of the results, seven small files [benchmarks/results/gpu_check; on CPUs"
        " runs/gpu_check_cpu]",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=ROOT / "runs/gpu_check",
        metavar="DIR",
        help="folder of logs, models and checkpoints, 2 GB; removed if no check fails"
        " [runs/gpu_check]",
    )
    parser.add_argument("--keep-work", action="store_true", help="keep the working folder")
    parser.add_argument(
        "--again", action="store_true", help="also repeat what has passed in an earlier check"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=max(1, min(4, (os.cpu_count() or 1) // 3)),
        metavar="N",
        help="checks of small models that run at the same time [a third of the CPUs, at most 4]",
    )
    return parser


if __name__ == "__main__":
    cli.run(main)
