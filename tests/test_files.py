"""Names of files in messages and in commands to type."""

import os
import shlex
from contextlib import suppress

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_exp.cli import quote_paths
from fer_exp.files import csv_cell, expand_path, markdown_text, printable, quote_override, replacing


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train/angry/1.jpg", "train/angry/1.jpg"),
        (' a "quoted" name\'s blanks ', ' a "quoted" name\'s blanks '),
        ("Grüße 表情 😀.jpg", "Grüße 表情 😀.jpg"),
        ("two\nlines\r.jpg", "two\\nlines\\r.jpg"),
        ("page\u2028end\x85\x1b[31m.jpg", "page\\u2028end\\x85\\x1b[31m.jpg"),
        (os.fsdecode(b"\xff\xfe.jpg"), "\\xff\\xfe.jpg"),
        ("half \ud83d.jpg", "half \\ud83d.jpg"),
    ],
)
def test_control_characters_and_bytes_that_are_not_text_are_escaped(name, text):
    assert printable(name) == text


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.text() | st.binary().map(os.fsdecode))
def test_any_name_becomes_one_line_of_utf_8(name):
    for text in (printable(name), csv_cell(name), markdown_text(name)):
        text.encode()
        assert len(f"{text}.".splitlines()) == 1


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_a_cell_is_not_a_formula(text):
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize(
    "path",
    ["/data/faces", "faces (1)", "/home/rené/été", "a,b", "x=y", "it's", "[1] {2}", "$HOME `x`", 'a "q"', "b\\s", "#~"],
)
def test_a_printed_command_sets_the_path(path):
    words = shlex.split(f"python -m fer_exp.train {quote_override('data.root', path)} seed=1")
    assert len(words) == 5
    (override,) = OverridesParser.create().parse_overrides(quote_paths([words[3]]))
    assert (override.key_or_group, override.value()) == ("data.root", path)


def test_paths_start_at_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert str(expand_path("~/faces")) == "/home/me/faces"
    assert str(expand_path("~nobody-of-this-name/faces")) == "~nobody-of-this-name/faces"
    assert str(expand_path(2013)) == "2013"


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with suppress(RuntimeError), replacing(path) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file", "old")]
    with replacing(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file", "new")]
