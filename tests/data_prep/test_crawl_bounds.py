"""Things that a crawl must not reach: other hosts, denied paths, files, private networks.

Two real servers, one of which must not be asked.
"""

import pytest

from data_prep.crawling.addresses import Addresses, is_public
from data_prep.crawling.website import Site as SiteRecipe
from tests.conftest import run
from tests.data_prep.server import Site
from tests.data_prep.test_crawl import documents, page, write_recipe

pytest.importorskip("scrapy")


def sitemap(*addresses):
    entries = "".join(f"<url><loc>{address}</loc></url>" for address in addresses)
    return f"<urlset>{entries}</urlset>".encode()


@pytest.fixture
def other():
    """A server that answers everything and belongs to somebody else."""
    site = Site()
    site.files = {
        path: page("Secret")
        for path in ("/", "/topic/x", "/topic/frame", "/topic/redirected", "/topic/refreshed")
    }
    site.files |= {"/robots.txt": b"", "/more.xml": sitemap("/topic/x")}
    site.types = {
        path: "application/xml" if path.endswith(".xml") else "text/html" for path in site.files
    }
    with site.running() as base:
        yield site, base


@pytest.mark.slow
def test_only_the_sites_hosts_and_paths_are_asked(tmp_path, other):
    stranger, elsewhere = other
    site = Site()
    site.files["/robots.txt"] = b""
    with site.running() as base:
        links = (
            f"{elsewhere}/topic/x",
            f"{base}/topic/a?print=1",
            "http://169.254.169.254/topic/latest",
            "file:///etc/topic/passwd",
        )
        more = (
            f"{elsewhere}/more.xml",
            f"{base}/sub.xml",
            f"{base}/print=/denied.xml",
            "file:///tmp/topic/more.xml",
        )
        site.files["/map.xml"] = sitemap(f"{base}/topic/a", *links, *more)
        site.files["/sub.xml"] = sitemap(
            f"{base}/topic/b", f"{elsewhere}/topic/x", f"{base}/secret"
        )
        site.files["/print=/denied.xml"] = sitemap(f"{base}/topic/from-denied")
        site.files["/topic/a"] = page(
            "A",
            "/topic/away",
            "/topic/inward",
            "/topic/denied",
            "/topic/refresh",
            "/topic/local",
            *links,
        )
        refresh = (
            "<html><head><meta http-equiv='refresh'"
            f" content='0;url={elsewhere}/topic/refreshed'><base href='{elsewhere}/'></head>"
        )
        site.files["/topic/refresh"] = refresh.encode() + page("R", "topic/x")
        for name in ("/topic/b", "/topic/c", "/topic/from-denied", "/secret"):
            site.files[name] = page(name)
        site.types = {
            path: "application/xml" if path.endswith(".xml") else "text/html" for path in site.files
        }
        site.refuse["/topic/away"] = [(302, {"Location": f"{elsewhere}/topic/redirected"})] * 9
        site.refuse["/topic/inward"] = [(301, {"Location": "/topic/c"})] * 9
        site.refuse["/topic/denied"] = [(301, {"Location": "/topic/c?print=1"})] * 9
        site.refuse["/topic/local"] = [
            (307, {"Location": "http://169.254.169.254/topic/latest"})
        ] * 9
        done = run(
            "data_prep/crawl.py",
            write_recipe(tmp_path, base, start=[f"{base}/map.xml"], allow=["/topic/"]),
        )
    assert stranger.requests == []
    asked = {path for path, _ in site.requests}
    assert not [
        path for path in asked if "print=" in path or "secret" in path or "denied.xml" in path
    ], asked
    assert {"/topic/a", "/topic/b", "/topic/c", "/sub.xml"} <= asked
    found, _ = documents(tmp_path)
    assert set(found) == {"A", "/topic/b", "/topic/c"}
    assert "4 redirected off the site" in done.stdout


@pytest.mark.slow
def test_robots_of_another_host_is_not_asked(tmp_path, other):
    stranger, elsewhere = other
    site = Site()
    site.refuse["/robots.txt"] = [(301, {"Location": f"{elsewhere}/robots.txt"})] * 9
    with site.running() as base:
        done = run("data_prep/crawl.py", write_recipe(tmp_path, base), check=False)
    assert (
        f"redirects to {elsewhere}/robots.txt; if that belongs to the site, add its host to `hosts`"
        in done.stderr
    )
    assert stranger.requests == []


@pytest.mark.slow
def test_a_name_of_a_private_address_is_refused(tmp_path):
    """127.1 is such a name.

    The system's look-up resolves it to 127.0.0.1, though others do not take it for an address.
    """
    site = Site()
    site.files = {"/robots.txt": b"", "/": page("Home", "/topic/a"), "/topic/a": page("A")}
    site.types = dict.fromkeys(site.files, "text/html")
    with site.running() as base:
        name = base.replace("127.0.0.1", "127.1")
        done = run("data_prep/crawl.py", write_recipe(tmp_path, name), check=False)
        assert (
            "127.1 has the private address 127.0.0.1; if the site is yours, set"
            " allow_private_addresses=true" in done.stderr
        )
        assert site.requests == []
        site.files["/"] = page("Home", f"{name}/topic/a")
        hosts = [name.removeprefix("http://")]
        done = run("data_prep/crawl.py", write_recipe(tmp_path, base, hosts=hosts))
        assert "not fetched: 127.1 has the private address 127.0.0.1" in done.stderr, (
            "also where Scrapy looks the name up"
        )
        assert [path for path, _ in site.requests if path.startswith("/topic")] == []
        run(
            "data_prep/crawl.py",
            write_recipe(tmp_path, base, hosts=hosts),
            "allow_private_addresses=true",
        )
        assert documents(tmp_path)[0].keys() == {"A"}


@pytest.mark.parametrize(
    ("address", "public"),
    [
        *dict.fromkeys(("8.8.8.8", "2606:4700::1111"), True).items(),
        *dict.fromkeys(
            (
                "127.0.0.1",
                "10.0.0.1",
                "172.16.3.4",
                "192.168.1.1",
                "169.254.169.254",
                "0.0.0.0",
                "100.64.0.1",
            ),
            False,
        ).items(),
        *dict.fromkeys(
            (
                "224.0.0.1",
                "::1",
                "fe80::1%eth0",
                "fd00::1",
                "::ffff:127.0.0.1",
                "2002:7f00:1::",
                "::",
            ),
            False,
        ).items(),
    ],
)
def test_public_addresses(address, public):
    assert is_public(address) is public
    site = SiteRecipe(name="s", output="o", start=["http://s.org/"], allow=["/"])
    assert Addresses(site).allows("s.org", address) is public


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("https://s.org/topic/1", True),
        ("https://S.ORG/topic/1", True),
        ("https://s.org:8080/topic/1", False),
        ("https://s.org@evil.org/topic/1", False),
        ("https://me:secret@s.org/topic/1", False),
        ("https://evil.org/topic/?s.org", False),
        ("https://evil.org\\@s.org/topic/", False),
        ("ftp://s.org/topic/1", False),
        ("file:///topic/1", False),
    ],
)
def test_addresses_of_a_site(address, wanted):
    assert (
        SiteRecipe(name="s", output="o", start=["http://s.org/topic/"], allow=["/topic/"]).wants(
            address
        )
        is wanted
    )
