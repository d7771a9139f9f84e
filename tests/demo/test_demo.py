"""The whole pipeline on a few records and a tiny random model, driven as a user does."""

import re
import shutil

import pytest

from tests.conftest import run
from tests.data_prep.material import FIXTURE, many_records, write_medline


@pytest.fixture(scope="module")
def arguments(tmp_path_factory, make_llama):
    folder = tmp_path_factory.mktemp("demo")
    medline = folder / "own medline"  # a path with a space must come through all stages
    write_medline(medline / "made.xml.gz", many_records(1000, 90))
    shutil.copy(FIXTURE, medline / "real.xml")
    model = make_llama(max_position_embeddings=1024)
    return [
        "examples/demo/demo.py",
        "--small",
        "--medline",
        medline,
        "--model",
        model,
        "--work-dir",
        folder / "work",
    ]


@pytest.mark.multiprocess
def test_demo_runs_each_stage_once_from_records_to_report(arguments):
    work = arguments[-1]
    first = run(*arguments)
    assert first.stdout.splitlines()[-1] == f"Report: {work / 'report.html'}"
    assert "[1/14] Curate the records into documents" in first.stdout  # own input: nothing to fetch
    verdict = (work / "progress" / "pretrained.md").read_text(encoding="utf-8")
    assert verdict.startswith("## pretrained against base")
    page = (work / "report.html").read_text(encoding="utf-8")
    assert re.search(r"for base; .* for pretrained .* for finetuned", page)
    for heading in (
        "Further pretraining",
        "Fine-tuning",
        "Records read and documents kept",
        "Time by stage",
    ):
        assert heading in page
    again = run(*arguments)
    assert again.stdout.count("already finished") == 14
    assert " $ " not in again.stdout


def test_missing_input_is_a_usage_error(tmp_path):
    done = run(
        "examples/demo/demo.py",
        "--medline",
        tmp_path / "nowhere",
        "--work-dir",
        tmp_path / "work",
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip() == f"error: --medline: {tmp_path / 'nowhere'} does not exist"
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
def test_bad_input_stops_at_its_stage_with_its_message(tmp_path, tied_llama):
    (tmp_path / "broken.xml").write_text("<PubmedArticleSet><PubmedArticle>")
    done = run(
        "examples/demo/demo.py",
        "--medline",
        tmp_path / "broken.xml",
        "--model",
        tied_llama,
        "--work-dir",
        tmp_path / "work",
        check=False,
    )
    assert done.returncode == 1
    assert "broken.xml" in done.stderr
    assert "stage 'curate' failed with exit code 1" in done.stderr
    assert not (tmp_path / "work" / "corpus").exists()
