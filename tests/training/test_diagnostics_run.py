"""Diagnostics in a real training: not a bit of it changes, a leak is found, a spike leads back and past its batches."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from accelerate import Accelerator

from data.tokens import Batches
from data.workspace import Workspace
from hub.checkpoints import STATE, checkpoints, prune_states, save_checkpoint
from hub.metrics import COLUMNS, read_metrics
from hub.runs import Run
from modeling import LabGPTConfig, LabGPTForCausalLM
from training import keeper, loop, rewind
from training.evaluate import Evaluator
from training.loop import Job, train
from training.recipe import TrainRecipe
from training.setup import load_weights
from training.spikes import Spike

SYMBOLS, CONTEXT = 12, 16
QUIET = 10**6  # a cadence that never comes


class Tokenizer:
    """Of a model that only has to be saved."""

    def save_pretrained(self, folder):
        (folder / "tokenizer.json").write_text("{}")


def chain(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Documents of a Markov chain with their log-probabilities, end included; 0 ends one, after eight symbols."""
    random = np.random.default_rng(seed)
    matrix = np.random.default_rng(7).dirichlet(np.ones(SYMBOLS), SYMBOLS)
    ids, starts, log_probs = [], [], []
    for _ in range(count):
        starts.append(len(ids))
        states = [int(random.integers(SYMBOLS))]
        states += [0] * 7
        for i in range(1, 8):
            states[i] = int(random.choice(SYMBOLS, p=matrix[states[i - 1]]))
        ids += [state + 1 for state in states] + [0]
        log_probs.append(-math.log(SYMBOLS) + sum(math.log(matrix[a, b]) for a, b in pairwise(states)))
    return np.array(ids, dtype=np.uint16), np.array(starts), log_probs


def evaluator_of(train_documents, validation) -> Evaluator:
    parts = {"train": train_documents, "validation": validation}
    rows = {name: datasets.Dataset.from_dict({"log_prob": part[2]}) for name, part in parts.items()}
    facts = {name: {"tokens": len(part[0]), "bytes": len(part[0]), "floor": 1.0} for name, part in parts.items()}
    tokens = SimpleNamespace(
        split=lambda name: parts[name][0], starts=lambda name: parts[name][1], meta={"splits": facts}
    )
    return Evaluator(SimpleNamespace(split=rows.get), tokens, CONTEXT, "document", 16, torch.device("cpu"))


def make_job(folder, documents=None, validation=None, batches=None, dropout: float = 0.0, **fields) -> Job:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    documents, validation = documents or chain(300, seed=1), validation or chain(60, seed=2)
    settings = {
        "steps": 20, "batch_size": 8, "context": CONTEXT, "start": "document", "device": "cpu", "threads": 1,
        "compile": False, "log_every": 5, "diagnose_every": QUIET, "eval_every": QUIET, "sample_every": QUIET,
        "save_every": QUIET, "warmup_steps": 5, "eval_sequences": 60,
    }  # fmt: skip
    recipe = TrainRecipe(**{**settings, **fields})
    config = LabGPTConfig(
        vocab_size=SYMBOLS + 1, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, hidden_dropout=dropout,
        max_position_embeddings=32, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    run = Run.create(Workspace(folder), "chain", "pretrain", ["test"], "", 0, {}, status="running")
    batches = batches or Batches(*documents[:2], CONTEXT, recipe.batch_size, 0, "document")
    model = LabGPTForCausalLM(config)
    return Job(run, recipe, model, Tokenizer(), batches, evaluator_of(documents, validation), Accelerator(cpu=True))


@pytest.fixture(autouse=True)
def no_samples(monkeypatch):
    monkeypatch.setattr(keeper.Keeper, "sample", lambda self, step: None)


def bits(job: Job) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in job.model.state_dict().items()}


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize(
    "fields",
    [
        {"dropout": 0.1},
        {"accumulate": 2, "optimizer": "adamw"},
        pytest.param({"compile": True}, marks=pytest.mark.slow),
    ],
)
def test_not_a_bit_of_the_training_changes(tmp_path, fields):
    jobs = [make_job(tmp_path / str(every), diagnose_every=every, **fields) for every in (3, QUIET)]
    for job in jobs:
        torch.manual_seed(1)  # of dropout
        train(job)
    assert_same(*map(bits, jobs))
    often, never = (read_metrics(job.run.path) for job in jobs)
    assert often["train_loss"] == never["train_loss"] and often["grad_norm"] == never["grad_norm"]
    measured = [step for step, value in zip(often["step"], often["update_ratio"], strict=True) if value is not None]
    assert measured == [3, 6, 9, 12, 15, 18, 20]


def test_every_measure_is_recorded_under_its_name(tmp_path):
    job = make_job(tmp_path, diagnose_every=10, eval_every=10, accumulate=2)
    train(job)
    rows, names = read_metrics(job.run.path), set(COLUMNS)
    assert names - set(rows) <= {"spike"}
    header, *lines = (job.run.path / "metrics.csv").read_text().splitlines()
    assert header.startswith("step,tokens_sec,grad_norm,update_ratio,dead_perc,train_loss")
    at_20, at_19 = (dict(zip(header.split(","), lines[i].split(","), strict=True)) for i in (19, 18))
    costly = names - {"step", "tokens_sec", "grad_norm", "train_loss", "learning_rate", "tokens", "seconds", "clipped",
                      "data_wait", "mfu", "spike", "noise_scale"}  # fmt: skip
    assert all(at_20[name] for name in costly) and not any(at_19[name] for name in costly)
    assert rows["clipped"] == [int(norm > 1.0) for norm in rows["grad_norm"]]
    assert all(0 <= share < 1 for share in rows["data_wait"]) and all(share > 0 for share in rows["mfu"])
    assert len(rows["attention_entropy/model.layers.0.self_attn"][-1]) == 2
    assert rows["bits_per_byte"][-1] == pytest.approx(rows["val_loss"][-1] / math.log(2))  # a byte a token there
    assert rows["excess"][-1] == pytest.approx(job.evaluator.excess(job.model)["excess"], abs=1e-6)


def test_an_old_run_keeps_its_header(tmp_path):
    job = make_job(tmp_path, diagnose_every=10)
    old = "step,tokens_sec,grad_norm,update_ratio,dead_perc,train_loss,learning_rate,tokens,seconds"
    (job.run.path / "metrics.csv").write_text(old + "\n")
    train(job)
    header, *lines = (job.run.path / "metrics.csv").read_text().splitlines()
    assert header == old and all(line.count(",") == 8 for line in lines) and len(lines) == 20


LEARNS = {"steps": 200, "eval_every": 50, "batch_size": 16, "log_every": 10}


def leak_alarms(job: Job) -> list[int]:
    train(job)
    rows = read_metrics(job.run.path)
    return [step for step, leak in zip(rows["step"], rows.get("leak", [None] * 200), strict=True) if leak]


def test_a_planted_leak_raises_the_alarm_within_200_steps(tmp_path, capsys):
    """Validation documents in the training text, few enough to be learnt by heart."""
    validation = chain(24, seed=2)
    job = make_job(tmp_path, documents=validation, validation=validation, **LEARNS)
    alarms = leak_alarms(job)
    assert alarms and alarms[0] <= 200
    rows = read_metrics(job.run.path)
    at = rows["step"].index(alarms[0])
    assert rows["excess"][at] < -3 * rows["excess_se"][at]
    assert job.run.info()["result"]["leak"] is True
    assert "validation text was trained on" in (job.run.path / "train.log").read_text()
    assert "validation text was trained on" in capsys.readouterr().err


def test_a_healthy_run_raises_none(tmp_path):
    job = make_job(tmp_path, documents=chain(3000, seed=1), **LEARNS)
    assert leak_alarms(job) == []
    assert not job.run.info()["result"]
    assert "spike" not in (job.run.path / "train.log").read_text()


class Spoilt(Batches):
    """One batch of the stream is noise, as a broken document would be."""

    def at(self, data_step):
        rows = super().at(data_step)
        return rows[:, ::-1].copy() if data_step == 74 else rows


class Shifted(Batches):
    """The stream of a run that went back to step 60 and left 40 batches out there."""

    def at(self, data_step):
        return super().at(data_step + 40 if data_step >= 60 else data_step)


REWINDING = {"steps": 90, "save_every": 20, "keep_states": 4, "spike_action": "rewind", "spike_rewind_steps": 10,
             "spike_skip_batches": 40, "accumulate": 2, "dropout": 0.1, "optimizer": "adamw"}  # fmt: skip


def stream(kind: type[Batches]) -> Batches:
    """Documents of one and the same rising sequence: quickly learnt, and read backwards a surprise."""
    rising = np.arange(1, SYMBOLS + 1, dtype=np.uint16)
    ids = np.tile(np.append(rising, 0), 400).astype(np.uint16)
    return kind(ids, np.arange(400) * (SYMBOLS + 1), CONTEXT, 8, 0, "document")


def resumed(job: Job, checkpoint) -> Job:
    """The job of a new process that goes on from the checkpoint."""
    return replace(job, model=load_weights(job.model, checkpoint))


def state_of(run: Run) -> dict:
    return torch.load(checkpoints(run)[-1] / STATE / "training.pt", weights_only=True)


@pytest.fixture
def rewound(tmp_path) -> Job:
    job = make_job(tmp_path / "rewound", batches=stream(Spoilt), **REWINDING)
    assert train(job) == "completed"
    return job


def test_a_spike_leads_back_and_past_the_batches(rewound, tmp_path):
    (entry,) = rewound.run.info()["rewinds"]
    assert (entry["spike"], entry["to"], entry["batches_skipped"]) == (75, 60, 40)
    rows = read_metrics(rewound.run.path)
    assert rows["step"] == list(range(1, 91)) and "spike" not in rows
    assert "gone back to step 60, 40 batches are left out" in (rewound.run.path / "train.log").read_text()
    assert len((rewound.run.path / "metrics.csv").read_text().splitlines()) == 91

    plain = make_job(tmp_path / "plain", batches=stream(Shifted), **{**REWINDING, "spike_action": "mark"})
    train(plain)  # never met the bad batch, and left out the same ones
    assert_same(bits(rewound), bits(plain))
    assert read_metrics(plain.run.path)["train_loss"] == rows["train_loss"]
    assert state_of(rewound.run)["position"]["data_step"] == 130
    assert torch.equal(state_of(rewound.run)["random"][0]["torch"], state_of(plain.run)["random"][0]["torch"])


def test_resuming_after_a_rewind_is_exact(rewound, tmp_path, monkeypatch):
    """The process dies between the return and the next checkpoint; a new one goes on from what is on the disk."""
    job = make_job(tmp_path / "killed", batches=stream(Spoilt), **REWINDING)
    step_of_loop, after = loop.optimizer_step, []

    def dying(job, model, optimizer, step, data_step, *rest):
        after.append(step)
        if step == 70 and after.count(70) == 2:
            raise KeyboardInterrupt
        return step_of_loop(job, model, optimizer, step, data_step, *rest)

    monkeypatch.setattr(loop, "optimizer_step", dying)
    with pytest.raises(KeyboardInterrupt):
        train(job)
    monkeypatch.undo()
    monkeypatch.setattr(keeper.Keeper, "sample", lambda self, step: None)
    checkpoint = checkpoints(job.run)[-1]
    assert checkpoint.name == "step-000060"
    rewind.forget_after(job.run, checkpoint)  # as resuming does
    job = resumed(job, checkpoint)
    assert train(job, checkpoint) == "completed"
    assert_same(bits(job), bits(rewound))
    assert read_metrics(job.run.path)["train_loss"] == read_metrics(rewound.run.path)["train_loss"]
    assert read_metrics(job.run.path)["noise_scale"] == read_metrics(rewound.run.path)["noise_scale"]
    assert job.run.info()["rewinds"] == rewound.run.info()["rewinds"]


def test_a_marked_spike_changes_nothing(tmp_path):
    job = make_job(tmp_path, batches=stream(Spoilt), **{**REWINDING, "spike_action": "mark"})
    train(job)
    rows = read_metrics(job.run.path)
    (at,) = [i for i, limit in enumerate(rows["spike"]) if limit is not None][:1]
    assert rows["step"][at] == 75 and rows["train_loss"][at] > rows["spike"][at]
    assert "step 75: the loss spikes" in (job.run.path / "train.log").read_text()
    assert not job.run.info().get("rewinds")


def test_where_to_go_back_to(tmp_path):
    """The newest checkpoint early enough, else the last before the spike; three times at most, and only a whole one."""
    run = Run.create(Workspace(tmp_path), "empty", "pretrain", ["test"], "", 0, {})
    for step in (20, 40, 60, 80):
        save_checkpoint(
            run, step, lambda folder: (folder / "model.safetensors").touch(), lambda folder: (folder / "s").touch()
        )

    def place(spike: int, back: int, rewinds=()) -> str | None:
        found = rewind.place(run, Spike(spike, 9.0, 1.0), back, [{"to": to} for to in rewinds])
        return found and found.name

    assert place(75, 10) == "step-000060"
    assert place(75, 16) == "step-000040"
    assert place(75, 100) == "step-000060"  # none is so early: the last before the spike
    assert place(20, 1) is None
    assert place(75, 10, [60, 60, 40]) == "step-000060"
    assert place(75, 10, [60, 60, 60]) is None
    prune_states(run, keep=1)
    assert place(75, 10) is None  # a model without training state cannot be gone on from
    assert place(95, 10) == "step-000080"


def test_run_json_of_a_run_without_spikes_has_no_rewinds(tmp_path):
    job = make_job(tmp_path, steps=5)
    train(job)
    assert "rewinds" not in json.loads((job.run.path / "run.json").read_text())
