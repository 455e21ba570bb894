"""The stories that are asked for: each answered as asked, and the judge of an answer strict about words and endings."""

import hashlib
import json
from itertools import islice

import pytest

from data.tales import accepts
from finetune.stories import examples, fulfils, wishes

SAMPLE = list(examples(400, seed=2))
EXCHANGES = [
    (one["messages"][i]["content"], one["messages"][i + 1]["content"])
    for one in SAMPLE
    for i in range(0, len(one["messages"]), 2)
]


def test_turns_alternate_and_a_part_of_them_asks_twice():
    roles = [[message["role"] for message in one["messages"]] for one in SAMPLE]
    assert {tuple(one) for one in roles} == {("user", "assistant"), ("user", "assistant") * 2}
    twice = sum(len(one) == 4 for one in roles) / len(roles)
    assert twice == pytest.approx(0.2, abs=4 * (0.2 * 0.8 / len(roles)) ** 0.5)


def test_every_answer_is_a_story_with_all_that_was_wished_for():
    for request, answer in EXCHANGES:
        wished = wishes(request)
        assert 1 <= len(wished) <= 4 and accepts(answer)
        assert all(word in answer for word in wished)
        assert fulfils(request, answer)


def test_requests_say_what_a_person_would():
    requests = [request for request, _ in EXCHANGES]
    assert all(request[0].isupper() and request.endswith(".") and "{" not in request for request in requests)
    starts = {request.partition(" about ")[0] for request in requests}
    assert starts == {
        "Tell me a story", "Please tell me a story", "I would like a story",
        "Another one, please,", "Now tell me one", "And one",
    }  # fmt: skip
    for kind in (" in the ", " at the ", " by the ", " some ", ", a "):
        assert any(kind in request for request in requests), kind


def test_wishes_are_read_from_any_wording():
    assert wishes("Now one about Mia, a kite and some pie in the park, please!") == {"Mia", "kite", "pie", "park"}
    assert wishes("Tell me something.") == set()


def test_an_answer_is_judged_to_the_word():
    request, answer = next((r, a) for r, a in EXCHANGES if "Mia" not in a and len(wishes(r)) == 3)
    assert fulfils(request, answer)
    assert not fulfils(f"{request} And Mia.", answer)  # a wish that the story leaves out
    assert not fulfils(request, answer[:-1]) and not fulfils(request, f"{answer} The end.")
    assert not fulfils(request, " ".join(sorted(wishes(request))))  # all words, and no story


def test_other_requests_are_seldom_fulfilled_by_chance():
    chance = [fulfils(EXCHANGES[i][0], EXCHANGES[i - 1][1]) for i in range(1, len(EXCHANGES))]
    assert sum(chance) / len(chance) < 0.02


def test_the_same_seed_asks_the_same_everywhere():
    assert list(islice(examples(10**6, 2), 20)) == SAMPLE[:20] != list(examples(20, 3))
    digest = hashlib.sha256(json.dumps(list(examples(200, 0))).encode()).hexdigest()
    assert digest[:16] == "b41639a671f425de"
