"""Runs checks within a budget and records each result on disk when it is known."""

import dataclasses
import json
import logging
import os
import re
import shlex
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from galen import json_file
from galen.atomic import write_text
from galen.errors import DataError
from gpu_check import report
from gpu_check.checks import RESULT, STAGES, WORK, Check
from gpu_check.processes import CheckProcesses

_POLL_SECONDS = 0.05
_TAIL_LINES = 60
_STACK_LINES = 300
_REASON_LENGTH = 400
_EXCEPTION = re.compile(r"(\[rank\d+\]: ?)?(Fatal Python error|[\w.]+(Error|Exception)): ")

logger = logging.getLogger("galen.gpu_check.session")


@dataclasses.dataclass(kw_only=True)
class Running:
    """A check in progress."""

    check: Check
    processes: CheckProcesses
    log: Path
    result: Path


class Session:
    """Checks of one output folder.

    Args:
        output: folder of the results, one JSON file per stage.
        work: folder for logs and the checks' files.
        minutes: budget, counted from now.
        jobs: number of checks that may run at once.
        environment: variables for the checks' processes.
    """

    def __init__(
        self,
        output: Path,
        work: Path,
        minutes: float,
        jobs: int,
        environment: Mapping[str, str],
    ) -> None:
        self.output = output
        self.work = work
        self.minutes = minutes
        self.jobs = jobs
        self.facts: dict[str, Any] = {}
        self.records: dict[str, dict[str, Any]] = {}
        """By the id of the check."""
        self.on_record: Callable[[], object] = lambda: None
        """Called after each change of the records."""
        self._environment = environment
        self._deadline = time.monotonic() + 60 * minutes
        self._running: list[Running] = []
        self._order: dict[str, int] = {}

    def load(self) -> None:
        """Read the records that an earlier session left."""
        for stage in STAGES:
            path = self.output / f"{stage}.json"
            if not path.exists():
                continue
            try:
                checks = json_file.read_object(path)["checks"]
                valid = all({"status", "result"} <= record.keys() for record in checks.values())
            except (DataError, KeyError, AttributeError):
                valid = False
            if not valid:
                logger.warning(f"{path} is damaged: its checks run again")
                continue
            self.records |= {f"{stage}/{name}": record for name, record in checks.items()}

    def clear(self) -> None:
        """Remove all records, also from the disk."""
        self.records.clear()
        for stage in STAGES:
            (self.output / f"{stage}.json").unlink(missing_ok=True)

    def run(self, checks: Sequence[Check], again: bool = False) -> None:
        """Run checks as soon as those that they need have passed.

        On an interrupt, running checks are killed and recorded.

        Args:
            checks: in their order.
            again: also run what has passed before.
        """
        ids = {check.id for check in checks} if again else self._ids_to_run(checks)
        self._order |= {check.id: len(self._order) + n for n, check in enumerate(checks)}
        pending = [check for check in checks if check.id in ids]
        for check in checks:
            if check.id in ids:
                self.records.pop(check.id, None)
            else:
                logger.info(f"{check.id}: passed in an earlier check (--again repeats it)")
        try:
            while pending or self._running:
                self._collect()
                self._start_ready(pending)
                time.sleep(_POLL_SECONDS)
        except BaseException:
            # recorded first: a second Ctrl-C may come while they die
            for running in self._running:
                self._record(running, "interrupted", "it was interrupted")
            for check in pending:
                self._skip(check, "skipped", "interrupted before it")
            for running in self._running:
                running.processes.kill()
            raise

    def _ids_to_run(self, checks: Sequence[Check]) -> set[str]:
        """Return the ids of the checks that have not passed, and of those that go with them.

        They are the checks whose files they need and which are gone, and the checks that read what
        these write.
        """
        by_id = {check.id: check for check in checks}
        ids = {id for id in by_id if self.records.get(id, {}).get("status") != "passed"}
        added = set(ids)
        while added:
            added = set()
            for check in checks:
                if check.id not in ids:
                    added |= {check.id} if ids & set(check.needs) else set()
                    continue
                for need in check.needs:
                    paths = [self.work / product for product in by_id[need].products]
                    added |= set() if all(path.exists() for path in paths) else {need}
            added -= ids
            ids |= added
        return ids

    def _start_ready(self, pending: list[Check]) -> None:
        """Start or skip pending checks, in their order, as far as there are free slots."""
        unfinished = {check.id for check in pending} | {run.check.id for run in self._running}
        for check in list(pending):
            decision = self._unsupported(check)
            if decision is None and unfinished & set(check.needs):
                continue
            if decision is None:
                decision = self._refusal(check)
            if decision is not None:
                pending.remove(check)
                unfinished.discard(check.id)
                self._skip(check, *decision)
                continue
            is_busy = len(self._running) >= self.jobs
            if is_busy or (self._running and (check.alone or self._running[0].check.alone)):
                return
            pending.remove(check)
            self._start(check)

    def _unsupported(self, check: Check) -> tuple[str, str] | None:
        """Return the status and reason of a check that this environment does not support."""
        unsupported = self.facts.get("unsupported", {})
        for feature in check.requires:
            if feature in unsupported:
                return "unsupported", unsupported[feature]
        return None

    def _refusal(self, check: Check) -> tuple[str, str] | None:
        """Return the status and reason of a check that cannot run now, or None."""
        for need in check.needs:
            status = self.records[need]["status"]
            if status != "passed":
                return "skipped", f"it needs {need}: {status}"
        left = self._deadline - time.monotonic()
        if left < check.seconds:
            return "skipped", (
                f"it takes about {check.seconds} s, and {max(0.0, left):.0f} s of the budget of"
                f" {self.minutes:g} minutes were left"
            )
        return None

    def _start(self, check: Check) -> None:
        folder = self.work / "logs" / check.stage
        log = folder / f"{check.name}.log"
        result = folder / f"{check.name}.json"
        result.unlink(missing_ok=True)
        values = {WORK: str(self.work), RESULT: str(result)}
        command = []
        for argument in check.command:
            for name, value in values.items():
                argument = argument.replace(name, value)
            command.append(argument)
        logger.info(f"{check.id}: started, about {check.seconds} s")
        processes = CheckProcesses(command, check.ranks, log, self._environment)
        self._running.append(Running(check=check, processes=processes, log=log, result=result))

    def _collect(self) -> None:
        """Record the checks that have ended, and end those that exceed their time."""
        for running in list(self._running):
            code = running.processes.poll()
            seconds = running.processes.seconds
            if code is not None:
                status = "passed" if code == 0 else "failed"
                reason = "" if code == 0 else _failure(code, running.log)
            elif seconds > running.check.limit:
                status = "timeout"
                reason = f"it exceeded its limit of {running.check.limit} s"
            elif time.monotonic() > self._deadline:
                status = "timeout"
                reason = f"the budget of {self.minutes:g} minutes was used up after {seconds:.0f} s"
            else:
                continue
            if code is None and not running.processes.end():
                reason += "; its processes cannot be killed (the driver may hang)"
            self._running.remove(running)
            self._record(running, status, reason)

    def _record(self, running: Running, status: str, reason: str) -> None:
        check = running.check
        record: dict[str, Any] = {
            "status": status,
            "reason": reason,
            "seconds": round(running.processes.seconds, 1),
            "expected_seconds": check.seconds,
            "command": shlex.join(["python", *check.command]),
            "ranks": check.ranks,
            "commit": self.facts.get("commit"),
            "result": _read_result(running.result),
        }
        if status != "passed":
            lines = _STACK_LINES if status == "timeout" else _TAIL_LINES
            record["log"] = _tail(running.log, lines)
        self.save(check, record)
        more = f" ({reason}; log: {running.log})" if reason else ""
        level = logging.INFO if status == "passed" else logging.WARNING
        logger.log(level, f"{check.id}: {status} after {record['seconds']} s{more}")

    def _skip(self, check: Check, status: str, reason: str) -> None:
        self.save(check, {"status": status, "reason": reason, "result": {}})
        level = logging.INFO if status == "unsupported" else logging.WARNING
        logger.log(level, f"{check.id}: {status}: {reason}")

    def save(self, check: Check, record: dict[str, Any]) -> None:
        """Set the record of a check, in memory and on disk."""
        self.records[check.id] = record
        position = {id: self._order.get(id, -1) for id in self.records}
        self.records = dict(sorted(self.records.items(), key=lambda item: position[item[0]]))
        checks = report.of_stage(self.records, check.stage)
        stage = {"stage": check.stage, "proves": STAGES[check.stage], "checks": checks}
        write_text(self.output / f"{check.stage}.json", json.dumps(stage, indent=1) + "\n")
        self.on_record()


def _failure(code: int, log: Path) -> str:
    """Return why a check failed: its error, its exception, or the last line that it printed."""
    lines = [line for line in _tail(log, _STACK_LINES) if line.strip()]
    # of several the first is the cause
    errors = [line for line in lines if line.startswith("error: ")]
    exceptions = [line for line in lines if _EXCEPTION.match(line)]
    message = [*errors, *exceptions, *lines[-1:], "it printed nothing"][0].removeprefix("error: ")
    end = f"exit code {code}"
    if code < 0:
        end = f"ended by {signal.Signals(-code).name}"
    return f"{end}: {message.strip()[:_REASON_LENGTH]}"


def _tail(path: Path, lines: int) -> list[str]:
    """Return the last lines of a log."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 500 * lines))
        text = file.read().decode("utf-8", errors="replace")
    return text.splitlines()[-lines:]


def _read_result(path: Path) -> dict[str, Any]:
    """Return the figures that a check wrote, also one that failed after them."""
    if not path.exists():
        return {}
    try:
        return json_file.read_object(path)
    except DataError as error:
        return {"summary": f"the result cannot be read: {error}"}
