"""Jinja in task files: the value of a key is a template or an expression over a record.

Templates run in a sandbox, and an undefined name is an error. In addition to Jinja's own filters
there is `fromjson`, for cells that hold JSON. A task file may be anyone's, and a template is a
program: it runs in a separate process (`evaluation/question_sets/expression_worker.py`) with limits
on time, memory and length.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from evaluation.question_sets import expression_worker
from galen.limited_process import LimitedProcess, LimitError

_process = LimitedProcess(Path(__file__).with_name("expression_worker.py"))
_SINGLE = re.compile(r"\s*\{\{((?:(?!\{\{|\}\}).)*)\}\}\s*", re.DOTALL)
"""A template that is one expression, and so has its value instead of a text."""
_NAME = re.compile(r"\s*([A-Za-z_]\w*)\s*", re.ASCII)
_RESERVED = ("true", "false", "none", "True", "False", "None", "not")


class ExpressionError(Exception):
    """A template or expression cannot be evaluated."""


def is_template(text: str) -> bool:
    """Return whether a text has Jinja's braces."""
    return "{{" in text or "{%" in text


def render(template: str, variables: Mapping[str, Any]) -> str:
    """Return the text of a template.

    Raises:
        ExpressionError: a name is undefined, or the template fails or exceeds a limit.
    """
    if _is_plain(template):
        return template
    text: str = _evaluated("render", template, variables)
    return text


def evaluate(template: str, variables: Mapping[str, Any]) -> Any:
    """Return the value of a template: of a single `{{ … }}` what it holds, else a text.

    Raises:
        ExpressionError: a name is undefined, or the template fails or exceeds a limit.
    """
    single = _SINGLE.fullmatch(template)
    return render(template, variables) if single is None else compute(single[1], variables)


def compute(expression: str, variables: Mapping[str, Any]) -> Any:
    """Return the value of an expression without braces.

    Raises:
        ExpressionError: a name is undefined, or the expression fails or exceeds a limit.
    """
    name = _NAME.fullmatch(expression)
    if name is not None and name[1] not in _RESERVED and name[1] in variables:
        return variables[name[1]]  # a name alone, the most frequent expression, needs no process
    return _evaluated("compute", expression, variables)


def _is_plain(template: str) -> bool:
    """Return whether a text is its own rendering: Jinja changes only line ends in it."""
    return "{" not in template and "\r" not in template


def _evaluated(operation: str, text: str, variables: Mapping[str, Any]) -> Any:
    """Return the value that the process gives of a template or expression."""
    line = expression_worker.encoded((operation, text, dict(variables)))
    try:
        state, content = expression_worker.decoded(_process.ask(line))
    except pickle.UnpicklingError as error:
        state, content = expression_worker.ERROR, str(error)
    except LimitError as error:
        state, content = expression_worker.LIMIT, str(error)
    if state == expression_worker.LIMIT:
        raise ExpressionError(f"the template needs more than {content}")
    if state == expression_worker.ERROR:
        raise ExpressionError(content)
    return content


def check_template(text: str) -> str:
    """Return a template as it is.

    Raises:
        ValueError: its syntax is wrong.
    """
    if not _is_plain(text):
        _check("check_template", text, "template")
    return text


def _check_expression(text: str) -> str:
    _check("check_expression", text, "expression")
    return text


def _check(operation: str, text: str, noun: str) -> None:
    try:
        _evaluated(operation, text, {})
    except ExpressionError as error:
        raise ValueError(f"not a valid {noun}: {error}") from None


Template = Annotated[str, AfterValidator(check_template)]
"""A key whose value is a template; its syntax is checked when the file is read."""
Expression = Annotated[str, AfterValidator(_check_expression)]
"""A key whose value is an expression without braces."""
