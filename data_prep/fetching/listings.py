"""Which files a source publishes just now: MEDLINE, Semantic Scholar, the Hugging Face hub."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from data_prep.fetching.transfer import Item, Transfer, public
from galen import keys
from galen.errors import DataError, UsageError

NCBI = "https://ftp.ncbi.nlm.nih.gov"
SEMANTIC_SCHOLAR = "https://api.semanticscholar.org"
HUB = "https://huggingface.co"


def medline(
    transfer: Transfer, part: str, wanted: Callable[[str], bool], base: str = NCBI
) -> Iterator[Item]:
    """Yield the MEDLINE files of `baseline` or `updatefiles` whose name is wanted.

    Each comes with the MD5 that NLM publishes beside it.
    """
    folder = f"{base}/pubmed/{part}"
    page = transfer.get(f"{folder}/").decode("utf-8", "replace")
    names = sorted(set(re.findall(r'href="(pubmed\d\dn\d{4,}\.xml\.gz)"', page)))
    if not names:
        raise DataError(
            f"{public(folder)}/ lists no MEDLINE file; has the server moved? (--base-url)"
        )
    for name in filter(wanted, names):  # a request for each
        found = re.search(
            r"\b[0-9a-f]{32}\b",
            transfer.get(f"{folder}/{name}.md5").decode("ascii", "replace").lower(),
        )
        if found is None:
            raise DataError(f"{public(folder)}/{name}.md5 holds no MD5")
        yield Item(name, f"{folder}/{name}", checksum=("md5", found[0]))


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
    answer = _json(
        transfer,
        f"{base}/datasets/v1/release/{quote(release)}/dataset/{quote(dataset)}",
        {"x-api-key": key},
    )
    files = answer.get("files") if isinstance(answer, dict) else None
    if not isinstance(files, list) or not files:
        raise DataError(f"{public(base)} lists no file of {dataset}")
    for url in sorted(map(str, files), key=_path_of):
        yield Item(PurePosixPath(_path_of(url)).name, url)


def hub(transfer: Transfer, name: str, base: str = HUB, revision: str = "main") -> Iterator[Item]:
    """Yield the files of a dataset on the Hugging Face hub, all of one commit.

    Each comes with its SHA-256 or Git hash. `HF_TOKEN` is sent where it is set, for datasets behind
    an agreement.
    """
    token = keys.read("HF_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = _json(
        transfer,
        f"{base}/api/datasets/{quote(name)}/revision/{quote(revision)}?blobs=true",
        headers,
    )
    commit, files = (
        (answer.get("sha"), answer.get("siblings")) if isinstance(answer, dict) else (None, None)
    )
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
    """Say whether an entry of the hub's list names a file.

    The name is judged where the file is fetched.
    """
    return (
        isinstance(file, dict)
        and isinstance(file.get("rfilename"), str)
        and isinstance(file.get("lfs") or {}, dict)
    )


def _path_of(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:  # no address: reported when it is fetched
        return url


def _json(transfer: Transfer, url: str, headers: dict[str, str]) -> Any:
    try:
        return json.loads(transfer.get(url, headers))
    except ValueError:
        raise DataError(f"{public(url)} did not answer with JSON") from None
