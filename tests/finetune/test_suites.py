"""The suites: every question has one right answer, by another reckoning than the one that wrote it."""

import contextlib
import io
import re

import pytest

from data.primer import areas
from data.tales import accepts
from finetune.suites import LEVELS, SUITES, drawn, of_level
from finetune.suites_general import EXPRESSIONS, FACTS, SUMS, SYLLOGISMS

EXACT = [name for name, suite in SUITES.items() if suite.kind == "exact"]


def test_there_are_five_and_each_has_both_levels():
    assert list(SUITES) == ["arithmetic", "reasoning", "knowledge", "code", "text"] and len(EXACT) == 4
    for level in LEVELS:
        for name in EXACT:
            items = of_level(level, name)
            assert len({item.prompt for item in items}) == len(items) >= 24, (level, name)
            assert all(item.answer and item.answer == item.answer.strip() for item in items)
    assert all(accepts(text) for text in of_level("primer", "text"))
    assert len(set(of_level("general", "text"))) >= 24


@pytest.mark.parametrize("name", ["arithmetic", "reasoning", "code"])
def test_half_of_the_primers_questions_were_never_written(name):
    area = areas()[name]
    taught, held_out = ({item.prompt for item in items} for items in (area.taught, area.held_out))
    prompts = [item.prompt for item in of_level("primer", name)]
    assert len(prompts) == 100
    assert sum(prompt in held_out for prompt in prompts) == sum(prompt in taught for prompt in prompts) == 50


def test_all_facts_are_asked():
    items = of_level("primer", "knowledge")
    assert {(item.prompt, item.answer) for item in items} == {
        (item.prompt, item.answer.strip()) for item in areas()["knowledge"].taught
    }


def test_general_sums_are_right_and_of_two_digits():
    for term, answer in SUMS.items():
        assert eval(term) == int(answer) and re.fullmatch(r"\d\d [+-] \d\d", term)


def test_python_prints_what_the_suite_says():
    for expression, answer in EXPRESSIONS.items():
        with contextlib.redirect_stdout(io.StringIO()) as out:
            print(eval(expression))
        assert out.getvalue().strip() == answer, expression


def test_yes_is_not_always_right():
    answers = [answer for question, answer in SYLLOGISMS.items() if question.endswith("Yes or no?")]
    assert set(answers) == {"Yes", "No"} and answers.count("No") >= 4
    assert all(question.endswith(("?", ".")) for question in (*SYLLOGISMS, *FACTS))


def test_a_message_asks_what_the_prompt_asks():
    for name in EXACT:
        for item in of_level("general", name):
            assert item.message in item.prompt and item.prompt.endswith("\nAnswer:")
        assert all(item.message == item.prompt for item in of_level("primer", name))


def test_a_sample_is_drawn_by_its_seed():
    items = tuple(range(50))
    assert drawn(items, 10, 1) == drawn(items, 20, 1)[:10] != drawn(items, 10, 2)
    assert sorted(drawn(items, 99)) == list(items)


def test_what_there_is_not_is_one_sentence():
    with pytest.raises(ValueError, match=r"no level 'genral'.*did you mean 'general'"):
        of_level("genral", "code")
    with pytest.raises(ValueError, match=r"no suite 'cod'.*did you mean 'code'"):
        of_level("primer", "cod")
