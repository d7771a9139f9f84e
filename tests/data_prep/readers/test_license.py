import pytest

from data_prep.readers.license import license_name
from data_prep.text.language_codes import medline_code


@pytest.mark.parametrize(
    ("statements", "name"),
    [
        (["http://creativecommons.org/licenses/by/4.0/"], "CC-BY-4.0"),
        (["https://creativecommons.org/licenses/by-nc-nd/3.0/us/"], "CC-BY-NC-ND-3.0"),
        (["https://creativecommons.org/publicdomain/zero/1.0/"], "CC0-1.0"),
        (["https://creativecommons.org/publicdomain/mark/1.0/"], "public-domain"),
        (
            [
                None,
                (
                    "This is distributed under the Creative Commons Attribution License"
                    " (http://creativecommons.org/licenses/by/2.0)"
                ),
            ],
            "CC-BY-2.0",
        ),
        (["Published under the terms of the CC BY 4.0 license."], "CC-BY-4.0"),
        (["CC-BY-NC 4.0"], "CC-BY-NC-4.0"),
        (["CCBYNCND"], "CC-BY-NC-ND"),  # Semantic Scholar's form
        (["a CC byline"], "other"),
        (
            ["the Creative Commons Attribution-NonCommercial-ShareAlike 3.0 Unported"],
            "CC-BY-NC-SA-3.0",
        ),
        (
            ["under the terms of the Creative Commons Attribution License, which permits use"],
            "CC-BY",
        ),
        (["Creative Commons CC0 public domain dedication"], "CC0-1.0"),
        (["This article is in the public domain."], "public-domain"),
        (["© 2020 Elsevier. All rights reserved."], "other"),
        (["", None], ""),
    ],
)
def test_names(statements, name):
    assert license_name(*statements) == name


def test_language_codes():
    assert [medline_code(code) for code in ("en", "EN-gb", "fr", "deu", "eng", "zh_CN", "xx")] == [
        "eng",
        "eng",
        "fre",
        "ger",
        "eng",
        "chi",
        "xx",
    ]
