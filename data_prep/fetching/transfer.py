"""Files over HTTP: resumable, rate-limited, and verified before they get their name."""

import contextlib
import email.utils
import gzip
import hashlib
import logging
import os
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from galen import __version__, keys
from galen.atomic import partial_path
from galen.errors import DataError

logger = logging.getLogger(__name__)

FIRST_WAIT = 1.0
"""Seconds before the second attempt; each further wait is twice as long, up to a minute."""
ATTEMPTS = 8
"""Attempts in a row that bring nothing before a file is given up."""
_LONGEST_WAIT = 3600.0
_LONGEST_NAME = 255 - len("..partial.version")
"""Bytes of a name in a file system, less what working files add."""
_LONGEST_PATH = 2000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NO_ADDRESS = (
    requests.exceptions.InvalidHeader,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    urllib3.exceptions.LocationValueError,
    UnicodeError,
)
"""What is raised for an address that no repetition makes one."""
_REPORTED_WAIT = 4.0  # seconds; longer waits are logged
_TIMEOUT = (30, 120)  # connect, read: seconds
_BLOCK = 2**18
_MARGIN = 2**16
"""Bytes behind a file's published size before the download is stopped.

A file that is too long is so reported as such.
"""
MAX_FILE_BYTES = 64 * 10**9
"""Bytes of a file whose size is not published."""
_MOST_REDIRECTS = 10
_AGAIN = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Item:
    """A file to fetch."""

    name: str
    """Path below the output folder."""
    url: str
    size: int | None = None
    """Bytes, if published."""
    checksum: tuple[str, str] | None = None
    """("md5" | "sha256" | "git", hexadecimal), if published; git: SHA-1 of a Git blob."""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def public_url(self) -> str:
        """The address as it may be shown."""
        return public(self.url)


class WrongContent(Exception):
    """What came is not what is published."""


def public(url: str) -> str:
    """Return an address without its query, which may hold a signature, and without credentials."""
    scheme, separator, rest = keys.hide(url).split("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


class Transfer:
    """Makes requests, at most `per_second` of them and `bytes_per_second` bytes, over all threads.

    A file whose size is not published may have `max_file_bytes`.
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
        self._next = self._next_bytes = 0.0
        self._local = threading.local()

    def get(self, url: str, headers: dict[str, str] | None = None, most: int = 2**30) -> bytes:
        """Return a small resource of at most `most` bytes.

        Raises:
            DataError: it cannot be had, or is larger.
        """
        public_url = public(url)
        for attempt in range(ATTEMPTS):
            try:
                with self._open(url, headers or {}) as response:
                    if response.status_code == 200:
                        return self._read(response, public_url, most)
                    problem = f"HTTP {response.status_code}"
                    if response.status_code not in _AGAIN:
                        raise DataError(keys.hide(f"{public_url}: {problem} ({response.reason})"))
                    wait = _asked_wait(response)
            except requests.RequestException as error:
                problem = cause_of(error)
                wait = None
            if attempt + 1 < ATTEMPTS:
                self._pause(attempt + 1, wait, f"{public_url}: {problem}")
        raise DataError(f"{public_url} cannot be had: {problem}, {ATTEMPTS} times")

    def _read(self, response: requests.Response, name: str, most: int) -> bytes:
        """Return an answer's content.

        It is compressed only if the server compresses what it was asked to send plainly.
        """
        content = bytearray()
        for block in response.raw.stream(_BLOCK, decode_content=False):
            content += block
            if len(content) > most:
                raise DataError(f"{name}: more than {most:,} bytes come, which this cannot have")
        self._count(len(content))
        encoding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
        if encoding == "identity":
            return bytes(content)
        if encoding not in ("gzip", "x-gzip"):
            raise DataError(f"{name}: comes in the encoding {encoding}, which was not asked for")
        try:
            plain = zlib.decompressobj(31).decompress(bytes(content), most + 1)
        except zlib.error as error:
            raise DataError(f"{name}: it is not complete gzip data ({error})") from None
        if len(plain) > most:
            raise DataError(
                f"{name}: more than {most:,} bytes when decompressed, which this cannot have"
            )
        return plain

    def file(self, item: Item, folder: Path) -> dict[str, Any]:
        """Fetch a file into `folder` and return its record: bytes, checksum, how it was checked."""
        if (problem := trouble_with(item.name)) is not None:
            raise DataError(f"{item.name[:100]!r}: {problem}")
        target = folder / item.name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{item.name}: cannot make its folder: {error.strerror}") from None
        if target.is_dir():
            raise DataError(f"{item.name}: there is a folder of that name")
        partial = partial_path(target)
        for attempt in (1, 2):
            try:
                self._bring(item, partial)
                result = check(partial, item)
                break
            except WrongContent as error:
                partial.unlink(missing_ok=True)
                _version_file(partial).unlink(missing_ok=True)
                if attempt == 2:
                    raise DataError(f"{item.name}: {error}, twice; nothing was kept") from None
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        try:
            partial.replace(target)
        except IsADirectoryError:  # made meanwhile, for another file
            partial.unlink()
            raise DataError(f"{item.name}: there is a folder of that name") from None
        finally:
            _version_file(partial).unlink(missing_ok=True)
        return result

    def _bring(self, item: Item, partial: Path) -> None:
        """Make `partial` as long as the server's file."""
        failures = 0
        while failures < ATTEMPTS:
            have = partial.stat().st_size if partial.exists() else 0
            if item.size is not None and have == item.size:
                return
            wait = None
            try:
                if self._continue(item, partial, have):
                    return
                problem = "the connection broke off"
            except _Refused as refused:
                problem = str(refused)
                wait = refused.wait
                if not refused.again:
                    raise DataError(f"{item.name}: {problem} at {item.public_url}") from None
            except requests.RequestException as error:
                problem = cause_of(error)
            came = (partial.stat().st_size if partial.exists() else 0) > have
            failures = 0 if came else failures + 1
            if failures < ATTEMPTS:
                self._pause(failures, wait, f"{item.name}: {problem}")
        raise DataError(
            f"{item.name} cannot be had from {item.public_url}: {problem}, {ATTEMPTS} times in"
            " a row"
        )

    def _continue(self, item: Item, partial: Path, have: int) -> bool:
        """Fetch the rest of a file behind the first `have` bytes; return whether it is complete."""
        version_file = _version_file(partial)
        headers = dict(item.headers)
        if have and version_file.exists():
            headers |= {
                "Range": f"bytes={have}-",
                "If-Range": version_file.read_text(encoding="utf-8"),
            }
        with self._open(item.url, headers) as response:
            if response.status_code == 416:
                partial.unlink(missing_ok=True)
                return False
            _check_answer(response, have)
            version = response.headers.get("ETag") or response.headers.get("Last-Modified")
            if version and not version.startswith("W/"):
                version_file.write_text(version, encoding="utf-8")
            else:
                version_file.unlink(missing_ok=True)
            start = have if response.status_code == 206 else 0
            length = response.headers.get("Content-Length")
            announced = int(length) if length is not None and length.isdecimal() else None
            if start + (announced or 0) > self._max_bytes(item):
                raise WrongContent(_too_long(item, self.max_file_bytes))
            received = self._receive(item, response, partial, start)
        return announced is None or received == announced

    def _max_bytes(self, item: Item) -> int:
        return self.max_file_bytes if item.size is None else item.size + _MARGIN

    def _receive(self, item: Item, response: requests.Response, partial: Path, start: int) -> int:
        """Write what comes behind the first `start` bytes of a file; return the bytes received."""
        position = start
        with partial.open("ab" if response.status_code == 206 else "wb") as file:
            for block in response.raw.stream(_BLOCK, decode_content=False):
                try:
                    file.write(block)
                except OSError as error:  # a full disk is no trouble of the network
                    raise DataError(f"cannot write {partial}: {error.strerror}") from None
                position += len(block)
                self._count(len(block))
                if position > self._max_bytes(item):
                    raise WrongContent(_too_long(item, self.max_file_bytes))
                if self.stopped.is_set():
                    raise DataError(f"{item.name}: stopped")
        return position - start

    @contextlib.contextmanager
    def _open(self, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
        """Yield the answer to a request, when the rate allows it.

        Redirects are followed; `headers` hold keys and go to `url`'s own origin alone.
        """
        for _ in range(_MOST_REDIRECTS + 1):
            with self._request(url, headers) as response:
                further = response.headers.get("Location") if response.is_redirect else None
                if further is None:
                    yield response
                    return
            target = _joined(url, further)
            if not target.lower().startswith(("http://", "https://")):
                raise DataError(
                    f"{public(url)} leads to {public(target)}, which is no http address"
                )
            if _origin(target) != _origin(url):
                headers = {
                    name: value for name, value in headers.items() if name in ("Range", "If-Range")
                }
            url = target
        raise DataError(f"{public(url)}: leads from redirect to redirect")

    @contextlib.contextmanager
    def _request(self, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self.gap
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
        except _NO_ADDRESS:
            raise DataError(f"{public(url)} is no http address") from None
        except urllib3.exceptions.HTTPError as error:  # a body that breaks off, read raw
            raise requests.ConnectionError(str(error)) from error

    def _count(self, size: int) -> None:
        """Report bytes that came, and wait as long as the rate asks."""
        self.on_bytes(size)
        if self.bytes_per_second:
            with self._lock:
                now = time.monotonic()
                self._next_bytes = max(now, self._next_bytes) + size / self.bytes_per_second
                wait = self._next_bytes - now
            time.sleep(max(0.0, wait))

    def _pause(self, failures: int, asked: float | None, problem: str) -> None:
        wait = asked if asked is not None else min(60.0, FIRST_WAIT * 2 ** max(0, failures - 1))
        if wait >= _REPORTED_WAIT:
            logger.warning(
                f"{problem}; next attempt in {wait:.0f} s (attempt {failures + 1} of {ATTEMPTS})"
            )
        self.stopped.wait(wait)


def cause_of(error: requests.RequestException) -> str:
    """Say in words why a request brought nothing."""
    chain: list[BaseException] = []
    further: Any = error
    while isinstance(further, BaseException) and further not in chain:
        chain.append(further)
        inner = (getattr(further, "reason", None), getattr(further, "original_error", None))
        further = next(
            (
                one
                for one in (*inner, *further.args, further.__cause__, further.__context__)
                if isinstance(one, BaseException)
            ),
            None,
        )
    kinds = tuple(map(type, chain))

    def has(*wanted: type[BaseException]) -> bool:
        return any(issubclass(kind, wanted) for kind in kinds)

    if has(urllib3.exceptions.NameResolutionError, socket.gaierror):
        words = "the name cannot be resolved (no network, or a wrong name)"
    elif has(ConnectionRefusedError):
        words = "connection refused"
    elif has(requests.Timeout, urllib3.exceptions.TimeoutError):
        words = "no answer in time"
    elif has(requests.exceptions.SSLError):
        words = f"no trusted TLS connection ({keys.hide(str(chain[-1]))})"
    elif has(requests.exceptions.ProxyError):
        words = keys.hide(str(chain[-1]))
    else:
        why = getattr(chain[-1], "strerror", None) or kinds[-1].__name__
        words = f"the connection broke off ({why})"
    return f"through the proxy: {words}" if has(requests.exceptions.ProxyError) else words


def _origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port, to which a key that was sent there may be sent again."""
    try:
        parts = urlsplit(url)
        return (
            parts.scheme.lower(),
            (parts.hostname or ""),
            parts.port or {"http": 80, "https": 443}.get(parts.scheme.lower()),
        )
    except ValueError:  # no address: reported when it is requested
        return "", "", None


def _joined(url: str, further: str) -> str:
    try:
        return urljoin(url, further)
    except ValueError:
        return further


def trouble_with(name: str) -> str | None:
    """Say why a server's name for a file is unusable below the output folder; None if it is not."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        return "it names a file outside its folder"
    if any(part in ("", ".") or _CONTROL.search(part) for part in parts):
        return "it is no name of a file"
    if (
        any(len(part.encode()) > _LONGEST_NAME for part in parts)
        or len(name.encode()) > _LONGEST_PATH
    ):
        return "the name is too long"
    if name == "downloads.jsonl" or any(
        re.fullmatch(r"\..*\.partial(\.version)?", part) for part in parts
    ):
        return "this name is the command's own"
    return None


def _too_long(item: Item, largest: int) -> str:
    if item.size is not None:
        return f"more than the {item.size:,} bytes come that are published"
    return f"more than {largest:,} bytes come; is it that large, raise --max-file-size"


class _Refused(Exception):
    def __init__(self, message: str, again: bool, wait: float | None) -> None:
        super().__init__(message)
        self.again = again
        self.wait = wait


def _version_file(partial: Path) -> Path:
    """Return the file that holds the version (ETag) of what `partial` is a part of."""
    return partial.with_name(f"{partial.name}.version")


def _check_answer(response: requests.Response, have: int) -> None:
    """Check that an answer holds the file, or what is behind its first `have` bytes.

    Raises:
        _Refused: it does not.
    """
    status = response.status_code
    if status not in (200, 206):
        reason = keys.hide(f"HTTP {status} ({response.reason})")
        raise _Refused(reason, status in _AGAIN, _asked_wait(response))
    content_range = response.headers.get("Content-Range") or ""
    if status == 206 and not content_range.startswith(f"bytes {have}-"):
        raise _Refused("a range that was not asked for", True, None)


def _asked_wait(response: requests.Response) -> float | None:
    """Return the seconds that a server asks to wait (Retry-After: seconds or a date)."""
    value = (response.headers.get("Retry-After") or "").strip()
    if value.isdecimal():
        return min(float(value), _LONGEST_WAIT)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return min(max(0.0, moment.timestamp() - time.time()), _LONGEST_WAIT)


def check(path: Path, item: Item) -> dict[str, Any]:
    """Check a file against its published size and checksum.

    Without a checksum, a gzip file is decompressed to see that it is complete.
    """
    size = path.stat().st_size
    if item.size is not None and size != item.size:
        raise WrongContent(f"{size:,} bytes came, {item.size:,} are published")
    if item.checksum is None:
        if item.name.endswith(".gz"):
            try:
                with gzip.open(path) as file:
                    while file.read(2**20):
                        pass
            except (OSError, EOFError, zlib.error) as error:
                raise WrongContent(f"it is not complete gzip data ({error})") from None
            return {"bytes": size, "checked": "gzip"}
        return {
            "bytes": size,
            "checked": "size" if item.size is not None else "nothing is published",
        }
    kind, expected = item.checksum
    digest = hashlib.new("sha1" if kind == "git" else kind, usedforsecurity=False)
    if kind == "git":
        digest.update(f"blob {size}\0".encode())
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    if digest.hexdigest() != expected.lower():
        raise WrongContent(f"its {kind} is {digest.hexdigest()}, published is {expected}")
    return {"bytes": size, "checked": kind, "checksum": expected}
