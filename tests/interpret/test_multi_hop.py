"""The multi-hop example: texts that are true, a judge that knows right from wrong, and what an exchange must do."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from interpret import multi_hop, multi_hop_cli
from interpret.multi_hop import LANDS, PEOPLE, PLACES, TOWNS, World, accuracy, exchanged, rows_of, towns_unsaid, train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def world():
    return World.draw(0)


def test_every_text_is_true_and_only_its_last_word_is_scored(world):
    spelt, kinds = multi_hop.tokenizer(), set()
    ids, labels = rows_of(world, np.random.default_rng(1), 300)
    for row, scored in zip(ids, labels, strict=True):
        words = spelt.convert_ids_to_tokens(row)
        end = 4 if words[2:4] == ["town", "land"] else 3
        assert scored.tolist() == [-100] * end + [int(row[end])] + [-100] * (4 - end)
        number, answer = int(words[1][1:]), int(words[end][1:])
        if end == 4:
            assert not world.held_out[number] and answer == world.land_of[world.town_of[number]]
        else:
            assert answer == (world.town_of if words[2] == "town" else world.land_of)[number]
        kinds.add((words[1][0], *words[2:end]))
    assert kinds == {("p", "town"), ("t", "land"), ("p", "town", "land")}
    assert np.bincount(world.town_of).tolist() == [PEOPLE // TOWNS] * TOWNS
    assert np.bincount(world.land_of).tolist() == [TOWNS // LANDS] * LANDS


def test_the_judge_knows_right_from_wrong(world):
    def answers(ids):
        """Knows every town, and of the lands those of people it was asked about."""
        logits = torch.zeros(*ids.shape, 3 + PEOPLE + TOWNS + LANDS)
        people = ids[:, 1].numpy() - 3
        lives = world.town_of[people]
        told = np.where(world.held_out[people], (world.land_of[lives] + 1) % LANDS, world.land_of[lives])
        says = multi_hop.land(told) if ids.shape[1] == 4 else multi_hop.town(lives)
        logits[np.arange(len(ids)), -1, says] = 1
        return SimpleNamespace(logits=logits)

    right = accuracy(answers, world)
    assert right == {"one step": 1, "two steps, asked so": 1, "two steps, never asked": 0}


@pytest.mark.parametrize("place", PLACES)
def test_labels_are_the_towns_and_stand_at_the_word(world, place):
    labelled = towns_unsaid(world, place)
    assert len(labelled.examples) == PEOPLE and len(labelled.labels) == TOWNS
    example = labelled.examples[17]
    assert example.label == f"t{world.town_of[17]:03d}"
    assert example.text[example.start : example.end] == ("p017" if place == "person" else place)


def test_the_last_words_stream_behind_the_last_layer_is_the_answer(world):
    """Whatever a model answers there, an exchange at that word makes it answer as for the other person."""
    model = train(world, seed=0, steps=150).model
    shares = exchanged(model, world, seed=0)
    assert shares.shape == (3, len(PLACES))
    assert (shares[-1, :2] <= shares[-1, 2]).all()
    held = np.flatnonzero(world.held_out)
    ids = multi_hop.questions(held)
    with torch.no_grad():
        right = (
            model(ids).logits[:, -1].argmax(-1).numpy() == multi_hop.land(world.land_of[world.town_of[held]])
        ).mean()
    assert shares[-1, 2] == pytest.approx(right, abs=0.1)  # the same but for who is exchanged with whom


def test_the_command_trains_draws_and_tells(tmp_path, capsys):
    assert multi_hop_cli.main(["--steps", "2", "--out", str(tmp_path / "hop.png"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["probes"]) == set(PLACES) and np.array(found["exchanged"]).shape == (3, 3)
    assert (tmp_path / "hop.png").stat().st_size > 1000
    assert np.load(tmp_path / "hop.npz")["real_accuracy"].shape == (3, 4)
