"""Data sets of harness tasks from local files in all their forms; nothing is downloaded."""

import json
import shutil
import socket

import datasets
import evaluate
import pytest

from evaluation.harness.local_datasets import LocalDatasets
from galen.errors import DataError

ROWS = [{"id": n, "choices": ["a", "b"], "text": f"2020-01-0{n + 1}"} for n in range(3)]


def load(folder, *arguments, **options):
    local = LocalDatasets(folder, "some_task")
    with local.redirect():
        return datasets.load_dataset(*arguments, **options), local.files


def write_json_lines(path, rows=ROWS):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", ["test.jsonl", "test.json", "test-00000-of-00001.parquet"])
def test_rows_of_a_configuration(tmp_path, name):
    path = tmp_path / "owner" / "set" / "config" / name
    path.parent.mkdir(parents=True)
    if name.endswith("parquet"):
        datasets.Dataset.from_list(ROWS).to_parquet(path)
    elif name == "test.json":
        path.write_text(json.dumps(ROWS))
    else:
        write_json_lines(path)
    loaded, files = load(tmp_path, "owner/set", "config")
    assert list(loaded["test"]) == ROWS, "texts that look like dates stay texts"
    assert set(loaded["test"].features) == {"id", "choices", "text"}
    assert files == [path]


def test_csv_has_numbers_and_class_labels_of_parquet_stay(tmp_path):
    folder = tmp_path / "owner" / "set"
    folder.mkdir(parents=True)
    (folder / "train.csv").write_text("question,label\nOne?,1\nTwo?,0\n")
    features = datasets.Features({"label": datasets.ClassLabel(names=["no", "yes"])})
    datasets.Dataset.from_dict({"label": [0, 1]}, features).to_parquet(folder / "test.parquet")
    loaded, _ = load(tmp_path, "owner/set")
    assert loaded["train"][0] == {"question": "One?", "label": 1}
    assert loaded["test"].features["label"].names == ["no", "yes"]


def test_shards_follow_one_another(tmp_path):
    folder = tmp_path / "owner" / "set" / "data"
    for number in range(3):
        write_json_lines(folder / f"test-0000{number}-of-00003.jsonl", ROWS[number : number + 1])
    loaded, files = load(tmp_path, "owner/set", split="test")
    assert list(loaded) == ROWS and len(files) == 3


def test_a_datasets_cache_is_read_offline(tmp_path, monkeypatch):
    source = tmp_path / "source" / "set"
    write_json_lines(source / "test.jsonl")
    cache = tmp_path / "cache"
    built = datasets.load_dataset(str(source), cache_dir=str(cache))["test"]
    # as a cache of a data set on the hub is laid out
    [folder] = [path for path in cache.iterdir() if path.is_dir()]
    name = next(folder.iterdir()).name
    target = cache / "owner___set" / name
    target.parent.mkdir()
    shutil.copytree(folder / name, target)
    loaded, files = load(cache, "owner/set")
    assert list(loaded["test"]) == list(built)
    assert files and all(path.suffix == ".arrow" for path in files)


def test_data_files_of_a_task_are_below_the_folder(tmp_path):
    write_json_lines(tmp_path / "mine.jsonl")
    where = {"test": "https://example.org/a/mine.jsonl"}
    loaded, _ = load(tmp_path, "json", data_files=where)
    assert list(loaded["test"]) == ROWS
    with pytest.raises(DataError, match=r"reads other\.jsonl: put it at .*/other\.jsonl"):
        load(tmp_path, "json", data_files={"test": "other.jsonl"})


@pytest.mark.parametrize("cache", [False, True])
def test_a_missing_set_names_the_folder(tmp_path, cache):
    if cache:
        (tmp_path / "owner___other").mkdir()
    with pytest.raises(DataError, match=r"owner/set \(configuration c\).*/set/c/SPLIT\.jsonl"):
        load(tmp_path, "owner/set", "c")


def test_a_missing_split_names_the_file(tmp_path):
    write_json_lines(tmp_path / "owner" / "set" / "test.jsonl")
    loaded, _ = load(tmp_path, "owner/set")
    with pytest.raises(DataError, match=r"no split 'train', only test: add the file train\.jsonl"):
        loaded["train"]


@pytest.mark.parametrize(
    "content", ['{"a": 1}\n{"a": ', '{"a": 1}\n{"a": "x"}\n', "[1, 2]\n", "", "\x00\x01"]
)
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_damaged_files_are_one_message(tmp_path, suffix, content):
    path = tmp_path / "owner" / "set" / f"test.{suffix}"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    try:
        load(tmp_path, "owner/set")
    except DataError as error:
        assert "test." in str(error) and "\n" not in str(error)


def test_tasks_are_loaded_offline(tmp_path):
    with LocalDatasets(tmp_path, "some_task").redirect():
        with pytest.raises(OSError, match="offline"):
            socket.create_connection(("example.org", 80), timeout=1)
        with pytest.raises(DataError, match="needs the metric code_eval"):
            evaluate.load("code_eval")
    assert socket.getaddrinfo("127.0.0.1", 80)


def test_a_column_that_the_first_record_lacks_is_read(tmp_path):
    rows = [{"id": 1}, {"id": 2, "hint": "liver"}]
    write_json_lines(tmp_path / "owner" / "set" / "test.jsonl", rows)
    loaded, _ = load(tmp_path, "owner/set")
    assert loaded["test"]["hint"] == [None, "liver"]
