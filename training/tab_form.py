"""The Train tab's first half: a recipe as a form, what it will cost, its saved versions, and Start.

May import `page`, `hub`, `data`, `modeling` and Gradio. The fields come from `training.form`; what they may name, and
the start, from `training.draft`. Handlers are plain functions of what the fields hold; `build` binds them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import gradio as gr

from data.access import Access
from data.console import one_line
from data.workspace import Workspace, check_name
from hub.checkpoints import checkpoints
from hub.overview import find
from hub.runs import Run
from modeling.presets import PRESETS, preset_config
from page import training as draw
from page.html import Markup
from page.tab import QUICK, answer, html, recipe_field
from training import draft, saved, tab_checks
from training.architecture import DEFAULT_PRESET
from training.draft import DEFAULTS, RUN
from training.estimate import Unknown, estimate
from training.fields import Field, folded
from training.form import check, form_fields, values_of, values_to_parts

# What is in sight at once, a line each; all other fields are in folded sections.
IN_SIGHT = (
    ("data.corpus", "data.tokenizer", "data.vocab_size"),
    ("model.preset", "train.steps", "train.batch_size", "train.context"),
    ("train.optimizer", "train.learning_rate"),
)
SECTIONS = {"data": "Text", "model": "Model", "train": "Training"}


@dataclass(frozen=True)
class Form:
    """What the rest of the tab needs. `started` holds the id of the run that was started last."""

    fields: dict[str, gr.components.Component]
    fork_from: gr.Dropdown
    name: gr.Textbox
    start: gr.Button
    started: gr.Textbox


def build(access: Access) -> Form:
    """Lay the half out inside the caller's tab."""
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            start_from, fork_from = build_beginnings(access)
            fields, checks, name = build_fields(access)
        with gr.Column(scale=2, min_width=300):
            begin = gr.Button("Start training", variant="primary", elem_id="train-start")
            panel = tab_checks.build()
            cost = html(elem_id="train-cost")
            with gr.Accordion("The whole recipe, and the command that does the same", open=False):
                texts = html(elem_id="train-recipe")
            with gr.Accordion("Keep this recipe", open=False):
                build_versions(access, start_from, fields)
    values, started = list(fields.values()), gr.Textbox(visible="hidden", label="started run")
    look, asked, shown = answer(partial(preview, access)), [fork_from, name, *values], [*checks, cost, texts]
    gr.on(None, look, asked, shown, trigger_mode="always_last", **QUICK)  # at first, and when a field changes
    forking = gr.State("")  # the run whose recipe the form was filled with to fork it
    filled = [fork_from, forking, *values]
    begun = start_from.input(answer(partial(begun_as, access)), start_from, filled, **QUICK)
    forks = fork_from.change(answer(partial(forked, access)), [fork_from, forking], filled, **QUICK)
    for done in (begun, forks):  # a folded field does not say that it was filled
        done.success(look, asked, shown, **QUICK)
    tab_checks.wire(access, panel, partial(parts_of, access), [fork_from, *values], begin)
    begin.click(answer(partial(started_checked, access)), [panel.last, panel.anyway, *asked], started, **QUICK)
    by_preset = [fields[key] for key, field in form_fields().items() if in_preset(field)]
    fields["model.preset"].change(as_preset, fields["model.preset"], by_preset, **QUICK)
    return Form(fields, fork_from, name, begin, started)


def build_beginnings(access: Access) -> tuple[gr.Dropdown, gr.Dropdown]:
    """What the form is filled with at first: a recipe, or the recipe and the weights of a run's checkpoint."""
    with gr.Row():
        start_from = gr.Dropdown(
            beginnings(access.workspace), value=DEFAULTS, allow_custom_value=True, min_width=200, elem_id="train-from",
            label="Start from", info="A recipe of the lab, one that was kept, or that of a run",
        )  # fmt: skip
        fork_from = gr.Dropdown(
            forkable(access.workspace), value="", allow_custom_value=True, min_width=200, elem_id="train-fork-from",
            label="Weights", info="Fresh ones, or a checkpoint of a run, RUN@step-000400, from which to go on",
        )  # fmt: skip
    start_from.focus(lambda: gr.Dropdown(choices=beginnings(access.workspace)), None, start_from, **QUICK)
    fork_from.focus(answer(partial(checkpoints_of, access)), fork_from, fork_from, **QUICK)
    return start_from, fork_from


def build_fields(access: Access) -> tuple[dict[str, gr.components.Component], list[gr.HTML], gr.Textbox]:
    """(every field, in the order of `form_fields`; the places for what is wrong; the run's name)."""
    known, made = form_fields(), {}
    for row in IN_SIGHT:
        with gr.Row():
            for key in row:
                made[key] = build_field(known[key], access.workspace, f"train-{known[key].name}", min_width=120)
            if row is IN_SIGHT[-1]:
                name = gr.Textbox(
                    label="Run name",
                    info="Left out: that of its corpus",
                    max_lines=1,
                    min_width=120,
                    elem_id="train-name",
                )
    checks = [html(elem_id="train-problems", elem_classes="lab-train-check")]
    with gr.Accordion("All other settings", open=False, elem_id="train-more"):
        for (section, group), fields in folded_fields().items():
            with gr.Accordion(f"{SECTIONS[section]}: {group}" if group else SECTIONS[section], open=False):
                checks.append(html(elem_classes="lab-train-check"))
                with gr.Row():
                    for field in fields:
                        elem_id = f"train-field-{field.name}"
                        made[field.key] = build_field(field, access.workspace, elem_id, min_width=190)
    return {key: made[key] for key in known}, checks, name


def build_field(field: Field, workspace: Workspace, elem_id: str, min_width: int) -> gr.components.Component:
    """The component for a field."""
    listed = {"data.corpus": draft.corpora, "data.tokenizer": draft.tokenizers}.get(field.key)
    choices = partial(listed, workspace) if listed else None
    value, left_out = values_of({})[field.key], where_left_out(field, DEFAULT_PRESET)
    return recipe_field(field, value, elem_id, min_width, left_out, choices)


def build_versions(access: Access, start_from: gr.Dropdown, fields: dict[str, gr.components.Component]) -> None:
    """Keep the form as a recipe's next version, and compare it with any other."""
    values = list(fields.values())
    with gr.Row(equal_height=True):
        name = gr.Textbox(
            label="Name", max_lines=1, placeholder="my-recipe", min_width=120, elem_id="train-recipe-name"
        )
        keep = gr.Button("Save as new version", min_width=120, elem_id="train-save-recipe")
    with gr.Row(equal_height=True):
        other = gr.Dropdown(
            label="Compare with", choices=[DEFAULTS, *saved.names(access.workspace)], value=DEFAULTS,
            min_width=120, elem_id="train-compare-with",
        )  # fmt: skip
        compare = gr.Button("Compare", min_width=120, elem_id="train-compare")
    drawn = html(elem_id="train-compared")
    keep.click(answer(partial(kept, access)), [start_from, name, *values], [start_from, drawn], **QUICK)
    compare.click(answer(partial(compared, access)), [other, *values], drawn, **QUICK)
    start_from.change(partial(parent_choice, access.workspace), start_from, other, **QUICK)


# What can be chosen


def folded_fields() -> dict[tuple[str, str], list[Field]]:
    """The fields that are not in sight, by section and heading."""
    return folded(form_fields().values(), [key for row in IN_SIGHT for key in row])


def beginnings(workspace: Workspace) -> list[tuple[str, str]]:
    kept_ones = [(f"recipe {ref}", ref) for ref in saved.names(workspace)]
    return [
        ("the first run's defaults", DEFAULTS),
        *kept_ones,
        *((f"as in run {one}", RUN + one) for one in draft.trained_runs(workspace)),
    ]


def forkable(workspace: Workspace, run: Run | None = None) -> list[tuple[str, str]]:
    """Fresh weights, the checkpoints of one run, newest first, and the runs that have any."""
    own = [f"{run.id}@{path.name}" for path in reversed(checkpoints(run))] if run else []
    others = [one for one in draft.trained_runs(workspace) if (workspace.root / "runs" / one / "config.json").is_file()]
    return [("fresh weights", ""), *((one, one) for one in own), *((f"of run {one}", one) for one in others)]


def checkpoints_of(access: Access, ref: str) -> gr.Dropdown:
    run = find(access, ref.partition("@")[0]) if ref else None
    return gr.Dropdown(choices=forkable(access.workspace, run))


def parent_choice(workspace: Workspace, begun: str) -> gr.Dropdown:
    known = [DEFAULTS, *saved.names(workspace)]
    return gr.Dropdown(choices=known, value=begun if begun in known else DEFAULTS)


def as_preset(preset: str) -> list[dict]:
    """What the model's fields say of a preset where they are left empty."""
    return [gr.update(**where_left_out(field, preset)) for field in form_fields().values() if in_preset(field)]


def in_preset(field: Field) -> bool:
    """Whether a field left empty is as the preset has it."""
    return field.section == "model" and field.name not in ("preset", "others")


def where_left_out(field: Field, preset: str) -> dict:
    """The words for a field that is left empty: the first choice, or the placeholder."""
    has = getattr(preset_config(preset), field.name) if preset in PRESETS and in_preset(field) else None
    if not field.choices:
        return {"placeholder": "left out" if field.optional and has is None else "" if has is None else str(has)}
    words = "left out" if has is None else f"as the preset: {str(has).lower()}"
    return {"choices": [*([(words, "")] if field.optional else []), *((one, one) for one in field.options)]}


# What the form does


def preview(access: Access, fork: str, name: str, *values: object) -> tuple:
    """(what is wrong, for all and for each folded section; what it will cost; the recipe and its command)."""
    typed = named(values)
    wrong = {
        key: said for key, field in form_fields().items() if (said := check(field.section, field.name, typed[key]))
    }
    said, cost, texts = list(wrong.values()), Markup(), Markup()
    try:
        if name and name.strip():
            check_name(name.strip(), "run name")
        if not wrong:
            parts, recipe = draft.complete(access, drafted(access, fork, typed), fork)
            texts = draw.recipe_texts(recipe.to_yaml(), draft.command(access.workspace, parts, name, fork))
            cost = draw.cost(estimate(recipe, access.workspace))
    except Unknown as reason:
        cost = draw.sentences([one_line(reason)], "info")
    except (ValueError, OSError) as error:
        said.append(one_line(error))
    by_group = [[wrong[f.key] for f in group if f.key in wrong] for group in folded_fields().values()]
    return draw.sentences(said), *map(draw.sentences, by_group), cost, texts


def drafted(access: Access, fork: str, typed: dict[str, object]) -> dict:
    """A recipe's parts from what the fields hold; of a fork, what differs from its parent."""
    return values_to_parts(typed, base=values_of(draft.parent_parts(access, fork)))


def parts_of(access: Access, fork: str, values: Sequence[object]) -> dict:
    """The same from the fields in their order."""
    return drafted(access, fork, named(values))


def named(values: Sequence[object]) -> dict[str, object]:
    """What the fields hold, by their dotted names."""
    return dict(zip(form_fields(), values, strict=True))


def begun_as(access: Access, ref: str) -> list[object]:
    """(fresh weights, nothing forked, the fields' values) for a recipe that was chosen to start from."""
    return ["", "", *values_of(draft.beginning(access, ref)).values()]


def forked(access: Access, fork: str, forking: str) -> list[object]:
    """(the checkpoint to fork from, its run, the fields' values as that run has them).

    The fields are filled once for each run: choosing another of its checkpoints leaves what was typed.
    """
    if not fork:
        return [gr.skip(), "", *[gr.skip()] * len(form_fields())]
    parent, revision = draft.checkpoint_of(access, fork)
    chosen = gr.Dropdown(choices=forkable(access.workspace, parent), value=f"{parent.id}@{revision}")
    if parent.id == forking:
        return [gr.skip() if fork == f"{parent.id}@{revision}" else chosen, forking, *[gr.skip()] * len(form_fields())]
    return [chosen, parent.id, *values_of(draft.parent_parts(access, fork)).values()]


def started_run(access: Access, fork: str, name: str, *values: object) -> str:
    """Start what the form holds; returns the run's id."""
    access.check_write()
    return draft.start_run(access, drafted(access, fork, named(values)), name, fork).id


def started_checked(access: Access, last: dict, anyway: bool, fork: str, name: str, *values: object) -> str:
    """The same where no check is red, or the person insists."""
    access.check_write()
    parts = tab_checks.permitted(access, last, anyway, fork, drafted(access, fork, named(values)))
    return draft.start_run(access, parts, name, fork).id


def kept(access: Access, begun: str, name: str, *values: object) -> tuple:
    """(what the form starts from now, what was done): the form as a recipe's next version."""
    access.check_write()
    if not (name or "").strip():
        raise ValueError("give the recipe a name to keep it by, such as my-recipe")
    parts = draft.permitted(access, values_to_parts(named(values)))
    parent = begun if begun in saved.names(access.workspace) else None
    ref = saved.save(access.workspace, name.strip(), parts, parent)
    said = f"saved as {ref}" + (f", made from {parent}" if parent else "")
    return gr.Dropdown(choices=beginnings(access.workspace), value=ref), draw.sentences([said], "good")


def compared(access: Access, other: str, *values: object) -> Markup:
    """Where the form differs from another recipe."""
    before = {} if other in ("", None, DEFAULTS) else saved.read(access.workspace, other)
    now = values_to_parts(named(values))
    # through the form, so that a value that is the default counts as left out on both sides
    return draw.differences(saved.compare(values_to_parts(values_of(before)), now), other or DEFAULTS, "the form")
