"""E-mail addresses, public IP addresses and telephone numbers replaced.

This is no de-identification: names, record numbers, dates, postal addresses, national numbers and
telephone numbers without a country's code stay. Clinical notes need a tool made for that.
"""

import re
from typing import Literal

from datatrove.data import Document
from datatrove.pipeline.formatters.pii import PIIFormatter
from pydantic.dataclasses import dataclass

from data_prep.steps.base import DocumentFilter, DocumentWriter, StepSettings
from data_prep.steps.filters.email_addresses import without_emails
from data_prep.steps.filters.ip_addresses import without_ip_addresses
from data_prep.steps.filters.phone_numbers import without_phones
from galen.recipe import STRICT

EMAIL = "email@example.com"
IP_ADDRESS = "22.214.171.124"

_NETWORK = re.compile(r"(?:\.[A-Za-z][A-Za-z0-9-]*[A-Za-z0-9]|\])$")
"""How an e-mail address ends: a top-level domain begins with a letter.

So "hits@10.5" and "m/z 1@2.3" are not addresses.
"""


@dataclass(kw_only=True, config=STRICT)
class PiiSettings(StepSettings):
    """Replace e-mail and public IP addresses, and telephone numbers on request.

    This is NOT de-identification: names, record numbers,
    dates, addresses and national numbers stay.
    """

    step: Literal["pii"] = "pii"
    emails: bool = True
    """Replace e-mail addresses."""

    ips: bool = True
    """Replace public IP addresses."""

    phones: bool = False
    """Replace international telephone numbers.

    Such a number is a plus sign, a country's code and a number of that country.
    """


class PiiFilter(DocumentFilter[PiiSettings]):
    """Replaces e-mail and IP addresses and telephone numbers.

    Drops nothing and counts the changed documents.
    """

    name = "pii"
    Settings = PiiSettings

    def __init__(
        self, settings: PiiSettings, exclusion_writer: DocumentWriter | None = None
    ) -> None:
        super().__init__(settings, exclusion_writer)
        self.formatter = PIIFormatter(remove_emails=True, remove_ips=False, email_replacement=EMAIL)
        self.formatter.emails_replacer.validator = _ends_as_address

    def filter(self, doc: Document) -> bool:
        """Change one document."""
        text = doc.text
        if self.settings.emails and "@" in text:
            text = self.formatter.format(text)
            if not text.isascii():
                text = without_emails(text, EMAIL)
        if self.settings.ips:
            text = without_ip_addresses(text, IP_ADDRESS)
        if self.settings.phones:
            text = without_phones(text)
        if text != doc.text:
            doc.text = text
            self.stat_update("changed_documents")
        return True


def _ends_as_address(address: str) -> bool:
    return _NETWORK.search(address) is not None
