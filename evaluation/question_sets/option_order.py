"""Permuted options of a question, and questions whose options cannot be permuted.

permutations = option_order.permuted(question, count=4, seed=0)
permutations[1].question  # to be shown
permutations[1].original_labels("B")  # what the answer B means
"""

import dataclasses
import functools
import hashlib
import math
import re
import unicodedata
from collections.abc import Collection

from evaluation.question_sets import question as questions
from evaluation.question_sets.question import Question

_AND = (
    r"(?:\s*[,;&+]\s*(?:(?:and|or|et|ou|und|oder)\s+)?"
    r"|\s+(?:and|or|nor|et|ou|y|e|o|u|und|oder|и|или|و|أو)\s+|\s*[或和与及、とや]\s*)"
)
_LONGEST = 200
"""Longest option in characters that is searched: those that refer to others are short."""
_PHRASES = (
    # English
    r"(?:all|none|any|both|neither|either|some|each|two|one|more than one) of (?:the|these|those"
    r"|them|above|which)\b.*(?:above|options|answers|choices|statements|preceding|following"
    r"|mentioned|listed|correct|true|false)",
    r"(?:all|none|any|both|neither|either|each) (?:of )?(?:the )?(?:above|these|those|them)\W*$",
    r"(?:all|none|both|neither) (?:are|is) (?:correct|true|false|incorrect|right|wrong)",
    r"\b(?:all|none) (?:the )?(?:other )?(?:options|answers|choices)\b",
    r"\b(?:the )?(?:above|preceding)(?:-| )?(?:mentioned|listed|options|answers|choices)",
    r"\bnone of the other|\bof (?:the )?above\W*$",
    # French
    r"\b(?:toutes?|tous|aucune?|chacune?) (?:de |des |les |ces )*(?:réponses|propositions|choix"
    r"|options|affirmations|précédent|ci-dessus)",
    r"\b(?:toutes|aucune) (?:sont|n'est) (?:exacte|fausse|correcte|vraie|juste)",
    # Spanish
    r"\b(?:todas|todos|ninguna|ninguno|ambas|ambos|cualquiera)\b.{0,25}(?:anterior|correcta|cierta"
    r"|falsa|verdadera|respuesta|opcion|opción|opciones)",
    # Portuguese
    r"\b(?:todas|todos|nenhuma|nenhum|ambas)\b.{0,25}(?:anterior|acima|alternativa|corret|resposta"
    r"|opç)",
    # Italian
    r"\b(?:tutte|tutti|nessuna|nessuno|entrambe)\b.{0,25}(?:precedent|rispost|corrett|sopra"
    r"|opzion|esatt)",
    # German
    r"\b(?:alle|keine|keiner|keines|beide)\b.{0,25}(?:genannt|oben|antwort|aussage|richtig|falsch"
    r"|möglichkeit|vorstehend)",
    # Russian
    r"(?:вс[её]|ничего|ни одно|оба) .{0,15}(?:перечисл|вышеперечисл|вышеуказ|верно|правильн"
    r"|вариант|ответ)",
    r"(?:верны|правильны) (?:все|оба)",
    # Chinese
    "(?:以上|上述|前述).{0,6}(?:都|均|皆|全|不是|答案|选项|選項|任何|任一|无一|無一)",
    "(?:全|都|均|皆)(?:对|對|是|不是|正确|正確|不对|不對|错|錯)$",
    # Japanese, Korean
    "上記|以上の|위의? (?:모두|모든|보기)|모두 (?:맞|옳|정답)",
    "すべて(?:正しい|誤り)|いずれも|どれも",
    # on its own, in several languages
    r"^\W*(?:all|none|toutes|aucune?|todas|ningun[ao]|nenhuma?|tutte|nessun[ao]|alle|keine)\W*$",
    # Arabic
    r"(?:كل|جميع|لا شيء|ليس أي|أي) (?:ما|مما|من)? ?(?:سبق|ذكر|ذُكر|الإجابات|الخيارات)",
)
_LEAD = (
    r"(?:both|either|neither|only|options?|answers?|choices?|statements?|solo|las?|los"
    r"|respuestas?|opcion(?:es)?|réponses?|propositions?|les|antworten?|respostas?|alternativas?"
    r"|risposte|ответы?|варианты?|a mix of|combination of)"
)
_TAIL = (
    r"(?:only|both|are|is|correct|true|right|combined|together|son|correctas|ciertas|verdaderas"
    r"|sont|exactes|correctes|vraies|justes|sind|richtig|estão|corretas|верны|都对|均对|正确|对"
    r"|都正确|均正确)"
)


def refers_to_options(question: Question) -> bool:
    """Return whether an option refers to others, such as "all of the above" or "both A and B".

    In another order it would mean something else. So does a question that names an option's
    letter ("option C"). English, French, Spanish, Portuguese, Italian, German, Russian, Chinese,
    Japanese, Korean and Arabic are read.
    """
    labels = tuple(question.options)
    named = _named_option(labels)
    combined = _combined_labels(labels)
    for text in question.options.values():
        if len(text) > _LONGEST:
            continue
        plain = unicodedata.normalize("NFKC", " ".join(text.split()))
        if _phrases().search(plain) or combined.fullmatch(plain) or named.search(plain):
            return True
    return bool(named.search(question.question))


@functools.cache
def _phrases() -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{phrase})" for phrase in _PHRASES), re.IGNORECASE)


@functools.cache
def _combined_labels(labels: tuple[str, ...]) -> re.Pattern[str]:
    """Return the pattern of labels or numbers of options joined, such as "Both A and B"."""
    letters = _joined(_label([*labels, *(label.lower() for label in labels)]))
    numbers = _joined(_label([str(number) for number in range(1, len(labels) + 1)]))
    lead = rf"(?i:{_LEAD})\W+"
    tail = rf"\W*(?i:{_TAIL})"
    # numbers alone are doses, fractions, ranges
    return re.compile(
        rf"\W*(?:(?:{lead})*{letters}(?:{tail})*|(?:{lead})+{numbers}(?:{tail})*"
        rf"|{numbers}(?:{tail})+)\W*"
    )


def _joined(either: str) -> str:
    """Return the pattern of two labels or more, joined by "and" and the like."""
    one = rf"[(\[]?(?:{either})[)\].]?"
    return rf"{one}(?:(?i:{_AND}){one})+"


@functools.cache
def _named_option(labels: tuple[str, ...]) -> re.Pattern[str]:
    """Return the pattern of a named option, such as "option C" or "réponse B"."""
    names = _label(labels)
    return re.compile(
        rf"\b(?i:options?|choices?|answers?|réponses?|respuestas?|respostas?|antwort(?:en)?"
        rf"|risposte?)\s+[(\[\"']?(?:{names})[)\]\"']?(?![\w'’-])"
    )


def _label(labels: Collection[str]) -> str:
    return "|".join(re.escape(label) for label in labels)


@dataclasses.dataclass(frozen=True, slots=True)
class Permutation:
    """A question with its options in another order."""

    original: Question
    question: Question
    """The question to be shown: the same labels in the same order, the texts permuted."""
    order: tuple[str, ...]
    """The original label of each option, in the order shown."""

    def original_label(self, label: str) -> str:
        """Return the original label of the option that is shown with a label."""
        return self.order[list(self.question.options).index(label)]

    def original_labels(self, labels: str | None) -> str | None:
        """Return the same for several labels with commas, in the original order; None for None."""
        if labels is None:
            return None
        originals = {self.original_label(label) for label in labels.split(",")}
        return questions.joined(originals, self.original.options)

    def position(self, labels: str | None) -> int | None:
        """Return the position, from 1, of an original label; None unless it is a single one."""
        if labels not in self.order:
            return None
        return self.order.index(labels) + 1


def permuted(question: Question, count: int, seed: int) -> list[Permutation]:
    """Return a question in `count` orders, the original first; in fewer if there are not as many.

    With as many orders as options they are the cyclic shifts: each option is at each position
    once. Otherwise they are drawn without repetition by SHA-256 of seed and question id.
    """
    labels = tuple(question.options)
    return [_permutation(question, order) for order in _orders(question.id, labels, count, seed)]


def _orders(id_: str, labels: tuple[str, ...], count: int, seed: int) -> list[tuple[str, ...]]:
    if count == len(labels):
        return [labels[shift:] + labels[:shift] for shift in range(count)]
    orders = {labels: None}
    attempt = 0
    while len(orders) < min(count, math.factorial(len(labels))):
        orders[_drawn(f"{seed}\n{id_}\n{attempt}", labels)] = None
        attempt += 1
    return list(orders)


def _drawn(key: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    def digest(index: int) -> bytes:
        return hashlib.sha256(f"{key}\n{index}".encode()).digest()

    return tuple(labels[index] for index in sorted(range(len(labels)), key=digest))


def _permutation(question: Question, order: tuple[str, ...]) -> Permutation:
    shown_with = dict(zip(order, question.options, strict=True))
    options = {shown_with[label]: question.options[label] for label in order}
    answer = questions.joined({shown_with[label] for label in question.answers}, options)
    return Permutation(
        question, dataclasses.replace(question, options=options, answer=answer), order
    )
