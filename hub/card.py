"""The model card: README.md and curve.png at a run's root, written from what the run recorded.

May import `data`. Every figure may be missing, because a run may have been stopped at any moment.
"""

import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from data.workspace import read_json, write_atomic
from hub.curve import save_curve
from hub.metrics import read_metrics, read_samples
from hub.registry import RESULTS, figures, text
from hub.runs import Run

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
        _figures(info),
        "![Losses against steps](curve.png)" if has_curve else "",
        _sample(samples[-1]) if samples else "",
        _usage(run),
        _provenance(run, info),
    ]
    path = run.path / "README.md"
    content = "\n\n".join(part for part in parts if part) + "\n"
    ModelCard(content)  # raises where the Hub could not read the metadata
    write_atomic(path, content)
    return path


def _metadata(run: Run, info: dict) -> ModelCardData:
    corpus = (info["inputs"].get("corpus") or {}).get("name", "unknown")
    base = info["inputs"].get("base") or {}
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
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        **_license(run, corpus),
        tags=[_model_type(run), "llm-lab", info["kind"]],
        base_model=base.get("id"),
        model_name=run.name if results else None,  # together they are the card's model-index
        eval_results=results or None,
    )


def _license(run: Run, corpus: str) -> dict:
    """That of the text it was trained on, as the corpus's manifest beside the runs states it; `unknown` otherwise."""
    try:
        stated = read_json(run.path.parents[1] / "corpora" / corpus / "manifest.json").get("licence") or NOT_STATED
    except (OSError, ValueError):
        stated = NOT_STATED
    if stated == NOT_STATED:
        return {"license": "unknown"}
    if SPDX.fullmatch(stated):
        return {"license": stated.lower()}
    return {"license": "other", "license_name": stated}


def _model_type(run: Run) -> str:
    try:
        return read_json(run.path / "config.json").get("model_type", "labgpt")
    except (OSError, ValueError):  # stopped before the first checkpoint
        return "labgpt"


def _summary(info: dict) -> str:
    corpus = (info["inputs"].get("corpus") or {}).get("name")
    size = info["model"].get("parameters")
    model = f"A language model of {text(size)} parameters" if size else "A language model"
    how = "fine-tuned" if info["kind"] == "finetune" else "trained from nothing"
    step, steps = info["progress"].get("step"), info["progress"].get("steps")
    stopped = f" It was stopped at step {step:,} of {steps:,}." if step and steps and step < steps else ""
    return f"{model}, {how}{f' on `{corpus}`' if corpus else ''} with LLM Lab.{stopped}"


def _figures(info: dict) -> str:
    inputs, model, progress, result = info["inputs"], info["model"], info["progress"], info["result"]
    rows = [(what, (inputs.get(what) or {}).get("name")) for what in ("corpus", "tokenizer")]
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
    return f"## What it writes\n\nSampled at step {sample['step']:,}:\n\n{FENCE}text\n{sample['text'].strip()}\n{FENCE}"


def _usage(run: Run) -> str:
    return f"""## How to load it

```python
from transformers import pipeline
write = pipeline("text-generation", model="{run.id}", trust_remote_code=True)  # this folder, or its Hub id
print(write("Once upon a time", max_new_tokens=100)[0]["generated_text"])
```

## How to go on training

```
{run.resume_command(travels=True)}
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
    return "\n".join(["## Where it came from", "", *lines, "", f"{FENCE}yaml", recipe, FENCE])
