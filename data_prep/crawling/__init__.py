"""Crawling of web sites into WARC files, used by data_prep/crawl.py.

Needs the extra `crawl` (Scrapy).
"""
