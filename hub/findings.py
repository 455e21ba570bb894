"""What was found wrong in a run, at rest: findings.json in its folder.

May import `data`. `training.diagnose` judges and writes; the page and other rooms read it here.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from data.workspace import SCHEMA, read_json, write_json

FINDINGS = "findings.json"
SEVERITIES = ("problem", "warning")  # the graver first


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or likely to be.

    Attributes:
        name: of the rule that found it, as in the table of docs/diagnose.md.
        severity: `problem` where the run, or its figures, are spoilt; `warning` where they could be better.
        seen: what was seen, one sentence with its numbers; `threshold` is what would have been unremarkable.
        evidence: (what, at which step, its value) of the measurements that were judged.
        advice: what to change, in words; `change` as parts of a recipe, None where no recipe mends it.
        fork: the `RUN@REVISION` that the change goes on from; None where the run should begin anew with it.
        command: what to type to do so or, without a change, to look closer.
        source: the paper or the reason behind the rule.
    """

    name: str
    title: str
    severity: str
    seen: str
    threshold: str
    advice: str
    evidence: list[tuple[str, int | None, float]] = field(default_factory=list)
    change: dict | None = None
    fork: str | None = None
    command: str = ""
    source: str = ""


@dataclass(frozen=True)
class Judged:
    """findings.json: what was found at `step`, and what took long to find out."""

    step: int
    findings: list[Finding]
    probe: dict | None = None  # of the newest checkpoint's model
    overlap: dict | None = None  # of the validation split with the training split


def read_findings(run_path: Path) -> Judged | None:
    """What was written last; None where the run was never judged, or the file is not to be read."""
    try:
        record = read_json(Path(run_path) / FINDINGS)
        findings = [Finding(**{**found, "evidence": [*map(tuple, found["evidence"])]}) for found in record["findings"]]
        return Judged(record["step"], findings, record["probe"], record["overlap"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_findings(run_path: Path, judged: Judged) -> None:
    write_json(Path(run_path) / FINDINGS, {"schema": SCHEMA, **asdict(judged)})
