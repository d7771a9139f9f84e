"""CSS selectors in options and site files."""

from typing import Annotated

import cssselect
from pydantic import AfterValidator


def check_selector(selector: str) -> str:
    """Return a CSS selector, which may be empty.

    Raises:
        ValueError: it is not one.
    """
    try:
        cssselect.HTMLTranslator().css_to_xpath(selector or "*")
    except cssselect.SelectorError as error:
        raise ValueError(f"{selector!r} is not a CSS selector: {error}") from None
    return selector


Selector = Annotated[str, AfterValidator(check_selector)]
"""A CSS selector; may be empty."""
