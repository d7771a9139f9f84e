"""E-mail addresses with letters beyond ASCII: `müller@uni-bonn.de`, `医生@医院.中国`.

In scripts without spaces an address touches the prose around it: before the sign it is the few
characters that a name has, and its end is one of the top-level domains in such a script.
"""

import re

from data_prep.text.words import UNSPACED_RANGES

_ATOM = f"(?:[^\\W{UNSPACED_RANGES}]|[\u0300-\u036f!#$%&'*+/=?^`{{|}}~-])"
_LOCAL = re.compile(f"(?:{_ATOM}+(?:\\.{_ATOM}+)*|[{UNSPACED_RANGES}]{{1,6}})$")
_LETTER = f"[^\\W_{UNSPACED_RANGES}]"
_LABEL = f"(?:{_LETTER}(?:(?:{_LETTER}|[\u0300-\u036f-])*{_LETTER})?|[{UNSPACED_RANGES}]+)"
_UNSPACED_TOPS = (
    "中国|中國|香港|台湾|台灣|澳門|新加坡|公司|网络|網絡|网址|网店|在线|移动|集团|世界|商城|政务|"
    "公益|机构|中文网|企业|健康|みんな|コム|クラウド|ストア|ไทย|คอม"
)
_DOMAIN = re.compile(
    f"(?:{_LABEL}\\.)+(?:(?!\\d){_LETTER}(?:{_LETTER}|-)*{_LETTER}|{_UNSPACED_TOPS})"
)
_MAX_LOCAL = 64  # RFC 5321
_MAX_DOMAIN = 255


def without_emails(text: str, replacement: str) -> str:
    """Return the text with e-mail addresses replaced."""
    parts: list[str] = []
    end = 0  # of the last address
    for sign in re.finditer("@", text):
        local = _LOCAL.search(text[max(end, sign.start() - _MAX_LOCAL) : sign.start()])
        domain = _DOMAIN.match(text[sign.end() : sign.end() + _MAX_DOMAIN])
        if local and domain:
            parts += [text[end : sign.start() - len(local[0])], replacement]
            end = sign.end() + domain.end()
    return "".join([*parts, text[end:]])
