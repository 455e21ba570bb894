"""Words by script and a tokenizer's measures, against counts made one character and one token at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.tokenizer import Tokenizer, open_tokenizer
from data.tokenizer_kinds import KINDS, train_tokenizer
from data.tokenizer_measures import LONGEST_ENTRIES, compare_on, compare_two, round_trip, shortened
from data.tokenizer_options import Options
from data.tokenizer_report import Vocabulary, cut
from data.tokenizer_words import by_script, most_different, script_of, tokens_of, whole_words, words_of

TRAINING = ['The fox said: "I don\'t know" 3,141 times.\n', "naïve café\r\n\tand  more", "你好, мир! 🦊"] * 9


@pytest.fixture(scope="module")
def vocabularies() -> dict[str, Vocabulary]:
    return {kind: Vocabulary(Tokenizer(train_tokenizer(kind, TRAINING, 300), kind, None, "")) for kind in KINDS}


def naive_runs(texts: list[str]) -> list[tuple[str, str]]:
    """(script, text) of each run, a character at a time."""
    runs = []
    for text in texts:
        open_ = ""  # the script of the run that goes on
        for character in text:
            script = script_of(character)
            if script is None:
                script = open_ or "signs"
            if script and script == open_:
                runs[-1] = (script, runs[-1][1] + character)
            elif script:
                runs.append((script, character))
            open_ = script
    return runs


def test_scripts_are_those_of_unicode():
    expected = {
        "a": "Latin", "é": "Latin", "я": "Cyrillic", "ß": "Latin", "你": "Han", "ひ": "Hiragana", "カ": "Katakana",
        "ก": "Thai", "ק": "Hebrew", "α": "Greek", "7": "numbers", "٣": "numbers", "½": "numbers", "!": "signs",
        "🦊": "signs", "_": "signs", " ": "", "\n": "", "\u0301": None,
    }  # fmt: skip
    assert {character: script_of(character) for character in expected} == expected


def test_words_by_hand():
    words = words_of(["It's naïve: мир123你好", "e\u0301 \u0301x"])
    found = [(words.names[script], words.text(i)) for i, script in enumerate(words.scripts.tolist())]
    assert found == [
        ("Latin", "It"), ("signs", "'"), ("Latin", "s"), ("Latin", "naïve"), ("signs", ":"), ("Cyrillic", "мир"),
        ("numbers", "123"), ("Han", "你好"), ("Latin", "e\u0301"), ("signs", "\u0301"), ("Latin", "x"),
    ]  # fmt: skip


@given(texts=st.lists(st.text(alphabet="aé я你7٣!\u0301 \n🦊", max_size=12), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_words_are_the_runs_of_a_naive_walk(texts):
    words = words_of(texts)
    found = [(words.names[script], words.text(i)) for i, script in enumerate(words.scripts.tolist())]
    assert found == naive_runs(texts)


def naive_tokens(vocabulary: Vocabulary, texts: list[str]) -> list[int]:
    """Tokens that begin in each run, from the bytes of the tokens themselves."""
    counts = []
    for text in texts:
        owner, bounds, run = [], [], -1  # of each byte: its run, or None for white space
        for _, piece in naive_runs([text]):
            bounds.append(text.index(piece, bounds[-1][1] if bounds else 0))
            bounds[-1] = (bounds[-1], bounds[-1] + len(piece))
        for place, character in enumerate(text):
            run = next((i for i, (begin, end) in enumerate(bounds) if begin <= place < end), None)
            owner += [run] * len(character.encode())
        here, at = [0] * len(bounds), 0
        for token in cut(vocabulary, text).tokens if text else []:
            inside = [one for one in owner[at : at + len(token.data)] if one is not None]
            if inside:
                here[inside[0]] += 1
            at += len(token.data)
        counts += here
    return counts


@pytest.mark.parametrize("kind", KINDS)
@given(texts=st.lists(st.text(alphabet="thefoxs'né я你73!\u0301 \n🦊", max_size=16), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_every_token_begins_in_one_word(vocabularies, kind, texts):
    words = words_of(texts)
    assert tokens_of(vocabularies[kind], texts, words).tolist() == naive_tokens(vocabularies[kind], texts)


def test_fertility_by_hand(vocabularies):
    texts = ["cab я 12", "б"]  # characters are tokens; of the Cyrillic letters the training text has neither
    words = words_of(texts)
    tokens = tokens_of(vocabularies["char"], texts, words)
    assert tokens.tolist() == [3, 2, 2, 2]
    scripts = by_script(words, tokens)
    assert scripts["Latin"] == {
        "words": 1, "characters": 3, "tokens": 3, "tokens_per_word": 3, "characters_per_token": 1, "whole": 0
    }  # fmt: skip
    assert (scripts["Cyrillic"]["words"], scripts["Cyrillic"]["tokens_per_word"]) == (2, 2)
    assert scripts["numbers"]["tokens_per_word"] == 2 and whole_words(words, tokens) == 0
    assert list(scripts) == ["Cyrillic", "Latin", "numbers"]  # most words first
    assert whole_words(words, np.array([1, 1, 9, 2])) == pytest.approx(2 / 3)


def test_coverage_by_hand(vocabularies):
    row = compare_on(vocabularies["char"], ["foxж", "ш n"])
    # f o x, a space and n are entries; each of two Cyrillic letters is spelled by two bytes
    assert row["coverage"] == {"characters": pytest.approx(5 / 7), "words": pytest.approx(1 / 4)}
    assert (row["unknown_share"], row["byte_share"]) == (0, pytest.approx(4 / 9))


def test_words_that_differ_most_by_hand():
    words = words_of(["one two two three one"])
    longer = most_different(words, np.array([1, 3, 3, 1, 1]), np.array([2, 1, 1, 1, 1]))
    assert longer == (
        [{"word": "two", "times": 2, "tokens": 6, "other_tokens": 2}],
        [{"word": "one", "times": 2, "tokens": 3, "other_tokens": 2}],
    )


def test_two_tokenizers_on_the_same_text(vocabularies):
    text = "the fox 3141 the fox"
    rows = compare_two(vocabularies["char"], vocabularies["bpe"], [text])
    assert [row["tokens"] for row in rows] == [20, len(cut(vocabularies["bpe"], text).tokens)]
    assert rows[0]["longer_words"][0]["tokens"] > rows[0]["longer_words"][0]["other_tokens"]
    assert rows[1]["longer_words"] == []
    assert rows[0]["scripts"]["Latin"]["words"] == 4 and rows[0]["scripts"]["numbers"]["words"] == 1


def test_a_report_says_what_the_texts_say(corpus, workspace):
    record = open_tokenizer("bpe", corpus, 300, workspace)
    report, vocabulary = record.report, Vocabulary(record)
    row = compare_on(vocabulary, corpus.texts("validation"))
    for name in ("bytes_per_token", "tokens_per_word", "coverage", "scripts", "unknown_share", "byte_share"):
        assert report[name] == row[name], name
    assert report["special_found"] == {} and not report["loses_information"]
    assert report["round_trip"]["changed"] == 0
    entries = [entry for entry in vocabulary.entries.values() if not entry.reserved and not entry.spells_bytes]
    lengths = sorted((len(entry.text) for entry in entries), reverse=True)[:LONGEST_ENTRIES]
    assert [one["characters"] for one in report["longest_entries"]] == lengths
    used = [i for text in corpus.texts("train") for i in vocabulary.encoder.encode(text)]
    assert [one["times"] for one in report["longest_entries"]] == [
        used.count(one["id"]) for one in report["longest_entries"]
    ]


def test_a_round_trip_that_fails_is_seen():
    lossy = train_tokenizer("bpe", TRAINING, 300, Options(normalization="lowercase"))
    found = round_trip(Tokenizer(lossy, "made", None, ""), ["ab", "Ab", "é"])
    assert found == {"texts": 3, "characters": 5, "changed": 1}


def test_a_sample_is_spread_over_the_texts():
    assert shortened([str(i) for i in range(10)], 5) == ["0", "2", "4", "6", "8"]
    assert shortened(["abcdef"], 4) == ["abcd"] and shortened([], 4) == []
