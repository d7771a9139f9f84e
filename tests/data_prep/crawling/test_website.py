"""Which addresses a site file asks for, however they are written."""

import pytest

from data_prep.crawling.website import Site, normal


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://S.org/%64eny/%c3%bc?%61=%2f#part", "http://s.org/deny/%C3%BC?a=%2F"),
        ("http://s.org/x/%2e%2e/./deny/", "http://s.org/deny/"),
        ("http://s.org/a/..", "http://s.org/"),
        ("http://s.org/../../a//b", "http://s.org/a//b"),
        ("http://s.org", "http://s.org/"),
        ("http://s.org/100%/%zz/%2e%252e", "http://s.org/100%/%zz/.%252e"),
    ],
)
def test_normal_form(address, expected):
    assert normal(address) == expected
    assert normal(expected) == expected


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("http://s.org/topic/1", True),
        ("http://s.org/topic/%64eny/1", False),
        ("http://s.org/topic/x/%2E%2e/deny/1", False),
        ("http://s.org/topic/f%C3%BCr/1", False),
        ("http://s.org/topic/f%c3%bcr/1", False),
        ("http://s.org/topic/für/1", False),
        ("http://s.org/topic/two%20words/1", False),
        ("http://s.org/topic%2F1", False),
    ],
)
def test_patterns_hold_however_an_address_is_escaped(address, wanted):
    site = Site(
        name="s",
        output="o",
        start=["http://s.org/topic/"],
        allow=["/topic/"],
        deny=["/deny/", "/für/", "two words"],
    )
    assert site.wants(address) is wanted
