"""Tests of dltoolkit.strict_json."""

import pytest

from dltoolkit import strict_json


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("1" * 10_000, "a number of 10,000 digits"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' twice"),
        ('{"a": NaN}', "NaN"),
        ("[-Infinity]", "-Infinity"),
        ("[1e999]", "too large"),
        ('{"a"', "at character 5 of line 1"),
        ("", "Expecting value"),
    ],
)
def test_names_what_is_wrong(text, reason):
    with pytest.raises(strict_json.InvalidJSON, match=reason):
        strict_json.loads(text)


def test_reads_valid_json_like_the_json_module():
    assert strict_json.loads('{"a": [1, 2.5, null, true, "ü"]}') == {"a": [1, 2.5, None, True, "ü"]}
    assert strict_json.loads('{"a": NaN}', nan=True)["a"] != 0
    assert strict_json.loads("[1e999]", nan=True) == [float("inf")]


def test_tells_a_second_value_from_a_damaged_one():
    with pytest.raises(strict_json.InvalidJSON) as error:
        strict_json.loads('{"a": 1}\n{"a": 2}')
    assert error.value.has_more
    with pytest.raises(strict_json.InvalidJSON) as error:
        strict_json.loads('{"a": 1')
    assert not error.value.has_more
