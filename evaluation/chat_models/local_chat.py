"""A local model that answers one message at a time, as an alternative to an endpoint.

It is slower than a server, but needs none.
"""

import argparse
import hashlib
from pathlib import Path
from typing import Protocol

from evaluation.backends import model_folder
from evaluation.backends.base import Batching
from evaluation.backends.encoding import GenerationRequest, encode_text
from evaluation.backends.sampling import Sampling
from evaluation.chat_models import chat_template
from evaluation.chat_models.openai_endpoint import ChatEndpoint
from galen.errors import UsageError


class Chat(Protocol):
    """A chat model that judges or generates."""

    @property
    def model(self) -> str:
        """The model's name, for provenance."""
        ...

    def ask(
        self, message: str, temperature: float = 0.0, seed: int = 0, max_tokens: int = 1024
    ) -> str:
        """Return the model's answer to a message."""
        ...


class LocalChat:
    """A Hugging Face model that answers messages, with its tokenizer's chat template if it has one.

    Args:
        folder: the model.

    Raises:
        UsageError, DataError: the folder is missing or holds no model.
    """

    def __init__(self, folder: Path) -> None:
        from evaluation.backends.transformers_backend import TransformersBackend

        self._backend = TransformersBackend(folder)
        digest = hashlib.sha256(
            repr(sorted(model_folder.hashes(folder).items())).encode()
        ).hexdigest()
        self.model = f"{folder.resolve().name} (files {digest[:16]})"

    def ask(
        self, message: str, temperature: float = 0.0, seed: int = 0, max_tokens: int = 1024
    ) -> str:
        """Return the model's answer.

        A message too long to leave room for the answer is truncated on the left.
        """
        tokenizer = self._backend.tokenizer
        length = self._backend.context_length
        if tokenizer.chat_template:
            message = chat_template.render(
                tokenizer, [{"role": "user", "content": message}], open_answer=True
            )
            ids = tokenizer.encode(message, add_special_tokens=False)
        else:
            ids = encode_text(tokenizer, message)
        if length is not None:
            max_tokens = min(max_tokens, max(length // 2, 1))
            ids = ids[-(length - max_tokens) :]
        request = GenerationRequest(
            ids, max_tokens, (), Sampling(temperature=temperature), (str(seed),)
        )
        [[(_, [answer])]] = self._backend.generate([request], Batching(max_tokens=1))
        return answer.text


def add_options(parser: argparse.ArgumentParser, role: str) -> None:
    """Add the options that select the chat model; `role` names it in the help."""
    parser.add_argument(
        "--base-url",
        metavar="URL",
        help=f"OpenAI-compatible endpoint of {role}, for example http://localhost:8000/v1",
    )
    parser.add_argument("--model-name", metavar="NAME", help="model name at the endpoint")
    parser.add_argument(
        "--local-model",
        type=Path,
        metavar="DIR",
        help=f"Hugging Face folder of {role}, instead of an endpoint",
    )


def chosen(options: argparse.Namespace) -> Chat | None:
    """Return the chat model that the command line selects, or None.

    Raises:
        UsageError: an endpoint is incomplete, or two models are selected.
    """
    if (options.base_url is None) != (options.model_name is None):
        raise UsageError("--base-url requires --model-name, and the reverse")
    if options.base_url and options.local_model:
        raise UsageError("--local-model and --base-url exclude each other")
    if options.local_model:
        return LocalChat(options.local_model)
    return ChatEndpoint(options.base_url, options.model_name) if options.base_url else None
