"""PubMed Central's open-access articles from its cloud bucket.

They are written to tar files for the reader `jats`.

Since August 2026 PMC no longer publishes packages: each version of an article is a separate object
with a JSON file of its metadata, listed in a daily inventory
(https://pmc.ncbi.nlm.nih.gov/tools/pmcaws/). A package here contains the newest version of the
articles of one license group among a thousand PMCIDs: `comm/PMC010009xxx.tar.gz`. It is downloaded
again when a later inventory differs for its articles.
"""

import contextlib
import csv
import gzip
import hashlib
import io
import json
import re
import tarfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from data_prep.fetching.record import Record
from data_prep.fetching.transfer import Transfer
from data_prep.fetching.urls import public
from data_prep.text.hashing import stable_hash
from galen.atomic import atomic_file
from galen.errors import DataError

BUCKET = "https://pmc-oa-opendata.s3.amazonaws.com"
GROUPS = ("comm", "noncomm", "other")
_INVENTORY = "inventory-reports/pmc-oa-opendata/metadata/"
_KEY = re.compile(r"metadata/PMC(\d+)\.(\d+)\.json")
_SPAN = 1000


def license_group(code: str | None, open_access: bool = True) -> str:
    """Return PMC's license group of a license code.

    `comm` (CC0, BY, BY-SA, BY-ND), `noncomm` (the NC ones) or `other` (TDM, none).
    """
    parts = set(re.split(r"[^A-Z0-9]+", (code or "").upper()))
    if not open_access or not parts & {"CC0", "BY"}:
        return "other"
    return "noncomm" if "NC" in parts else "comm"


@dataclass(frozen=True)
class Package:
    """The articles of a thousand PMCIDs."""

    name: str
    """PMC010009xxx"""
    versions: tuple[tuple[int, int], ...]
    """PMCID and newest version of each article."""
    state: str
    """Hash of versions and entity tags: it changes with the articles."""

    def file(self, group: str) -> str:
        """Return the path of a license group's tar file below the output folder."""
        return f"{group}/{self.name}.tar.gz"


def packages(transfer: Transfer, base: str = BUCKET) -> Iterator[Package]:
    """Yield all packages of the newest inventory, in order.

    Takes about 50 bytes of memory for each article version.

    Raises:
        DataError: there is no inventory, or it is damaged.
    """
    articles = array("Q")  # PMCID and version of each article version, in one number
    tags = array("Q")
    for key, tag in _inventory(transfer, base):
        if match := _KEY.fullmatch(key):
            articles.append(int(match[1]) << 16 | int(match[2]))
            tags.append(stable_hash(tag))
    if not articles:
        return
    entries = np.frombuffer(articles, dtype=np.uint64)
    order = np.argsort(entries, kind="stable")
    numbers = entries[order] >> 16
    newest = order[np.append(numbers[1:] != numbers[:-1], True)]
    spans = entries[newest] // (_SPAN << 16)
    for indices in np.split(newest, np.flatnonzero(spans[1:] != spans[:-1]) + 1):
        versions = tuple((int(entry) >> 16, int(entry) & 0xFFFF) for entry in entries[indices])
        state = f"{stable_hash(*(f'{entries[n]} {tags[n]}' for n in indices)):016x}"
        yield Package(f"PMC{versions[0][0] // _SPAN:06d}xxx", versions, state)


def _inventory(transfer: Transfer, base: str) -> Iterator[tuple[str, str]]:
    """Yield key and entity tag of each metadata object of the newest inventory."""
    manifests = _inventory_manifests(transfer, base)
    if not manifests:
        raise DataError(
            f"{public(base)} has no inventory below {_INVENTORY}; has the service changed?"
            " (--base-url)"
        )
    manifest = json.loads(transfer.get(f"{base}/{quote(max(manifests))}"))
    columns = [name.strip() for name in manifest["fileSchema"].split(",")]
    for file in manifest["files"]:
        data = transfer.get(f"{base}/{quote(file['key'])}")
        if file.get("MD5checksum") and _md5(data) != file["MD5checksum"]:
            raise DataError(
                f"{public(base)}/{file['key']}: its MD5 is not the published one; start again"
            )
        text = io.TextIOWrapper(gzip.GzipFile(fileobj=io.BytesIO(data)), encoding="utf-8")
        for row in csv.reader(text):
            record = dict(zip(columns, row, strict=False))
            yield record["Key"], record.get("ETag", "")


def _inventory_manifests(transfer: Transfer, base: str) -> list[str]:
    """Return the keys of all inventories' manifests, from all pages of the listing."""
    first_page = f"{base}/?list-type=2&prefix={quote(_INVENTORY, safe='')}"
    url = first_page
    manifests: list[str] = []
    while True:
        page = transfer.get(url).decode()
        manifests += re.findall(r"<Key>([^<]*/manifest\.json)</Key>", page)
        token = re.search(r"<NextContinuationToken>([^<]+)<", page)
        if token is None:
            return manifests
        url = f"{first_page}&continuation-token={quote(token[1], safe='')}"


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def fetch(
    transfer: Transfer,
    package: Package,
    groups: list[str],
    folder: Path,
    record: Record,
    base: str = BUCKET,
) -> None:
    """Write the package's tar file of each requested license group that has articles in it.

    Raises:
        DataError: an object cannot be downloaded, or twice has another MD5 than published.
    """
    counts = dict.fromkeys(groups, 0)
    with contextlib.ExitStack() as stack:
        archives: dict[str, tarfile.TarFile] = {}
        for number, version in package.versions:
            name = f"PMC{number}.{version}"
            meta = _meta(transfer, f"{base}/metadata/{name}.json")
            group = license_group(
                meta.get("license_code"), bool(meta.get("is_pmc_openaccess", True))
            )
            if group not in counts or not meta.get("xml_url"):
                continue
            data = _article(transfer, meta, base)
            if group not in archives:
                archives[group] = stack.enter_context(_archive(folder / package.file(group)))
            info = tarfile.TarInfo(f"{name}.xml")
            info.size = len(data)
            archives[group].addfile(info, io.BytesIO(data))
            counts[group] += 1
    for group, count in counts.items():
        size = (folder / package.file(group)).stat().st_size if count else 0
        record.add(
            package.file(group),
            bytes=size,
            url=public(base),
            state=package.state,
            articles=count,
            checked="md5",
        )


def is_current(package: Package, groups: list[str], folder: Path, record: Record) -> bool:
    """Return whether all files of a package exist in their currently published version."""
    for group in groups:
        entry = record.entries.get(package.file(group))
        path = folder / package.file(group)
        if entry is None or entry.get("state") != package.state:
            return False
        if entry["articles"] and not (path.is_file() and path.stat().st_size == entry["bytes"]):
            return False
    return True


def _meta(transfer: Transfer, url: str) -> dict[str, Any]:
    """Return the metadata of an article."""
    try:
        meta = json.loads(transfer.get(url, max_bytes=2**24))
    except ValueError:
        meta = None
    if not isinstance(meta, dict):
        raise DataError(f"{public(url)} is not a JSON object")
    return meta


def _article(transfer: Transfer, meta: dict[str, Any], base: str) -> bytes:
    """Return an article's XML, checked against the MD5 in its address."""
    parts = urlsplit(str(meta["xml_url"]))
    expected = re.search(r"\bmd5=([0-9a-fA-F]{32})", parts.query)
    for _ in range(2):
        data = transfer.get(f"{base}/{quote(parts.path.lstrip('/'))}")
        if expected is None or _md5(data) == expected[1].lower():
            return data
    raise DataError(f"{parts.path[1:]}: its MD5 is not {expected[1] if expected else ''}, twice")


@contextlib.contextmanager
def _archive(final: Path) -> Iterator[tarfile.TarFile]:
    """Yield a tar file to fill, whose bytes depend on the articles alone.

    It appears under its name when it is complete.
    """
    with (
        atomic_file(final) as path,
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as archive,
    ):
        yield archive
