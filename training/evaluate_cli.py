"""The command of `python -m training.evaluate`: how good any model is on a split of a corpus.

May import `hub` and `data`. A run is scored as its training scored it; any other model on documents whole where they
fit its context, else on the stream in windows.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.console import Parser
from data.corpora import open_corpus
from data.snapshots import SPLITS, Corpus, open_snapshot
from data.tokenizer import checked
from data.tokens import STARTS, pack
from data.workspace import Workspace
from hub.models import open_model, resolve, run_of
from hub.registry import table, text
from hub.runs import Run
from training.evaluate import Evaluator, Scores, score
from training.machine import choose_device
from training.recipe import Recipe, build_recipe, read_recipe
from training.setup import typical_start

LONGEST = 1024  # tokens of context where nothing else is asked for: attention grows with its square
BATCH_SIZE = 16
CHUNK = 32  # batches between two movements of the progress bar


@dataclass(frozen=True)
class Report:
    """What came out. Losses in nats per token; `excess` and what follows only where the corpus knows its entropy.

    The excess is paired over `documents` that fit the context; where that is None, it is the plain difference.
    """

    model: str
    corpus: str
    split: str
    start: str
    context: int
    sequences: int
    tokens: int
    loss: float
    perplexity: float
    bits_per_byte: float
    excess: float | None = None
    excess_interval: list[float] | None = None
    floor: float | None = None
    documents: int | None = None
    leak: bool = False


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    workspace = Workspace(given.workspace)
    place = resolve(given.model, workspace)
    run = run_of(place)
    corpus = open_corpus(given.corpus, workspace) if given.corpus else own_corpus(given.model, run, workspace)
    model, tokenizer = open_model(place, workspace)
    name = run.info()["inputs"].get("tokenizer", {}).get("name") if run else None
    folder = place if isinstance(place, Path) else None
    tokens = pack(corpus, checked(tokenizer, name or str(given.model).strip("./"), folder), workspace)
    recipe = build_recipe(read_recipe(run.path / "recipe.yaml")) if run and run.info()["kind"] == "pretrain" else None
    context = given.context or usual_context(model.config, recipe)
    start = given.start or (recipe.train.start if recipe and not given.corpus else typical_start(tokens, context))
    device = choose_device(given.device)
    evaluator = Evaluator(corpus, tokens, context, start, given.batch_size, device)
    report = evaluate(given.model, model.to(device), evaluator, given.split, given.limit)
    print(json.dumps(asdict(report), indent=2) if given.json else show(report))
    return 0


def parse(arguments: list[str] | None):
    parser = Parser(
        prog="python -m training.evaluate",
        description="Loss, perplexity and bits per byte of any model on a corpus; its excess where the floor is known.",
        epilog="examples:\n  python -m training.evaluate latest@best\n"
        "  python -m training.evaluate latest --corpus shakespeare --json\n"
        "  python -m training.evaluate Qwen/Qwen3-0.6B --corpus letters.txt --limit 200",
    )
    add = parser.add_argument
    add("model", metavar="RUN[@REVISION]", help="a run's id, name or `latest`; a folder; an id on the Hub")
    add("--corpus", metavar="NAME|PATH", help="what is scored (default: the corpus the run was trained on)")
    add("--split", choices=SPLITS, default="validation", help="of the corpus (default: validation)")
    add("--limit", metavar="N", type=int, help="score N sequences spread evenly over the split (default: all)")
    add("--context", metavar="N", type=int, help=f"tokens of a sequence (default: the run's, else up to {LONGEST:,})")
    add("--start", choices=STARTS, help="where a sequence begins (default: as the run's training, else what fits)")
    add("--batch-size", metavar="N", type=int, default=BATCH_SIZE, help=f"sequences at once (default: {BATCH_SIZE})")
    add("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    add("--json", action="store_true", help="print the result for programs")
    add("--workspace", metavar="DIR", help="default: $LLM_LAB_WORKSPACE, else ./workspace")
    given = parser.parse_args(arguments)
    for name in ("limit", "context", "batch_size"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} {value} should be 1 or more")
    return given


def own_corpus(ref: str, run: Run | None, workspace: Workspace) -> Corpus:
    """The snapshot that the run was trained on, to the byte. Raises ValueError where there is none here."""
    trained_on = run.info()["inputs"].get("corpus") if run else None
    if not trained_on:
        raise ValueError(f"{ref} has no corpus of its own here: name one with --corpus")
    for path in sorted((workspace.root / "corpora").glob(f"{trained_on['name']}*/manifest.json")):
        corpus = open_snapshot(path.parent)
        if corpus.sha256 == trained_on["sha256"]:
            return corpus
    raise ValueError(
        f"run {run.id} was trained on {trained_on['name']} ({trained_on['sha256'][:12]}), which is not in this "
        "workspace any more: name a corpus with --corpus"
    )


def usual_context(config, recipe: Recipe | None) -> int:
    """What the run was trained with; of another model as much as it can read, up to LONGEST."""
    if recipe:
        return recipe.train.context
    return min(getattr(config.get_text_config(), "max_position_embeddings", None) or LONGEST, LONGEST)


def evaluate(name: str, model, evaluator: Evaluator, split: str, limit: int | None = None) -> Report:
    """Score a split, all of it or `limit` sequences spread evenly over it."""
    sequences = evaluator.sequences(split, limit)
    sequences.sort(key=len)  # little is padding; the progress bar then runs from quick to slow
    step, parts = CHUNK * evaluator.batch_size, []
    with tqdm(total=len(sequences), unit="seq", desc="scoring", leave=False, disable=None) as progress:
        for i in range(0, len(sequences), step):
            chunk = sequences[i : i + step]
            parts.append(score(model, chunk, evaluator.batch_size, evaluator.device))
            progress.update(len(chunk))
    scores = Scores(*(np.concatenate([getattr(part, what) for part in parts]) for what in ("nats", "tokens")))
    excess = evaluator.excess(model, split, limit) or over_stream(scores.loss, evaluator, split, limit)
    known = {key: value for key, value in excess.items() if key in Report.__dataclass_fields__}
    return Report(
        model=str(name),
        corpus=evaluator.corpus.name,
        split=split,
        start=evaluator.start,
        context=evaluator.context,
        sequences=len(sequences),
        tokens=int(scores.tokens.sum()),
        loss=scores.loss,
        perplexity=math.exp(min(scores.loss, 700.0)),  # beyond that it is no float any more
        bits_per_byte=evaluator.bits_per_byte(scores.loss, split),
        **known,
    )


def over_stream(loss: float, evaluator: Evaluator, split: str, limit: int | None) -> dict:
    """The excess where no document fits the context, so that none can be paired with its own probability."""
    floor = evaluator.tokens.meta["splits"][split].get("floor")
    return {} if floor is None or limit else {"floor": floor, "excess": loss - floor}


def show(report: Report) -> str:
    """For the terminal: what was scored, and what came out."""
    how = "each from its document's beginning" if report.start == "document" else "windows of the stream"
    rows = [
        ["model", report.model],
        ["corpus", f"{report.corpus}, {report.split}"],
        ["scored", f"{report.tokens:,} tokens in {report.sequences:,} sequences, {how}, context {report.context:,}"],
        ["loss", f"{report.loss:.4f} nats per token"],
        ["perplexity", text(report.perplexity)],
        ["bits per byte", f"{report.bits_per_byte:.4f}"],
    ]
    if report.excess is not None and report.documents:
        low, high = report.excess_interval
        rows += [
            ["floor", f"{report.floor:.4f} nats per token, of {report.documents:,} documents that fit the context"],
            ["excess", f"{report.excess:.4f} over it, 95 % interval {low:.4f} to {high:.4f}"],
        ]
    elif report.excess is not None:
        rows += [
            ["floor", f"{report.floor:.4f} nats per token, of all documents: few or none fit the context"],
            ["excess", f"{report.excess:.4f} over it, what windows cannot see of a document included"],
        ]
    if report.leak and report.split == "validation":
        rows.append(["alarm", "below the floor by more than three standard errors: this text was trained on"])
    return table(rows)
