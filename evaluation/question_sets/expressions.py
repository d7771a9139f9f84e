"""Jinja in task files: the value of a key is a template or an expression over a record.

Templates run in a sandbox, and an undefined name is an error. In addition to Jinja's own filters
there is `fromjson`, for cells that hold JSON.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

import orjson
from jinja2 import StrictUndefined, TemplateError, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import AfterValidator

from galen.errors import one_line

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
_ENVIRONMENT.filters["fromjson"] = orjson.loads
_SINGLE = re.compile(r"\s*\{\{((?:(?!\{\{|\}\}).)*)\}\}\s*", re.DOTALL)
"""A template that is one expression, and so has its value instead of a text."""


class ExpressionError(Exception):
    """A template or expression cannot be evaluated."""


def is_template(text: str) -> bool:
    """Return whether a text has Jinja's braces."""
    return "{{" in text or "{%" in text


def render(template: str, variables: Mapping[str, Any]) -> str:
    """Return the text of a template.

    Raises:
        ExpressionError: a name is undefined, or the template fails.
    """
    try:
        return _template(template).render(variables)
    # templates call methods of the data, which may raise any error
    except Exception as error:
        raise ExpressionError(_message(error, variables)) from None


def evaluate(template: str, variables: Mapping[str, Any]) -> Any:
    """Return the value of a template: of a single `{{ … }}` what it holds, else a text.

    Raises:
        ExpressionError: a name is undefined, or the template fails.
    """
    single = _SINGLE.fullmatch(template)
    return render(template, variables) if single is None else compute(single[1], variables)


def compute(expression: str, variables: Mapping[str, Any]) -> Any:
    """Return the value of an expression without braces.

    Raises:
        ExpressionError: a name is undefined, or the expression fails.
    """
    try:
        value = _expression(expression)(variables)
        if isinstance(value, Undefined):
            str(value)  # raises its error
        return value
    except Exception as error:
        raise ExpressionError(_message(error, variables)) from None


@cache
def _template(text: str) -> Any:
    return _ENVIRONMENT.from_string(text)


@cache
def _expression(text: str) -> Any:
    return _ENVIRONMENT.compile_expression(text, undefined_to_none=False)


def _message(error: Exception, variables: Mapping[str, Any]) -> str:
    message = one_line(error) or type(error).__name__
    if message.endswith("is undefined"):
        message += f"; defined: {', '.join(map(str, variables)):.200}"
    return message


def check_template(text: str) -> str:
    """Return a template as it is.

    Raises:
        ValueError: its syntax is wrong.
    """
    try:
        _template(text)
    except (TemplateError, RecursionError) as error:
        raise ValueError(f"not a valid template: {one_line(error)}") from None
    return text


def _check_expression(text: str) -> str:
    try:
        _expression(text)
    except (TemplateError, RecursionError) as error:
        raise ValueError(f"not a valid expression: {one_line(error)}") from None
    return text


Template = Annotated[str, AfterValidator(check_template)]
"""A key whose value is a template; its syntax is checked when the file is read."""
Expression = Annotated[str, AfterValidator(_check_expression)]
"""A key whose value is an expression without braces."""
