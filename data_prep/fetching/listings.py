"""Which files a source publishes just now: MEDLINE, Semantic Scholar, the Hugging Face hub."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from data_prep.fetching.transfer import Item, Transfer
from galen.errors import DataError, UsageError

NCBI = "https://ftp.ncbi.nlm.nih.gov"
SEMANTIC_SCHOLAR = "https://api.semanticscholar.org"
HUB = "https://huggingface.co"


def medline(transfer: Transfer, part: str, wanted: Callable[[str], bool], base: str = NCBI) -> Iterator[Item]:
    """Yield the MEDLINE files of `baseline` or `updatefiles` whose name is wanted, with the MD5 that NLM puts beside each."""
    folder = f"{base}/pubmed/{part}"
    page = transfer.get(f"{folder}/").decode("utf-8", "replace")
    names = sorted(set(re.findall(r'href="(pubmed\d\dn\d{4,}\.xml\.gz)"', page)))
    if not names:
        raise DataError(f"{folder}/ lists no MEDLINE file; has the server moved? (--base-url)")
    for name in filter(wanted, names):  # a request for each
        found = re.search(r"\b[0-9a-f]{32}\b", transfer.get(f"{folder}/{name}.md5").decode("ascii", "replace").lower())
        if found is None:
            raise DataError(f"{folder}/{name}.md5 holds no MD5")
        yield Item(name, f"{folder}/{name}", checksum=("md5", found[0]))


def semantic_scholar(transfer: Transfer, dataset: str, base: str = SEMANTIC_SCHOLAR, release: str = "latest") -> Iterator[Item]:
    """Yield the files of a dataset (s2orc, papers, abstracts …) of Semantic Scholar; no checksums are published.

    Raises:
        UsageError: `S2_API_KEY` is not set.
    """
    key = os.environ.get("S2_API_KEY", "")
    if not key:
        raise UsageError("set S2_API_KEY to your key of the Semantic Scholar API (https://www.semanticscholar.org/product/api)")
    answer = _json(transfer, f"{base}/datasets/v1/release/{quote(release)}/dataset/{quote(dataset)}", {"x-api-key": key})
    files = answer.get("files") if isinstance(answer, dict) else None
    if not files:
        raise DataError(f"{base} lists no file of {dataset}")
    for url in sorted(files, key=lambda url: urlsplit(url).path):
        yield Item(PurePosixPath(urlsplit(url).path).name, url)


def hub(transfer: Transfer, name: str, base: str = HUB, revision: str = "main") -> Iterator[Item]:
    """Yield the files of a dataset on the Hugging Face hub, all of one commit, with their SHA-256 or Git hash.

    `HF_TOKEN` is sent where it is set, for datasets behind an agreement.
    """
    token = os.environ.get("HF_TOKEN", "")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = _json(transfer, f"{base}/api/datasets/{quote(name)}/revision/{quote(revision)}?blobs=true", headers)
    commit, files = answer.get("sha"), answer.get("siblings")
    if not commit or not files:
        raise DataError(f"{base} lists no file of the dataset {name}")
    for file in sorted(files, key=lambda file: str(file["rfilename"])):
        path, large = str(file["rfilename"]), file.get("lfs") or {}
        if path.startswith("/") or ".." in PurePosixPath(path).parts:
            raise DataError(f"the dataset {name} names a file outside its folder: {path}")
        digest = ("sha256", large["sha256"]) if large.get("sha256") else ("git", file["blobId"]) if file.get("blobId") else None
        url = f"{base}/datasets/{quote(name)}/resolve/{commit}/{quote(path)}"
        yield Item(path, url, size=large.get("size") or file.get("size"), checksum=digest, headers=headers)


def _json(transfer: Transfer, url: str, headers: dict[str, str]) -> Any:
    try:
        return json.loads(transfer.get(url, headers))
    except ValueError:
        raise DataError(f"{url.split('?')[0]} did not answer with JSON") from None
