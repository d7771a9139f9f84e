"""Pages as they were sent.

Decompressed as the HTTP header Content-Encoding says, within a limit, and never in part.
"""

import zlib

import brotli

from data_prep.readers.record import RecordRejectedError

_KNOWN = ("gzip", "x-gzip", "deflate", "br")
_OTHERS = ("zstd", "compress", "x-compress", "dcb", "dcz")
_PLAIN = (b"<", b"%PDF")
"""How pages that are not compressed at all begin.

Many archives keep the header of a page that they hold decompressed.
"""


def decompressed(data: bytes, header: str, limit: int) -> bytes:
    """Return a page decompressed; the last of several compressions is undone first.

    A word that names none is skipped.

    Raises:
        RecordRejectedError: it is damaged or breaks off, is longer than `limit`, or is compressed
            in an unsupported way.
    """
    for compression in reversed([name.strip().lower() for name in header.split(",")]):
        if compression in _OTHERS:
            raise RecordRejectedError(
                "unknown compression",
                f"the page is compressed with {compression}, which is not supported",
            )
        if compression not in _KNOWN or not data:
            continue
        try:
            if compression == "br":
                content = _brotli(data, limit)
            else:
                content = _zlib(data, compression, limit)
        except (zlib.error, brotli.error, EOFError) as error:
            if data.lstrip().startswith(_PLAIN):
                continue
            raise RecordRejectedError(
                "damaged compression", f"the page is not complete {compression} data ({error})"
            ) from None
        if len(content) > limit:
            raise RecordRejectedError("too long", f"longer than {limit:,} bytes (max_record_bytes)")
        data = content
    return data


def _zlib(data: bytes, compression: str, limit: int) -> bytes:
    """Return data decompressed from gzip, zlib or bare deflate, up to a byte above the limit.

    "deflate" is used for both zlib and bare deflate.
    """
    if "gzip" in compression:
        wbits = 31
    elif data[0] & 15 == 8 and int.from_bytes(data[:2]) % 31 == 0:
        wbits = 15
    else:
        wbits = -15
    content = b""
    while data and len(content) <= limit:
        unit = zlib.decompressobj(wbits)
        content += unit.decompress(data, limit + 1 - len(content))
        if len(content) <= limit and not unit.eof:
            raise EOFError("it breaks off")
        # what else follows, browsers do not look at
        data = unit.unused_data if unit.unused_data.startswith(b"\x1f\x8b") else b""
    return content


def _brotli(data: bytes, limit: int) -> bytes:
    """Return data decompressed from Brotli; of more than the limit, at least a byte above it."""
    unit = brotli.Decompressor()
    content = unit.process(data, output_buffer_limit=limit + 1)
    while len(content) <= limit and not unit.is_finished():
        chunk = unit.process(b"", output_buffer_limit=limit + 1)
        if not chunk:
            raise EOFError("it breaks off")
        content += chunk
    return content
