"""Benchmarks that their authors publish as plain files under an open license."""

from collections.abc import Iterator

from data_prep.fetching.item import Item

GITHUB = "https://raw.githubusercontent.com"
FILES = {
    # MIT
    "pubmedqa": ("pubmedqa/pubmedqa/master/data", ("ori_pqal.json", "test_ground_truth.json")),
}
"""Folder in a repository and files of each benchmark."""


def files(name: str, base: str = GITHUB) -> Iterator[Item]:
    """Yield the files of a benchmark; no checksums are published."""
    folder, names = FILES[name]
    for file in names:
        yield Item(file, f"{base}/{folder}/{file}")
