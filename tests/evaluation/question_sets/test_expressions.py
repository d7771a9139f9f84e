import datetime

import pytest

from evaluation.question_sets import expression_worker, expressions
from evaluation.question_sets.expressions import ExpressionError


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ x.append(1) }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{% for n in range(10**9) %}{% endfor %}",
    ],
)
def test_templates_run_in_a_sandbox(template):
    with pytest.raises(ExpressionError, match=r"unsafe|sandbox"):
        expressions.evaluate(template, {"x": [1]})


def test_a_single_expression_has_its_value():
    assert expressions.evaluate(" {{ x }} ", {"x": [1]}) == [1]
    assert expressions.evaluate("{{ x }}{{ x }}", {"x": 1}) == "11"
    assert expressions.render("{{ x }}\n", {"x": "a"}) == "a\n"
    with pytest.raises(ExpressionError, match=r"'y' is undefined; defined: x$"):
        expressions.evaluate("{{ y }}", {"x": 1})


def test_nesting_without_end_is_no_valid_template():
    deep = "(" * 3000 + "1" + ")" * 3000
    with pytest.raises(ValueError, match="not a valid template: maximum recursion depth"):
        expressions.check_template(f"{{{{ {deep} }}}}")


def test_an_error_without_a_text_is_named():
    assert expression_worker.message(KeyError(), {}) == "KeyError"


ATTACKS = {
    "{{ 'a' * n }}": "needs more than 1 GiB of memory",
    "{{ 'a' * 10 ** 10 }}": "needs more than 1 GiB of memory",
    "{{ 'a' | center(10 ** 10) }}": "needs more than 1 GiB of memory",
    "{{ x }}{{ 'a' * 10 ** 8 }}": "needs more than 16,777,216 characters",
    "{% set ns = namespace(s='a') %}"
    "{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}": "1 GiB of memory",
    "{{ x | map('upper') }}": "cannot pickle 'generator' object",
    "{{ cycler }}": r"no plain value, but jinja2\.utils\.Cycler",
}


@pytest.mark.parametrize("template", ATTACKS)
def test_templates_have_limits(template):
    """A task file of a stranger neither hangs nor fills the memory."""
    with pytest.raises(ExpressionError, match=ATTACKS[template]):
        expressions.evaluate(template, {"x": [1], "n": 2**62})
    assert expressions.render("{{ x }}!", {"x": 1}) == "1!"


@pytest.mark.slow
def test_templates_have_a_time_limit():
    """Constants are computed when a template is checked, since Jinja compiles it then."""
    with pytest.raises(ValueError, match=r"not a valid template: the template needs more than 5 s"):
        expressions.check_template("{{ 10 ** (10 ** 10) }}")


def test_names_alone_have_their_value():
    values = {"x": [1], "true": 2}
    assert expressions.evaluate("{{ x }}", values) is values["x"]
    assert expressions.evaluate("{{ true }}", values) is True
    day = datetime.date(2024, 7, 26)
    assert expressions.evaluate("{{ [doc.day, (1.5, none)] }}", {"doc": {"day": day}}) == [
        day,
        (1.5, None),
    ]
