"""The model card: README.md and curve.png at a run's root, written from what the run recorded.

May import `data`. Every figure may be missing, because a run may have been stopped at any moment.
"""

import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from data.workspace import read_json, write_atomic
from hub.adapter_card import adapter_facts, dataset_of, is_merged, merging
from hub.adapter_card import usage as adapter_usage
from hub.curve import save_curve
from hub.metrics import read_metrics, read_samples
from hub.registry import RESULTS, figures, text
from hub.runs import Run
from hub.words import reference

# The figures that go into the card's metadata, by the names the Hub knows them by.
METRICS = {
    "val_loss": "loss",
    "perplexity": "perplexity",
    "bits_per_byte": "bits_per_byte",
    "excess": "excess_nats_per_token",
}
NOT_STATED = "not stated"  # what a manifest says of a text of unknown licence
SPDX = re.compile(r"[A-Za-z0-9.+-]+")  # an identifier, which the Hub knows in small letters, not a sentence
FENCE = "````"  # longer than any that a recipe or a sampled text is likely to hold


def write_card(run: Run) -> Path:
    """Write README.md and the curve into the run's folder; returns the README's path."""
    info, columns = run.info(), read_metrics(run.path)
    if has_curve := any(value is not None for value in columns.get("train_loss", [])):
        save_curve(run.path / "curve.png", columns, info["result"].get("floor"), run.id)
    samples = [sample for sample in read_samples(run.path) if sample.get("text", "").strip()]
    parts = [
        f"---\n{_metadata(run, info).to_yaml()}\n---",
        f"# {run.name}",
        _summary(info),
        _figures(run, info),
        "![Losses against steps](curve.png)" if has_curve else "",
        _sample(samples[-1]) if samples else "",
        merging(info),
        _usage(run, info),
        _provenance(run, info),
    ]
    path = run.path / "README.md"
    content = "\n\n".join(part for part in parts if part) + "\n"
    ModelCard(content)  # raises where the Hub could not read the metadata
    write_atomic(path, content)
    return path


def _metadata(run: Run, info: dict) -> ModelCardData:
    corpus = (_data(info) or {}).get("name", "unknown")
    is_adapter = info["kind"] == "finetune"
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=corpus,
            dataset_name=corpus,
            dataset_split="validation",
            metric_type=metric,
            metric_name=RESULTS.get(name, name),
            metric_value=round(info["result"][name], 6),
        )
        for name, metric in METRICS.items()
        if info["result"].get(name) is not None
    ]
    base = (info["inputs"].get("base") or {}).get("id")
    dataset = dataset_of(run)
    return ModelCardData(
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="text-generation",
        **_license(run, info),
        tags=[*(["lora"] if is_adapter else [_model_type(run)]), "llm-lab", info["kind"]],
        base_model=base,
        **({"base_model_relation": "adapter"} if base and is_adapter else {}),
        **({"datasets": [dataset]} if dataset else {}),
        model_name=run.name if results else None,  # together they are the card's model-index
        eval_results=results or None,
    )


def _data(info: dict) -> dict | None:
    """What it was trained on."""
    return info["inputs"].get("corpus") or info["inputs"].get("examples")


def _license(run: Run, info: dict) -> dict:
    """What the text it was trained on states, and the base that it stands on; `unknown` where they do not agree."""
    root, inputs, stated = run.path.parents[1], info["inputs"], set()
    for room, what in (("corpora", "corpus"), ("examples", "examples")):
        if inputs.get(what):
            stated.add(_stated(root / room / str(inputs[what].get("name")) / "manifest.json"))
    if inputs.get("base") and info["kind"] != "pretrain":
        stated.add(_stated_of_base(root / "runs" / str(inputs["base"].get("id")) / "README.md"))
    (one,) = stated if len(stated) == 1 else (NOT_STATED,)
    if one == NOT_STATED:
        return {"license": "unknown"}
    if SPDX.fullmatch(one):
        return {"license": one.lower()}
    return {"license": "other", "license_name": one}


def _stated(manifest: Path) -> str:
    try:
        return read_json(manifest).get("licence") or NOT_STATED
    except (OSError, ValueError):
        return NOT_STATED


def _stated_of_base(card: Path) -> str:
    """Of a run its card's; of a model of the Hub, whose card is not here, none."""
    try:
        data = ModelCard.load(card).data
    except (OSError, ValueError):
        return NOT_STATED
    known = data.license_name or data.license
    return known if known and known != "unknown" else NOT_STATED


def _model_type(run: Run) -> str:
    try:
        return read_json(run.path / "config.json").get("model_type", "labgpt")
    except (OSError, ValueError):  # stopped before the first checkpoint
        return "labgpt"


def _summary(info: dict) -> str:
    data, size = (_data(info) or {}).get("name"), info["model"].get("parameters")
    base, parent = reference(info["inputs"].get("base")), reference(info["inputs"].get("parent"))
    step, steps = info["progress"].get("step"), info["progress"].get("steps")
    stopped = f" It was stopped at step {step:,} of {steps:,}." if step and steps and step < steps else ""
    on = f" on `{data}`" if data else ""
    if info["kind"] == "finetune":
        of = f" `{base}`" if base else " a language model"
        return f"An adapter (LoRA) for{of}, fine-tuned{on} with LLM Lab. It holds no weights of its base.{stopped}"
    model = f"A language model of {text(size)} parameters" if size else "A language model"
    if is_merged(info):
        return f"{model}: `{base}` with the adapter `{parent}`, fine-tuned{on}, merged into its weights with LLM Lab."
    return f"{model}, trained from nothing{on} with LLM Lab.{stopped}"


def _figures(run: Run, info: dict) -> str:
    inputs, model, progress, result = info["inputs"], info["model"], info["progress"], info["result"]
    rows = [(what, (inputs.get(what) or {}).get("name")) for what in ("corpus", "tokenizer")]
    rows += adapter_facts(run, info)
    rows += [
        ("parameters", model.get("parameters")),
        ("parameters without embeddings", model.get("parameters_non_embedding")),
        ("steps", progress.get("step")),
        ("tokens seen", progress.get("tokens")),
    ]
    rows += figures(result)
    lines = [f"| {name} | {text(value)} |" for name, value in rows if value is not None]
    return "\n".join(["| | |", "|---|---:|", *lines]) if lines else ""


def _sample(sample: dict) -> str:
    asked = str(sample.get("prompt") or "").strip()  # of a fine-tuned run, whose samples are answers
    asked = f"Asked:\n\n{FENCE}text\n{asked}\n{FENCE}\n\n" if asked else ""
    said = f"{'Its answer' if asked else 'Sampled'} at step {sample['step']:,}:"
    return f"## What it writes\n\n{asked}{said}\n\n{FENCE}text\n{sample['text'].strip()}\n{FENCE}"


def _usage(run: Run, info: dict) -> str:
    parts = ["## How to load it", adapter_usage(run, info) if info["kind"] == "finetune" else _pipeline(run)]
    if info["kind"] != "import":  # which no training made
        parts += ["## How to go on training", f"```\n{run.resume_command(travels=True)}\n```"]
    return "\n\n".join(parts)


def _pipeline(run: Run) -> str:
    return f"""```python
from transformers import pipeline
write = pipeline("text-generation", model="{run.id}", trust_remote_code=True)  # this folder, or its Hub id
print(write("Once upon a time", max_new_tokens=100)[0]["generated_text"])
```"""


def _provenance(run: Run, info: dict) -> str:
    """Where the model came from, exactly enough to make it again."""
    git, machine = info["git"], info["machine"]
    rows = [
        ("made", info["created_at"]),
        ("run", info["id"]),
        ("seed", info["seed"]),
        ("commit", git and git["sha"] + (" with uncommitted changes" if git["dirty"] else "")),
        ("model code", info["code_sha"]),
        ("machine", ", ".join([machine["cpu"], *machine["gpus"]]) if machine else None),
        ("versions", ", ".join(f"{name} {version}" for name, version in info["versions"].items())),
    ]
    for what, item in info["inputs"].items():
        rows.append((what, " ".join(f"{value}" for value in item.values() if value) if item else None))
    lines = [f"- {name}: {value}" for name, value in rows if value not in (None, "")]
    recipe = (run.path / "recipe.yaml").read_text(encoding="utf-8").strip()
    return "\n".join(["## Where it came from", "", *lines, *(["", f"{FENCE}yaml", recipe, FENCE] if recipe else [])])
