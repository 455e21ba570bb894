"""What a fine-tuned run still knows, at each of its checkpoints: the suites of `finetune.scores`, and the new task.

May import `hub` and `data`.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence

from data.workspace import Workspace
from finetune.answers import AnswerEvaluator
from finetune.encoding import prepare
from finetune.experiment_attention import attention_moved
from finetune.experiment_plan import Plan
from finetune.recipe import build_recipe
from finetune.scores import Score, score, task_score
from finetune.suites import Level
from hub.adapters import find_base, open_quantised
from hub.checkpoints import checkpoints, step_of
from hub.models import open_model
from hub.runs import Run
from interpret.compare import Opened
from training.recipe import read_recipe

LIMIT = 60  # items of each suite at each checkpoint
TASKS = 40  # held-out examples of the new task that are answered before and after
TEXTS = 6  # held-out examples on which attention is compared
JUDGED = "stories"  # the examples whose answers `task_score` can judge
ROWS = 8  # examples in one forward pass
BEFORE: dict[str, dict] = {}  # what a base could do: looked at once in a process, being the same for many runs


def measure(run: Run, plan: Plan, workspace: Workspace, say: Callable[[str], object]) -> dict:
    """The suites before, during and after, the loss before, and the new task before and after.

    Returns `steps`, 0 for the base, and `suites`: name to {"kind", "count", "values"}, one value a step: the share of
    right answers, or the nats per token of plain text. `loss` is the base's on the run's validation examples. `task`
    has the shares of their requests that were answered as asked, None where nothing can judge the answers. `attention`
    is there for the first run of an experiment.
    """
    level, origin = level_of(plan), run.info()["inputs"]
    recipe = build_recipe(read_recipe(run.path / "recipe.yaml"))
    how = recipe.model
    base = open_quantised(find_base(origin["base"], workspace), how.quantization, how.double_quantization)
    prepared = prepare(recipe.data, base[1], recipe.train.context, workspace)
    examples = prepared.examples.split("validation")
    judged = examples[:TASKS] if plan.parts["data"].get("source") == JUDGED else []
    key = json.dumps([origin["base"], origin["examples"], how.quantization, level])
    if key not in BEFORE:
        say("scoring the base")
        BEFORE[key] = {
            "suites": scored(base, level),
            "loss": AnswerEvaluator(prepared, recipe.train.context, ROWS, base[0].device).loss(base[0], "validation"),
            "task": task_score(*base, judged) if judged else None,
        }
    before, looks = BEFORE[key], {0: BEFORE[key]["suites"]}
    for folder in checkpoints(run):
        say(f"scoring {folder.name}")
        tuned = open_model(folder, workspace)
        looks[step_of(folder)] = scored(tuned, level)
    task = attention = None
    if judged:
        after = task_score(*tuned, judged)
        task = {"count": after.count, "before": before["task"].value, "after": after.value}
    if (origin["experiment"]["setting"], origin["experiment"]["seed"]) == (0, plan.seeds[0]):
        say("comparing its attention with the base's")
        attention = attention_moved(base, tuned, level, examples[:TEXTS])
    suites = {name: series([scores[name] for scores in looks.values()]) for name in before["suites"]}
    return {
        "level": level, "steps": list(looks), "suites": suites, "loss": before["loss"], "task": task,
        "attention": attention,
    }  # fmt: skip


def level_of(plan: Plan) -> Level:
    """The small base is asked in the wording that it learnt, any other one plain questions."""
    return plan.options.get("level") or ("primer" if plan.base is None else "general")


def scored(opened: Opened, level: Level) -> Mapping[str, Score]:
    """Plain questions are put through the chat template, where there is one."""
    return score(*opened, level=level, limit=LIMIT, chat=level == "general" and bool(opened[1].chat_template))


def series(scores: Sequence[Score]) -> dict:
    """One suite from look to look. Perplexities become nats per token, whose differences can be averaged."""
    kind = scores[0].kind
    values = [math.log(one.value) if kind == "perplexity" else one.value for one in scores]
    return {"kind": kind, "count": scores[0].count, "values": [round(value, 6) for value in values]}
