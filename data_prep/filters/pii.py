"""E-mail addresses, public IP addresses and telephone numbers replaced."""

import re

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.formatters.pii import PIIFormatter

_PHONE = re.compile(r"(?<![\w+])\+\d{1,3}(?:[ .\-]?\(?\d{1,4}\)?){2,6}(?!\w)")


def without_phones(text: str) -> str:
    """Return the text with international telephone numbers (a plus sign and 8 to 15 digits) replaced by `[phone]`."""

    def replace(found: re.Match[str]) -> str:
        return "[phone]" if 8 <= sum(map(str.isdigit, found[0])) <= 15 else found[0]

    return _PHONE.sub(replace, text)


class PiiFormatter(BaseFilter):
    """Replaces what identifies people, by datatrove's formatter; drops nothing and counts the changed documents."""

    name = "pii"

    def __init__(self, emails: bool, ips: bool, phones: bool) -> None:
        super().__init__()
        self.phones = phones
        self.formatter = PIIFormatter(
            remove_emails=emails, remove_ips=ips, email_replacement="email@example.com", ip_replacement="22.214.171.124"
        )

    def filter(self, doc: Document) -> bool:
        """Change one document."""
        text = self.formatter.format(doc.text)
        text = without_phones(text) if self.phones else text
        if text != doc.text:
            doc.text = text
            self.stat_update("changed_documents")
        return True
