"""What is asked of a training: it acts between two steps, changes no bit of the result, and says how it stands."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from data.workspace import Workspace
from hub.process import started
from hub.queue import turn, waiting_for
from hub.runs import Run
from training import control, listener
from training.control import REQUEST, request
from training.launch import create
from training.recipe import parse_flags

ROOT = Path(__file__).resolve().parents[2]
STEPS = 24
SIGNALS = {
    "pause": signal.SIGUSR2, "save": signal.SIGUSR1, "resume": signal.SIGUSR2, "stop": signal.SIGTERM,
}  # fmt: skip
RECIPE = [
    *("--train.steps", str(STEPS), "--train.save_every", "8", "--train.log_every", "3", "--train.compile", "false"),
    *("--train.eval_every", "8", "--train.eval_sequences", "4", "--train.sample_every", "12", "--train.threads", "1"),
    *("--train.context", "32", "--train.batch_size", "4", "--train.accumulate", "2", "--train.diagnose_every", "6"),
    *("--train.optimizer", "muon", "--data.tokenizer", "char", "--model.hidden_dropout", "0.1"),
    *("--model.hidden_size", "16", "--model.num_hidden_layers", "2", "--model.num_attention_heads", "2"),
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(pretrain, milk, tmp_path_factory) -> Path:
    """A run that nobody asked for anything."""
    workspace = tmp_path_factory.mktemp("whole")
    code, output = pretrain(workspace, *RECIPE, "--data.corpus", str(milk))
    assert code == 0, output
    return only_run(workspace).path


@pytest.fixture
def begin(pretrain, milk, tmp_path):
    """Start the same training, slowly enough to be spoken to; gives its process and its run."""
    pids = []

    def make(slow: float = 0.06, **order) -> tuple[int, Run]:
        pids.append(pretrain.begin(tmp_path, *RECIPE, "--data.corpus", str(milk), slow=slow, **order))
        until(lambda: list(tmp_path.glob("runs/[!.]*/run.json")))
        run = only_run(tmp_path)
        until(lambda: step_of(run) >= 3)
        return pids[-1], run

    yield make
    for pid in pids:
        if started(pid):
            os.kill(pid, signal.SIGKILL)


def only_run(workspace: Path) -> Run:
    (record,) = workspace.glob("runs/[!.]*/run.json")
    return Run(record.parent)


def step_of(run: Run) -> int:
    """The last step of which something was measured."""
    table = run.path / "metrics.csv"
    return len(table.read_text().splitlines()) - 1 if table.exists() else 0


def saved(run: Run) -> list[int]:
    return sorted(int(path.parent.name[-6:]) for path in run.path.glob("checkpoints/step-*/COMPLETE"))


def until(condition, seconds: float = 20.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.01)
    return value


def test_a_paused_run_waits_and_goes_on_to_the_same_bits(pretrain, begin, whole, assert_same_bits):
    pid, run = begin()
    assert request(run, "pause") == f"{run.id} pauses after the step at hand"
    until(lambda: run.status == "paused", seconds=1.5)
    step, heartbeat, process = step_of(run), run.info()["process"], psutil.Process(pid)
    until(lambda: run.info()["process"]["heartbeat_at"] > heartbeat["heartbeat_at"])
    used = sum(process.cpu_times()[:2])
    until(lambda: run.info()["progress"]["phase"] == "paused")
    time.sleep(1.0)
    assert sum(process.cpu_times()[:2]) - used < 0.2  # seconds of processor time
    assert (step_of(run), run.status) == (step, "paused")
    assert 3 <= step < STEPS

    request(run, "save")
    until(lambda: step in saved(run))
    request(run, "resume")
    until(lambda: run.status == "running", seconds=1.5)
    code, output = pretrain.wait(pid)
    assert code == 0, output
    assert run.info()["process"]["pid"] == pid
    assert (run.status, run.info()["progress"]["phase"]) == ("completed", None)
    assert_same_bits(whole, run.path)


@pytest.mark.parametrize("how", ["request", "SIGUSR1"])
def test_saving_changes_nothing(pretrain, begin, whole, assert_same_bits, how):
    pid, run = begin()
    request(run, "save") if how == "request" else os.kill(pid, signal.SIGUSR1)
    extra = until(lambda: [step for step in saved(run) if step % 8])
    code, output = pretrain.wait(pid)
    assert code == 0, output
    assert (saved(run), len(extra)) == (sorted([*extra, 8, 16, 24]), 1)
    assert_same_bits(whole, run.path)


def test_a_stopped_run_has_saved_and_goes_on_to_the_same_bits(pretrain, begin, whole, assert_same_bits):
    pid, run = begin(slow=0.3)
    request(run, "stop")
    assert run.status == "stopping"  # at once, in the middle of a step
    code, output = pretrain.wait(pid)
    assert code == 130 and f"--resume {run.id} --workspace " in output, output
    info = run.info()
    assert (info["status"], info["error"], bool(info["ended_at"])) == ("interrupted", None, True)
    assert saved(run)[-1] == step_of(run) < STEPS
    code, output = pretrain(run.path.parents[1], "--resume", run.id)
    assert code == 0, output
    assert_same_bits(whole, run.path)


def test_told_by_signal_then_by_command(pretrain, begin, whole, assert_same_bits, monkeypatch):
    """One process hears everything it can be told, both ways, says so, and trains what it would have trained."""
    pid, run = begin()
    workspace = str(run.path.parents[1])

    def command(verb: str) -> None:
        monkeypatch.setattr(sys, "argv", ["training.control", verb, run.id, "--workspace", workspace])
        assert control.main() == 0

    asked = {
        "SIG": {verb: lambda n=number: os.kill(pid, n) for verb, number in SIGNALS.items()},
        "request": {verb: lambda v=verb: command(v) for verb in ("pause", "save", "resume", "stop")},
    }
    for by in asked.values():
        steps = saved(run)
        by["pause"]()
        until(lambda: run.status == "paused")
        by["save"]()
        until(lambda before=steps: len(saved(run)) > len(before))
        by["resume"]()
        until(lambda: run.status == "running")
    asked["SIG"]["stop"]()
    code, output = pretrain.wait(pid)
    assert (code, run.info()["status"]) == (130, "interrupted"), output
    log = (run.path / "train.log").read_text()
    for verb, number in SIGNALS.items():
        assert f"asked to {verb} by {number.name}" in log
        assert f"asked to {verb} by request" in log or verb == "stop"
    code, output = pretrain(run.path.parents[1], "--resume", run.id)
    assert code == 0, output
    assert_same_bits(whole, run.path)


def test_a_paused_run_can_be_stopped(pretrain, begin):
    pid, run = begin()
    request(run, "pause")
    until(lambda: run.status == "paused")
    request(run, "stop")
    code, output = pretrain.wait(pid)
    assert (code, run.status, saved(run)[-1]) == (130, "interrupted", step_of(run)), output


def test_stopped_before_its_first_step(pretrain, milk, tmp_path, whole, assert_same_bits):
    """Nothing was trained, so nothing is saved that could differ from the beginning."""
    run = Run(launched(tmp_path, milk))
    pid = pretrain.begin(tmp_path, "--resume", run.id, launched=str(run.path), dawdle=30)
    until(lambda: run.info()["progress"].get("phase") == "preparing data")
    before = run.info()["process"]["heartbeat_at"]
    until(lambda: run.info()["process"]["heartbeat_at"] > before)  # it lives while its data are made
    request(run, "stop")
    code, output = pretrain.wait(pid)
    assert (code, run.info()["status"], saved(run)) == (130, "interrupted", []), output
    assert run.info()["ended_at"]
    code, output = pretrain(tmp_path, "--resume", run.id)
    assert code == 0, output
    assert_same_bits(whole, run.path)


def test_stopped_while_it_waits_for_its_turn(pretrain, make_run, workspace, milk):
    run, other = Run(launched(workspace.root, milk)), make_run("running")
    with turn(other, workspace):
        pid = pretrain.begin(workspace.root, "--resume", run.id, launched=str(run.path))
        until(lambda: run.info()["progress"].get("phase") == "waiting")
        assert run.status == "queued"
        assert waiting_for(run, workspace) == f"{run.id} waits for {other.id} to end; it is next in line"
        assert request(run, "stop") == f"{run.id} leaves the line"
        code, output = pretrain.wait(pid)
    info = run.info()
    assert (code, info["status"], bool(info["ended_at"])) == (130, "interrupted", True), output
    assert (info["started_at"], info["inputs"], saved(run)) == (None, {}, [])


def launched(workspace: Path, corpus: Path) -> Path:
    """The folder of a run whose process is still to start."""
    return create(parse_flags([*RECIPE, "--data.corpus", str(corpus)]), Workspace(workspace)).path


def test_a_launched_run_completes_its_record(pretrain, milk, tmp_path, whole, assert_same_bits):
    run = Run(launched(tmp_path, milk))
    assert run.info()["inputs"] == {}
    code, output = pretrain(tmp_path, "--resume", run.id, launched=str(run.path))
    assert code == 0, output
    for part in ("corpus", "tokenizer"):
        assert run.info()["inputs"][part] == Run(whole).info()["inputs"][part]
    assert (run.path / "recipe.yaml").read_text() == (whole / "recipe.yaml").read_text()
    assert_same_bits(whole, run.path)


def test_what_a_launched_process_dies_of_is_in_the_record(pretrain, tmp_path):
    corpus = tmp_path / "short.txt"
    corpus.write_text("too short for a context of 32")
    run = Run(launched(tmp_path, corpus))
    code, output = pretrain(tmp_path, "--resume", run.id, launched=str(run.path))
    info = run.info()
    assert (code, info["status"], bool(info["ended_at"])) == (2, "failed", True), output
    assert "context" in info["error"] and f"error: {info['error']}" in output


def test_a_second_ctrl_c_interrupts(pretrain, begin):
    pid, run = begin(slow=1.0)
    os.kill(pid, signal.SIGINT)
    time.sleep(0.1)
    os.kill(pid, signal.SIGINT)
    code, output = pretrain.wait(pid)
    assert (code, run.info()["status"], run.info()["error"]) == (130, "interrupted", None), output
    assert run.info()["ended_at"]


def test_a_process_that_does_not_answer_is_ended(pretrain, begin):
    pid, run = begin()
    os.kill(pid, signal.SIGSTOP)
    request(run, "stop")
    time.sleep(0.5)
    assert run.status == "stopping"
    with pytest.raises(ValueError, match=r"is stopping: it cannot stop now .*--now"):
        request(run, "stop")
    control.GRACE, grace = 0.5, control.GRACE
    try:
        assert request(run, "stop", now=True) == f"the process of {run.id} has ended"
    finally:
        control.GRACE = grace
    assert started(pid) is None
    code, _ = pretrain.wait(pid)
    info = run.info()
    assert (code, info["status"], bool(info["ended_at"])) == (-9, "interrupted", True)
    assert psutil.pid_exists(pretrain.process.pid)  # whoever shares its group lives


def test_stop_now_of_a_process_that_answers_saves(pretrain, begin):
    pid, run = begin()
    request(run, "stop", now=True)
    code, output = pretrain.wait(pid)
    assert code == 130, output
    assert (run.info()["status"], saved(run)[-1]) == ("interrupted", step_of(run))


def test_a_request_to_a_dead_process_moves_nobody(pretrain, begin, whole, assert_same_bits):
    pid, run = begin()
    os.kill(pid, signal.SIGSTOP)
    request(run, "pause")
    os.kill(pid, signal.SIGKILL)
    pretrain.wait(pid)
    assert run.status == "interrupted" and (run.path / REQUEST).exists()
    code, output = pretrain(run.path.parents[1], "--resume", run.id)
    assert code == 0, output
    assert not (run.path / REQUEST).exists()
    assert_same_bits(whole, run.path)


def test_requests_are_kept_in_order(begin):
    pid, run = begin()
    os.kill(pid, signal.SIGSTOP)
    for verb in ("save", "pause"):
        request(run, verb)
    os.kill(pid, signal.SIGCONT)
    until(lambda: run.status == "paused")
    assert step_of(run) in saved(run)


@pytest.mark.parametrize("first", [0, 500])  # a run that begins, and one that goes on
@pytest.mark.parametrize("seconds", [0.002, 0.1, 3.0])
def test_several_processes_ask_each_other_often_and_not_too_often(make_run, monkeypatch, first, seconds):
    """Whatever a step takes, and although setting up took no time: a clock of our own tells the pace."""
    clock, questions = [0.0], []
    monkeypatch.setattr(listener, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(listener, "gather_object", lambda mine: questions.append(clock[0]) or 2 * mine)
    hears = listener.Listener(make_run("running"), SimpleNamespace(num_processes=2, is_main_process=True))
    for step in range(first, first + 2000):
        hears.agreed(step)
        clock[0] += seconds
    gaps = [after - before for before, after in pairwise([*questions, clock[0]])]
    assert max(gaps) <= max(listener.POLL, seconds) + 1e-6
    assert len(questions) <= 2000 * seconds / (0.8 * min(listener.POLL, seconds)) + 10
    if seconds < listener.POLL / 10:
        assert len(questions) < 100


@pytest.fixture
def one_of_two(make_run):
    hears = listener.Listener(make_run("running"), SimpleNamespace(num_processes=2, is_main_process=True))
    with hears:
        yield hears


def test_a_launcher_repeats_the_terminals_ctrl_c(one_of_two, monkeypatch):
    """It sends its own to processes that the terminal has told already: only a later one means haste."""
    clock = [10.0]
    monkeypatch.setattr(listener, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    assert one_of_two.heard() == [("stop", "SIGINT")]
    one_of_two.stopping = True
    clock[0] += 2 * listener.ECHO
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_lost_launcher_is_noticed_once(one_of_two, monkeypatch):
    assert one_of_two.heard() == []
    others = listener.os.getppid() + 1
    monkeypatch.setattr(listener.os, "getppid", lambda: others)
    assert one_of_two.heard() == [("stop", "the end of its launcher")]
    assert one_of_two.heard() == []


@pytest.mark.slow
def test_several_processes_act_at_one_step(milk, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    flags = ["training/pretrain.py", "--train.device", "cpu", "--workspace", str(tmp_path)]
    recipe = [*RECIPE, "--train.steps", "3000", "--train.save_every", "3000", "--data.corpus", str(milk)]
    training = subprocess.Popen([*launcher, *flags, *recipe], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        until(lambda: list(tmp_path.glob("runs/[!.]*/run.json")), seconds=60)
        run = only_run(tmp_path)
        until(lambda: step_of(run) >= 3, seconds=60)
        request(run, "pause")
        until(lambda: run.status == "paused")
        step = step_of(run)
        time.sleep(0.5)
        assert step_of(run) == step
        request(run, "save")
        until(lambda: saved(run) == [step])
        request(run, "resume")
        until(lambda: step_of(run) > step)
        request(run, "stop")
        assert training.wait(60) != 0
    finally:
        if training.poll() is None:  # the launcher's workers would outlive it
            for process in [*psutil.Process(training.pid).children(recursive=True), psutil.Process(training.pid)]:
                process.kill()
    assert (run.info()["status"], saved(run)) == ("interrupted", [step, step_of(run)])


@pytest.fixture
def make_run(workspace):
    def make(status: str) -> Run:
        run = Run.create(workspace, "tales", "pretrain", ["python", "-m", "training.pretrain"], "", 0, {})
        run.start_process()  # this process, which lives
        run.update(status=status)
        return run

    return make


@pytest.mark.parametrize(
    ("status", "verb", "words"),
    [
        ("completed", "pause", "--fork"),
        ("completed", "resume", "--fork"),
        ("running", "resume", "pause or save or stop"),
        ("paused", "pause", "resume or save or stop"),
        ("queued", "pause", "stop"),
        ("queued", "resume", "stop"),
        ("failed", "stop", "resume"),
        ("interrupted", "save", "resume"),
    ],
)
def test_what_makes_no_sense_is_refused(make_run, status, verb, words):
    run = make_run(status)
    with pytest.raises(ValueError, match=f"run {run.id} is {status}: it cannot {verb} now .*{words}"):
        request(run, verb)
    assert not (run.path / REQUEST).exists() and run.status == status


@pytest.mark.parametrize(("verb", "now", "words"), [("hold", False, "'pause'|known"), ("save", True, "only stop")])
def test_what_cannot_be_asked(make_run, verb, now, words):
    with pytest.raises(ValueError, match=words):
        request(make_run("running"), verb, now)


def test_a_process_elsewhere_is_not_ended_from_here(make_run):
    run = make_run("running")
    run.update(process={"boot_id": "another machine"})
    with pytest.raises(ValueError, match="another machine"):
        request(run, "stop", now=True)


def test_the_command(make_run, workspace):
    run = make_run("running")

    def command(*words: str) -> subprocess.CompletedProcess:
        words = [sys.executable, "-m", "training.control", *words, "--workspace", str(workspace.root)]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)

    done = command("pause", "latest", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["run"], answer["verb"], answer["status"]) == (run.id, "pause", "running")
    assert control.take(run) == ["pause"] and control.take(run) == []
    run.finish("completed")
    done = command("pause", run.id)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: run {run.id} is completed") and done.stderr.count("\n") == 1
