"""The grammar of the tales: unambiguous, its probabilities exact, its reader strict, its world complete."""

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from random import Random

import pytest

from data import tales_grammar
from data.tales import KINDS, NotATale, accepts, log_prob, tales
from data.tales_grammar import Choice, Reader, Roles, Telling, Template, Word, Writer
from data.tales_plots import ROLES, tell_tale

SAMPLE = list(tales(3000, seed=5))


class Explorer(Writer):
    """Tells the story that a list of decisions asks for, taking the first option where the list ends."""

    def __init__(self, roles: Roles, decisions: list[int]):
        super().__init__(roles, Random(0))
        self.decisions = decisions
        self.sizes: list[int] = []

    def _decide(self, options: Sequence[Template], odds: Sequence[int]) -> int:
        if len(self.sizes) == len(self.decisions):
            self.decisions.append(0)
        self.sizes.append(len(options))
        return self.decisions[len(self.sizes) - 1]


def every_story(grammar, roles: Roles) -> Iterator[tuple[str, float]]:
    """All derivations of a grammar, depth first, with the log-probability each was told with."""
    decisions: list[int] = []
    while True:
        story = Explorer(roles, decisions)
        grammar(story)
        yield "".join(story.texts), story.log_prob
        while decisions and decisions[-1] + 1 == story.sizes[len(decisions) - 1]:
            decisions.pop()
        if not decisions:
            return
        decisions[-1] += 1


@pytest.fixture
def small_world(monkeypatch) -> Roles:
    """The real plots over few words: each vocabulary as small as its roles allow, one phrasing of each [choice]."""
    full = tales_grammar.compile_template

    def first_phrase_only(template: str) -> Template:
        return tuple(Choice(part.options[:1]) if isinstance(part, Choice) else part for part in full(template))

    monkeypatch.setattr(tales_grammar, "compile_template", first_phrase_only)
    players = defaultdict(int)
    for words in ROLES.values():
        players[words] += 1
    # boys and girls alternate in the first three, so that pronouns matter
    children = ROLES["hero"]
    small = {words: words[: max(players[words], 1)] for words in players}
    small[children] = (children[0], children[10], children[1])
    small[ROLES["weather"]] = ROLES["weather"]
    return {role: small[words] for role, words in ROLES.items()}


def test_the_same_seed_writes_the_same_corpus_everywhere():
    text = "\n".join(tale.text for tale in tales(1000, seed=0))
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "3e5d22459cf4860b40da5e37f10f0a441ab05bc59e4c8d4c96607146b1bf3333"
    assert list(tales(10, seed=5)) == SAMPLE[:10]
    assert next(tales(1, seed=6)) != SAMPLE[0]


def test_the_reader_finds_the_probability_the_writer_used():
    assert len({tale.text for tale in SAMPLE}) == len(SAMPLE)
    for tale in SAMPLE:
        assert log_prob(tale.text) == tale.log_prob


def test_the_probability_of_one_story_by_hand():
    text = (
        "One windy day, Mia took a red kite to the park. The wind carried it away. Tom came by with a little dog. "
        '"What is wrong?" asked Tom. "I lost my red kite," said Mia. The dog ran off and found the red kite '
        'behind a tree. "Woof!" it said. Mia hugged the dog and held the red kite tight. They ran home '
        "from the park through the wind. A little friend can be a great help."
    )
    opening = 3 * 4 * 4 * 20 * 8  # phrasing, weather, time of day, hero, plot
    scene = 8 * 10 * 8 * (3 * 2) * 19 * 6 * 10  # colour, toy, place, two phrasings of the wind, friend, look, animal
    talk = 3 * 2 * 2 * 2 * 3  # question, answer, the animal finds it (odds 2 of 4), how, where
    end = 3 * 2 * 3 * 2  # hugged, tight, ran, moral
    assert log_prob(text) == pytest.approx(-math.log(opening * scene * talk * end), abs=1e-9)


def test_probabilities_of_a_small_world_sum_to_one(small_world):
    total, entropy, seen = 0.0, 0.0, set()
    for text, told in every_story(tell_tale, small_world):
        read = Reader(small_world, text).read(tell_tale)
        assert read == told, text
        seen.add(text)
        total += math.exp(read)
        entropy -= math.exp(read) * read
    assert len(seen) > 1000
    assert total == pytest.approx(1, abs=1e-9)  # a text with two derivations would be counted twice
    random = Random(1)
    sampled = []
    for _ in range(2000):
        writer = Writer(small_world, random)
        tell_tale(writer)
        assert "".join(writer.texts) in seen
        sampled.append(-writer.log_prob)
    mean = sum(sampled) / len(sampled)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in sampled) / len(sampled))
    assert mean == pytest.approx(entropy, abs=4 * deviation / math.sqrt(len(sampled)))


def test_phrasings_and_odds_sum_to_one_too():
    roles = {"who": (Word("name", "Ann"), Word("name", "Bob")), "whom": ()}
    roles["whom"] = roles["who"]

    def grammar(tell: Telling) -> None:
        tell("{who} [saw|did not see] {whom}.")
        if tell.choose(odds=(3, 1), gone="{whom} [ran|walked] off.", here="They {who}.") == "gone":
            tell("[Bye|So long], {whom}!")

    stories = dict(every_story(grammar, roles))
    assert len(stories) == 2 * 2 * (2 * 2 + 1)
    assert sum(map(math.exp, stories.values())) == pytest.approx(1)
    assert stories["Ann saw Bob. Bob ran off. Bye, Bob!"] == pytest.approx(math.log(1 / 4 * 3 / 4 * 1 / 4))
    assert all(Reader(roles, text).read(grammar) == told for text, told in stories.items())


def test_an_ambiguous_grammar_is_refused():
    with pytest.raises(AssertionError, match="cannot be told from its text"):
        Reader({}, "in and out").read(lambda tell: tell("[in|in and] out"))


@pytest.mark.parametrize(
    ("kind", "role"), [("name", "hero"), ("animal", "animal"), ("object", "toy"), ("place", "place")]
)
def test_a_word_that_does_not_agree_is_refused_and_named(kind, role):
    words = [str(word) for word in ROLES[role]]
    random, tried = Random(2), 0
    for tale in SAMPLE[:400]:
        found = list(re.finditer(rf"\b({'|'.join(words)})\b", tale.text))
        last = found[-1] if found else None
        if last and sum(match.group() == last.group() for match in found) > 1:  # it has been mentioned before
            swapped = random.choice([word for word in words if word != last.group()])
            with pytest.raises(NotATale) as caught:
                log_prob(tale.text[: last.start()] + swapped + tale.text[last.end() :])
            assert (caught.value.kind, caught.value.position) == (kind, last.start())
            tried += 1
    assert tried > 50


def test_a_pronoun_of_the_other_gender_is_refused_and_named():
    other = {"he": "she", "she": "he", "his": "her", "him": "her", "her": "his", "He": "She", "She": "He"}
    tried = 0
    for tale in SAMPLE[:400]:
        for match in re.finditer(rf"\b({'|'.join(other)})\b", tale.text):
            with pytest.raises(NotATale) as caught:
                log_prob(tale.text[: match.start()] + other[match.group()] + tale.text[match.end() :])
            assert (caught.value.kind, caught.value.position) == ("pronoun", match.start())
            tried += 1
    assert tried > 400


def test_reasons_name_the_word():
    text = (
        "One windy day, Mia and Tom found a red kite in the park. Tom took it and would not give it to Mia. "
        '"I saw it first," said Mia. "No!" said Tom. They pulled and pulled, and the red kite broke. '
    )
    cases = {
        text.replace('first," said Mia', 'first," said Tom'): ("name", "expected the name 'Mia', found 'Tom'"),
        text.replace("red kite broke", "red boat broke"): ("object", "expected the object 'kite', found 'boat'"),
        text.replace("Tom took", "Zoe took"): ("name", "expected one of Mia, Tom, found 'Zoe'"),
        text.replace("and would", "but would"): ("structure", "expected 'and', found 'but'"),
        text.replace("a red", "a grey"): ("detail", "expected one of black, blue, .*, found 'grey'"),
        text: ("ending", "the story stops too early"),
    }
    for wrong, (kind, reason) in cases.items():
        with pytest.raises(NotATale, match=reason) as caught:
            log_prob(wrong)
        assert caught.value.kind == kind in KINDS


def test_cut_and_lengthened_stories_are_refused():
    for tale in SAMPLE[:5]:
        for length in range(len(tale.text)):
            with pytest.raises(NotATale) as caught:
                log_prob(tale.text[:length])
            assert (caught.value.kind, caught.value.position) == ("ending", length)
        for wrong in (tale.text + " ", tale.text + "\n", tale.text + " " + tale.text, tale.text + " The end."):
            with pytest.raises(NotATale, match="end of the story"):
                log_prob(wrong)
        for wrong in (" " + tale.text, tale.text.replace(". ", ".  ", 1), tale.text.lower(), tale.text[1:]):
            assert not accepts(wrong)


def test_every_word_and_every_phrase_is_used():
    seen: dict[Sequence[Template], set[int]] = defaultdict(set)

    class Observer(Writer):
        def _decide(self, options: Sequence[Template], odds: Sequence[int]) -> int:
            chosen = super()._decide(options, odds)
            if isinstance(options, tuple):  # phrases and branches; words are checked below
                seen[options].add(chosen)
            return chosen

    random = Random(3)
    for _ in range(4000):
        tell_tale(Observer(ROLES, random))
    missing = [options[i] for options, chosen in seen.items() for i in range(len(options)) if i not in chosen]
    assert not missing
    corpus = " ".join(tale.text for tale in SAMPLE)
    for words in ROLES.values():
        for form in (form for word in words for form in word.forms.values()):
            assert re.search(rf"\b{form.text}\b", corpus), form


def test_stories_are_short_and_well_formed():
    for tale in SAMPLE:
        assert 60 <= len(re.findall(r"\w+|[^\w\s]", tale.text)) <= 126
        assert not re.search(r"\b[Aa] [aeiouAEIOU]", tale.text), "an article before a vowel"
        assert not re.search(
            r"  | [.,!?]|[{}\[\]|_]|[.!?] [a-z]", tale.text.replace('!" it', "").replace('?" asked', "")
        )
        assert tale.text.count('"') % 2 == 0
        assert tale.text[0].isupper() and tale.text.endswith(".")
