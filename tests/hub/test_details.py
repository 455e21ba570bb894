"""One run's details: what the record and the folder say, and what changed since the last look."""

import pytest
from tokenizers import Tokenizer, models
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from data.workspace import write_json
from hub import details, live
from hub.checkpoints import best, prune_states, publish
from hub.metrics import Metrics, append_sample


def measure(run, losses: dict[int, float | None]) -> None:
    metrics = Metrics(run.path)
    for step, loss in losses.items():
        metrics.add(step, train_loss=step / 10, val_loss=loss)
    metrics.close()


def kept(run):
    return details.kept(run, run.info(), live.read(run.path))


def test_checkpoints_with_their_losses_sizes_and_names(run, save):
    measure(run, {5: 3.0, 10: 1.0, 15: 2.0})
    for step in (5, 10, 15, 20):
        save(run, step)
    prune_states(run, keep=2)
    found = kept(run)
    assert [(one.revision, one.step, one.resumable) for one in found] == [
        ("step-000020", 20, True), ("step-000015", 15, True), ("step-000010", 10, False), ("step-000005", 5, False),
    ]  # fmt: skip
    assert [one.val_loss for one in found] == [None, 2.0, 1.0, 3.0]
    assert [one.train_loss for one in found] == [None, 1.5, 1.0, 0.5]
    assert [one.also for one in found] == [("main",), (), ("best",), ()]
    for one in found:  # what COMPLETE itself takes is not counted
        files = [path for path in (run.path / "checkpoints" / one.revision).rglob("*") if path.is_file()]
        assert one.size == sum(path.stat().st_size for path in files if path.name != "COMPLETE")


@pytest.mark.parametrize("losses", [{}, {5: 1.0, 10: 2.0}, {5: 2.0, 10: 2.0}, {5: float("nan"), 10: 2.0}, {5: None}])
@pytest.mark.parametrize("recorded", [None, 5, 10, 99])
def test_the_best_checkpoint_is_the_one_that_opens_as_best(run, save, losses, recorded):
    measure(run, losses)
    save(run, 5)
    save(run, 10)
    run.update(result={"best_step": recorded} if recorded else {})
    expected = best(run)
    assert [one.revision for one in kept(run) if "best" in one.also] == ([expected.name] if expected else [])


def test_a_run_without_checkpoints(run):
    assert kept(run) == []
    assert details.loading(run) == ""


def test_the_three_lines_open_the_model(run, save):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=2, n_embd=8, n_layer=1, n_head=1))
    model.save_pretrained(run.path)
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(run.path)
    lines = details.loading(run)
    assert len(lines.splitlines()) == 3
    assert "trust_remote_code" not in lines
    opened = {}
    exec(lines, opened)
    assert opened["model"].num_parameters() == model.num_parameters()
    assert opened["tokenizer"].decode([1]) == "b"
    (run.path / "modeling_labgpt.py").touch()
    assert "trust_remote_code=True" in details.loading(run)


def test_going_on_is_offered_where_it_can_be(run):
    assert f"--resume {run.id}" in details.resume_command(run, run.info())
    assert details.resume_command(run, run.info() | {"kind": "import"}) is None
    assert details.resume_command(run, run.info() | {"status": "completed"}) is None


def test_the_floor_of_a_run_that_has_no_result_yet(run, workspace):
    assert details.floor(run, run.info()) is None
    inputs = run.info()["inputs"]
    for name, corpus, value in (("tales-other", "e" * 64, 9.0), ("tales-this", inputs["corpus"]["sha256"], 1.25)):
        folder = workspace.room("tokens") / name
        folder.mkdir()
        hashes = {"corpus": {"sha256": corpus}, "tokenizer": inputs["tokenizer"]}
        write_json(folder / "meta.json", {**hashes, "splits": {"validation": {"floor": value}}})
    assert details.floor(run, run.info()) == 1.25
    run.update(result={"floor": 1.5})
    assert details.floor(run, run.info()) == 1.5


def test_the_log_is_its_last_lines(run):
    assert details.log(run) == {}
    run.path.joinpath("train.log").write_text("".join(f"line {i}\n" for i in range(50_000)))
    run.path.joinpath("output.log").write_bytes("1 %\r50 %\r100 %\rdone\r\nünd".encode() + b"\xff\n")
    ends = details.log(run)
    assert ends["train.log"].splitlines() == [f"line {i}" for i in range(49_800, 50_000)]
    assert ends["output.log"] == "done\nünd\N{REPLACEMENT CHARACTER}"


def test_facts_and_relatives(run):
    run.update(
        model={"parameters": 1000}, progress={"step": 5, "tokens": 50, "tokens_per_second": 9.6, "eta_seconds": 3.4},
        result={"val_loss": 1.5}, inputs={"parent": {"run": "other-1a2b3c", "revision": "step-000005"},
                                          "base": {"id": "gpt2", "revision": None}},
    )  # fmt: skip
    info = run.info()
    told = dict(details.card(info, "running"))
    assert (told["corpus"], told["parameters"], told["tokens a second"], told["seconds left"]) == ("tales", 1000, 10, 3)
    assert told["validation loss (nats per token)"] == "1.5"
    assert dict(details.card(info, "interrupted"))["seconds left"] is None
    assert details.relatives(info) == [("parent", "other-1a2b3c", "step-000005"), ("base", "gpt2", None)]
    origin = dict(details.origin(info))
    assert origin["corpus"] == f"tales · {'c' * 64}"
    assert origin["seed"] == 0 and origin["torch"] == info["versions"]["torch"]
    assert origin["command"] == "python -m training.pretrain --recipe tales"


def test_only_what_changed_is_told_as_changed(run, save):
    def stamps():
        return details.stamps(run, run.info(), run.status)

    def changed(work) -> set[str]:
        before = stamps()
        assert stamps() == before
        work()
        return {name for name, stamp in stamps().items() if stamp != before[name]}

    assert changed(lambda: run.log("a line")) == {"log"}
    assert changed(lambda: append_sample(run.path, 1, "text")) == {"samples"}
    assert changed(lambda: measure(run, {1: 1.0})) == {"curves"}
    assert changed(lambda: run.update(progress={"step": 1})) == {"head", "card"}
    path = save(run, 1)
    assert changed(lambda: publish(run, path)) >= {"use"}
    assert changed(lambda: save(run, 2)) == {"checkpoints"}
    assert "curves" in changed(lambda: run.update(result={"floor": 1.0}))
    assert set(details.stamps(run, None, "unreadable")) == set(stamps())
