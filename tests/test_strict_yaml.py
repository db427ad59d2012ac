"""YAML that could mean more than it shows is refused."""

from __future__ import annotations

import pytest
import yaml

from perpixel.strict_yaml import load_strict_yaml


def test_load_strict_yaml_reads_plain_values() -> None:
    assert load_strict_yaml("names: [a, b]\nstored: {7: a, 8: b}\n") == {
        "names": ["a", "b"],
        "stored": {7: "a", 8: "b"},
    }
    assert load_strict_yaml("") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x\n", r"the alias \*x is not read here"),
        ("a: &x {k: 1}\nb:\n  <<: [*x, *x]\n", r"the alias \*x"),
        ("a: 1\na: 2\n", "the key 'a' stands twice"),
        ("b: {c: 1, c: 2}\n", "the key 'c' stands twice"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("[" * 5000, "cannot be read: maximum recursion"),
        ("a: 2001-99-99", "cannot be read: month must be in"),
        ("a: [1", "expected"),
    ],
)
def test_load_strict_yaml_refuses_what_means_more_than_it_shows(text: str, message: str) -> None:
    with pytest.raises(yaml.YAMLError, match=message):
        load_strict_yaml(text)
