"""Curation on Ray gives the bytes that it gives without; needs the extra `ray`."""

import pytest

from data_prep import curate
from data_prep.executors.ray import RayExecutor
from galen.errors import DataError, UsageError
from tests.data_prep.broken_step import BrokenStep
from tests.data_prep.material import many_records, write_medline


def test_missing_ray_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install -e '\.\[ray\]'"):
        curate.make_executors("ray", 1)


@pytest.mark.multiprocess
def test_same_bytes_and_errors(tmp_path):
    ray = pytest.importorskip("ray")
    for n in range(2):
        write_medline(tmp_path / f"raw/{n}.xml", many_records(1 + 100 * n, 30))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"output: {tmp_path / 'local'}\nsources: [{{reader: medline, path: {tmp_path / 'raw'}}}]\n"
        "steps: [abstract, exact_dedup]\nsplit: {train: 1, validation: 0, test: 0}\n"
    )
    try:
        curate.main([str(recipe), "--workers", "1"])
        curate.main(
            [str(recipe), "--executor", "ray", "--workers", "2", f"output={tmp_path / 'ray'}"]
        )
        one, other = (
            {path.name: path.read_bytes() for path in (tmp_path / name / "train").iterdir()}
            for name in ("local", "ray")
        )
        assert one == other
        with pytest.raises(DataError, match="task 0 met a bad file"):
            RayExecutor([BrokenStep()], 1, 1, tmp_path / "log").run()
    finally:
        ray.shutdown()
