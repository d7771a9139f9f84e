"""MeSH headings of MEDLINE records and the multiple-choice questions made from them."""
