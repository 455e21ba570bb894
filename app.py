"""The page: `python app.py` assembles the tabs of every room and serves them behind one guard. It computes nothing.

May import the tabs and what they are opened with. Wires what leads from one tab to another ("open in Generate"), and
keeps the tab and the run that are looked at in the address, so that a reload, or a link sent to somebody, comes back.
"""

import asyncio
import logging
import os
import socket
from functools import partial
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported; nobody is told anything

import gradio as gr
import uvicorn
from fastapi import FastAPI

import data.tab
import finetune.tab
import hub.tab_models
import interpret.tab
import interpret.tab_generate
import training.tab
import training.tab_watch
from data.access import Access
from data.console import Parser, cli
from data.workspace import Workspace
from hub.guard import LOOPBACK, UPLOAD_LIMIT, Guard, is_loopback, parse_auth
from hub.loaded import base_of, model_choices
from page.tab import QUICK, answer

PAGE = Path(__file__).parent / "page"
PORT = 7860
HEAD = """<div class="lab-head"><div><h1>LLM Lab</h1>
<p>Pretrain a GPT from nothing, fine-tune a Qwen, look inside both.</p></div>
<button type="button" class="lab-theme" aria-label="light or dark">light / dark</button></div>"""
# The address names what is looked at; nothing is loaded anew.
KEEP_TAB = "() => labAddress('tab', '{tab}')"
KEEP_RUN = "(run) => labAddress('run', run)"


def theme() -> gr.themes.Base:
    """Gradio's plain theme with the style sheet's colours and fonts that every system has."""
    surface = {"body_background_fill": "var(--lab-ground)", "block_background_fill": "var(--lab-surface)"}
    accent = {
        f"button_primary_{part}{when}": f"var(--lab-{colour})"
        for when in ("", "_hover")
        for part, colour in (("background_fill", "accent"), ("text_color", "surface"))
    }
    text = {"body_text_color": "var(--lab-ink)", "body_text_color_subdued": "var(--lab-muted)"}
    both = {**surface, **accent, **text, "border_color_primary": "var(--lab-line)"}
    return gr.themes.Base(
        primary_hue="teal", neutral_hue="slate", radius_size="md",
        font=["ui-sans-serif", "system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"],
    ).set(**both, **{f"{name}_dark": value for name, value in both.items()})  # fmt: skip


def build(access: Access) -> gr.Blocks:
    """The whole page for one workspace. Builds components, opens and writes nothing."""
    with gr.Blocks(title="LLM Lab", analytics_enabled=False, delete_cache=(3600, 86_400)) as page:
        gr.HTML(HEAD, padding=False)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Models", id="models") as models_tab:
                models = hub.tab_models.build(access)
            with gr.Tab("Train", id="train") as train_tab:
                train = training.tab.build(access)
            with gr.Tab("Fine-tune", id="finetune") as finetune_tab:
                tuned = finetune.tab.build(access, partial(training.tab_watch.build, access, "tune", "finetune"))
            with gr.Tab("Data", id="data") as data_tab:
                texts = data.tab.build(access)
            with gr.Tab("Generate", id="generate") as generate_tab:
                generate = interpret.tab_generate.build(access)
            with gr.Tab("Look inside", id="inspect") as inspect_tab:
                inspect = interpret.tab.build(access)
        for tab in (models_tab, train_tab, finetune_tab, data_tab, generate_tab, inspect_tab):
            tab.select(None, js=KEEP_TAB.format(tab=tab.id), api_visibility="private")
        for tab, model in ((generate_tab, generate.model), (inspect_tab, inspect.model)):
            tab.select(answer(partial(newest_model, access)), model, model, **QUICK)
        models.run_id.change(None, models.run_id, js=KEEP_RUN, api_visibility="private")
        lead(models.to_generate, models.run_id, tabs, "generate", generate.model)
        lead(models.to_inspect, models.run_id, tabs, "inspect", inspect.model)
        lead(models.to_train, models.run_id, tabs, "train", train.fork_from)
        lead(texts.to_train, texts.corpus, tabs, "train", train.corpus)
        for button, tab, sides in (
            (tuned.to_generate, "generate", [generate.model, generate.second]),
            (tuned.to_compare, "inspect", [inspect.model, inspect.second]),
        ):
            led = button.click(answer(partial(beside_base, access, tab)), tuned.watched, [tabs, *sides], **QUICK)
        led.success(lambda: gr.Tabs(selected="compare"), None, inspect.views, **QUICK)
        page.load(arrive, None, [tabs, models.run_id], api_visibility="private")
    return page


def lead(button: gr.Button, source: gr.components.Component, tabs: gr.Tabs, tab: str, target) -> None:
    """Clicking `button` takes what stands in `source` to another tab's `target`."""
    button.click(partial(go, tab), source, [tabs, target], **QUICK)


def go(tab: str, value: str) -> tuple:
    return gr.Tabs(selected=tab), value


def beside_base(access: Access, tab: str, run: str | None) -> tuple:
    """The tab, with a fine-tuned run as its model and the run's base as the second."""
    base = base_of(run, access)
    if base is None:
        raise ValueError(f"{run} has no base to stand beside it: it is no fine-tuning, or has not begun yet")
    return gr.Tabs(selected=tab), run, base


def newest_model(access: Access, chosen: str | None) -> gr.Dropdown:
    """What can be opened by now, and the newest of it where nothing is chosen yet."""
    choices = model_choices(access.workspace)
    return gr.Dropdown(choices=choices, value=chosen or (choices[0][1] if choices else None))


def arrive(request: gr.Request) -> tuple:
    """`/?tab=generate&run=ID`: the tab and the run that the address names."""
    asked = dict(request.query_params)
    known = asked.get("tab") in ("models", "train", "finetune", "data", "generate", "inspect")
    return gr.Tabs(selected=asked["tab"]) if known else gr.skip(), asked.get("run") or gr.skip()


def create_app(access: Access, hosts: frozenset[str] | None = LOOPBACK, auth: tuple[str, str] | None = None) -> FastAPI:
    """The server: the page behind the guard.

    Args:
        hosts: names by which it may be addressed; None: any.
        auth: (user, password) asked of everybody.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(access.workspace.root / "uploads")  # nothing is written elsewhere
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, hosts=hosts, auth=auth, read_only=access.read_only)
    return gr.mount_gradio_app(
        app, build(access), path="/", theme=theme(), css_paths=PAGE / "style.css", max_file_size=UPLOAD_LIMIT,
        head=f"<script>{(PAGE / 'page.js').read_text(encoding='utf-8')}</script>",
        footer_links=[], run_history=False, show_error=True,
    )  # fmt: skip


def main() -> int:
    on_space = "SPACE_ID" in os.environ
    parser = Parser(
        prog="python app.py", description="The page: choose text, train, watch, generate, look inside.",
        epilog="examples:\n  python app.py\n  python app.py --host 0.0.0.0 --auth ada:secret --name lab.example.org",
    )  # fmt: skip
    add = parser.add_argument
    add("--host", metavar="ADDRESS", default="0.0.0.0" if on_space else "127.0.0.1", help="where to listen (127.0.0.1)")
    add("--port", metavar="N", type=int, default=PORT, help=f"default: {PORT}")
    add("--workspace", metavar="DIR", help="default: $LLM_LAB_WORKSPACE, else ./workspace")
    add("--auth", metavar="USER:PASSWORD", help="asked of everybody; needed for any address but this machine's own")
    add("--name", metavar="HOST", action="append", default=[], help="a name by which the server is addressed")
    add("--allow", metavar="DIR", action="append", default=[], help="a folder outside the workspace that may be named")
    add("--read-only", action="store_true", help="show everything, change nothing")
    add("--trust-remote-code", action="store_true", help="run the code that models from elsewhere bring along")
    given = parser.parse_args()

    auth = given.auth or os.environ.get("LLM_LAB_AUTH")
    if not is_loopback(given.host) and not auth and not on_space:
        raise ValueError(
            f"listening on {given.host} opens the lab to others: set --auth USER:PASSWORD, or $LLM_LAB_AUTH"
        )
    access = Access(
        Workspace(given.workspace),
        folders=tuple(Path(folder).expanduser().resolve(strict=True) for folder in given.allow),
        read_only=given.read_only or on_space,
        trust_remote_code=given.trust_remote_code,
    )
    hosts = (
        None if on_space else LOOPBACK | {given.host.lower(), *map(str.lower, given.name), socket.gethostname().lower()}
    )
    check_free(given.host, given.port)
    app = create_app(access, hosts, parse_auth(auth) if auth else None)
    shown = "127.0.0.1" if given.host == "0.0.0.0" else f"[{given.host}]" if ":" in given.host else given.host
    print(f"LLM Lab: http://{shown}:{given.port}, workspace {access.workspace.root}")
    print("Ctrl-C ends the page; what trains goes on", flush=True)
    logging.getLogger("uvicorn.error").addFilter(is_news)
    uvicorn.run(app, host=given.host, port=given.port, log_level="warning", timeout_graceful_shutdown=2)
    return 0


def is_news(record: logging.LogRecord) -> bool:
    """Whether a line of the server's log is one: that a page was still open when the server ended is none."""
    left_open = record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not left_open and "graceful shutdown exceeded" not in record.getMessage()


def check_free(host: str, port: int) -> None:
    """Raises ValueError where somebody else listens there already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ValueError(f"port {port} of {host} cannot be had ({error}): choose another with --port") from error


if __name__ == "__main__":
    cli(main)
else:  # `from app import demo`: the page by itself, as a Hugging Face Space or another server takes it
    demo = build(Access(Workspace(), read_only="SPACE_ID" in os.environ))
