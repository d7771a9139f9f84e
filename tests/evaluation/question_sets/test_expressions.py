import pytest

from evaluation.question_sets import expressions
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
    with pytest.raises(ExpressionError, match=r"^MemoryError$"):
        expressions.evaluate("{{ 'a' * n }}", {"n": 2**62})
