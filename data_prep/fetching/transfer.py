"""Downloads over HTTP: resumable, rate-limited, and verified before they get their name."""

import contextlib
import logging
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
import urllib3

from data_prep.fetching import request_errors
from data_prep.fetching.item import ContentMismatchError, Item, check, name_problem
from data_prep.fetching.request_errors import RequestRejectedError
from data_prep.fetching.urls import join, origin, public
from galen import __version__, keys
from galen.atomic import partial_path
from galen.errors import DataError

logger = logging.getLogger(__name__)

FIRST_WAIT = 1.0
"""Seconds before the second attempt; each further wait is twice as long, up to a minute."""
ATTEMPTS = 8
"""Consecutive attempts without any data before a file is given up."""
MAX_FILE_BYTES = 64 * 10**9
"""Limit for a file whose size is not published."""
_LOGGED_WAIT = 4.0  # seconds; longer waits are logged
_TIMEOUT = (30, 120)  # connect, read: seconds
_BLOCK_BYTES = 2**18
_MARGIN_BYTES = 2**16
"""Bytes beyond a file's published size before the download is stopped.

A file that is slightly too long is so reported with its actual size.
"""
_MAX_REDIRECTS = 10


class Transfer:
    """Makes HTTP requests within common limits for all threads.

    Args:
        per_second: maximum number of requests per second.
        bytes_per_second: maximum rate.
        max_file_bytes: limit for a file whose size is not published.
    """

    def __init__(
        self,
        per_second: float = 3.0,
        bytes_per_second: float | None = None,
        max_file_bytes: int = MAX_FILE_BYTES,
    ) -> None:
        self.gap = 1 / per_second
        self.bytes_per_second = bytes_per_second
        self.max_file_bytes = max_file_bytes
        self.on_bytes: Callable[[int], None] = lambda count: None
        self.stopped = threading.Event()
        """When set, waits end and no further request is made."""
        self._lock = threading.Lock()
        self._next_request = 0.0
        self._next_bytes = 0.0
        self._local = threading.local()

    def get(self, url: str, headers: dict[str, str] | None = None, max_bytes: int = 2**30) -> bytes:
        """Return a small resource.

        Raises:
            DataError: it cannot be downloaded, or is larger than `max_bytes`.
        """
        name = public(url)
        for attempt in range(ATTEMPTS):
            wait = None
            try:
                with self._open(url, headers or {}) as response:
                    if response.status_code == 200:
                        return self._read(response, name, max_bytes)
                    problem = f"HTTP {response.status_code}"
                    if response.status_code not in request_errors.RETRY_STATUSES:
                        raise DataError(keys.hide(f"{name}: {problem} ({response.reason})"))
                    wait = request_errors.retry_after(response)
            except requests.RequestException as error:
                problem = request_errors.describe(error)
            if attempt + 1 < ATTEMPTS:
                self._pause(attempt + 1, wait, f"{name}: {problem}")
        raise DataError(f"{name} cannot be downloaded: {problem}, {ATTEMPTS} times")

    def _read(self, response: requests.Response, name: str, max_bytes: int) -> bytes:
        """Return the content of a response.

        It is requested uncompressed; some servers compress it nevertheless.
        """
        content = bytearray()
        for block in response.raw.stream(_BLOCK_BYTES, decode_content=False):
            content += block
            if len(content) > max_bytes:
                raise DataError(f"{name}: more than {max_bytes:,} bytes, the limit")
        self._count(len(content))
        encoding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
        if encoding == "identity":
            return bytes(content)
        if encoding not in ("gzip", "x-gzip"):
            raise DataError(f"{name}: unsupported content encoding {encoding}")
        try:
            decompressed = zlib.decompressobj(31).decompress(bytes(content), max_bytes + 1)
        except zlib.error as error:
            raise DataError(f"{name}: it is not complete gzip data ({error})") from None
        if len(decompressed) > max_bytes:
            raise DataError(f"{name}: more than {max_bytes:,} bytes when decompressed, the limit")
        return decompressed

    def file(self, item: Item, folder: Path) -> dict[str, Any]:
        """Download a file into `folder`.

        Returns:
            The fields `bytes`, `checked` and `checksum` of its record.

        Raises:
            DataError: it cannot be downloaded, or twice differs from the published file.
        """
        if (problem := name_problem(item.name)) is not None:
            raise DataError(f"{item.name[:100]!r}: {problem}")
        target = folder / item.name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{item.name}: cannot create its folder: {error.strerror}") from None
        if target.is_dir():
            raise DataError(f"{item.name}: a folder of that name exists")
        partial = partial_path(target)
        checked = self._download_verified(item, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        try:
            partial.replace(target)
        except IsADirectoryError:  # created meanwhile for another file
            partial.unlink()
            raise DataError(f"{item.name}: a folder of that name exists") from None
        finally:
            _version_file(partial).unlink(missing_ok=True)
        return checked

    def _download_verified(self, item: Item, partial: Path) -> dict[str, Any]:
        """Download a file to `partial` and verify it, twice if necessary."""
        for attempt in (1, 2):
            try:
                self._download(item, partial)
                return check(partial, item)
            except ContentMismatchError as error:
                partial.unlink(missing_ok=True)
                _version_file(partial).unlink(missing_ok=True)
                if attempt == 2:
                    raise DataError(f"{item.name}: {error}, twice; nothing was kept") from None
        raise AssertionError("the second attempt returns or raises")

    def _download(self, item: Item, partial: Path) -> None:
        """Download a file to `partial`, in as many requests as it takes."""
        failures = 0
        while failures < ATTEMPTS:
            offset = _size(partial)
            if item.size is not None and offset == item.size:
                return
            wait = None
            try:
                if self._resume(item, partial, offset):
                    return
                problem = "the connection was lost"
            except RequestRejectedError as rejected:
                problem = str(rejected)
                wait = rejected.wait
                if not rejected.retry:
                    raise DataError(f"{item.name}: {problem} at {item.public_url}") from None
            except requests.RequestException as error:
                problem = request_errors.describe(error)
            failures = 0 if _size(partial) > offset else failures + 1
            if failures < ATTEMPTS:
                self._pause(failures, wait, f"{item.name}: {problem}")
        raise DataError(
            f"{item.name} cannot be downloaded from {item.public_url}: {problem}, {ATTEMPTS} times"
            " in a row"
        )

    def _resume(self, item: Item, partial: Path, offset: int) -> bool:
        """Download the bytes of a file from `offset` on; return whether it is complete."""
        version_file = _version_file(partial)
        headers = dict(item.headers)
        if offset and version_file.exists():
            headers["Range"] = f"bytes={offset}-"
            headers["If-Range"] = version_file.read_text(encoding="utf-8")
        with self._open(item.url, headers) as response:
            if response.status_code == 416:
                partial.unlink(missing_ok=True)
                return False
            request_errors.check_response(response, offset)
            version = response.headers.get("ETag") or response.headers.get("Last-Modified")
            if version and not version.startswith("W/"):
                version_file.write_text(version, encoding="utf-8")
            else:
                version_file.unlink(missing_ok=True)
            start = offset if response.status_code == 206 else 0
            length = response.headers.get("Content-Length")
            announced = int(length) if length is not None and length.isdecimal() else None
            if start + (announced or 0) > self._max_bytes(item):
                raise ContentMismatchError(self._too_long(item))
            received = self._receive(item, response, partial, start)
        return announced is None or received == announced

    def _receive(self, item: Item, response: requests.Response, partial: Path, start: int) -> int:
        """Write the bytes of a file from `start` on; return the number of bytes received."""
        position = start
        with partial.open("ab" if response.status_code == 206 else "wb") as file:
            for block in response.raw.stream(_BLOCK_BYTES, decode_content=False):
                try:
                    file.write(block)
                except OSError as error:  # such as a full disk: retrying does not help
                    raise DataError(f"cannot write {partial}: {error.strerror}") from None
                position += len(block)
                self._count(len(block))
                if position > self._max_bytes(item):
                    raise ContentMismatchError(self._too_long(item))
                if self.stopped.is_set():
                    raise DataError(f"{item.name}: stopped")
        return position - start

    def _max_bytes(self, item: Item) -> int:
        return self.max_file_bytes if item.size is None else item.size + _MARGIN_BYTES

    def _too_long(self, item: Item) -> str:
        if item.size is not None:
            return f"it has more than the published {item.size:,} bytes"
        return (
            f"it has more than {self.max_file_bytes:,} bytes; if that is expected, raise"
            " --max-file-size"
        )

    @contextlib.contextmanager
    def _open(self, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
        """Yield the response to a request as soon as the rate limit allows it.

        Redirects are followed; `headers` may contain keys and are sent only to the origin of `url`.
        """
        for _ in range(_MAX_REDIRECTS + 1):
            with self._request(url, headers) as response:
                location = response.headers.get("Location") if response.is_redirect else None
                if location is None:
                    yield response
                    return
            target = join(url, location)
            if not target.lower().startswith(("http://", "https://")):
                raise DataError(
                    f"{public(url)} redirects to {public(target)}, which is not an http address"
                )
            if origin(target) != origin(url):
                ranges = ("Range", "If-Range")
                headers = {name: value for name, value in headers.items() if name in ranges}
            url = target
        raise DataError(f"{public(url)}: too many redirects")

    @contextlib.contextmanager
    def _request(self, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next_request)
            self._next_request = start + self.gap
        if self.stopped.wait(max(0.0, start - now)):
            raise DataError(f"{public(url)}: stopped")
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        agent = {
            "User-Agent": f"galen/{__version__} (corpus download)",
            "Accept-Encoding": "identity",
        }
        try:
            with self._local.session.get(
                url, headers=agent | headers, stream=True, timeout=_TIMEOUT, allow_redirects=False
            ) as response:
                yield response
        except request_errors.INVALID_ADDRESS:
            raise DataError(f"{public(url)} is not an http address") from None
        except urllib3.exceptions.HTTPError as error:  # a truncated body, read raw
            raise requests.ConnectionError(str(error)) from error

    def _count(self, size: int) -> None:
        """Report received bytes, and wait as long as the rate limit requires."""
        self.on_bytes(size)
        if self.bytes_per_second:
            with self._lock:
                now = time.monotonic()
                self._next_bytes = max(now, self._next_bytes) + size / self.bytes_per_second
                wait = self._next_bytes - now
            time.sleep(max(0.0, wait))

    def _pause(self, failures: int, retry_after: float | None, problem: str) -> None:
        """Wait before the next attempt: as long as the server asks, or longer each time."""
        wait = min(60.0, FIRST_WAIT * 2 ** max(0, failures - 1))
        if retry_after is not None:
            wait = retry_after
        if wait >= _LOGGED_WAIT:
            logger.warning(
                f"{problem}; next attempt in {wait:.0f} s (attempt {failures + 1} of {ATTEMPTS})"
            )
        self.stopped.wait(wait)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _version_file(partial: Path) -> Path:
    """Return the file with the version (ETag) of the file that `partial` belongs to."""
    return partial.with_name(f"{partial.name}.version")
