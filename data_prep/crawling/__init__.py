"""Crawling of web sites into WARC files, used by data_prep/crawl.py; needs the extra `crawl` (Scrapy)."""
