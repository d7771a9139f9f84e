"""Crawling of a web site into WARC files, politely.

    galen crawl examples/crawl/medlineplus.yaml output=raw/medlineplus

robots.txt is obeyed; requests are made one at a time with the recipe's delay or robots.txt's
Crawl-delay, whichever is longer. An interrupted crawl resumes when it is started again: archived
pages are not fetched again. The files are read into a corpus with the reader `warc`, which takes
content and license from them. Check whether the site's terms permit this use: `terms` in the recipe
has their address. Needs the extra `crawl` (Scrapy).
"""

import importlib.util
import logging
from pathlib import Path
from typing import Any

from data_prep.crawling.website import Site
from galen import __version__, cli, lock
from galen.errors import DataError, UsageError, install
from galen.progress import Progress
from galen.recipe import load

logger = logging.getLogger(__name__)

AGENT = f"galen/{__version__}"


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = cli.recipe_parser(str(__doc__), Site)
    parser.add_argument(
        "--contact",
        metavar="TEXT",
        default="",
        help="web or mail address for the site's owners; part of User-Agent",
    )
    arguments = parser.parse_intermixed_args(argv)
    site = load(Site, arguments.recipe, arguments.overrides)
    if importlib.util.find_spec("scrapy") is None:
        raise UsageError(f"crawling needs Scrapy: {install('crawl')}")
    folder = Path(site.output)
    with lock.hold(folder):
        folder.mkdir(exist_ok=True)
        crawl(site, folder, f"{AGENT} ({arguments.contact})" if arguments.contact else AGENT)
    return 0


def crawl(site: Site, folder: Path, agent: str) -> None:
    """Crawl a site into `folder`.

    Raises:
        DataError: robots.txt cannot be fetched, or no page could be.
    """
    from data_prep.crawling.archive import Archive
    from data_prep.crawling.robots import crawl_delay
    from data_prep.crawling.spider import SiteSpider

    delay = max(site.delay, crawl_delay(site, agent))
    archive = Archive(site, folder)
    with Progress(site.name, unit="pages") as progress:
        process = _crawler_process(settings(site, agent, delay))
        crawler = process.create_crawler(SiteSpider)
        process.crawl(crawler, site=site, archive=archive, progress=progress)
        process.start()
        archive.close()
    spider: Any = crawler.spider
    for line in spider.failed[:20]:
        logger.warning(f"not fetched: {line}")
    forbidden = crawler.stats.get_value("robotstxt/forbidden", 0)
    print(
        f"{spider.done:,} pages in {folder}, {delay:g} s between requests; {len(spider.failed)}"
        f" failed, {forbidden} forbidden by robots.txt, {spider.off_site} redirected off the site,"
        f" {spider.other_types} neither page nor PDF"
    )
    if any(key.startswith("spider_exceptions/") for key in crawler.stats.get_stats()):
        raise RuntimeError(
            "a page could not be processed: a bug, please report it with the message above"
        )
    if not spider.done:
        raise DataError(
            f"no page of {site.name} was fetched; see the messages above, and open {site.start[0]}"
            " in a browser"
        )
    if crawler.stats.get_value("finish_reason") == "shutdown":
        raise KeyboardInterrupt


def _crawler_process(options: dict[str, Any]) -> Any:
    """Return Scrapy's process; of its log messages only errors are shown."""
    from scrapy.crawler import CrawlerProcess

    scrapy_logger = logging.getLogger("scrapy")
    scrapy_logger.propagate = False  # it sets its level to debug and reports itself
    process = CrawlerProcess(options)
    scrapy_logger.setLevel(logging.ERROR)
    scrapy_logger.propagate = True
    return process


def settings(site: Site, agent: str, delay: float) -> dict[str, Any]:
    """Return Scrapy's settings.

    One request at a time, robots.txt obeyed, nothing stored but the archive.
    """
    from scrapy.settings.default_settings import RETRY_EXCEPTIONS

    from data_prep.crawling.addresses import Addresses, checked_resolver
    from data_prep.crawling.decompression import DecompressionMiddleware
    from data_prep.crawling.spider import SiteOnly

    return {
        # before all others: also before robots.txt of a host is requested
        "DOWNLOADER_MIDDLEWARES": {SiteOnly: 50, DecompressionMiddleware: 590},
        "COMPRESSION_ENABLED": False,  # DecompressionMiddleware replaces it
        # only http and https are left
        "DOWNLOAD_HANDLERS": dict.fromkeys(("data", "file", "ftp", "s3")),
        "DNS_RESOLVER": checked_resolver(Addresses(site)),
        "USER_AGENT": agent,
        "ROBOTSTXT_OBEY": True,
        "CONCURRENT_REQUESTS": 1,
        "CONCURRENT_REQUESTS_PER_DOMAIN": 1,
        "DOWNLOAD_DELAY": delay,
        "RANDOMIZE_DOWNLOAD_DELAY": False,
        "AUTOTHROTTLE_ENABLED": delay > 0,  # slower still when the server is slow
        "AUTOTHROTTLE_START_DELAY": delay,
        "RETRY_TIMES": 4,
        # a response that takes too long is retried by the next run
        "RETRY_EXCEPTIONS": [
            name for name in RETRY_EXCEPTIONS if "DownloadTimeoutError" not in str(name)
        ],
        "RETRY_GIVE_UP_LOG_LEVEL": "DEBUG",  # the spider reports it
        "DOWNLOAD_MAXSIZE": site.max_page_bytes,
        "DOWNLOAD_TIMEOUT": site.max_page_seconds,
        "COOKIES_ENABLED": False,
        "TELNETCONSOLE_ENABLED": False,
        "LOG_INSTALL_ROOT_HANDLER": False,
        "DEPTH_PRIORITY": 1,  # breadth first
        "SCHEDULER_MEMORY_QUEUE": "scrapy.squeues.FifoMemoryQueue",
    }


if __name__ == "__main__":
    cli.run(main)
