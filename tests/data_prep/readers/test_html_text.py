"""What an answer is that does not say it."""

import pytest

from data_prep.readers.html_text import sniffed_type


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xef\xbb\xbf <!DOCTYPE html><p>", "text/html"),
        (b"<HTML lang=en>", "text/html"),
        (b"<!-- a -->\n<!-- b -->\n<html>", "text/html"),
        (b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "">', "text/html"),
        (b'<?xml version="1.0"?><urlset>', "application/xml"),
        (b"<sitemapindex>", "application/xml"),
        (b"%PDF-1.7", "application/pdf"),
        (b"", ""),
        (b"GIF89a<html>", ""),
        (b"<htmlx>", ""),
        (b"<!-- " * 200, ""),
    ],
)
def test_sniffed_type(data, expected):
    assert sniffed_type(data) == expected
