"""Pieces of a page: whatever they are given comes out as text, never as tags."""

from html.parser import HTMLParser

import pytest

from page.html import Markup, badge, code, escape, facts, note, progress, table
from page.tokens import coloured_tokens, shade, shaded_tokens, visible

HOSTILE = "<script>alert('x')</script>\"&"


class Tags(HTMLParser):
    """What a browser would find."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.data = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.data.append(data)


@pytest.mark.parametrize(
    "markup",
    [
        badge(HOSTILE),
        facts([("name", HOSTILE)]),
        table([HOSTILE], [[HOSTILE]], caption=HOSTILE),
        note(HOSTILE, "error"),
        code(HOSTILE),
        progress(0.5, HOSTILE),
        coloured_tokens([HOSTILE], [HOSTILE]),
        shaded_tokens([(HOSTILE, 0.5, HOSTILE)]),
    ],
)
def test_nothing_given_becomes_a_tag(markup):
    found = Tags(markup)
    assert "script" not in [tag for tag, _ in found.tags]
    assert HOSTILE in "".join(found.data)


def test_markup_is_not_escaped_twice():
    assert escape(escape("<b>")) == "&lt;b&gt;"
    assert escape(Markup("<b>x</b>")) == "<b>x</b>"


def test_facts_leave_out_what_is_not_known():
    assert Tags(facts([("a", None), ("b", ""), ("c", 0)])).data == ["c", "0"]


def test_numbers_stand_to_the_right():
    cells = [
        attributes.get("class")
        for tag, attributes in Tags(table(["a", "b"], [["x", 1]], numbers=1)).tags
        if tag == "td"
    ]
    assert cells == [None, "number"]


def test_progress_stays_within_its_bar():
    (bar,) = [
        attributes for tag, attributes in Tags(progress(7.0, "done")).tags if attributes.get("role") == "progressbar"
    ]
    assert bar["aria-valuenow"] == "100"


def test_shades_deepen_as_tokens_surprise():
    assert [shade(p) for p in (1.0, 0.5, 0.3, 0.1, 0.03, 0.01, 0.001)] == [0, 0, 1, 2, 3, 4, 5]


def test_line_ends_can_be_seen():
    assert visible("a\n\tb") == "a⏎\n⇥\tb"
