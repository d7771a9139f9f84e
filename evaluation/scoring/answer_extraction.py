"""Extraction of the options that a written answer names.

A robust reader for nine languages, and the strict readers of the published code.

The robust reader looks for, in this order: a declared answer ("the answer is (C)", "答案是C",
"Réponse : A et C", "OPTION A,C IS CORRECT"), the last one where several are declared; a letter at
the very beginning ("C.", "(C) because …", "A, C"); an answer in words ("yes, because …", "нет");
the text of exactly one option; a letter that is alone in brackets or bold. What fits none of
these is unparsed, and is never counted as an option.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence

Options = Mapping[str, str]

_LETTER = "A-Za-zÀ-ÖØ-öø-ÿĀ-žА-яЁё"  # what continues a word; Chinese and Japanese signs do not
_BEFORE, _AFTER = rf"(?<![{_LETTER}])", rf"(?![{_LETTER}]|['’-][{_LETTER}])"
# Quantifiers are possessive (`*+`): neighbours take the same signs, and a model that writes "A, A,
# A, …" or a thousand line breaks would otherwise keep the search busy for ever.
_OPEN, _CLOSE = r"[\s(\[【「『\"'“‘«*_$]*+", r"[\s)\]】」』\"'”’»*_$.]*+"
_AND = r"(?:,|、|;|/|&|\+|and|et|und|и|y|e|和|与|と|及び|و)\s*+"
_OPTION = (
    r"(?:(?:the |les"
    r" |l')?(?:options?|choices?|letters?|opción|opciones|opção|вариант|选项|lettre)\s*+)?"
)
# Words that declare the answer, language by language.
_DECLARED = (
    r"(?:answers?|ans\.?|options?|choices?)(?: (?:choices?|options?))?(?: (?:to|for) (?:the|this)"
    r" question)?"
    r"|(?:réponses?|reponses?|propositions?)(?: (?:correctes?|exactes?|finales?|justes?))?"
    r"|(?:respuestas?|opci[oó]n(?:es)?|alternativas?)(?: (?:correctas?|finale?s?))?"
    r"|(?:respostas?|opção|opções|alternativas?)(?: (?:corretas?|certas?|finais|final))?"
    r"|antwort(?:en)?|optionen|lösung"
    r"|ответ(?:ы|ом)?|вариант(?:ы|ом)?(?: ответа)?"
    r"|答案|正确选项|选项|[选選](?:择|擇)?"
    r"|正解|正答|解答|回答|答え|選択肢"
    r"|(?:ال)?(?:إجابة|اجابة|جواب|خيار)(?: (?:ال)?(?:صحيحة|صحيح|نهائية))?"
)
# What may come between such a word and the letters: a verb, an adverb, an article before a capital
# letter, a colon.
_LINK = (
    r"\s*+[*_】>]*+\s*+(?:(?:is|are|would be|should be|must"
    r" be|est|sont|es|son|são|é|ist|lautet|sind|является)(?![A-Za-zÀ-ÿ])"
    r"|应该是|应为|应是|选|選|是|为|為|は|هي|هو)?(?:\s*+(?:clearly|likely|therefore|thus|donc|also))?\s*+[-—–=:：]*+"
    r"(?:\s*+(?-i:the|la|le|a|o|die)\s+(?=[(\[\"«*]*+(?:(?-i:[A-J])|op)))?\s*+"
)
_TRUE = (
    r"\s*(?:is|are|est|sont|es|son|é|são|ist|sind|является|が|是)?\s*(?:the\s+|la\s+|a\s+|die\s+)?"
    r"(?:correct|right|best|true|exacte?s?|bonne|correcta|correta|certa|richtig|korrekt|правильн|верн|正确|正解|正しい)"
)
_WORDS = {
    "yes": ("yes", "oui", "sí", "si", "sim", "ja", "да", "是", "はい", "نعم"),
    "no": ("no", "non", "não", "nein", "нет", "否", "不是", "いいえ", "لا"),
    "maybe": (
        "maybe",
        "peut-être",
        "peut être",
        "quizás",
        "tal vez",
        "talvez",
        "vielleicht",
        "возможно",
        "может быть",
        "可能",
        "ربما",
    ),
}
_NEXT_QUESTION = re.compile(r"\n\s*#*\s*(?:Question|Instruction|Input|Problem)\s*\d*\s*:")
"""Where a model without a stop string continues with a question of its own.

What it answers there is not ours.
"""
# letters that look like the Latin ones, typed on a Russian keyboard
_CYRILLIC = str.maketrans("АВСЕ", "ABCE")


def extract(text: str, options: Options) -> tuple[str, ...] | None:
    """Return the options that an answer names, in the options' order; None when it is unparsed.

    Args:
        text: what the model wrote.
        options: letter to text.
    """
    text = _normal(text)
    own = _NEXT_QUESTION.split(text, maxsplit=1)[0]
    return _named(own, options) or (_named(text, options) if own != text else None)


def _named(text: str, options: Options) -> tuple[str, ...] | None:
    if not text:
        return None
    if _yes_no(options):
        return _words(text, options) or _letters_of(text, options)
    return (
        _letters_of(text, options)
        or _words(text, options)
        or _by_text(text, options)
        or _standing_alone(text, options)
    )


def majority(extracted: Sequence[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """Return the majority answer of the readable ones; ties go to the earliest."""
    votes = [answer for answer in extracted if answer is not None]
    return max(votes, key=votes.count) if votes else None


def extract_meditron(text: str, options: Options) -> tuple[str, ...] | None:
    """Extract an answer as MEDITRON's code does from a chain of thought.

    The code: epfLLM/meditron, `evaluation/evaluate.py`, `eval`.

    Everything but ASCII letters and digits becomes a space; of what follows the last "answer is"
    the first word counts; of a question with letters only its first character. "maybe" is not known
    there, and any word that begins with a to e is a letter.
    """
    cleaned = " ".join(re.sub(r"[^a-zA-Z0-9]", " ", text.lower()).split())
    words = cleaned.split("answer is")[-1].split()
    if not words:
        return None
    if _yes_no(options):
        word = {"yesyes": "yes", "nono": "no", "yesno": "yes", "noyes": "no"}.get(
            words[0], words[0]
        )
        return next(
            ((letter,) for letter, option in options.items() if option == word and word != "maybe"),
            None,
        )
    letter = words[0][0].upper()
    return (letter,) if letter in "ABCDE" and letter in options else None


def extract_mmedbench(text: str, options: Options) -> tuple[str, ...] | None:
    """Extract an answer as MMedLM's `metrics/accuracy.py` does.

    It reads only the literal `###Answer: OPTION A,C IS CORRECT.`.
    """
    rest = (
        text.replace("###Answer: OPTION ", "")
        .replace("IS CORRECT.</s>", "")
        .replace("IS CORRECT.", "")
        .strip()
    )
    letters = rest.split(",")
    return (
        tuple(letter for letter in options if letter in letters)
        if all(letter in options for letter in letters)
        else None
    )


STRICT_EXTRACTORS = {"meditron": extract_meditron, "mmedbench": extract_mmedbench}
"""Strict readers by the name that a protocol gives."""


def _normal(text: str) -> str:
    """Return the text normalized: NFKC, no end-of-text tokens, single spaces.

    `\\boxed{…}` becomes "the answer is …".
    """
    text = unicodedata.normalize("NFKC", text)
    text = re.split(r"</s>|<\|im_end\|>|<\|endoftext\|>|<\|eot_id\|>|<eos>", text)[0]
    text = re.sub(r"\\boxed\s*\{\s*(?:\\text\s*\{)?([^{}]*)\}+", r"the answer is \1.", text)
    return re.sub(r"[ \t]+", " ", text).strip()


def _letters_of(text: str, options: Options) -> tuple[str, ...] | None:
    """Return the letters of the last declared answer, or those at the very beginning."""
    one = f"[{''.join(options)}{'АВСЕ' if set('ABCE') & set(options) else ''}]"
    several = rf"{_OPTION}{_OPEN}{one}(?:{_CLOSE}{_AND}{_OPTION}{_OPEN}{one}){{0,25}}{_AFTER}"
    compact = rf"(?-i:[{''.join(options)}]{{2,5}}){_AFTER}"
    letters = rf"(?P<letters>{several}|{compact})"
    found: list[tuple[int, str]] = []
    for match in re.finditer(
        rf"{_BEFORE}(?:{_DECLARED}){_LINK}{_OPEN}{letters}", text, re.IGNORECASE
    ):
        named = _only_letters(match["letters"], options)
        if named and not _refused(text, match):
            found.append((match.end(), named))
    found += [
        (m.end(), _only_letters(m["letters"], options))
        for m in re.finditer(rf"{_BEFORE}{letters}{_TRUE}", text, re.IGNORECASE)
    ]
    if found:
        return _ordered(max(found)[1], options)
    beginning = re.match(rf"{_OPEN}{letters}", text, re.IGNORECASE)
    if (
        beginning
        and not _is_a_word(beginning["letters"].strip(), text[beginning.end() :])
        and not _refused(text, beginning)
    ):
        return _ordered(_only_letters(beginning["letters"], options), options)
    return None


def _is_a_word(letters: str, rest: str) -> bool:
    """Return whether the letter at the beginning is a word of a sentence.

    "A patient …", "e depois …".
    """
    return (
        len(letters) == 1
        and (letters == "A" or letters.islower())
        and re.match(r"[)\]】」』*_\s]*[.:,;)、。-]|\W*$", rest) is None
    )


def _refused(text: str, match: re.Match[str]) -> bool:
    """Return whether the declaration is negated or left open.

    "the answer is not A", "option A is incorrect", "A or B".
    """
    after = text[match.end() : match.end() + 40].lower()
    before = text[max(match.start() - 25, 0) : match.start()].lower()
    denied = (
        r"^[\s)*.\"']*(?:(?:is|are|was|seems|est|es|é|ist)\s+)?"
        r"(?:not|incorrect|wrong|false|unlikely|fausse?|incorrecta?|falsch|неверн|(?:or|ou|oder|o|или|或)\s+[(*]*[a-j]\b)"
    )
    return bool(
        re.match(denied, after)
        or re.search(r"(?:incorrect|wrong|eliminate|rule out|not)\s+(?:the\s+)?$", before)
    )


def _only_letters(matched: str, options: Options) -> str:
    """Return the options' letters in matched text, words such as "et" or "option" left away."""
    matched = re.sub(
        rf"[{_LETTER}]{{2,}}",
        lambda word: word[0] if _all_letters(word[0], options) else " ",
        matched,
    )
    # "and" in Spanish and Portuguese
    matched = re.sub(r"(?<=[\s)\"'])[ey](?=[\s(\"'])", " ", matched.translate(_CYRILLIC))
    return "".join(character.upper() for character in matched if character.upper() in options)


def _all_letters(word: str, options: Options) -> bool:
    return (
        word.isupper()
        and all(character in options for character in word)
        and len(set(word)) == len(word)
    )


def _ordered(letters: str, options: Options) -> tuple[str, ...] | None:
    found = tuple(letter for letter in options if letter in letters)
    return found or None


def _yes_no(options: Options) -> bool:
    return all(_word_of(text) for text in options.values())


def _word_of(text: str) -> str:
    return next(
        (word for word, spellings in _WORDS.items() if text.strip().lower() in spellings), ""
    )


def _words(text: str, options: Options) -> tuple[str, ...] | None:
    """Return the option that a yes, no or maybe names, in any of the languages."""
    letters = {_word_of(option): letter for letter, option in options.items() if _word_of(option)}
    if not letters:
        return None
    spellings = {
        spelling: letters[word]
        for word, all_spellings in _WORDS.items()
        if word in letters
        for spelling in all_spellings
    }
    one = "|".join(_bounded(spelling) for spelling in sorted(spellings, key=len, reverse=True))
    lowered = text.lower()
    declared = re.findall(rf"{_BEFORE}(?:{_DECLARED}){_LINK}{_OPEN}({one})", lowered, re.IGNORECASE)
    if declared:
        return (spellings[declared[-1]],)
    beginning = re.match(
        rf"{_OPEN}(?:\(?[a-z][).:]\s*)?({one})(?!-|\s*(?:/|and\b|or\b)\s*(?:{one}))", lowered
    )
    if beginning:
        return (spellings[beginning[1]],)
    alone = {
        spellings[spelling]
        for spelling in re.findall(rf"{_BEFORE}(?<!not )({one})", lowered)
        if spelling in ("yes", "maybe", "да", "нет")
    }
    return (alone.pop(),) if len(alone) == 1 else None


def _bounded(spelling: str) -> str:
    """Return the pattern of a complete word; Chinese and Japanese do not part words."""
    return re.escape(spelling) + (r"(?!\w)" if spelling[-1] < "\u3000" else "")


def _by_text(text: str, options: Options) -> tuple[str, ...] | None:
    """Return the only option whose full text is in the answer, of overlapping ones the longer."""
    lowered = text.lower()
    held = {
        letter: option.lower()
        for letter, option in options.items()
        if len(option) > 1 and _holds(lowered, option.lower())
    }
    held = {
        letter: option
        for letter, option in held.items()
        if not any(option in other and option != other for other in held.values())
    }
    return tuple(held) if len(held) == 1 else None


def _holds(text: str, option: str) -> bool:
    return (
        re.search(
            rf"(?<!\w){re.escape(option)}(?!\w)" if option.isascii() else re.escape(option), text
        )
        is not None
    )


def _standing_alone(text: str, options: Options) -> tuple[str, ...] | None:
    """Return the only letter that is in brackets, in bold, or before a full stop at the end."""
    one = f"[{''.join(options)}]"
    found = set(
        re.findall(
            rf"[(\[「『【]({one})[)\]」』】]|\*\*({one})[.)]?\*\*|(?<!\w)(?<!not )(?<!Not )(?<!or"
            rf" )({one})\.?\s*$",
            text,
        )
    )
    letters = {letter for groups in found for letter in groups if letter}
    return (letters.pop(),) if len(letters) == 1 else None
