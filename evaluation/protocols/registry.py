"""Published protocols by name, a file per published source.

    settings = registry.get_protocol("meditron", num_fewshot=5)

A new source is a file with its `PROTOCOLS` and a line here.
"""

import dataclasses
from typing import Any

from evaluation.prompts.registry import get_template
from evaluation.protocols import biomistral, lm_eval, meditron, mmedbench
from evaluation.protocols.protocol import Protocol
from galen.errors import UsageError, did_you_mean

PROTOCOLS: dict[str, Protocol] = {
    **lm_eval.PROTOCOLS,
    **meditron.PROTOCOLS,
    **mmedbench.PROTOCOLS,
    **biomistral.PROTOCOLS,
}
"""Name to protocol."""


def get_protocol(
    name: str,
    *,
    num_fewshot: int | None = None,
    fewshot_seeds: tuple[int, ...] | None = None,
    num_samples: int | None = None,
    max_new_tokens: int | None = None,
) -> Protocol:
    """Return a protocol; settings that are not None override its own.

    Raises:
        UsageError: there is no such protocol, or it does not support a setting.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"unknown protocol {name!r}; {did_you_mean(name, PROTOCOLS)}")
    published = PROTOCOLS[name]
    for option, value in (("--num-samples", num_samples), ("--max-new-tokens", max_new_tokens)):
        if value is not None and published.scoring != "generation":
            raise UsageError(f"{option} is for protocols that generate; {name} does not")
    if num_fewshot is not None and num_fewshot < 0:
        raise UsageError("--num-fewshot must be at least 0")
    if num_fewshot and not get_template(published.template).supports_few_shot:
        raise UsageError(f"--num-fewshot: the template of {name} takes no few-shot examples")
    if num_samples is not None and not published.temperature:
        raise UsageError(
            f"--num-samples: {name} decodes greedily, so that all samples would be the same; use"
            " meditron_sc_cot"
        )
    overrides: dict[str, Any] = {
        "num_fewshot": num_fewshot,
        "fewshot_seeds": fewshot_seeds,
        "num_samples": num_samples,
        "max_new_tokens": max_new_tokens,
    }
    overrides = {key: value for key, value in overrides.items() if value is not None}
    result = dataclasses.replace(published, **overrides)
    if not result.num_fewshot and not get_template(result.template).follows_task:
        # without few-shot examples all runs would be the same
        result = dataclasses.replace(result, fewshot_seeds=result.fewshot_seeds[:1])
    return result
