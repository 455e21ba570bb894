"""`python -m hub.runs`: what it prints, and its exit codes."""

import json
import subprocess
import sys

import pytest

from hub.process import PROJECT
from hub.registry import COMMANDS, main, table, text

OTHER = "data:\n  corpus: tales\ntrain:\n  steps: 500\n  learning_rate: 0.003\n"


def command(workspace, *arguments: str) -> list[str]:
    return [*arguments, "--workspace", str(workspace.root)]


def test_list(make_run, workspace, capsys):
    done, broken = make_run(), make_run("verdict")
    done.update(progress={"step": 500, "steps": 500})
    done.finish("completed", result={"val_loss": 1.2345678})
    (broken.path / "run.json").write_text("not json")
    assert main(command(workspace, "list")) == 0
    out = capsys.readouterr().out
    assert "500 of 500" in out
    assert "1.235" in out
    assert "unreadable" in out
    main(command(workspace, "list", "--json"))
    rows = json.loads(capsys.readouterr().out)
    assert [(row["id"], row["status"], row["val_loss"]) for row in rows] == [
        (done.id, "completed", 1.2345678),
        (broken.id, "unreadable", None),
    ]


def test_an_empty_workspace(workspace, capsys):
    main(command(workspace, "list"))
    assert "no runs yet" in capsys.readouterr().out


def test_show(run, save, workspace, capsys):
    save(run, 100)
    run.finish("completed", result={"excess": 0.04, "excess_interval": [0.03, 0.05]})
    main(command(workspace, "show", "tales"))
    out = capsys.readouterr().out
    assert run.id in out
    assert "0.03 to 0.05" in out
    assert "step-000100 (resumable)" in out
    main(command(workspace, "show", "latest", "--json"))
    assert json.loads(capsys.readouterr().out)["checkpoints"] == [{"revision": "step-000100", "resumable": True}]


def test_compare(make_run, workspace, capsys):
    first, second = make_run(), make_run("faster", OTHER, seed=1)
    first.finish("completed", result={"val_loss": 2.0})
    second.finish("completed", result={"val_loss": 1.0})
    main(command(workspace, "compare", first.id, "faster", "--json"))
    result = json.loads(capsys.readouterr().out)
    assert result["recipe"] == {"train.learning_rate": [0.001, 0.003]}
    assert result["origin"] == {"seed": [0, 1]}
    assert result["data"] == result["machine"] == {}
    assert result["result"] == {"val_loss": [2.0, 1.0]}
    main(command(workspace, "compare", first.id, "faster"))
    out = capsys.readouterr().out
    assert "train.learning_rate" in out
    main(command(workspace, "compare", first.id, first.id))
    assert "the same recipe" in capsys.readouterr().out


def test_comparison_names_data_code_and_machine(make_run, workspace, capsys):
    first, second = make_run(), make_run("other")
    second.update(
        inputs={"corpus": {"name": "tales", "sha256": "e" * 64}},
        versions={"torch": "1.0"},
        machine={"cpu": "Abacus", "threads": 1},
        code_sha="f" * 64,
        git={"sha": "a" * 40, "dirty": True},
    )
    main(command(workspace, "compare", first.id, second.id, "--json"))
    result = json.loads(capsys.readouterr().out)
    assert result["recipe"] == {}
    assert result["data"] == {"corpus": ["tales (cccccccccccc)", "tales (eeeeeeeeeeee)"]}
    assert result["machine"] == {"cpu": [None, "Abacus"], "threads": [None, 1]}
    assert result["origin"]["model code"][1] == "ffffffffffff"
    assert result["origin"]["commit"][1] == "aaaaaaaaaaaa with changes"
    assert result["origin"]["torch"] == [first.info()["versions"]["torch"], "1.0"]
    main(command(workspace, "compare", first.id, second.id))
    out = capsys.readouterr().out
    assert "the same recipe" in out and "Abacus" in out


def test_lineage_is_shown_from_both_sides(make_run, workspace, capsys):
    parent, fork, successor = make_run("parent"), make_run("fork"), make_run("successor")
    fork.update(inputs={"parent": {"run": parent.id, "revision": "step-000100", "sha256": "0"}})
    successor.update(inputs={"base": {"id": parent.id, "revision": "step-000200", "sha256": "0"}})
    main(command(workspace, "show", "parent", "--json"))
    assert sorted(json.loads(capsys.readouterr().out)["children"], key=lambda child: child["kind"]) == [
        {"id": fork.id, "kind": "fork", "revision": "step-000100"},
        {"id": successor.id, "kind": "successor", "revision": "step-000200"},
    ]
    main(command(workspace, "show", "parent"))
    out = capsys.readouterr().out
    assert fork.id in out and "successor of @step-000200" in out
    main(command(workspace, "show", "fork"))
    assert f"{parent.id}@step-000100" in capsys.readouterr().out
    main(command(workspace, "show", "successor"))
    assert f"{parent.id}@step-000200" in capsys.readouterr().out


def test_delete(run, workspace, capsys, monkeypatch):
    run.finish("failed")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(ValueError, match="--yes"):
        main(command(workspace, "delete", run.id))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "n")
    main(command(workspace, "delete", run.id))
    assert run.path.exists()
    main(command(workspace, "delete", run.id, "--yes", "--json"))
    assert json.loads(capsys.readouterr().out) == {"deleted": run.id}
    assert not run.path.exists()


def test_from_a_terminal(run, workspace):
    def call(*arguments: str) -> subprocess.CompletedProcess:
        words = [sys.executable, "-m", "hub.runs", *arguments]
        return subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, check=False)

    wrong = call(*command(workspace, "show", "tails"))
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    assert "did you mean 'tales'" in wrong.stderr
    assert call(*command(workspace, "list", "--josn")).returncode == 2
    assert call(*command(workspace, "list")).returncode == 0


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_has_an_example(verb, capsys):
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    assert f"python -m hub.runs {verb}" in capsys.readouterr().out.split("example:")[1]


def test_values_for_people():
    assert [text(value) for value in (None, 1234567, 0.123456, 12345.6, [0.1, 0.2], True)] == [
        "–", "1,234,567", "0.1235", "12,346", "0.1 to 0.2", "True",
    ]  # fmt: skip
    assert table([["a", "bbb"], ["cc", ""]]) == "a   bbb\ncc"
