"""The stages of a pipeline: each finds or makes one thing and says what it took and what came of it.

May import `hub` and `data`. A stage returns (inputs, outputs, result): the first two name things by name or id and
content hash, the last holds figures.
"""

import dataclasses
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property

from data.prepare import prepare_tokenizer
from data.snapshots import Corpus
from data.tokenizer import KINDS, Tokenizer, checked
from data.tokens import Tokens, pack
from data.workspace import Workspace, read_json, sha256_file
from hub.card import write_card
from hub.checkpoints import COMPLETE, checkpoints
from hub.models import open_model
from hub.overview import records
from hub.process import now, this_process
from hub.runs import Run
from training.estimate import made_tokenizer, made_tokens
from training.evaluate import Evaluator
from training.evaluate_cli import BATCH_SIZE, evaluate, own_corpus
from training.launch import command_words
from training.machine import choose_device
from training.pretrain import resume
from training.recipe import Recipe, build_recipe, read_recipe

Made = tuple[dict, dict, dict]  # inputs, outputs, result


@dataclass
class Work:
    """What the stages share: the recipe, and what earlier stages made, found again after an interruption.

    Args:
        pipeline: its id.
        training: the folder of the stage that trains, whose outputs name the run.
    """

    pipeline: str
    recipe: Recipe
    workspace: Workspace
    training: Run

    @cached_property
    def texts(self) -> tuple[Corpus, Tokenizer]:
        return prepare_tokenizer(self.recipe.data, self.workspace)

    @cached_property
    def tokens(self) -> Tokens:
        return pack(*self.texts, self.workspace)

    def skipped(self, stage: str) -> bool:
        number = list(STAGES).index(stage) + 1
        return Run(self.training.path.parent / f"{number}-{stage}").info()["status"] == "skipped"

    def run(self) -> Run:
        """The run that was trained, or that stands in for it. Raises ValueError where there is none any more."""
        made = self.training.info()["outputs"].get("run")
        if not made:
            raise ValueError("there is no run yet: the stage training makes it")
        return Run.open(self.workspace, made["id"])


def tokenizer(work: Work) -> Made:
    corpus, made = work.texts
    return named(corpus=corpus), named(tokenizer=made), {}


def tokens(work: Work) -> Made:
    check_tokenizer(work)
    corpus, used = work.texts
    packed = {"tokens": {"name": work.tokens.path.name, "sha256": work.tokens.meta["sha256"]}}
    return named(corpus=corpus, tokenizer=used), packed, {}


def training(work: Work) -> Made:
    """An ordinary run, in this process, in its turn; one that was interrupted goes on."""
    check_tokenizer(work)
    if work.skipped("tokens") and made_tokens(work.recipe.data, work.workspace) is None:
        raise ValueError("there are no packed tokens of this corpus and tokenizer: do not skip the stage tokens")
    corpus, used = work.texts
    inputs = named(corpus=corpus, tokenizer=used) | {
        "tokens": {"name": work.tokens.path.name, "sha256": work.tokens.meta["sha256"]}
    }
    run = own_run(work) or make_run(work)
    work.training.update(outputs={"run": {"id": run.id}})
    if run.status != "completed":
        run.update(status="queued", queued_at=now(), ended_at=None, error=None, process=this_process())
        with redirect_stdout(sys.stderr):  # what is printed here is not the pipeline's result
            resume(run, work.workspace, {}, force=False)
        if run.status != "completed":
            raise KeyboardInterrupt  # it was told to stop, and has saved
    newest = checkpoints(run)[-1]
    result = {name: value for name, value in run.info()["result"].items() if isinstance(value, int | float)}
    made = {"id": run.id, "revision": newest.name, "sha256": read_json(newest / COMPLETE)["sha256"]}
    return inputs, {"run": made}, result


def evaluation(work: Work) -> Made:
    """The saved model, opened as anybody would open it, on the validation text of its own corpus."""
    run = work.run()
    model, own = open_model(run.path, work.workspace)
    recipe = build_recipe(read_recipe(run.path / "recipe.yaml")).train
    corpus = own_corpus(run.id, run, work.workspace)
    packed = pack(corpus, checked(own, run.info()["inputs"]["tokenizer"]["name"], run.path), work.workspace)
    device = choose_device(recipe.device)
    evaluator = Evaluator(corpus, packed, recipe.context, recipe.start, BATCH_SIZE, device)
    found = dataclasses.asdict(evaluate(run.id, model.to(device), evaluator, "validation"))
    result = {name: value for name, value in found.items() if value is not None}
    return run_inputs(run) | named(corpus=corpus), {}, result


def card(work: Work) -> Made:
    run = work.run()
    path = write_card(run)
    return run_inputs(run), {"card": {"name": f"{run.id}/{path.name}", "sha256": sha256_file(path)}}, {}


STAGES = {"tokenizer": tokenizer, "tokens": tokens, "training": training, "evaluation": evaluation, "card": card}


def check_tokenizer(work: Work) -> None:
    """Raises ValueError where the tokenizer was to be there already, and is not."""
    data = work.recipe.data
    if work.skipped("tokenizer") and data.tokenizer in KINDS and made_tokenizer(data, work.workspace) is None:
        raise ValueError(f"there is no {data.tokenizer} tokenizer of {data.corpus}: do not skip the stage tokenizer")


def own_run(work: Work) -> Run | None:
    """The run that this pipeline began before it was interrupted: the run itself says whose it is."""
    for path, info in records(work.workspace):
        if info and (info["inputs"].get("pipeline") or {}).get("id") == work.pipeline:
            return Run(path)
    return None


def make_run(work: Work) -> Run:
    name = work.pipeline.rpartition("-")[0]
    recipe = work.recipe
    parts = {"data": dataclasses.asdict(recipe.data), "model": recipe.model, "train": dataclasses.asdict(recipe.train)}
    return Run.create(
        work.workspace, name, "pretrain", command_words(parts, name), recipe.to_yaml(), recipe.train.seed,
        {"pipeline": {"id": work.pipeline}},
    )  # fmt: skip


def named(**things: Corpus | Tokenizer) -> dict:
    return {kind: {"name": thing.name, "sha256": thing.sha256} for kind, thing in things.items()}


def run_inputs(run: Run) -> dict:
    newest = checkpoints(run)
    if not newest:
        raise ValueError(f"run {run.id} has no checkpoint to look at")
    return {"run": {"id": run.id, "revision": newest[-1].name, "sha256": read_json(newest[-1] / COMPLETE)["sha256"]}}
