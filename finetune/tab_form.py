"""The Fine-tune tab's first part: which base, which examples, which adapter and how it is trained; and Start.

May import `page`, `hub`, `data` and Gradio. The fields come from `finetune.form`; what they may name, and the start,
from `finetune.draft`. Handlers are plain functions of what the fields hold; `build` binds them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gradio as gr

from data.access import Access
from data.console import one_line
from data.workspace import Workspace, check_name
from finetune import draft
from finetune.draft import DEFAULTS
from finetune.form import check, form_fields, values_of, values_to_parts
from page import training as draw
from page.html import Markup, note
from page.tab import QUICK, WORK, answer, html, recipe_field
from training.fields import Field, folded

# What is in sight at once, a line each; all other fields are in folded sections.
IN_SIGHT = (
    ("model.base", "data.source"),
    ("model.quantization", "model.rank", "model.alpha", "model.targets"),
    ("train.epochs", "train.steps", "train.batch_size", "train.context"),
    ("train.learning_rate", "train.optimizer"),
)
SECTIONS = {"data": "Examples", "model": "Adapter", "train": "Training"}


@dataclass(frozen=True)
class Form:
    """What the rest of the tab needs. `started` holds the id of the run that was started last."""

    fields: dict[str, gr.components.Component]
    name: gr.Textbox
    start: gr.Button
    started: gr.Textbox
    beside: gr.Column
    """Below Start, for what is seen before it."""


def build(access: Access) -> Form:
    """Lay the part out inside the caller's tab."""
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            start_from = build_beginning(access)
            fields, checks, name = build_fields(access)
        with gr.Column(scale=2, min_width=300):
            begin = gr.Button("Start fine-tuning", variant="primary", elem_id="tune-start")
            told, beside = html(elem_id="tune-told"), gr.Column()
            with gr.Accordion("The whole recipe, and the command that does the same", open=False):
                texts = html(elem_id="tune-recipe")
    values, started = list(fields.values()), gr.Textbox(visible="hidden", label="started fine-tuning")
    look, asked, shown = answer(partial(looked, access)), [name, *values], [*checks, texts]
    gr.on(None, look, asked, shown, trigger_mode="always_last", **QUICK)  # at first, and when a field changes
    begun = start_from.input(answer(partial(begun_as, access)), start_from, values, **QUICK)
    begun.success(look, asked, shown, **QUICK)  # a folded field does not say that it was filled
    # before there is a run its examples are read, which may take long
    begin.click(answer(partial(started_run, access)), asked, [started, told], show_progress_on=told, **WORK)
    return Form(fields, name, begin, started, beside)


def build_beginning(access: Access) -> gr.Dropdown:
    """What the form is filled with at first."""
    start_from = gr.Dropdown(
        draft.beginnings(access.workspace), value=DEFAULTS, allow_custom_value=True, elem_id="tune-from",
        label="Start from", info="A recipe of the lab, or that of an earlier fine-tuning",
    )  # fmt: skip
    start_from.focus(lambda: gr.Dropdown(choices=draft.beginnings(access.workspace)), None, start_from, **QUICK)
    return start_from


def build_fields(access: Access) -> tuple[dict[str, gr.components.Component], list[gr.HTML], gr.Textbox]:
    """(every field, in the order of `form_fields`; the places for what is wrong; the run's name)."""
    known, made = form_fields(), {}
    for row in IN_SIGHT:
        with gr.Row():
            for key in row:
                width = 240 if row is IN_SIGHT[0] else 120
                made[key] = build_field(known[key], access.workspace, f"tune-{known[key].name}", min_width=width)
            if row is IN_SIGHT[-1]:
                info = "Left out: that of its examples"
                name = gr.Textbox(label="Run name", info=info, max_lines=1, min_width=120, elem_id="tune-name")
        if row is IN_SIGHT[0]:
            build_upload(access, made["data.source"])
    checks = [html(elem_id="tune-problems", elem_classes="lab-train-check")]
    with gr.Accordion("All other settings", open=False, elem_id="tune-more"):
        for (section, group), fields in folded_fields().items():
            with gr.Accordion(f"{SECTIONS[section]}: {group}" if group else SECTIONS[section], open=False):
                checks.append(html(elem_classes="lab-train-check"))
                with gr.Row():
                    for field in fields:
                        made[field.key] = build_field(field, access.workspace, f"tune-field-{field.name}", 190)
    return {key: made[key] for key in known}, checks, name


def build_field(field: Field, workspace: Workspace, elem_id: str, min_width: int) -> gr.components.Component:
    """The component for a field."""
    listed = {"model.base": draft.bases, "data.source": draft.sources}.get(field.key)
    choices = partial(listed, workspace) if listed else None
    left_out = {"placeholder": "left out" if field.optional else ""}
    if field.choices:
        left_out = {
            "choices": [*([("left out", "")] if field.optional else []), *((one, one) for one in field.options)]
        }
    return recipe_field(field, values_of({})[field.key], elem_id, min_width, left_out, choices)


def build_upload(access: Access, source: gr.Dropdown) -> None:
    """A file of one's own: kept in the workspace, and named in `source`."""
    with gr.Accordion("Examples of your own", open=False, visible=not access.read_only, elem_id="tune-own"):
        gr.Markdown(
            "JSON lines, one example a line: `messages`, `instruction` and `output`, `prompt` and `completion`, "
            "or `text`. All lines of a file have the same form."
        )
        given = gr.File(
            label=", ".join(draft.READABLE), file_types=[*draft.READABLE], height=120, elem_id="tune-upload"
        )
    given.upload(answer(partial(handed_in, access)), given, [source, given], **QUICK)


# What the form does


def folded_fields() -> dict[tuple[str, str], list[Field]]:
    """The fields that are not in sight, by section and heading."""
    return folded(form_fields().values(), [key for row in IN_SIGHT for key in row])


def named(values: Sequence[object]) -> dict[str, object]:
    """What the fields hold, by their dotted names."""
    return dict(zip(form_fields(), values, strict=True))


def looked(access: Access, name: str, *values: object) -> tuple:
    """(what is wrong, for all and for each folded section; the recipe and its command)."""
    typed = named(values)
    wrong = {key: said for key in form_fields() if (said := check(key, typed[key]))}
    said, texts = list(wrong.values()), Markup()
    untouched = not str(typed["model.base"] or "").strip()  # nobody is told off before having typed anything
    try:
        if name and name.strip():
            check_name(name.strip(), "run name")
        if not wrong and not untouched:
            parts, recipe = draft.complete(access, values_to_parts(typed))
            texts = draw.recipe_texts(recipe.to_yaml(), draft.command(access.workspace, parts, name))
    except (ValueError, OSError) as error:
        said.append(one_line(error))
    by_group = [[wrong[f.key] for f in group if f.key in wrong] for group in folded_fields().values()]
    return draw.sentences(said), *map(draw.sentences, by_group), texts


def begun_as(access: Access, ref: str) -> list[object]:
    """The fields' values for a recipe that was chosen to start from."""
    return list(values_of(draft.beginning(access, ref)).values())


def handed_in(access: Access, path: str) -> tuple[gr.Dropdown, None]:
    """(the source that the form names now, no file): the file is kept where runs find it."""
    kept = draft.keep_upload(access, Path(path))
    return gr.Dropdown(choices=draft.sources(access.workspace), value=kept), None


def started_run(access: Access, name: str, *values: object) -> tuple[str, Markup]:
    """Start what the form holds: (the run's id, what is said about it)."""
    access.check_write()
    run = draft.start_run(access, values_to_parts(named(values)), name)
    return run.id, note(f"{run.id} was started, in a process of its own.", "good")
