"""Currently published files of MEDLINE, Semantic Scholar and the Hugging Face hub."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from data_prep.fetching.item import Item
from data_prep.fetching.transfer import Transfer
from data_prep.fetching.urls import path_of, public
from galen import keys
from galen.errors import DataError, UsageError

NCBI = "https://ftp.ncbi.nlm.nih.gov"
SEMANTIC_SCHOLAR = "https://api.semanticscholar.org"
HUB = "https://huggingface.co"


def medline(
    transfer: Transfer, section: str, is_included: Callable[[str], bool], base: str = NCBI
) -> Iterator[Item]:
    """Yield the included MEDLINE files of a section, `baseline` or `updatefiles`.

    Each has the MD5 that NLM publishes beside it.
    """
    folder = f"{base}/pubmed/{section}"
    page = transfer.get(f"{folder}/").decode("utf-8", "replace")
    names = sorted(set(re.findall(r'href="(pubmed\d\dn\d{4,}\.xml\.gz)"', page)))
    if not names:
        raise DataError(
            f"{public(folder)}/ lists no MEDLINE file; has the server moved? (--base-url)"
        )
    for name in filter(is_included, names):  # a request for each
        content = transfer.get(f"{folder}/{name}.md5").decode("ascii", "replace")
        match = re.search(r"\b[0-9a-f]{32}\b", content.lower())
        if match is None:
            raise DataError(f"{public(folder)}/{name}.md5 contains no MD5")
        yield Item(name, f"{folder}/{name}", checksum=("md5", match[0]))


def semantic_scholar(
    transfer: Transfer, dataset: str, base: str = SEMANTIC_SCHOLAR, release: str = "latest"
) -> Iterator[Item]:
    """Yield the files of a dataset (s2orc, papers, abstracts …) of Semantic Scholar.

    No checksums are published.

    Raises:
        UsageError: `S2_API_KEY` is not set.
    """
    key = keys.read("S2_API_KEY")
    if not key:
        raise UsageError(
            "set S2_API_KEY to your key of the Semantic Scholar API"
            " (https://www.semanticscholar.org/product/api)"
        )
    listing = _json_object(
        transfer,
        f"{base}/datasets/v1/release/{quote(release)}/dataset/{quote(dataset)}",
        {"x-api-key": key},
    )
    files = listing.get("files")
    if not isinstance(files, list) or not files:
        raise DataError(f"{public(base)} lists no file of {dataset}")
    for url in sorted(map(str, files), key=path_of):
        yield Item(PurePosixPath(path_of(url)).name, url)


def hub(transfer: Transfer, name: str, base: str = HUB, revision: str = "main") -> Iterator[Item]:
    """Yield the files of a dataset on the Hugging Face hub, all of one commit.

    Each has its SHA-256 or Git hash. `HF_TOKEN` is sent if it is set, for datasets behind an
    agreement.
    """
    token = keys.read("HF_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    listing = _json_object(
        transfer,
        f"{base}/api/datasets/{quote(name)}/revision/{quote(revision)}?blobs=true",
        headers,
    )
    commit = listing.get("sha")
    files = listing.get("siblings")
    if not commit or not isinstance(files, list) or not files:
        raise DataError(f"{public(base)} lists no file of the dataset {name}")
    for file in sorted(filter(_names_file, files), key=lambda file: str(file["rfilename"])):
        path = file["rfilename"]
        large = file.get("lfs") or {}
        digest: tuple[str, str] | None = None
        if large.get("sha256"):
            digest = ("sha256", str(large["sha256"]))
        elif file.get("blobId"):
            digest = ("git", str(file["blobId"]))
        quoted = quote(path.encode("utf-8", "replace"))
        url = f"{base}/datasets/{quote(name)}/resolve/{quote(str(commit))}/{quoted}"
        size = large.get("size") or file.get("size")
        yield Item(
            path,
            url,
            size=size if isinstance(size, int) else None,
            checksum=digest,
            headers=headers,
        )


def _names_file(file: Any) -> bool:
    """Return whether an entry of the hub's list names a file.

    The name itself is checked when the file is downloaded.
    """
    if not isinstance(file, dict) or not isinstance(file.get("rfilename"), str):
        return False
    return isinstance(file.get("lfs") or {}, dict)


def _json_object(transfer: Transfer, url: str, headers: dict[str, str]) -> dict[str, Any]:
    """Return a JSON object; an empty one in place of another JSON value.

    Raises:
        DataError: it cannot be downloaded or is not JSON.
    """
    try:
        value = json.loads(transfer.get(url, headers))
    except ValueError:
        raise DataError(f"the response of {public(url)} is not JSON") from None
    return value if isinstance(value, dict) else {}
