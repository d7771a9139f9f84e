"""Protocols of BioMistral (arXiv 2402.10373)."""

from evaluation.protocols.protocol import Protocol

PROTOCOLS = {
    "biomistral": Protocol("biomistral", "letter", num_fewshot=3, fewshot_seeds=(1, 2, 3)),
    "biomistral_zero_shot": Protocol("biomistral", "letter"),
}
