"""Options of `galen evaluate` for backends and hardware."""

import argparse
from pathlib import Path

from evaluation.backends import model_folder


def add_backend_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of backend and hardware."""
    parser.add_argument(
        "--backend",
        choices=("transformers", "vllm", "openai"),
        default="transformers",
        help="library that runs the model, or openai: an endpoint (default: transformers)",
    )
    parser.add_argument(
        "--tensor-parallel",
        type=int,
        default=1,
        metavar="N",
        help="GPUs that share the model, with vllm (default: 1)",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="processes on this machine, one GPU each (default: 1)",
    )
    parser.add_argument(
        "--max-batch-tokens",
        type=int,
        metavar="N",
        help=(
            "padded tokens in a batch (default: 1024, on CUDA 16384, in vllm 262144; eight times as"
            " many for generated answers)"
        ),
    )
    parser.add_argument(
        "--dtype",
        choices=model_folder.DTYPES,
        help="precision of the weights (default: float32 on a CPU, bfloat16 on CUDA)",
    )
    parser.add_argument("--device", help="for example cpu or cuda:0 (default: CUDA if available)")


def add_endpoint_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of an endpoint."""
    parser.add_argument("--base-url", metavar="URL", help="of the endpoint (--backend openai)")
    parser.add_argument("--model-name", metavar="NAME", help="the model's name at the endpoint")
    parser.add_argument(
        "--route",
        choices=("chat", "completions"),
        default="chat",
        help="completions also scores given texts, where the endpoint can (default: chat)",
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="the model's tokenizer: --route completions then gets token ids",
    )
    parser.add_argument(
        "--top-logprobs",
        type=int,
        metavar="N",
        help="log-probabilities to ask for where a letter is read (default: 20, completions 5)",
    )
    parser.add_argument(
        "--concurrency",
        type=int,
        default=8,
        metavar="N",
        help="requests to the endpoint at the same time (default: 8)",
    )
    parser.add_argument(
        "--request-timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="maximum time of a reply (default: 300)",
    )
    parser.add_argument(
        "--api-key-variable",
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="environment variable with the endpoint's key (default: OPENAI_API_KEY)",
    )
    for name, tokens in (("in", "prompt"), ("out", "generated")):
        parser.add_argument(
            f"--price-{name}",
            type=float,
            metavar="X",
            help=f"price of a million {tokens} tokens, for the cost in the results",
        )
