import json
import resource

from data_prep.curation.shuffle import Scatter
from data_prep.curation.writers import open_gzip
from data_prep.executors.local import LocalExecutor


def test_more_buckets_than_the_usual_limit_of_open_files(tmp_path):
    (tmp_path / "ordered/train").mkdir(parents=True)
    with open_gzip(tmp_path / "ordered/train/00000.jsonl.gz", 1) as file:
        file.writelines(
            json.dumps({"id": str(n), "text": "x"}).encode() + b"\n" for n in range(1000)
        )
    step = Scatter(str(tmp_path / "ordered"), str(tmp_path / "scattered"), 200, 1)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
    try:
        LocalExecutor([step], 1, 1, tmp_path / "log").run_task(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(list((tmp_path / "scattered").rglob("*.jsonl.gz"))) > 150
