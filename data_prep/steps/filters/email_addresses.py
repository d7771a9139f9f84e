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
_LONGEST_LOCAL, _LONGEST_DOMAIN = 64, 255  # RFC 5321


def without_emails(text: str, replacement: str) -> str:
    """Return the text with e-mail addresses replaced."""
    parts, done = [], 0
    for sign in re.finditer("@", text):
        local = _LOCAL.search(text[max(done, sign.start() - _LONGEST_LOCAL) : sign.start()])
        domain = _DOMAIN.match(text[sign.end() : sign.end() + _LONGEST_DOMAIN])
        if local and domain:
            parts += [text[done : sign.start() - len(local[0])], replacement]
            done = sign.end() + domain.end()
    return "".join([*parts, text[done:]])
