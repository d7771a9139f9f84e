"""Published protocols by name, a file per published source.

    settings = registry.get_protocol("meditron", num_fewshot=5)

A new source is a file with its `PROTOCOLS` and a line here.
"""

import dataclasses
from typing import Any

from evaluation.prompts.registry import get_template
from evaluation.protocols import biomistral, chat, lm_eval, meditron, mmedbench, settings
from evaluation.protocols.protocol import Protocol
from galen.errors import UsageError, did_you_mean

PROTOCOLS: dict[str, Protocol] = {
    **lm_eval.PROTOCOLS,
    **meditron.PROTOCOLS,
    **mmedbench.PROTOCOLS,
    **biomistral.PROTOCOLS,
    **chat.PROTOCOLS,
}
"""Name to protocol."""


def get_protocol(name: str, **overrides: Any) -> Protocol:
    """Return a protocol; overrides that are not None replace its own settings.

    Raises:
        UsageError: there is no such protocol, or it does not support a setting.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"unknown protocol {name!r}; {did_you_mean(name, PROTOCOLS)}")
    overrides = {key: value for key, value in overrides.items() if value is not None}
    result = settings.replace(name, PROTOCOLS[name], overrides)
    if not result.num_fewshot and not get_template(result.template).follows_task:
        # without few-shot examples all runs would be the same
        result = dataclasses.replace(result, fewshot_seeds=result.fewshot_seeds[:1])
    return result
