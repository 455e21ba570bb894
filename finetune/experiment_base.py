"""The model that the small experiments tune: the lab's own Qwen3, pretrained in the lab on `primer`.

May import `training`, `hub` and `data`.
"""

from data.workspace import Workspace
from finetune.experiment_plan import SMALL_BASE
from hub.overview import leaves, records
from hub.runs import Run, status_of
from training.launch import create
from training.recipe import find_recipe, read_recipe

RECIPE = "qwen3-primer"


def find_base(workspace: Workspace) -> str | None:
    """The id of the newest finished run of its recipe's corpus and architecture; None where there is none."""
    wanted = read_recipe(find_recipe(RECIPE, workspace))["model"]["model_type"]
    for path, info in records(workspace):  # newest first
        if not info or info["kind"] != "pretrain" or status_of(info) != "completed":
            continue
        # another text of the same name is called primer-<6 hex>
        corpus = ((info["inputs"].get("corpus") or {}).get("name") or "").partition("-")[0]
        if corpus == SMALL_BASE and leaves(Run(path)).get("model.model_type") == wanted:
            return path.name
    return None


def make_base(workspace: Workspace) -> Run:
    """The run that trains one, not begun; one that was interrupted goes on."""
    for path, info in records(workspace):
        if info and info["name"] == SMALL_BASE and info["inputs"].get("experiment_base"):
            return Run(path)
    run = create(read_recipe(find_recipe(RECIPE, workspace)), workspace, SMALL_BASE)
    run.update(inputs={"experiment_base": True})
    return run
