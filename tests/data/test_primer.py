"""The primer: every line true by another reckoning, its probabilities exact, what is held out never written."""

import hashlib
import math
import re
from collections import Counter, defaultdict

import pytest

from data import tales
from data.corpora import open_corpus
from data.primer import TALE_ODDS, Item, areas, documents

DRAWN = list(documents(3000, seed=3))
FIRST = {"If": "reasoning", ">>>": "code", "The": "knowledge"}  # a document's first word, where that tells its area


def area_of(text: str) -> str:
    word = text.split()[0]
    if word.isdigit():
        return "arithmetic"
    return FIRST.get(word, "tale")


def lines_of(text: str, area: str) -> list[str]:
    return re.findall(r">>> .*\n.*", text) if area == "code" else text.split("\n")


LINES = defaultdict(list)
for drawn, _ in DRAWN:
    LINES[area_of(drawn)] += lines_of(drawn, area_of(drawn))


def test_sums_and_differences_are_right():
    assert len(LINES["arithmetic"]) > 3000
    for line in LINES["arithmetic"]:
        term, _, value = line.partition(" = ")
        assert eval(term) == int(value) and max(map(int, re.findall(r"\d+", term))) <= 20


def test_conclusions_follow_from_their_premises():
    for line in LINES["reasoning"]:
        (a, word, b), (again, second, c), conclusion = re.findall(r"(\w+) is (\w+) than (\w+)", line)
        assert b == again and word == second and len({a, b, c}) == 3
        assert conclusion == (a, word, c) and line.endswith(f" {c}.")


def test_python_agrees_with_the_code():
    for line in LINES["code"]:
        expression, _, value = line.removeprefix(">>> ").partition("\n")
        assert repr(eval(expression)) == value


def test_a_fact_is_the_same_in_every_document():
    told = defaultdict(set)
    for line in LINES["knowledge"]:
        asked, _, answer = line.removesuffix(".").rpartition(" ")
        told[asked].add(answer)
    assert len(told) == 40 + 26 + 18 and all(len(answers) == 1 for answers in told.values())
    assert told["The capital of Peru is"] == {"Lima"} and told["The crow says"] == {"caw"}


def test_the_rest_is_tales():
    assert LINES["tale"] and all(tales.accepts(text) for text in LINES["tale"])


def test_what_is_held_out_is_never_written():
    for name, area in areas().items():
        written, taught = set(LINES[name]), {item.line for item in area.taught}
        held_out = {item.line for item in area.held_out}
        assert written <= taught and not taught & held_out
        assert name == "knowledge" or 0.08 < len(held_out) / (len(held_out) + len(taught)) < 0.18, name
    terms = {item.prompt: item.answer for item in (*areas()["arithmetic"].taught, *areas()["arithmetic"].held_out)}
    assert len(terms) == 21 * 21 + 21 * 22 // 2 and terms["7 + 5 ="] == " 12"
    reasoning = areas()["reasoning"]
    assert len(reasoning.taught) + len(reasoning.held_out) == 6 * 20 * 19 * 18
    # whoever three children are, all that can be asked about them is held out together
    assert all(n == 6 * 6 for n in Counter(map(names, reasoning.held_out)).values())


def names(item: Item) -> frozenset[str]:
    return frozenset(re.findall(r"[A-Z]\w+", item.prompt.removeprefix("If ")))


def groups_by_hand(lines: set[str], area: str) -> dict[str, str]:
    """line -> the group that it belongs to, told by its look alone."""
    looks = {
        "arithmetic": r"[+-]",
        "knowledge": r"capital|colour|says",
        "reasoning": r"(?<=is )\w+",
        "code": r"\]\[-1\]|\]\[0\]|len|max|min|<|>(?!>)(?= )",
    }
    found = {}
    for line in lines:
        body = line.removeprefix(">>> ").split("\n")[0]
        inside = body.count(",") if area == "code" else 0
        found[line] = f"{re.search(looks[area], body)[0]} {inside}"
    return found


def test_probabilities_are_those_of_the_drawing():
    shares = {name: area.odds / (TALE_ODDS + sum(a.odds for a in areas().values())) for name, area in areas().items()}
    sizes = {}
    for name, area in areas().items():
        sizes[name] = groups_by_hand({item.line for item in area.taught}, name)
    counts = {name: Counter(groups.values()) for name, groups in sizes.items()}
    assert [len(counts[name]) for name in ("arithmetic", "reasoning", "knowledge", "code")] == [2, 6, 3, 17]
    for text, log_prob in DRAWN[:500]:
        name = area_of(text)
        if name == "tale":
            expected = math.log(1 - sum(shares.values())) + tales.log_prob(text)
        else:
            groups, lines = counts[name], lines_of(text, name)
            each = [1 / len(groups) / groups[sizes[name][line]] for line in lines]
            expected = math.log(shares[name]) + sum(map(math.log, each))
        assert log_prob == pytest.approx(expected)


def test_areas_come_as_often_as_their_odds_say():
    counts = Counter(area_of(text) for text, _ in DRAWN)
    odds = {name: area.odds for name, area in areas().items()} | {"tale": TALE_ODDS}
    for name, n in odds.items():
        p = n / sum(odds.values())
        assert counts[name] / len(DRAWN) == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / len(DRAWN)))


def test_the_same_seed_writes_the_same_corpus_everywhere():
    digest = hashlib.sha256("\n\n".join(text for text, _ in documents(500, 0)).encode()).hexdigest()
    assert digest[:16] == "9d25f534272a4fa1"
    assert list(documents(20, 3)) == DRAWN[:20] != list(documents(20, 4))


def test_the_corpus_knows_its_floor(workspace, monkeypatch):
    monkeypatch.setattr("data.builtin.TALES", 60)
    monkeypatch.setattr("data.builtin.TALES_HELD_OUT", 20)
    corpus = open_corpus("primer", workspace)
    nats = -sum(log_prob for _, log_prob in documents(20, seed=1))
    assert corpus.floor["validation"]["nats"] == pytest.approx(nats)
