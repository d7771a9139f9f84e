from pathlib import Path

from galen import shipped

EXAMPLE = "examples/corpora/pubmed_sample.yaml"


def test_an_example_is_found_in_any_folder_unless_a_file_of_the_path_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped.resolve(EXAMPLE) == shipped.FOLDER / "corpora" / "pubmed_sample.yaml"
    own = tmp_path / EXAMPLE
    own.parent.mkdir(parents=True)
    own.touch()
    assert shipped.resolve(EXAMPLE) == Path(EXAMPLE)


def test_no_path_leads_out_of_the_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped.resolve("examples/../pyproject.toml") == Path("examples/../pyproject.toml")
    assert shipped.resolve("examples/none.yaml") == Path("examples/none.yaml")
