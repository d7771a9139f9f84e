"""Language codes: ISO 639-2/B for filters, as in MEDLINE, and ISO 639-1 for other sources.

ISO 639-2/B has three letters, ISO 639-1 two.
"""

# ISO 639-1 -> ISO 639-2/B, https://www.loc.gov/standards/iso639-2/php/code_list.php
_CODES = {
    "af": "afr", "ar": "ara", "bg": "bul", "bn": "ben", "bs": "bos", "ca": "cat", "cs": "cze",
    "da": "dan", "de": "ger", "el": "gre", "en": "eng", "es": "spa", "et": "est", "eu": "baq",
    "fa": "per", "fi": "fin", "fr": "fre", "gl": "glg", "he": "heb", "hi": "hin", "hr": "hrv",
    "hu": "hun", "id": "ind", "is": "ice", "it": "ita", "ja": "jpn", "ka": "geo", "ko": "kor",
    "lt": "lit", "lv": "lav", "mk": "mac", "ms": "may", "nb": "nor", "nl": "dut", "no": "nor",
    "pl": "pol", "pt": "por", "ro": "rum", "ru": "rus", "sk": "slo", "sl": "slv", "sq": "alb",
    "sr": "srp", "sv": "swe", "sw": "swa", "ta": "tam", "th": "tha", "tr": "tur", "uk": "ukr",
    "ur": "urd", "vi": "vie", "zh": "chi",
}  # fmt: skip
# ISO 639-2/T where it differs from /B
_TERMINOLOGY = {
    "ces": "cze",
    "deu": "ger",
    "ell": "gre",
    "fas": "per",
    "fra": "fre",
    "isl": "ice",
    "nld": "dut",
    "ron": "rum",
}
_TERMINOLOGY |= {
    "slk": "slo",
    "sqi": "alb",
    "zho": "chi",
    "mkd": "mac",
    "kat": "geo",
    "msa": "may",
    "eus": "baq",
}


def medline_code(language: str) -> str:
    """Return MEDLINE's code of a language given as "en", "en-GB", "deu" or "eng".

    An unknown one comes back in lower case.
    """
    code = language.strip().lower().replace("_", "-").split("-")[0]
    return _CODES.get(code) or _TERMINOLOGY.get(code) or code
