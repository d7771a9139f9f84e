"""Detection of the encoding of a web page.

It follows the rules of https://encoding.spec.whatwg.org/ and of HTML, and falls back on chardet
where these leave garbage.

In order: a byte order mark; UTF-8, where the bytes are such, whatever a label says; the label of
the HTTP header; that of a `meta` element; that of an XML declaration; detection by chardet.
`iso-8859-1` and `us-ascii` mean windows-1252, `gb2312` means GB18030, as in browsers. A label under
which the bytes are not valid, or give words that no language has, is false: the next one counts.
So is the label of a single-byte encoding where chardet is sure of other text that is not Latin.
"""

import codecs
import itertools
import re

import webencodings

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as UTF-16's
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Python's codecs that hold all characters of the standard's
_CODECS = {
    "gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "euc-kr": "cp949",
    "iso-8859-8-i": "iso-8859-8", "x-user-defined": "cp1252", "windows-874": "cp874",
}  # fmt: skip
_ALIKE = {"windows-1250": "iso-8859-2", "iso-8859-2": "windows-1250"}
_PRESCANNED = 4096
_COMMENT = re.compile(rb"<!--.*?(?:-->|\Z)", re.DOTALL)
_META = re.compile(rb"<meta\b[^>]*>", re.IGNORECASE)
_CHARSET = re.compile(rb"""charset\s*=\s*["']?\s*([^\s"'/>;]+)""", re.IGNORECASE)
_XML = re.compile(rb"""\s*<\?xml\b[^>]*\bencoding\s*=\s*["']([^"']+)""", re.IGNORECASE)
_MARKUP = re.compile(rb"<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", re.DOTALL | re.IGNORECASE)
_ISO_2022_JP = re.compile(rb"\x1b(?:\$[@B]|\([BIJ])")
_DETECTED_ON = 200_000
_LEAST_CONFIDENCE = 0.15
_SURE = 0.6
"""Confidence of chardet from which on it can refute a label."""

_REFUTED_ON = 4096
"""Bytes of prose that chardet looks at for that: it takes about a second for 100 KB."""

_FEW = 8
"""Bytes beyond ASCII that are too few to detect anything but windows-1252."""

_MOSTLY = 0.9
"""Fraction of the bytes beyond ASCII that must be UTF-8 for a page of mixed encodings."""

_LATIN = (
    "cp1252",
    "windows-1252",
    "iso-8859-1",
    "iso8859-1",
    "iso8859-15",
    "iso-8859-15",
    "ascii",
    "us-ascii",
    "macroman",
    "mac-roman",
)
_WESTERN_LETTERS = "àâäáãåæçéèêëíìîïñóòôöõøœùúûüßÿªºµſ"
_WESTERN = frozenset(
    _WESTERN_LETTERS
    + _WESTERN_LETTERS.upper()
    + "“”‘’‚„‹›«»–—…•·†‡°±×÷®©™§¶€£¥¢¿¡²³¹½¼¾¨´¸ˆ˜¬¯¤¦‰ƒ\u00a0\u00ad"
)
_SIGNS = "¤¦¨¯´¸¬¥¶¼½¾¹\u00ad"
_LETTER = "[^\\W\\d_]"
_SIGN_AT_LETTER = re.compile(
    f"{_LETTER}[{_SIGNS}±§]|(?<![mM])(?<={_LETTER})[²³]|[{_SIGNS}³²]{_LETTER}|{_LETTER}[¢-©«¬®-±»-¿×÷ƒ†‡‰ˆ˜]{_LETTER}"
)
_LETTERS = "[^\\W\\d_a-zA-Z]"
_FOREIGN_RUN = re.compile(f"{_LETTERS}{{4,}}")
_OTHER_SCRIPT = "[\u0370-\u07ff\u0e00-\u0e7f]"
_SCRIPTS_MIXED = re.compile(
    f"[a-zA-Z]{_OTHER_SCRIPT}|{_OTHER_SCRIPT}[a-zA-Z]|[a-z][\u3400-\u9fff\uac00-\ud7af][a-z]"
)
_CONTROLS = re.compile("[\x80-\x9f\ufffd\ufffe\uffff]")
# What windows-1252 shows for the bytes of a character of UTF-8: for its first one, and for those
# behind
_FIRST_OF_TWO = "[\u00c2\u00c3\u00c5\u00ce\u00cf\u00d0\u00d1]"
_FIRST_OF_THREE = "\u00e2"
_FURTHER = (
    "[\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
    "\u2013-\u203a\u20ac\u2122]"
)
_TWICE = re.compile(f"{_FIRST_OF_TWO}{_FURTHER}|{_FIRST_OF_THREE}{_FURTHER}{_FURTHER}")
_BEYOND_ASCII_BYTES = re.compile(rb"[\x80-\xff]")
_BEYOND_ASCII = re.compile("[^\x00-\x7f]+")


class UnknownEncodingError(ValueError):
    """The bytes are no text in any encoding that is stated or detected."""


def decode_page(data: bytes, charset: str | None = None) -> str:
    """Return the text of a page.

    Args:
        data: the bytes.
        charset: the label of the HTTP header, if there is one.

    Raises:
        UnknownEncodingError: they are no text.
    """
    text = _decoded(data, charset).lstrip("\ufeff").replace("\0", "")
    return _decoded_once(text)


def _decoded(data: bytes, charset: str | None) -> str:
    for mark, codec in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return _decoded_by_mark(data, mark, codec)
    labels = _stated(data)
    if charset:
        labels.insert(0, charset)
    if (wide := _utf16(data, labels)) is not None:
        return wide
    if _ISO_2022_JP.search(data) and data.isascii():
        return _strict(data, "iso2022_jp_ext")
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass
    for label in labels:
        if (text := _as_labelled(data, label)) is not None:
            return text
    return _detected(data, labels)


def _decoded_by_mark(data: bytes, mark: bytes, codec: str) -> str:
    """Return the text of a page that begins with a byte order mark."""
    try:
        return data[len(mark) :].decode(codec)
    except UnicodeDecodeError as error:
        if codec == "utf-8":
            return _mixed_utf8(data)
        raise UnknownEncodingError(
            f"not {codec.upper()}, which its byte order mark states ({error})"
        ) from None


def _stated(data: bytes) -> list[str]:
    """Return the labels in the page.

    First that of the first `meta` element that has one, then that of the XML declaration.
    """
    beginning = _COMMENT.sub(b"", data[:_PRESCANNED])
    labels = []
    for meta in _META.finditer(beginning):
        if charset := _CHARSET.search(meta[0]):
            labels.append(charset[1])
            break
    if xml := _XML.match(beginning):
        labels.append(xml[1])
    return [label.decode("ascii", "replace") for label in labels]


def _utf16(data: bytes, labels: list[str]) -> str | None:
    """Return the text of UTF-16 without a BOM.

    Western text shows it by a zero in every other byte.
    """
    zeros = data[: 4 * _PRESCANNED].count(0)
    size = len(data[: 4 * _PRESCANNED])
    stated = next((label.lower() for label in labels if label.lower().startswith("utf-16")), "")
    if zeros < size * 0.2 and not (stated and (b"<\0" in data or b"\0<" in data)):
        return None
    big = data[: 4 * _PRESCANNED : 2].count(0) > zeros / 2
    codec = "utf-16-be" if big else "utf-16-le"
    try:
        return data[: len(data) // 2 * 2].decode(codec)
    except UnicodeDecodeError:
        raise UnknownEncodingError("binary data, not a page") from None


def _as_labelled(data: bytes, label: str) -> str | None:
    """Return the text by a label; None when the label is unknown or false."""
    encoding = webencodings.lookup(label)
    if encoding is None or encoding.name == "replacement" or encoding.name.startswith("utf-16"):
        return None
    if encoding.name == "utf-8":
        return _mixed_utf8(data) if _is_mostly_utf8(data) else None
    codec = _CODECS.get(encoding.name, encoding.codec_info.name)
    text = _decoded_as(data, codec)
    if (
        text is not None
        and codec.lower() in _LATIN
        and not _is_western(text)
        and _guessed(data) is not None
    ):
        return None  # Turkish, for example, whose letters windows-1252 shows as ý, þ and ð
    if text is not None and len(text) == len(data) and _is_refuted(text, data):
        return None  # KOI8-R under the label windows-1251, for example
    return text


def _is_refuted(text: str, data: bytes) -> bool:
    """Return whether chardet is sure that the bytes are other text in a non-Latin script."""
    if sum(byte >= 0x80 for byte in data) < 2 * _FEW:
        return False
    guess = _guessed(data, _SURE, _REFUTED_ON)
    if guess is None or guess == text:
        return False
    beyond = [character for character in guess if character > "\x7f"]
    if sum(character >= "\u0370" for character in beyond) < len(beyond) / 2:
        return False
    alike = sum(a == b > "\x7f" for a, b in zip(text, guess, strict=False))
    return len(guess) != len(data) or alike < len(beyond) / 2


def _detected(data: bytes, labels: list[str]) -> str:
    if _is_mostly_utf8(data):
        return _mixed_utf8(data)
    text = _guessed(data)
    if text is None:
        text = _western(data)
    if text is None:
        stated = (
            f"not {' nor '.join(labels)}, which it states, and "
            if labels
            else "no encoding is stated, and "
        )
        raise UnknownEncodingError(f"{stated}none can be detected")
    return text


def _guessed(data: bytes, least: float = _LEAST_CONFIDENCE, size: int = _DETECTED_ON) -> str | None:
    """Return the text in the encoding that chardet detects with at least some confidence.

    None if it detects none, or a Western one: `_western` judges better.
    """
    import chardet

    prose = _MARKUP.sub(b" ", data[:_DETECTED_ON])
    if prose.isascii():
        prose = data[:_DETECTED_ON]
    if sum(byte >= 0x80 for byte in prose) < _FEW and _western(data) is not None:
        return None
    first = _BEYOND_ASCII_BYTES.search(prose)
    start = first.start() if first is not None and len(prose) > size else 0
    guess = chardet.detect(prose[start : start + size])
    name = str(guess["encoding"] or "").lower()
    if not name or name in _LATIN or (guess["confidence"] or 0) < least:
        return None
    codecs_alike = filter(None, (_CODECS.get(name, name), _ALIKE.get(name)))
    texts = [text for codec in codecs_alike if (text := _decoded_as(data, codec)) is not None]
    return min(texts, key=_wrong_signs, default=None)


def _decoded_as(data: bytes, codec: str) -> str | None:
    """Return the text; None when the bytes are not valid in it or give none that a language has."""
    try:
        text = data.decode(codec)
    except (LookupError, UnicodeDecodeError):
        return None
    return None if _is_garbled(text, codec) else text


def _wrong_signs(text: str) -> int:
    return len(_SIGN_AT_LETTER.findall(text))


def _western(data: bytes) -> str | None:
    """Return the text as windows-1252; None when it cannot be that."""
    text = _decoded_as(data, "cp1252")
    return text if text is not None and _is_western(text) else None


def _is_western(text: str) -> bool:
    return {character for character in text if character > "\x7f"} <= _WESTERN


def _is_garbled(text: str, codec: str) -> bool:
    """Return whether a text was read in a wrong encoding.

    Signs of it are controls, symbols, letters of other scripts or capitals inside words.
    """
    if _CONTROLS.search(text):
        return True
    beyond = sum(character > "\x7f" for character in text) if not text.isascii() else 0
    wrong = len(_SCRIPTS_MIXED.findall(text)) + _wrong_signs(text)
    if beyond:
        wrong += sum(
            min(a, b) > "\x7f" and a.islower() and b.isupper() for a, b in itertools.pairwise(text)
        )
    if codec.lower() in _LATIN:
        wrong += sum(map(len, _FOREIGN_RUN.findall(text)))
    return wrong > 1 and wrong > beyond * 0.1


def _strict(data: bytes, codec: str) -> str:
    try:
        return data.decode(codec)
    except UnicodeDecodeError as error:
        raise UnknownEncodingError(
            f"not {codec}, as which it begins ({error.reason} at byte {error.start + 1})"
        ) from None


def _is_mostly_utf8(data: bytes) -> bool:
    beyond = sum(byte >= 0x80 for byte in data)
    valid = sum(
        len(character.encode())
        for character in data.decode("utf-8", "ignore")
        if character > "\x7f"
    )
    return valid >= _MOSTLY * beyond


def _as_windows_1252(error: UnicodeError) -> tuple[str, int]:
    """Read bytes that are not UTF-8 as windows-1252, in which older parts of a page may be.

    A page that ends within a character loses that character.
    """
    assert isinstance(error, UnicodeDecodeError)
    wrong = error.object[error.start : error.end]
    if error.end == len(error.object) and error.reason == "unexpected end of data":
        return "", error.end
    return wrong.decode("cp1252"), error.end


codecs.register_error("galen-windows-1252", _as_windows_1252)


def _mixed_utf8(data: bytes) -> str:
    """Return the text of UTF-8 in which some bytes are windows-1252."""
    try:
        return data.decode("utf-8-sig", "galen-windows-1252")
    except UnicodeDecodeError as error:
        raise UnknownEncodingError(f"not UTF-8 (byte {error.start + 1})") from None


def _decoded_once(text: str) -> str:
    """Undo double encoding: UTF-8 that was read as windows-1252 and written again ("CafÃ©").

    Other texts are returned as they are.
    """
    if text.isascii():
        return text
    if len(_TWICE.findall(text)) < 2:
        return text
    return _BEYOND_ASCII.sub(_meant, text)


def _meant(match: re.Match[str]) -> str:
    try:
        return "".join(map(_original_byte, match[0])).encode("latin-1").decode()
    except (UnicodeEncodeError, UnicodeDecodeError):
        return match[0]


def _original_byte(character: str) -> str:
    """Return the character of Latin 1 whose byte windows-1252 shows as this one."""
    if character < "\u0100":
        return character
    return character.encode("cp1252").decode("latin-1")
