"""Models stay open for the page until their weights change; what cannot be opened is one sentence."""

import threading
import time

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import hub.models
from data.access import Access
from hub import loaded as module
from hub.checkpoints import publish, save_checkpoint
from hub.loaded import loaded, model_choices

IDS = torch.tensor([[0, 1, 2]])


@pytest.fixture(autouse=True)
def nothing_open():
    module._models.clear()
    yield
    module._models.clear()


@pytest.fixture
def train():
    """Save a checkpoint of a tiny model, its weights drawn anew, and make it the run's own; returns the model."""

    def make(run, step: int):
        torch.manual_seed(step)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=4, n_embd=8, n_layer=1, n_head=1, n_positions=8)).eval()
        words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2, "d": 3}, unk_token="a"))

        def write(folder):
            model.save_pretrained(folder)
            PreTrainedTokenizerFast(tokenizer_object=words, unk_token="a").save_pretrained(folder)

        publish(run, save_checkpoint(run, step, write, lambda folder: None))
        return model

    return make


@torch.no_grad()
def same(model, other) -> bool:
    return torch.equal(model(IDS).logits, other(IDS).logits)


def test_a_model_stays_open_until_its_run_trains_on(run, train, workspace):
    access = Access(workspace)
    first = train(run, 1)
    model, tokenizer = loaded(run.id, access)
    assert same(model, first)
    assert not model.training
    assert tokenizer.decode([1]) == "b"
    assert loaded("latest", access)[0] is model  # another name of the same place
    second = train(run, 2)
    again, _ = loaded(run.id, access)
    assert same(again, second)
    assert not same(again, first)
    assert same(loaded(f"{run.id}@step-000001", access)[0], first)


def test_two_models_are_kept(make_run, train, workspace):
    access = Access(workspace)
    runs = [make_run(name) for name in ("one", "two", "three")]
    for run in runs:
        train(run, 1)
    one, two = (loaded(run.id, access)[0] for run in runs[:2])
    assert loaded("one", access)[0] is one
    loaded("three", access)  # the one that was asked for longest ago makes room: `two`
    assert len(module._models) == 2
    assert loaded("one", access)[0] is one
    assert loaded("two", access)[0] is not two


def test_two_callers_open_it_once(run, train, workspace, monkeypatch):
    train(run, 1)
    opened, real = [], hub.models.open_model

    def slow(*args, **kwargs):
        opened.append(args)
        time.sleep(0.2)
        return real(*args, **kwargs)

    monkeypatch.setattr(hub.models, "open_model", slow)
    results = []
    callers = [threading.Thread(target=lambda: results.append(loaded(run.id, Access(workspace)))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(opened) == 1
    assert len({id(model) for model, _ in results}) == 1 and len(results) == 4


@pytest.mark.parametrize(
    ("ref", "says"),
    [("", "nothing is chosen"), ("../../etc", "is not in the workspace"), ("/etc", "is not in the workspace"),
     ("nobody/nothing", "cannot be reached"), ("no-such-run", "no run 'no-such-run'"), ("x" * 999, "characters long")],
)  # fmt: skip
def test_what_cannot_be_opened_is_a_sentence(run, workspace, ref, says):
    with pytest.raises(ValueError, match=says) as error:
        loaded(ref, Access(workspace))
    assert "\n" not in str(error.value)


def test_spoilt_weights_are_a_sentence(run, train, workspace):
    train(run, 1)
    (run.path / "config.json").write_text('{"model_type": "gpt2", "vocab_size": 5, "n_embd": 12, "n_head": 1}')
    with pytest.raises(ValueError, match=run.id) as error:
        loaded(run.id, Access(workspace))
    assert "\n" not in str(error.value)


def test_a_link_does_not_lead_out_of_the_workspace(run, train, workspace, tmp_path):
    train(run, 1)
    outside = tmp_path / "outside-123456"
    run.path.rename(outside)
    run.path.symlink_to(outside)
    with pytest.raises(ValueError, match="is not in the workspace"):
        loaded(run.id, Access(workspace))
    loaded(run.id, Access(workspace, folders=(tmp_path,)))


def test_choices_are_runs_with_weights_newest_first(make_run, train, workspace):
    assert model_choices(workspace) == []
    old, empty, new, broken = (make_run(name) for name in ("old", "empty", "new", "broken"))
    for run in (old, new, broken):
        train(run, 1)
    old.update(created_at="2020-01-01T00:00:00.000+00:00", name="The old one")
    new.finish("completed", result={"val_loss": 1.23456})
    (broken.path / "run.json").write_text("{")
    assert model_choices(workspace) == [
        (f"new · {new.id} · loss 1.235", new.id),
        (f"The old one · {old.id}", old.id),
    ]
    assert empty.id not in str(model_choices(workspace))
