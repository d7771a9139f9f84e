"""Similarity of a text to a reference: BLEU-1, ROUGE-1, BERTScore.

By sacrebleu and rouge-score, as MMedLM computes the first two, and with a local encoder.

Words are those of the language: of Chinese by rjieba (jieba's words), of Japanese by SudachiPy's
shortest units, of the others letters and digits together and signs apart, in lower case. An empty
text scores 0.

MMedLM (`metrics/rationale_similarity.py` of MAGIC-AI4Med/MMedLM) averages the scores of single
texts, keeps upper case, and has other words: BLEU-1 by NLTK's `sentence_bleu` of Treebank tokens,
ROUGE-1 by the package `rouge`, of the different words between spaces and full stops. Its Japanese
words are Janome's; here they are SudachiPy's.
"""

import functools
import importlib
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from galen import pretrained
from galen.errors import DataError, UsageError, install

_SEGMENTED = ("zh", "ja")
"""Languages without spaces between words."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^\w\s]*[^\W\d_a-zß-öø-ÿа-яё])")


def words(text: str, language: str) -> list[str]:
    """Return the words of a text.

    Args:
        text: any text.
        language: ISO 639-1 code.

    Raises:
        UsageError: the language's tokenizer is not installed.
    """
    return [word for word in _segmenter(language)(text.lower()) if not word.isspace()]


def bleu1(hypotheses: Sequence[str], references: Sequence[str], language: str) -> float:
    """Return corpus BLEU-1, 0 to 100: clipped unigram precision times the brevity penalty.

    Papineni et al. 2002.
    """
    sacrebleu = _imported("sacrebleu")
    tokenized = [" ".join(words(text, language)) for text in hypotheses]
    tokenized_references = [" ".join(words(text, language)) for text in references]
    metric = sacrebleu.metrics.BLEU(
        max_ngram_order=1, tokenize="none", smooth_method="none", force=True
    )
    return float(metric.corpus_score(tokenized, [tokenized_references]).score)


def rouge1(hypothesis: str, reference: str, language: str) -> float:
    """Return ROUGE-1 F1 of one text, 0 to 100 (Lin 2004)."""
    scorer = _imported("rouge_score.rouge_scorer").RougeScorer(
        ["rouge1"], tokenizer=_Words(language)
    )
    return 100 * float(scorer.score(reference, hypothesis)["rouge1"].fmeasure)


def bleu1_mmedlm(hypothesis: str, reference: str, language: str) -> float:
    """Return BLEU-1 of one text as MMedLM computes it, 0 to 100."""
    hypothesis_words = _mmedlm_words(hypothesis, language)
    reference_words = _mmedlm_words(reference, language)
    common = Counter(hypothesis_words) & Counter(reference_words)
    if not common:
        return 0.0
    penalty = math.exp(min(1 - len(reference_words) / len(hypothesis_words), 0))
    return 100 * penalty * common.total() / len(hypothesis_words)


def rouge1_mmedlm(hypothesis: str, reference: str, language: str) -> float:
    """Return ROUGE-1 F1 of the different words of one text as MMedLM computes it, 0 to 100."""
    hypothesis_words = _different_words(hypothesis, language)
    reference_words = _different_words(reference, language)
    common = len(hypothesis_words & reference_words)
    if not common:
        return 0.0
    precision = common / len(hypothesis_words)
    recall = common / len(reference_words)
    return 100 * 2 * precision * recall / (precision + recall + 1e-8)


def _mmedlm_words(text: str, language: str) -> list[str]:
    """Return the words for MMedLM's BLEU: Treebank tokens of each sentence, or segmented words.

    NLTK finds the ends of sentences by a model that would have to be downloaded; here they are
    signs before a space and a capital letter.
    """
    if language in _SEGMENTED:
        return _segmenter(language)(text)
    tokenizer = _imported("nltk.tokenize.destructive").NLTKWordTokenizer()
    tokens: list[str] = []
    for sentence in _SENTENCE_END.split(text):
        tokens += tokenizer.tokenize(sentence)
    return tokens


def _different_words(text: str, language: str) -> set[str]:
    """Return the different words for MMedLM's ROUGE, which the package `rouge` splits."""
    if language in _SEGMENTED:
        text = " ".join(_segmenter(language)(text))
    found: set[str] = set()
    for sentence in filter(None, text.split(".")):
        # white space between two full stops is an empty word there
        found.update(sentence.split() or [""])
    return found


class BertScore:
    """BERTScore F1 with an encoder from a local folder, without idf weights or rescaling.

    Zhang et al. 2020, ICLR.

    Args:
        folder: a Hugging Face encoder, for example of bert-base-multilingual-cased.
        layer: whose hidden states are compared; None for the last. bert-score uses layer 9 for that
            model.

    Raises:
        DataError: the folder holds no encoder, or not all of its weights.
    """

    def __init__(self, folder: str | Path, layer: int | None = None) -> None:
        from transformers import AutoModel

        self._tokenizer = pretrained.load_tokenizer(folder)
        encoder, report = pretrained.load_model(
            AutoModel, folder, output_loading_info=True, use_safetensors=True
        )
        # the pooler is not used here
        missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
        if missing:  # `transformers` initializes them randomly
            raise DataError(
                f"{folder} cannot be loaded as an encoder: it lacks {len(missing):,} weights, for"
                f" example {missing[0]}"
            )
        self._encoder = encoder.eval()
        self._layer = -1 if layer is None else layer

    def f1(self, hypothesis: str, reference: str) -> float:
        """Return a text's score, usually 0 to 100: each token with its nearest match by cosine."""
        hypothesis_th = self._vectors(hypothesis)
        reference_th = self._vectors(reference)
        if not len(hypothesis_th) or not len(reference_th):
            return 0.0
        similarity = hypothesis_th @ reference_th.T
        precision = similarity.max(1).values.mean()
        recall = similarity.max(0).values.mean()
        return float(100 * 2 * precision * recall / (precision + recall))

    def _vectors(self, text: str) -> Any:
        """Return a text's normalized hidden states, (tokens, hidden), without special tokens."""
        import torch

        encoded = self._tokenizer(
            text,
            return_tensors="pt",
            truncation=True,
            max_length=512,
            return_special_tokens_mask=True,
        )
        special = encoded.pop("special_tokens_mask")[0].bool()
        with torch.no_grad():
            output = self._encoder(**encoded, output_hidden_states=True)
        states_th = output.hidden_states[self._layer][0]
        return torch.nn.functional.normalize(states_th[~special], dim=-1)


class _Words:
    """Tokenizer for rouge-score."""

    def __init__(self, language: str) -> None:
        self._language = language

    def tokenize(self, text: str) -> list[str]:
        return words(text, self._language)


@functools.cache
def _segmenter(language: str) -> Callable[[str], list[str]]:
    if language == "zh":
        rjieba = _imported("rjieba")
        return lambda text: rjieba.cut(text)
    if language == "ja":
        sudachi = _imported("sudachipy")
        tokenizer = sudachi.Dictionary(dict="small").create(sudachi.SplitMode.A)
        return lambda text: [morpheme.surface() for morpheme in tokenizer.tokenize(text)]
    return re.compile(r"\w+|[^\w\s]").findall


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UsageError(
            f"the package {name.split('.')[0]} is missing: {install('rationales')}"
        ) from None
