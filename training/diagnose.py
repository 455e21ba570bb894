"""Diagnose a run: `python -m training.diagnose RUN`, what its measurements say is wrong and what to change.

May import `hub` and `data`. The rules are small functions in the tables of `training.findings_*`; this is where they
are asked, where a change becomes a command, and where one is carried out.
"""

import dataclasses
import json
import shlex

from data.console import Parser, cli
from data.workspace import Workspace
from hub.checkpoints import step_of
from hub.findings import SEVERITIES, Finding, Judged, read_findings, write_findings
from hub.metrics import finite
from hub.runs import Run
from training import findings_data, findings_layers, findings_machine, findings_rate
from training.findings import Case, Rule, Seen
from training.launch import MODULE, command_words, flags_of, start
from training.recipe import merge, read_recipe

RULES: tuple[Rule, ...] = (
    *findings_rate.RULES,
    *findings_layers.RULES,
    *findings_data.RULES,
    *findings_machine.RULES,
)


def diagnose(run: Run) -> list[Finding]:
    """What the run's files say, the gravest first; quick enough for a page that looks at a run as it trains.

    What takes a look at the model, or a count of the corpus, is judged as far as `conclude` has found it out before.
    """
    judged = read_findings(run.path)
    return judge(Case(run, judged and judged.probe, judged and judged.overlap))


def conclude(run: Run, model=None) -> list[Finding]:
    """The same after a look at the newest checkpoint and at the corpus; kept in findings.json.

    Args:
        model: the one of the newest checkpoint, where it is at hand.
    """
    from training.findings_probe import probe_newest, shared_text  # torch and transformers, which a page does without

    judged = read_findings(run.path)
    case = Case(run, judged and judged.probe)
    case.probe, case.overlap = probe_newest(case, model), shared_text(case, count=True)
    found = judge(case)
    write_findings(run.path, Judged(case.step, [_finite(one) for one in found], case.probe, case.overlap))
    return found


def judge(case: Case) -> list[Finding]:
    """Every rule asked, problems before warnings."""
    found = [finding(case, rule, seen) for rule in RULES if (seen := rule.judge(case)) is not None]
    return sorted(found, key=lambda one: SEVERITIES.index(one.severity))


def finding(case: Case, rule: Rule, seen: Seen) -> Finding:
    """What a rule saw, with the checkpoint to go on from and the command that does it."""
    run, change, fork = case.run, seen.change, None
    checkpoint = None if change is None or seen.fresh else case.checkpoint_before(seen.before)
    if checkpoint is not None:
        fork = f"{run.id}@{checkpoint.name}"
        if (step := step_of(checkpoint)) >= case.planned:  # nothing is left to take
            change = {**change, "train": {**change.get("train", {}), "steps": step + case.planned}}
    if change is None:
        words = list(seen.look)
    elif fork is not None:
        words = command_words(change, None, fork)
    else:
        words = ["python", "-m", MODULE, "--recipe", str(run.path / "recipe.yaml"), *flags_of(change)]
    command = shlex.join(words) + run.workspace_flag() if words else ""
    what = {field.name: getattr(seen, field.name) for field in dataclasses.fields(Finding) if hasattr(seen, field.name)}
    return Finding(
        **what | {"change": change}, name=rule.name, title=rule.title, fork=fork, command=command, source=rule.source
    )


def changed_run(run: Run, finding: Finding) -> tuple[dict, str | None]:
    """(the parts of the run to be, the checkpoint it forks): what carries a finding's change out.

    Raises ValueError where no change of the recipe mends what was found.
    """
    if finding.change is None:
        raise ValueError(f"no recipe mends this ({finding.title.lower()}): {finding.advice}")
    if finding.fork is not None:
        return finding.change, finding.fork
    return merge(read_recipe(run.path / "recipe.yaml"), finding.change), None


def chosen(found: list[Finding], number: int) -> Finding:
    """Finding `number`, counted from 1 as it is printed."""
    if not found:
        raise ValueError("nothing was found in this run, so that there is nothing to change")
    if not 1 <= number <= len(found):
        raise ValueError(f"there is no finding {number}: they are numbered 1 to {len(found)}")
    return found[number - 1]


def told(found: list[Finding], steps: int) -> str:
    """The findings for a terminal."""
    if not found:
        return f"nothing found: {len(RULES)} rules, {steps:,} steps"
    texts = []
    for number, one in enumerate(found, start=1):
        lines = [
            f"{number}. {one.severity}: {one.title} ({one.name})",
            f"seen       {one.seen}",
            f"threshold  {one.threshold}",
            f"advice     {one.advice}",
            *(f"evidence   {_where(what, step)}{value:.4g}" for what, step, value in one.evidence),
            *([f"{'do' if one.change else 'look':<11}{one.command}"] if one.command else []),
            f"because    {one.source}",
        ]
        texts.append("\n   ".join(lines))
    return "\n\n".join(texts)


def _where(what: str, step: int | None) -> str:
    return f"{what}: " if step is None else f"{what} at step {step:,}: "


def _finite(one: Finding) -> Finding:
    """A loss that is not a number is null to any reader of the file."""
    return dataclasses.replace(one, evidence=finite(one.evidence))


def main() -> int:
    parser = Parser(
        prog="python -m training.diagnose",
        description="What is wrong with a run, by its measurements: what was seen, the threshold, what to change.",
        epilog="examples:\n  python -m training.diagnose latest"
        "\n  python -m training.diagnose tales-1a2b3c --fork 1    start the run that finding 1 proposes",
    )
    parser.add_argument("run", metavar="RUN", help="an id, the beginning of one, a name (its newest) or `latest`")
    parser.add_argument("--fork", metavar="N", type=int, help="start a run with the change of finding N, detached")
    parser.add_argument("--json", action="store_true", help="print the result for programs")
    parser.add_argument("--workspace", metavar="DIR", help="default: $LLM_LAB_WORKSPACE, else ./workspace")
    given = parser.parse_args()
    workspace = Workspace(given.workspace)
    run = Run.open(workspace, given.run)
    found = conclude(run)
    answer = {"run": run.id, "findings": [dataclasses.asdict(_finite(one)) for one in found]}
    begun = None
    if given.fork is not None:
        parts, fork = changed_run(run, chosen(found, given.fork))
        begun = start(parts, workspace, None if fork else run.name, fork).id
        answer["started"] = begun
    if given.json:
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        print(told(found, Case(run).step))
        if begun is not None:
            print(f"\nrun {begun} is in a process of its own; watch it: python -m hub.runs show {begun}")
    return 0


if __name__ == "__main__":
    cli(main)
