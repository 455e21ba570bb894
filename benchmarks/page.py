"""The page with 200 runs of 10,000 steps: what the server spends on it, and what a person at a browser waits for.

    python -m benchmarks.page [--runs 200] [--steps 10000] [--json]

The workspace is a temporary one: one run made by the project's own writers, and copies of it. The browser's part needs
Playwright and Chromium and is left out where there are none.
"""

import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from data.access import Access
from data.console import Parser, cli
from data.workspace import Workspace, read_json, write_json
from hub.checkpoints import save_checkpoint
from hub.metrics import Metrics, append_sample
from hub.runs import Run
from hub.tab_list import listed
from hub.tab_run import followed, opened

ROOT = Path(__file__).resolve().parents[1]
TARGETS = {  # milliseconds
    "list, first look": 2000,
    "list, nothing new": 50,
    "list, drawn again": 50,
    "opening a run": 1000,
    "tick, nothing new": 50,
    "tick, ten more steps": 50,
    "browser: rows to be seen": 2000,
    "browser: search answers": 2000,
    "browser: chart of an opened run": 1000,
}
NO_FILTERS = ("", "", "", "", "", 50)
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu"]


def make_workspace(root: Path, runs: int, steps: int) -> Workspace:
    """`runs` completed runs, each with metrics, samples, a log and five checkpoints without weights."""
    workspace = Workspace(root)
    inputs = {what: {"name": "tales", "sha256": "0" * 64} for what in ("corpus", "tokenizer")}
    command = ["python", "-m", "training.pretrain"]
    first = Run.create(workspace, "measured", "pretrain", command, f"train:\n  steps: {steps}\n", 0, inputs)
    first.start_process()
    write_steps(first, 1, steps)
    for step in range(steps // 5, steps + 1, steps // 5):
        save_checkpoint(first, step, lambda folder: write_json(folder / "config.json", {"model_type": "labgpt"}),
                        lambda folder: write_json(folder / "position.json", {}))  # fmt: skip
        append_sample(first.path, step, "One sunny day, Tom found a red ball in the park. " * 10, temperature=1.0)
        first.log(f"step {step}: saved")
    write_json(first.path / "config.json", {"model_type": "labgpt"})
    progress = {"step": steps, "steps": steps, "tokens": steps * 4096, "tokens_per_second": 20_000.0}
    first.update(progress=progress, model={"parameters": 918_784})
    first.finish("completed", result={"train_loss": 1.2, "val_loss": 1.3, "floor": 1.1, "excess": 0.2})
    record = read_json(first.path / "run.json")
    for i in range(1, runs):
        path, made = first.path.with_name(f"measured-{i:06x}"), f"2026-01-01T00:{i // 60:02}:{i % 60:02}+00:00"
        shutil.copytree(first.path, path)
        write_json(path / "run.json", record | {"id": path.name, "created_at": made})
    return workspace


def write_steps(run: Run, begin: int, end: int) -> None:
    """A noisy falling loss, and all else that a step records; an evaluation every 200 steps."""
    noise, metrics = np.random.default_rng(begin).normal(0, 0.05, end - begin + 1), Metrics(run.path)
    for step, shift in zip(range(begin, end + 1), noise.tolist(), strict=True):
        loss = 1.2 + 6 / step**0.5 + shift
        metrics.add(step, tokens_sec=20_000 + 1000 * shift, grad_norm=1 + shift, train_loss=loss, learning_rate=1e-3,
                    tokens=4096 * step, seconds=step / 5)  # fmt: skip
        if step % 200 == 0:
            metrics.add(step, update_ratio=1e-3, dead_perc=2.5, val_loss=loss + 0.1, eval_train_loss=loss)
    metrics.close()


def server_times(workspace: Workspace) -> dict[str, float]:
    """Milliseconds of the handlers behind the page."""
    access, times = Access(workspace), {}
    times["list, first look"], (_, told) = timed(lambda: listed(access, *NO_FILTERS))
    times["list, nothing new"], _ = median(lambda: listed(access, *NO_FILTERS, told))
    times["list, drawn again"], _ = median(lambda: listed(access, *NO_FILTERS))
    one = sorted((workspace.root / "runs").glob("*/run.json"))[-1].parent
    times["opening a run"], (_, _, _, seen, *_) = timed(lambda: opened(access, one.name, "step", False))
    times["tick, nothing new"], _ = median(lambda: followed(access, "step", False, seen))
    end, ticks = read_json(one / "run.json")["progress"]["step"], []
    for i in range(5):
        write_steps(Run(one), end + 10 * i + 1, end + 10 * i + 10)
        milliseconds, (seen, *_) = timed(lambda seen=seen: followed(access, "step", False, seen))
        ticks.append(milliseconds)
    times["tick, ten more steps"] = statistics.median(ticks)
    return times


def browser_times(workspace: Workspace) -> dict[str, float]:
    """Milliseconds in headless Chromium; empty where there is none. The second visit counts, as files are cached."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return {}
    if not chromium:
        return {}
    with serving(workspace) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        page, row, times = browser.new_page(), "#models-list tr[data-run]", {}

        def visit() -> None:
            page.goto(url)
            page.locator(row).first.wait_for()

        visit()
        times["browser: rows to be seen"], _ = timed(visit)

        def search() -> None:
            page.locator("#models-search input, #models-search textarea").fill("00000a")
            page.locator(row).nth(1).wait_for(state="detached")

        times["browser: search answers"], _ = timed(search)

        def open_first() -> None:
            page.locator(row).first.click()
            page.locator("#models-curves .lab-plot svg").first.wait_for()

        times["browser: chart of an opened run"], _ = timed(open_first)
        browser.close()
    return times


@contextmanager
def serving(workspace: Workspace) -> Iterator[str]:
    """The page's address, while `python app.py` serves it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--workspace", str(workspace.root)]
    server, url = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL), f"http://127.0.0.1:{port}"
    try:
        while not answers(url):
            if server.poll() is not None:
                raise ValueError(f"the page does not start: {' '.join(command)}")
            time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait()


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except (urllib.error.URLError, OSError):
        return False


def timed(work: Callable) -> tuple[float, object]:
    """Milliseconds, and what came out."""
    started = time.perf_counter()
    result = work()
    return 1000 * (time.perf_counter() - started), result


def median(work: Callable, repeats: int = 9) -> tuple[float, object]:
    many = [timed(work) for _ in range(repeats)]
    return statistics.median(milliseconds for milliseconds, _ in many), many[-1][1]


def main() -> int:
    parser = Parser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="runs in the workspace (default: 200)")
    parser.add_argument("--steps", type=int, default=10_000, help="steps of each (default: 10,000)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = make_workspace(Path(folder), args.runs, args.steps)
        times = server_times(workspace) | browser_times(workspace)
    rows = [{"what": what, "milliseconds": round(value, 1), "target": TARGETS[what]} for what, value in times.items()]
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        print(f"{args.runs} runs of {args.steps:,} steps, medians where a thing repeats\n")
        print(f"{'':<36}{'ms':>9}{'wanted':>9}")
        for row in rows:
            print(f"{row['what']:<36}{row['milliseconds']:>9,.1f}{row['target']:>9,}")
        if not any(what.startswith("browser") for what in times):
            print("\nno browser here: its part needs `pip install playwright` and Chromium")
    slow = [row["what"] for row in rows if row["milliseconds"] > row["target"]]
    if slow:
        print(f"slower than wanted: {', '.join(slow)}", file=sys.stderr)
    return 1 if slow else 0


if __name__ == "__main__":
    cli(main)
