"""What is told of a fine-tuned run and of a merged one that no other run has: base, adapter, and how each is loaded.

May import `data`. For the card, the page and the terminal alike. Everything may be missing, because a run may have been
stopped at any moment.
"""

import re
from pathlib import Path

from data.workspace import read_json
from hub.recipes import leaves
from hub.runs import Run
from hub.words import reference, text

WEIGHTS = "adapter_model.safetensors"
HUB_COMMIT = re.compile(r"[0-9a-f]{40}")
QUANTIZATIONS = {"nf4": "4 bits (NF4)", "int8": "8 bits (LLM.int8)", "none": "none"}
ALPACA = "tatsu-lab/alpaca"  # what the short name stands for


def is_merged(info: dict) -> bool:
    """Whether the run is an adapter put into its base's weights, a whole model again."""
    return info["kind"] == "import" and bool(info["inputs"].get("parent"))


def adapter_facts(run: Run, info: dict) -> list[tuple[str, object]]:
    """(name, value) of what a fine-tuned run was trained on and with, None where nothing is known; empty for others."""
    if info["kind"] != "finetune":
        return []
    recipe, examples = leaves(run), info["inputs"].get("examples") or {}
    base, weights = info["inputs"].get("base") or {}, run.path / WEIGHTS
    variants = [name for name, field in (("rsLoRA", "rslora"), ("DoRA", "dora")) if recipe.get(f"model.{field}")]
    return [
        ("examples", _with_hash(examples.get("name"), examples)),
        ("base", _with_hash(reference(base), base)),
        ("base's weights in training", _quantization(recipe)),
        ("rank", recipe.get("model.rank")),
        ("alpha", recipe.get("model.alpha")),
        ("dropout", recipe.get("model.dropout") or None),
        ("variant", " and ".join(variants) or None),
        ("matrices with an adapter", _targets(run, recipe)),
        ("parameters trained", info["model"].get("parameters_trainable")),
        ("adapter on disk", f"{weights.stat().st_size / 2**20:,.3g} MB" if weights.is_file() else None),
        ("perplexity on the validation answers", info["result"].get("perplexity")),
        ("validation tokens scored", info["result"].get("val_tokens")),
    ]


def dataset_of(run: Run) -> str | None:
    """The Hub id of the examples where they are the Hub's."""
    source = str(leaves(run).get("data.source") or "")
    if source == "alpaca":
        return ALPACA
    is_there = "/" in source and not Path(source).expanduser().exists() and not source.endswith((".jsonl", ".json"))
    return source.removeprefix("hf:") if source.startswith("hf:") or (is_there and source.count("/") == 1) else None


def on_hub(base: dict) -> bool:
    """Whether a base is of the Hub: a run's id has no owner before it, and its revision is no commit."""
    return "/" in (base.get("id") or "") or bool(HUB_COMMIT.fullmatch(base.get("revision") or ""))


def usage(run: Run, info: dict) -> str:
    """How to load a fine-tuned run's model, as Markdown: with the lab, and without it where its base is the Hub's."""
    base = info["inputs"].get("base") or {}
    parts = [
        f"In the project's folder, with the base as it was in training:\n\n```python\n{opening(run)}\n```",
    ]
    if on_hub(base):
        parts.append(f"Anywhere else:\n\n```python\n{plain_opening(run, base)}\n```")
    elif base.get("id"):
        parts.append(
            f"Its base, `{reference(base)}`, is not of the Hub: the lab that opens this adapter has to have that model "
            f"too. `python -m finetune.merge {run.id}` makes one model of the two, which opens anywhere."
        )
    return "\n\n".join(parts)


def merging(info: dict) -> str:
    """What merging changed, as Markdown."""
    result, base = info["result"], info["inputs"].get("base") or {}
    if result.get("merge_difference") is None:
        return ""
    said = (
        f"Compared over {text(result.get('merge_tokens'))} tokens, no logit of this model is further than "
        f"{result['merge_difference']:.2g} from the adapter's on the same weights, those of its base made floating "
        f"point again, and {result['merge_difference_quantised']:.2g} from the adapter's on its base as it was in "
        "training."
    )
    if base.get("quantization") == "int8":
        said += (
            " The weights are those of the 8-bit base exactly. In training what flows between them was rounded to "
            "8 bits as well (LLM.int8, arXiv:2208.07339); here it is not."
        )
    if result.get("merge_dtype") not in (None, "float32"):
        said += f" The weights on disk are rounded to {result['merge_dtype']}."
    return f"## What merging changed\n\n{said}"


def opening(run: Run, workspace: str = "") -> str:
    """The lines of Python that open the run's model and tokenizer in the project's folder.

    Args:
        workspace: where the run is, if the lab would not look there anyway.
    """
    where = f", workspace={workspace!r}" if workspace else ""
    return f"from hub.models import open_model\nmodel, tokenizer = open_model({run.id!r}{where})"


def plain_opening(run: Run, base: dict) -> str:
    """The same with `transformers` and `peft` alone."""
    revision = f', revision="{base["revision"]}"' if base.get("revision") else ""
    return (
        "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f'base = AutoModelForCausalLM.from_pretrained("{base["id"]}"{revision})\n'
        f'model = PeftModel.from_pretrained(base, "{run.id}")  # this folder, or its Hub id\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{run.id}")'
    )


def _with_hash(name: str | None, item: dict) -> str | None:
    return f"{name} ({item['sha256'][:12]})" if name and item.get("sha256") else name


def _quantization(recipe: dict) -> str | None:
    kind = recipe.get("model.quantization")
    double = ", its scales quantised too" if kind == "nf4" and recipe.get("model.double_quantization") else ""
    return f"{QUANTIZATIONS.get(kind, kind)}{double}" if kind else None


def _targets(run: Run, recipe: dict) -> str | None:
    """By the last words of their names, as the adapter has them; before there is one, as the recipe asks for them."""
    try:
        found = read_json(run.path / "adapter_config.json")["target_modules"]
    except (OSError, ValueError, KeyError):
        found = recipe.get("model.targets")
    return ", ".join(sorted({name.rpartition(".")[2] for name in found})) if isinstance(found, list) else found
