"""E-mail addresses, public IP addresses and telephone numbers replaced.

This is no de-identification: names, record numbers, dates, postal addresses, national numbers and
telephone numbers without a country's code stay. Clinical notes need a tool made for that.
"""

import re

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.formatters.pii import PIIFormatter

from data_prep.steps.filters.email_addresses import without_emails
from data_prep.steps.filters.ip_addresses import without_ip_addresses
from data_prep.steps.filters.phone_numbers import without_phones

EMAIL, IP_ADDRESS = "email@example.com", "22.214.171.124"

_NETWORK = re.compile(r"(?:\.[A-Za-z][A-Za-z0-9-]*[A-Za-z0-9]|\])$")
"""How an e-mail address ends: a top-level domain begins with a letter.

So "hits@10.5" and "m/z 1@2.3" are not addresses.
"""


class PiiFormatter(BaseFilter):
    """Replaces e-mail and IP addresses and telephone numbers.

    Drops nothing and counts the changed documents.
    """

    name = "pii"

    def __init__(self, emails: bool, ips: bool, phones: bool) -> None:
        super().__init__()
        self.emails, self.ips, self.phones = emails, ips, phones
        self.formatter = PIIFormatter(remove_emails=True, remove_ips=False, email_replacement=EMAIL)
        self.formatter.emails_replacer.validator = _ends_as_address

    def filter(self, doc: Document) -> bool:
        """Change one document."""
        text = doc.text
        if self.emails and "@" in text:
            text = self.formatter.format(text)
            if not text.isascii():
                text = without_emails(text, EMAIL)
        if self.ips:
            text = without_ip_addresses(text, IP_ADDRESS)
        if self.phones:
            text = without_phones(text)
        if text != doc.text:
            doc.text = text
            self.stat_update("changed_documents")
        return True


def _ends_as_address(found: str) -> bool:
    return _NETWORK.search(found) is not None
