"""Normalization of written answers: Unicode forms, special tokens, Markdown, LaTeX and HTML."""

import re
import unicodedata

_LONGEST = 12_000
"""Characters of an answer that are read: the beginning, and the rest from the end."""
_HEAD = 4_000
_ESCAPED_NEWLINE = re.compile(r"(?:\\r)?\\n(?![a-z])")
"""A line break that was escaped twice; `\\nu` is a LaTeX command."""
_NUMBERED = re.compile(r"\A\s*+(?:\d{1,2}(?:st)? ?)(?=[A-Ja-j](?:[.,)]|[ \t]+i\.e|\s*\Z))")
"""A number before the letter at the very beginning: "1A."."""
_SPACES = re.compile(r"[ \t\u00a0]++")
_BLANK_LINES = re.compile(r"(?:\n[ ]?){3,}+")
_END_OF_ANSWER = re.compile(
    r"</s>|<\|im_end\|>|<\|endoftext\|>|<\|eot_id\|>|<\|end\|>|<\|return\|>|<eos>|<end_of_turn>"
    r"|<｜end▁of▁sentence｜>|<\|end_of_sentence\|>"
)
_HEADER = re.compile(
    r"<s>|<\|begin_of_text\|>|<bos>|<\|start_header_id\|>\w*<\|end_header_id\|>"
    r"|<\|im_start\|>(?:assistant)?|<start_of_turn>(?:model)?|<\|?begin_of_solution\|?>"
    r"|<\|?end_of_solution\|?>|<\|(?:START|END)_RESPONSE\|>"
)
_NEXT_QUESTION = re.compile(
    r"\n[ \t]*+(?:#+\s*(?:Question|Instruction|Input|Problem|User|Human)\b"
    r"|(?:Question|Instruction|Input|Problem|Q)\s*\d*\s*:|(?:User|Human)\s*:)"
)
"""Where a model without a stop string continues with a question of its own.

What it answers there is not ours.
"""
_LATEX_TEXT = re.compile(r"\\(?:text(?:bf|it|rm)?|mathrm|mathbf|mathit|mbox|bf)\s*\{([^{}]*)\}")
_INVISIBLE = re.compile("[\ufe00-\ufe0f\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
_SNAKE_CASE = re.compile(r"(?<=[A-Za-z])_(?=[A-Za-z])")
_QUOTES = str.maketrans("’‘‛`´“”„‟", "'''''\"\"\"\"")
_HTML = re.compile(r"</?(?:b|i|u|em|strong|p|span|div|code|center|br)\s*/?>", re.IGNORECASE)
_BOLD_LETTER = re.compile(r"(?<!\w)(?:\*\*|__|`)\s*([^\W\d_])\s*(?:\*\*|__|`)(?!\w)")
_MARKDOWN = re.compile(r"\*+|`+|(?<!\w)_+|_+(?!\w)|(?m:^[ \t]*(?:#+|>+)[ \t]*)|\\[()\[\]]|\$")


def normalize(text: str) -> str:
    """Return the model's own answer in NFKC form, without markup, with single spaces."""
    if len(text) > _LONGEST:
        text = f"{text[:_HEAD]}\n{text[_HEAD - _LONGEST :]}"
    text = _ESCAPED_NEWLINE.sub("\n", text)
    text = _NUMBERED.sub("", text)
    text = _BLANK_LINES.sub("\n\n", _SPACES.sub(" ", text))
    text = _HEADER.sub(" ", text)
    text = _END_OF_ANSWER.split(text.lstrip())[0]
    text = _NEXT_QUESTION.split(text)[0]
    return without_markup(unicodedata.normalize("NFKC", text))


def without_markup(text: str) -> str:
    """Return text without Markdown, LaTeX and HTML; a bold letter comes out in brackets."""
    text = _LATEX_TEXT.sub(r"\1", _LATEX_TEXT.sub(r"\1", text))
    text = _HTML.sub("", text)
    text = _BOLD_LETTER.sub(r"(\1)", text)
    text = _SNAKE_CASE.sub(" ", _MARKDOWN.sub("", text))
    text = _INVISIBLE.sub("", text).translate(_QUOTES)
    return _SPACES.sub(" ", text).strip()
