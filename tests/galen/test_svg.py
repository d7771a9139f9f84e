import re

from matplotlib.figure import Figure

from galen import svg


def drawn():
    with svg.style():
        figure = Figure(figsize=(4, 2))
        figure.subplots().plot([1, 2], [3, 4])
        figure.suptitle("a <b> costs $5 and $6")
        return svg.render(figure, "loss of a")


def test_the_same_figure_gives_the_same_element_with_text_as_text():
    text = drawn()
    assert text.startswith("<svg") and text.rstrip().endswith("</svg>")
    assert "a &lt;b&gt; costs $5 and $6" in text and "<metadata>" not in text
    assert text == drawn()


def test_ids_are_unique_and_colors_are_replaced():
    text = drawn()
    assert set(re.findall(r'id="(.{9})', text)) == {"loss-of-a"}
    assert all(target.startswith("loss-of-a-") for target in re.findall(r"url\(#([^)]*)", text))
    assert "var(--ink)" in text and "#010101" not in text
    assert " width=" not in text[: text.index(">")]
