"""The processes of a run, and what is spread over them."""
