"""Whatever a file is called, its name is told in one line that can be written anywhere."""

import os
import shlex
from html import escape

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fer_exp.files import csv_cell, markdown_text, printable, quote_override


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("train/angry/1.jpg", "train/angry/1.jpg"),
        (' a "quoted" name\'s blanks ', ' a "quoted" name\'s blanks '),
        ("Grüße 表情 😀.jpg", "Grüße 表情 😀.jpg"),
        ("full\u3000width.jpg", "full\u3000width.jpg"),
        ("two\nlines\r.jpg", "two\\nlines\\r.jpg"),
        ("page\u2028end\x85\x1b[31m.jpg", "page\\u2028end\\x85\\x1b[31m.jpg"),
        (os.fsdecode(b"\xff\xfe.jpg"), "\\xff\\xfe.jpg"),
        ("half \ud83d.jpg", "half \\ud83d.jpg"),
        (b"\\".decode(), "\\"),
    ],
)
def test_what_breaks_a_line_or_is_no_text_is_told_by_its_code(name, told):
    assert printable(name) == told


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.text() | st.binary().map(os.fsdecode))
def test_any_name_becomes_one_line_of_utf_8(name):
    told = printable(name)
    told.encode()
    assert len(f"{told}.".splitlines()) == 1


PLACES = [
    "/data/faces",
    "faces (1)",
    "/home/rené/été",
    "a,b",
    "x=y",
    "it's",
    "[1] {2}",
    "$HOME `x`",
    'a "q"',
    "b\\s",
    "#~",
]


@pytest.mark.parametrize("path", PLACES)
def test_a_path_that_is_typed_as_it_is_told_arrives(path):
    words = shlex.split(f"python -m fer_exp.train {quote_override('data.root', path)} seed=1")
    assert len(words) == 5
    (override,) = OverridesParser.create().parse_overrides([words[3]])
    assert override.key_or_group == "data.root"
    assert override.value() == path


@pytest.mark.parametrize("text", ["=1+1", "+1", "-x.jpg", "@a"])
def test_csv_cells_are_no_formulas(text):
    assert csv_cell(text) == "'" + text
    assert csv_cell("a=b\n") == "a=b\\n"


@pytest.mark.parametrize("text", ["[x](javascript:alert(1))", "_x_ *y* `z`", "a|b", "<b>c</b>", "~~d~~", "\\e\\"])
def test_markdown_shows_text_as_it_is(text):
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown_text(text))
    assert html == f"<p>{escape(text, quote=False)}</p>\n"
