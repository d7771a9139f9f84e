"""The process that evaluates the Jinja of task files, with limits on time and memory.

A request is an operation of `OPERATIONS`, a template and its variables; an answer the value, or the
problem. Both are pickled and in base64; see `evaluation.question_sets.expressions`.
"""

import base64
import io
import pickle
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson
from jinja2 import StrictUndefined, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from galen import limited_process
from galen.errors import one_line

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
_ENVIRONMENT.filters["fromjson"] = orjson.loads
VALUE, ERROR, LIMIT = "value", "error", "limit"


def render(template: str, variables: Mapping[str, Any]) -> str:
    """Return the text of a template."""
    text: str = _template(template).render(variables)
    return text


def compute(expression: str, variables: Mapping[str, Any]) -> Any:
    """Return the value of an expression without braces."""
    value = _expression(expression)(variables)
    if isinstance(value, Undefined):
        str(value)  # raises its error
    return value


def check_template(template: str, _: Mapping[str, Any]) -> None:
    """Compile a template, which also computes its constants."""
    _template(template)


def check_expression(expression: str, _: Mapping[str, Any]) -> None:
    """Compile an expression."""
    _expression(expression)


OPERATIONS = {
    function.__name__: function for function in (render, compute, check_template, check_expression)
}


@lru_cache(maxsize=256)
def _template(text: str) -> Any:
    return _ENVIRONMENT.from_string(text)


@lru_cache(maxsize=256)
def _expression(text: str) -> Any:
    return _ENVIRONMENT.compile_expression(text, undefined_to_none=False)


def message(error: Exception, variables: Mapping[str, Any]) -> str:
    """Return the text of an error in a template."""
    text = one_line(error) or type(error).__name__
    if text.endswith("is undefined"):
        text += f"; defined: {', '.join(map(str, variables)):.200}"
    return text


def encoded(content: tuple[Any, ...]) -> str:
    """Return a request or an answer as a line."""
    return base64.b64encode(pickle.dumps(content)).decode("ascii")


def decoded(line: str) -> tuple[Any, ...]:
    """Return the answer in a line.

    Raises:
        UnpicklingError: it has an object other than plain values, dates and decimal numbers.
    """
    content: tuple[Any, ...] = _PlainValues(io.BytesIO(base64.b64decode(line))).load()
    return content


class _PlainValues(pickle.Unpickler):
    """Reads values as files of questions have them, and no object that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class of dates or numbers."""
        if module in ("datetime", "decimal") and name.isidentifier():
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"a template gives no plain value, but {module}.{name}")


def _answer(line: str) -> str:
    operation, text, variables = pickle.loads(base64.b64decode(line))
    try:
        value = OPERATIONS[operation](text, variables)
        if isinstance(value, str) and len(value) > limited_process.MAX_TEXT:
            return encoded((LIMIT, limited_process.TEXT_LIMIT))
        return encoded((VALUE, value))
    except MemoryError:
        return encoded((LIMIT, limited_process.MEMORY_LIMIT))
    # templates call methods of the data, which may raise any error
    except Exception as error:
        return encoded((ERROR, message(error, variables)))


if __name__ == "__main__":
    limited_process.serve(_answer)
