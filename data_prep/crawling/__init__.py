"""Crawling of web sites into WARC files, for data_prep/crawl.py.

Needs the extra `crawl` (Scrapy).
"""
