"""`make gpu-check` on CPUs: all stages once, and the session with checks of a few lines."""

import json
import os
import sys
import time

import pytest

from galen.errors import DataError, UsageError
from tests.conftest import ROOT, run


@pytest.fixture(scope="module")
def gpu_check():
    """The modules of benchmarks/gpu_check, which imports them by the names of a script's folder."""
    sys.path.append(str(ROOT / "benchmarks"))
    from gpu_check import checks, session

    yield checks, session
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture
def run_checks(gpu_check, tmp_path):
    """Run checks, each (name, code, options), and return the session and stage file's records."""
    checks, session = gpu_check

    def run_checks(*described, minutes=1.0, facts=None, jobs=2, new=False):
        made = session.Session(tmp_path / "output", tmp_path / "work", minutes, jobs, {})
        made.facts = facts or {}
        if not new:
            made.load()
        listed = []
        for name, code, options in described:
            command = ("-c", f"import os, sys, time; work = {str(tmp_path / 'work')!r}\n{code}")
            values = {"stage": "loss_curves", "seconds": 1, "limit": 60} | options
            listed.append(checks.Check(name=name, command=command, **values))
        (tmp_path / "work").mkdir(exist_ok=True)
        try:
            made.run(listed)
        finally:
            path = tmp_path / "output/loss_curves.json"
            run_checks.records = json.loads(path.read_text())["checks"]
        return run_checks.records

    return run_checks


RAISE = "raise ValueError('too many layers')"
NESTED = """
import subprocess
code = "import time\\ndef nested():\\n    time.sleep(60)\\nnested()"
subprocess.run([sys.executable, "-c", code], start_new_session=True)
"""


@pytest.mark.slow
def test_a_failure_a_crash_and_a_hang_end_only_their_check(run_checks):
    records = run_checks(
        ("error", "sys.exit('error: a wrong key')", {}),
        ("exception", "import atexit\natexit.register(print, 'end')\n" + RAISE, {}),
        ("crash", "import ctypes; ctypes.string_at(0)", {}),
        ("hang", "def stuck():\n    time.sleep(60)\nstuck()", {"limit": 3}),
        ("nested", NESTED, {"limit": 3}),
        ("after", "print('fine')", {}),
    )
    assert {name: record["status"] for name, record in records.items()} == {
        "error": "failed",
        "exception": "failed",
        "crash": "failed",
        "hang": "timeout",
        "nested": "timeout",
        "after": "passed",
    }
    assert records["error"]["reason"] == "exit code 1: a wrong key"
    assert records["crash"]["reason"].startswith("ended by SIGSEGV: Fatal Python error: Segm")
    assert records["exception"]["reason"] == "exit code 1: ValueError: too many layers"
    assert records["hang"]["reason"] == "it exceeded its limit of 3 s"
    for name, function in (("hang", "in stuck"), ("nested", "in nested")):
        assert any(function in line for line in records[name]["log"])
    assert records["hang"]["seconds"] < 30


def test_a_rank_that_fails_ends_the_others(run_checks, monkeypatch, gpu_check, tmp_path):
    import gpu_check.processes as processes

    monkeypatch.setattr(processes, "_OTHER_RANKS_SECONDS", 0.2)
    code = "open(f'{work}/{os.environ[\"RANK\"]}', 'w').write(str(os.getpid()))\n"
    code += "if os.environ['RANK'] == '1': sys.exit('error: out of memory')\n"
    code += "time.sleep(60)"
    records = run_checks(("ranks", code, {"ranks": 2}))
    assert records["ranks"]["status"] == "failed" and records["ranks"]["seconds"] < 30
    assert "out of memory" in records["ranks"]["reason"]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "work/0").read_text()), 0)


def test_what_cannot_run_is_named_with_the_reason(run_checks):
    facts = {"unsupported": {"fp8": "it needs Transformer Engine"}}
    records = run_checks(
        ("unsupported", "", {"requires": ("fp8",)}),
        ("after_unsupported", "", {"needs": ("loss_curves/unsupported",)}),
        ("too_long", "", {"seconds": 300}),
        ("short", "", {}),
        facts=facts,
    )
    assert {name: record["reason"] for name, record in records.items()} == {
        "unsupported": "it needs Transformer Engine",
        "after_unsupported": "it needs loss_curves/unsupported: unsupported",
        "too_long": "it takes about 300 s, and 60 s of the budget of 1 minutes were left",
        "short": "",
    }


def test_the_budget_ends_a_check_that_takes_longer_than_expected(run_checks):
    records = run_checks(("slow", "time.sleep(60)", {"seconds": 0}), minutes=1 / 60)
    assert records["slow"]["status"] == "timeout"
    assert "the budget of 0.0166667 minutes was used up" in records["slow"]["reason"]


def test_a_check_that_measures_time_runs_alone(run_checks, tmp_path):
    code = "t = time.time(); time.sleep(0.3); print(t, time.time(), file=open(f'{{work}}/{}', 'w'))"
    run_checks(*((name, code.format(name), {"alone": name == "b"}) for name in "abc"))
    times = {name: (tmp_path / "work" / name).read_text().split() for name in "abc"}
    assert times["a"][1] < times["b"][0] and times["b"][1] < times["c"][0]


def test_a_broken_off_check_continues(run_checks, monkeypatch, tmp_path):
    work = tmp_path / "work"
    count = "print(file=open(f'{{work}}/{0}', 'a')); "
    first = ("first", count.format("first"), {"products": ("first",)})
    second = {"needs": ("loss_curves/first",), "products": ("second",)}
    slow = ("second", count.format("second") + "time.sleep(60)", second)
    quick = ("second", count.format("second"), second)
    third = {"needs": ("loss_curves/second",)}
    sleep = time.sleep

    def interrupt(seconds):
        if (work / "second").exists():
            monkeypatch.setattr(time, "sleep", sleep)
            raise KeyboardInterrupt
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_checks(first, slow, ("third", "", third))
    statuses = [run_checks.records[name]["status"] for name in ("first", "second", "third")]
    assert statuses == ["passed", "interrupted", "skipped"]

    records = run_checks(first, quick, ("third", "sys.exit(1)", third))
    assert [records[name]["status"] for name in records] == ["passed", "passed", "failed"]
    assert ((work / "first").read_text(), (work / "second").read_text()) == ("\n", "\n\n")

    (work / "second").unlink()  # what a check needs is made again if it is gone
    records = run_checks(first, quick, ("third", "", third))
    assert [records[name]["status"] for name in records] == ["passed", "passed", "passed"]
    assert ((work / "first").read_text(), (work / "second").read_text()) == ("\n", "\n")


def test_results_of_another_environment_are_not_mixed(gpu_check, tmp_path, monkeypatch):
    from gpu_check import __main__ as command

    checks = gpu_check[0]

    def main(device, *options):
        facts = {"platform": "cuda", "device": device, "gpus": 1, "versions": {}}
        facts |= {"problems": [], "unsupported": {}}
        code = f"import sys; open(sys.argv[1], 'w').write({json.dumps(facts)!r})"
        check = checks.Check(
            stage="environment",
            name="environment",
            command=("-c", code, checks.RESULT),
            seconds=1,
            limit=60,
        )
        monkeypatch.setattr(checks, "environment", lambda platform: check)
        folders = ["--output", str(tmp_path / "output"), "--work", str(tmp_path / "work")]
        command.main([*folders, "--stages", "environment", *options])

    main("one")
    kept = {"a": {"status": "passed", "result": {"summary": "fast"}}}
    (tmp_path / "output/throughput.json").write_text(json.dumps({"checks": kept}))
    (tmp_path / "output/loss_curves.json").write_text("damaged")
    for _ in range(2):
        with pytest.raises(UsageError, match=r"another environment.*one.*two.*--again"):
            main("two")
    main("one")
    main("one", "--again")
    assert (tmp_path / "output/throughput.json").exists()
    main("two", "--again")
    assert not (tmp_path / "output/throughput.json").exists()

    (tmp_path / "work").mkdir()
    (tmp_path / "work/own_file").touch()
    with pytest.raises(UsageError, match="not been made by this check"):
        main("two")
    with pytest.raises(UsageError, match="unknown stage 'speed'; they are environment, "):
        main("two", "--stages", "speed")
    with pytest.raises(UsageError, match="outside of --work"):
        main("two", "--work", str(tmp_path))


def test_two_reports_are_compared(gpu_check, tmp_path, capsys):
    from gpu_check import compare

    for name, rate, status in (("one", 10000, "passed"), ("two", 11000, "failed")):
        record = {"status": status, "result": {"tokens_per_second_per_gpu": rate, "mfu": None}}
        stages = {"throughput": {"llama": record}}
        if name == "two":
            stages["loss_curves"] = {"bf16": {"status": "skipped", "result": {}}}
        (tmp_path / name).mkdir()
        report = {"environment": {"summary": f"1 x {name}"}, "stages": stages}
        (tmp_path / name / "report.json").write_text(json.dumps(report))
    compare.main([str(tmp_path / "one"), str(tmp_path / "two/report.json")])
    assert capsys.readouterr().out.splitlines() == [
        "1: 1 x one",
        "2: 1 x two",
        "",
        "throughput/llama  passed → failed",
        "throughput/llama  tokens/s/GPU: 10,000 → 11,000 (+10.0%)",
        "loss_curves/bf16  not run → skipped",
    ]
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match="not a report"):
        compare.main([str(tmp_path / "one"), str(tmp_path / "other.json")])


@pytest.mark.slow
@pytest.mark.multiprocess
def test_all_stages_on_cpus(tmp_path):
    output = tmp_path / "output"
    arguments = ["--platform", "cpu", "--output", output, "--work", tmp_path / "work"]
    done = run("benchmarks/gpu_check", *arguments, "--minutes", "8", "--jobs", "1")
    report = json.loads((output / "report.json").read_text())
    records = {
        f"{stage}/{name}": record
        for stage, checks in report["stages"].items()
        for name, record in checks.items()
    }
    unsupported = {id for id, record in records.items() if record["status"] == "unsupported"}
    assert unsupported == {f"loss_curves/fp8_{n}" for n in ("delayed", "tensorwise", "blockwise")}
    passed = {id for id, record in records.items() if record["status"] == "passed"}
    assert passed == records.keys() - unsupported and len(passed) == 15
    # few enough to bring home from a machine that limits their number
    assert sorted(path.name for path in output.iterdir()) == [
        *("end_to_end.json", "environment.json", "loss_curves.json", "parallel.json"),
        *("report.json", "report.txt", "throughput.json"),
    ]
    assert not (tmp_path / "work").exists()
    assert done.stdout == (output / "report.txt").read_text()
    assert "15 passed, 3 unsupported" in done.stdout
    resumed = records["end_to_end/resume"]["result"]
    assert resumed["largest_difference"] == 0 and resumed["repeated_steps"] >= 3
    assert records["parallel/bandwidth"]["result"]["all_reduce_busbw_gb_per_second"] > 0
    assert_consistent(records["throughput/tiny_fp32"]["result"])


def assert_consistent(result):
    """Compare the figures of benchmarks/train_gpu.py with each other."""
    assert result["model"]["num_layers"] == 2
    # ln 300 = 5.7 for random weights
    assert len(result["losses"]) == 3 and all(5 < loss < 7 for loss in result["losses"])
    assert result["tokens_per_second_per_gpu"] * result["seconds_per_step"] == pytest.approx(
        8 * 32 / result["gpus"]
    )
    # no look-up; causal attention of 2 layers
    flops = 6 * (result["model"]["parameters"] - 300 * 64) + 6 * 2 * 64 * 32
    assert result["model_tflops_per_gpu"] * 1e12 == pytest.approx(
        flops * result["tokens_per_second_per_gpu"]
    )
    assert len(result["slowest"]) >= 10 and result["planned"] is None
