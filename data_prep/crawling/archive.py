"""The WARC files of a crawl.

Records are appended one by one; after a kill the file is truncated to the last complete record and
read again to resume.
"""

import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.crawling.website import Site
from galen import __version__

_FILE_BYTES = 2**30


class Archive:
    """The files `NAME-00000.warc.gz` … of a site.

    Each begins with a `warcinfo` record that states license, content and robots.
    """

    def __init__(self, site: Site, folder: Path, file_bytes: int = _FILE_BYTES) -> None:
        self.site = site
        self.folder = folder
        self.file_bytes = file_bytes
        self._file: Any = None
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = sorted(folder.glob(f"{site.name}-[0-9]*.warc.gz"))
        if self.paths:
            truncate_to_complete_records(self.paths[-1])

    def pages(self) -> Iterator[tuple[str, str, bytes]]:
        """Yield address, Content-Type header and body of each page that earlier runs fetched."""
        from warcio.archiveiterator import ArchiveIterator

        for path in self.paths:
            with path.open("rb") as file:
                for record in ArchiveIterator(file):
                    if record.rec_type == "response":
                        header = record.http_headers.get_header("Content-Type") or ""
                        yield (
                            record.rec_headers.get_header("WARC-Target-URI"),
                            header,
                            record.content_stream().read(),
                        )

    def write(self, address: str, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        """Append a response and flush it to the file."""
        from warcio.statusandheaders import StatusAndHeaders

        writer = self._writer()
        http = StatusAndHeaders(status, headers, protocol="HTTP/1.1")
        writer.write_record(
            writer.create_warc_record(
                address, "response", payload=io.BytesIO(body), http_headers=http
            )
        )
        self._file.flush()

    def close(self) -> None:
        """Close the current file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _writer(self) -> Any:
        from warcio.warcwriter import WARCWriter

        if self._file is None or self._file.tell() >= self.file_bytes:
            self.close()
            if not self.paths or self.paths[-1].stat().st_size >= self.file_bytes:
                self.paths.append(self.folder / f"{self.site.name}-{len(self.paths):05d}.warc.gz")
            self._file = self.paths[-1].open("ab")
            if self._file.tell() == 0:
                writer = WARCWriter(self._file, gzip=True)
                writer.write_record(
                    writer.create_warcinfo_record(self.paths[-1].name, self._info())
                )
        return WARCWriter(self._file, gzip=True)

    def _info(self) -> dict[str, str]:
        site = self.site
        fields = {
            "software": f"galen/{__version__}",
            "format": "WARC File Format 1.0",
            "robots": "obeyed",
            "site": site.name,
            "license": site.license,
            "terms": site.terms,
            "content": site.content,
            "documents": site.documents,
        }
        return {key: value for key, value in fields.items() if value}


def truncate_to_complete_records(path: Path) -> None:
    """Remove an incomplete record at the end of a file, left by a killed run.

    Each record is a separate gzip member.
    """
    complete_bytes = 0
    with path.open("rb+") as file:
        member = zlib.decompressobj(31)
        position = 0
        unused = b""
        while data := unused or file.read(2**16):
            try:
                member.decompress(data)
            except zlib.error:
                break
            unused = member.unused_data
            position += len(data) - len(unused)
            if member.eof:
                complete_bytes = position
                member = zlib.decompressobj(31)
        file.truncate(complete_bytes)
