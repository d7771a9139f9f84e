"""International telephone numbers, found by pattern and checked by national numbering plans.

The plans are those of the library phonenumbers.
"""

import re

_PHONE = re.compile(
    r"(?<![\w+.,])\+\d{1,3}(?:[ .\-/\u00a0]?(?:\(\d{1,4}\)|\d{1,4})){2,7}(?!\w|[.,]\d)"
)
_THOUSANDS = re.compile(r"\+\d{1,3}(?:[ .\u00a0]\d{3})+")
_CALL = re.compile(
    r"(?:call\w*|phone\w*|tele\w*|tel|fax\w*|mobile\w*|cell|cellphone|contact\w*|ring|dial\w*|hotline|helpline|whatsapp|sms|text|reach\w*|ruf\w*|"
    r"anruf\w*|handy|appel\w*|portable|llam\w*|tel[eé]f\w*|m[oó]vil|ligue|celular|chiam\w*|cellulare|тел\w*|звон\w*|☎|📞|✆)\W{0,3}(?:\w+\W+){0,3}$",
    re.IGNORECASE,
)
_COUNTED = re.compile(
    r"\s+(?!(?i:fax|tel|mob|ext|or|and|for|to|if|in|at|on|from|during|between|oder|und|ou|et|y|o|e|i|или|и|ext|extension|before|after|any|today|is|was)\b)(?:[a-zµα-ωа-я%]|[A-Z]{2,6}s?\b)"
)


def without_phones(text: str) -> str:
    """Return the text with international telephone numbers as `[phone]`.

    Such a number is a plus sign, a country's code and a number of that country.

    A number in groups of three, as thousands are written, is one only where nothing is counted, by
    a word or an abbreviation in capitals: "+12 345 678 cells" and "+33 123 456 789 CFU" stay. In
    other groups nobody writes a count, and what follows makes no difference.
    """
    if "+" not in text:
        return text
    return _PHONE.sub(lambda match: "[phone]" if _is_phone(match) else match[0], text)


def _is_phone(match: re.Match[str]) -> bool:
    import phonenumbers

    try:
        number = phonenumbers.parse(match[0], None)
    except phonenumbers.NumberParseException:
        return False
    reason = phonenumbers.is_possible_number_with_reason(number)
    if reason != phonenumbers.ValidationResult.IS_POSSIBLE:
        return False
    text = match.string
    if _CALL.search(text[max(0, match.start() - 40) : match.start()]) is not None:
        return True
    is_count = _COUNTED.match(text[match.end() : match.end() + 20]) is not None
    if is_count and _THOUSANDS.fullmatch(match[0]):
        return False
    return phonenumbers.is_valid_number(number)
