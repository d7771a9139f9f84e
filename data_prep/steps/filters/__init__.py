"""Filters: each keeps or drops single documents, with a reason that is counted."""
