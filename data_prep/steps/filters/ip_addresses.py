"""Public IP addresses in medical prose, where most numbers of four parts are something else.

Numbers of enzymes (EC 3.4.21.4), sections, versions, lineages (B.1.1.529) and object identifiers
have the same form. An address is what can be one and

- serves as one: in an address of the web, with a port or a network's length, or near a word such as
  host, server or IP; or
- has no unit behind it, is no number of an enzyme or a protein's fold by its size, no name with a
  version ("Firefox 78.0.1.2"), and no word such as section, table, version or dose is nearer
  before it. Where all of its parts are small, as in numbers of versions, only a word such as "of"
  or "from" may precede it, no name.
"""

import ipaddress
import re

_V4 = re.compile(
    r"(?<![\w.,/-])\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)|(?<=//)\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)"
)
_FOUR_PARTS = re.compile(r"\.\d{1,3}\.\d{1,3}\.\d")
_V4_IN_V6 = re.compile(
    r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}(\d{1,3}(?:\.\d{1,3}){3})(?![\w-]|\.\d)"
)
_UNIT = re.compile(
    r"\s?(?:[%‰°]|(?:[µμmnpkcdM]?(?:g|mol|[lL]|M|m|s|Hz|Gy|Sv|Bq|Ci|V|W|J|Pa|U|IU|[eE]q)|IE|UI|mmHg|min|h|"
    r"hours?|days?|weeks?|months?|years?|k?cal|ppm|bpm)(?!\w))"
)
_V6 = re.compile(r"(?<![\w:.])[23][0-9a-fA-F]{3}:[0-9a-fA-F:]*[0-9a-fA-F](?![\w:])")
_ADDRESS_WORDS = (
    r"ip|ips|ipv4|ipv6|tcp|udp|host\w*|(?:\w*-)?server\w*|web\s?server\w*|address(?:es)?|addr|dns|ping\w*|traceroute\w*|gateway\w*|router\w*|proxy|"
    r"subnet\w*|network\w*|firewall\w*|nameserver\w*|ssh|ftp|sftp|telnet|login\w*|logged|connect\w*|client\w*|url|https?|adresse\w*|serveur\w*|"
    r"servidor\w*|direcci[oó]n|endereço|indirizzo|адрес\w*|сервер\w*|хост\w*|localhost|port|accessed|request\w*|workstation\w*|vpn|lan"
)
_NUMBER_WORDS = (
    r"ec|e\.c\.?|kf|enzym\w*|section\w*|sect?\.?|sec\.|chapter\w*|chap\.?|clause\w*|paragraph\w*|para\.?|annex\w*|"
    r"appendix|article\w*|"
    r"table\w*|tab\.?|fig(?:ure)?s?\.?|equation\w*|eq\.?|box|item\w*|step\w*|part|level|recommendation\w*|statement\w*|criteri\w*|question\w*|rule\w*|"
    r"version\w*|ver\.?|v\.?|vers\.?|release\w*|rev\.?|revision\w*|build\w*|patch\w*|"
    r"update\w*|software|firmware|package\w*|program\w*|toolbox|tool|driver\w*|"
    r"lineage\w*|clade\w*|variant\w*|sublineage\w*|genotype\w*|subtype\w*|strain\w*|oid\w*|icd\S*|code\w*|class\w*|tcdb|tc|nr|no\.?|number\w*|"
    r"abschnitt\w*|kapitel\w*|abbildung\w*|abb\.?|tabelle\w*|ziffer\w*|nummer\w*|version\S*|chapitre\w*|tableau\w*|sección|seccion|capítulo|capitulo|"
    r"tabla|figura|versi[oó]n|seção|versão|tabela|раздел\w*|таблиц\w*|верси\w*|глав\w*|пункт\w*|cath\w*|fold\w*|\w*domain\w*|superfamil\w*|§|¶|"
    r"dos(?:es?|ages?|ed|ing|is)|dosi\w*|concentration\w*|titr\w*|"
    r"(?!(?:\w*(?:base|phase|phrase|crease)|(?:\w+-)?case|disease|lease|please|purchase|erase|cease)s?\b)\w{3,}ases?"
)
_NAME = re.compile(r"(?:^|[\s(\[/])[\w.+-]*[A-ZА-ЯЁ][\w.+-]*[ \u00a0/]$")
_WORDS_BETWEEN = re.compile(r"[^\W\d_]+")
_MAX_BETWEEN = 2
"""Words between "host" or "server" and the address that it speaks of.

In "network analysis with Cytoscape 3.8.2.1" there is no address.
"""

_WORD = re.compile(
    rf"(?<![\w-])(?:(?P<address>{_ADDRESS_WORDS})|(?P<number>{_NUMBER_WORDS}))(?![\w-])",
    re.IGNORECASE,
)
_FUNCTION_WORD = re.compile(
    r"(?:^|[\s(\[,;:])(?:of|from|at|to|on|via|is|was|by|and|or|de|du|von|aus|auf|an|und|et|y|e|da|do|as|из|с|на|и)\s*[:=(\[\"'“]?\s*$",
    re.IGNORECASE,
)
_BEFORE = 60  # characters
_BEHIND = 30
_SMALL = 30


def without_ip_addresses(text: str, replacement: str) -> str:
    """Return the text with public IP addresses, of version 4 and 6, replaced."""
    if _FOUR_PARTS.search(text):
        if "::" in text or text.count(":") >= 6:
            text = _V4_IN_V6.sub(
                lambda match: replacement if _holds_public_v4(match) else match[0], text
            )
        text = _V4.sub(lambda match: replacement if _is_address(match) else match[0], text)
    if "::" in text or text.count(":") >= 7:
        text = _V6.sub(lambda match: replacement if _is_public_v6(match[0]) else match[0], text)
    return text


def _holds_public_v4(match: re.Match[str]) -> bool:
    """Return whether it is an address of version 6 that holds a public one of version 4."""
    try:
        ipaddress.IPv6Address(match[0])
        return ipaddress.IPv4Address(match[1]).is_global
    except ValueError:
        return False


def _is_public_v6(number: str) -> bool:
    """Return whether it is a public address of version 6.

    Those have been given out from 2000::/3 alone.
    """
    try:
        address = ipaddress.IPv6Address(number)
    except ValueError:
        return False
    return address.is_global


def _is_address(match: re.Match[str]) -> bool:
    """Return whether a number of four parts is a public address in its context."""
    try:
        address = ipaddress.IPv4Address(match[0])
    except ValueError:  # a part above 255, or one with zeros before it
        return False
    if not address.is_global or address.is_multicast:
        return False
    text = match.string
    before = text[max(0, match.start() - _BEFORE) : match.start()]
    behind = text[match.end() : match.end() + _BEHIND]
    if before.endswith(("//", "@")) or re.match(r":\d{2,5}\b|/(?:[89]|[12]\d|3[0-2])\b", behind):
        return True
    words = list(_WORD.finditer(before))
    if words and not words[-1]["address"]:
        return False
    if words and len(_WORDS_BETWEEN.findall(before[words[-1].end() :])) <= _MAX_BETWEEN:
        return True
    return _is_plausible(match[0], before, behind)


def _is_plausible(number: str, before: str, behind: str) -> bool:
    """Return whether a number of four parts without a word for it may be an address."""
    parts = [int(part) for part in number.split(".")]
    is_enzyme = parts[0] <= 7 and parts[1] <= _SMALL and parts[2] < 100
    is_fold = parts[0] <= 6 and all(part % 5 == 0 for part in parts[1:3])  # of CATH: "2.60.40.10"
    has_unit = _UNIT.match(behind) is not None
    is_version = 0 in parts and _NAME.search(before) is not None
    if has_unit or is_enzyme or is_fold or is_version:
        return False
    if max(parts) >= _SMALL:
        return True
    return _FUNCTION_WORD.search(before) is not None
