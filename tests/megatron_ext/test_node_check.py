import io
import os

import pytest

from galen.errors import DataError, UsageError
from megatron_ext import node_check
from megatron_ext.node_check import Link, Report


def report(name, faults=(), links=None):
    return Report(node=name, faults=list(faults), links=links or {})


def test_a_node_with_a_fault_of_its_own():
    reports = [report("n1"), report("n2", ["/tmp has 1.0 GB free, 20 are required"]), report("n3")]
    assert node_check.judge(["n1", "n2", "n3"], reports, 1.0) == {
        "n2": "/tmp has 1.0 GB free, 20 are required"
    }


def test_a_node_without_a_report_breaks_the_links_of_others():
    links = {"n2": Link(error="all-reduce failed: timed out")}
    assert list(node_check.judge(["n1", "n2"], [report("n1", links=links)], 0.0)) == ["n2"]


def test_a_slow_node_is_the_one_whose_links_are_all_slow():
    rates = {("n1", "n2"): 40.0, ("n2", "n3"): 2.0, ("n3", "n4"): 2.5, ("n4", "n1"): 41.0}
    reports = [
        report(
            name,
            links={
                b if a == name else a: Link(bandwidth=rate)
                for (a, b), rate in rates.items()
                if name in (a, b)
            },
        )
        for name in ("n1", "n2", "n3", "n4")
    ]
    assert list(node_check.judge(["n1", "n2", "n3", "n4"], reports, 10.0)) == ["n3"]
    assert node_check.judge(["n1", "n2", "n3", "n4"], reports, 0.0) == {}


def test_all_nodes_bad(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(report("n1", ["x"]).to_json() + "\n"))
    with pytest.raises(DataError, match="no node passed"):
        node_check.main(["judge", "n1"])


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    def answer(*lines, code=0):
        program = tmp_path / "nvidia-smi"
        program.write_text(
            "#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines) + f"exit {code}\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return answer


def test_gpus(nvidia_smi):
    nvidia_smi("0, 0, No, No, Not Active", "1, [N/A], [N/A], [N/A], Not Active")
    assert node_check.gpu_faults(2) == []
    assert node_check.gpu_faults(8) == ["2 GPUs, 8 are required"]
    nvidia_smi("0, 7, No, No, Active", "1, 0, Yes, Yes, Not Active")
    assert node_check.gpu_faults(2) == [
        "GPU 0 has uncorrected memory errors: 7",
        "GPU 0 has a slow-down by the hardware (heat or power): Active",
        "GPU 1 has a row remapping that waits for a reset: Yes",
        "GPU 1 has a row remapping that failed: Yes",
    ]
    nvidia_smi("Unable to determine the device handle for GPU0000:3B:00.0: Unknown Error", code=15)
    assert "ended with 15" in node_check.gpu_faults(2)[0]


def test_disk(tmp_path):
    assert node_check.disk_fault(f"{tmp_path}=0.000001") is None
    assert "GB free, 999999 are required" in node_check.disk_fault(f"{tmp_path}=999999")
    assert "cannot be written to" in node_check.disk_fault(f"{tmp_path / 'none'}=1")
    with pytest.raises(UsageError, match="write DIR=GB"):
        node_check.disk_fault("/tmp")


@pytest.mark.multiprocess
def test_two_nodes_measure_their_link(start_forked):
    codes, written = start_forked(
        2, "probe", "--megabytes", 4, module="megatron_ext.node_check"
    ).wait()
    assert codes == [0, 0], written
    reports = [Report.from_json(line) for line in written.splitlines()]
    reports.sort(key=lambda report: report.node)
    assert [(one.node, list(one.links)) for one in reports] == [
        ("n0", ["n1"]),
        ("n1", ["n0"]),
    ]
    assert all(
        one.bandwidth > 0 and one.links[other].bandwidth > 0
        for one, other in zip(reports, ("n1", "n0"), strict=True)
    )
    assert node_check.judge(["n0", "n1"], reports, 0.0) == {}
    assert set(node_check.judge(["n0", "n1"], reports, 1e9)) == {"n0", "n1"}
