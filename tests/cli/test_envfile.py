"""`.env` files, read and written."""

from __future__ import annotations

import pytest

from mini_core.client.envfile import parse_env, render_env
from mini_core.errors import ConfigError


def test_the_usual_forms_are_read():
    text = """
# a comment
PLAIN=value
export EXPORTED=1
QUOTED="two words # no comment"
SINGLE='$NOT expanded'
EMPTY=
SPACED = x
TRAILING=x # a comment
LINES="one
two"
ESCAPED="a\\nb"
URL=postgres://u:p@h/db?a=b
PORT=3000
"""
    assert parse_env(text, ".env") == {
        "PLAIN": "value",
        "EXPORTED": "1",
        "QUOTED": "two words # no comment",
        "SINGLE": "$NOT expanded",
        "EMPTY": "",
        "SPACED": "x",
        "TRAILING": "x",
        "LINES": "one\ntwo",
        "ESCAPED": "a\nb",
        "URL": "postgres://u:p@h/db?a=b",
        "PORT": "3000",
    }


@pytest.mark.parametrize(
    "value", ["", "x", "two words", "a'b", 'a"b', "a\\b", "a\nb", "$x `y`", "ü☃", "'\"\\", "#", " x ", "a\r\nb"]
)
def test_what_is_written_is_read_back(value: str):
    assert parse_env(render_env({"KEY": value}), "x") == {"KEY": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A=1\nMIIEvQIBADANBgkq\n", r"^f:2: expected KEY=VALUE$"),
        ("KEY\n", r"^f:1: expected KEY=VALUE"),
        ('A=1\nexport B="s3cret\nC=2\n', r"^f:2: the quote does not end$"),
        ("A-B=1\n", r"^f: 'A-B' cannot be the name of a variable$"),
        ('{"a": [1]}', r"^f: a: expected a string$"),
        ('{"a": ', r"^f: not JSON"),
    ],
)
def test_what_is_wrong_is_named_without_its_value(text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        parse_env(text, "f")


def test_a_secret_on_a_broken_line_is_not_shown():
    with pytest.raises(ConfigError) as caught:
        parse_env("KEY WITH SPACE=s3cret\n", "f")
    assert "s3cret" not in str(caught.value)
