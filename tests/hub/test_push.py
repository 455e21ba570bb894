"""Publishing: the model, its card and its measurements arrive in one commit, and nothing of this machine with them."""

import json
import os
import subprocess
import sys

import pytest
from huggingface_hub import HfApi, ModelCard

from data.workspace import Workspace
from hub import push as module
from hub.checkpoints import publish
from hub.push import main, push
from hub.runs import Run
from tests.hub.model_hub import ModelHub

LOADER = """
import json, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("ada/tuned").eval()
from peft import PeftModel
base = AutoModelForCausalLM.from_pretrained(BASE, revision="step-000010")
wrapped = PeftModel.from_pretrained(base, "ada/tuned").eval()
ids = torch.tensor([[5, 9, 200, 31, 7]])
with torch.no_grad():
    sums = [float(one(ids).logits.double().abs().sum()) for one in (model, wrapped)]
print(json.dumps([*sums, bool(AutoTokenizer.from_pretrained("ada/tuned").chat_template)]))
"""


@pytest.fixture
def server():
    hub = ModelHub()
    yield hub
    hub.shutdown()


@pytest.fixture
def api(server, monkeypatch) -> HfApi:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return HfApi(endpoint=server.url, token=server.TOKEN)


@pytest.fixture
def trained(run, save) -> Run:
    """With two checkpoints, logs and a record of its process."""
    for step in (1, 2):
        publish(run, save(run, step))
    run.start_process()
    run.log("a line")
    run.finish("completed")
    (run.path / "output.log").write_text("what was printed")
    return run


def test_the_model_and_its_records_arrive_in_one_commit(trained, workspace, api, server):
    told = push(trained.id, "ada/tales", workspace, api=api)
    files = server.repos["ada/tales"]
    assert set(files) == set(told["files"]) == {
        "README.md", "config.json", "model.safetensors", "recipe.yaml", "tokenizer.json",
    }  # fmt: skip
    assert files["model.safetensors"] == (trained.path / "model.safetensors").read_bytes()
    assert server.commits == [f"{trained.id} at step-000002"]
    assert told["url"] == f"{server.url}/ada/tales" and told["remark"] is None
    ModelCard(files["README.md"].decode())
    content = b"".join(files.values())
    assert str(workspace.root).encode() not in content and str(os.getpid()).encode() not in files["README.md"]


def test_a_revision_replaces_what_lay_there(trained, workspace, api, server):
    server.repos["ada/tales"] = {
        "adapter_model.safetensors": b"old",
        "adapter_config.json": b"{}",
        "notes.txt": b"mine",
    }
    push(f"{trained.id}@1", "ada/tales", workspace, private=True, api=api)
    files = server.repos["ada/tales"]
    assert files["model.safetensors"] == (trained.path / "checkpoints/step-000001/model.safetensors").read_bytes()
    assert not [name for name in files if name.startswith("adapter")] and files["notes.txt"] == b"mine"


def test_what_cannot_be_published_is_a_sentence(trained, make_run, workspace, api, server):
    for ref, says in (
        (make_run("empty").id, "has no model to publish yet"),
        (f"{trained.id}@7", r"no complete revision '7'; it has main, step-000001, step-000002"),
        (f"{trained.id}@best", "no complete revision 'best'"),
        ("nobody", "no run 'nobody'"),
    ):
        with pytest.raises(ValueError, match=says):
            push(ref, "ada/tales", workspace, api=api)
    for repo in ("ada/../tales", "tales", "", "https://huggingface.co/ada/tales", "ada/ta les"):
        with pytest.raises(ValueError, match="cannot be a repository's id: write owner/name"):
            push(trained.id, repo, workspace, api=api)
    with pytest.raises(ValueError, match=r"refused ada/tales: .*hf auth login"):
        push(trained.id, "ada/tales", workspace, api=HfApi(endpoint=server.url, token="hf_wrong"))
    with pytest.raises(ValueError, match="cannot be reached"):
        push(trained.id, "ada/tales", workspace, api=HfApi(endpoint="http://127.0.0.1:9", token="x"))
    (trained.path / "checkpoints" / "step-000002" / "model.safetensors").write_bytes(b"spoilt")
    with pytest.raises(ValueError, match="step-000002 is torn"):
        push(trained.id, "ada/tales", workspace, api=api)
    assert server.repos == {}


def test_the_command(trained, workspace, api, monkeypatch, capsys):
    monkeypatch.setattr(module, "HfApi", lambda: api)
    arguments = [trained.id, "ada/tales", "--workspace", str(workspace.root)]
    assert main(arguments) == 0
    assert f"{trained.id} is at {api.endpoint}/ada/tales: 5 files" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["repo"] == "ada/tales"


@pytest.mark.slow
def test_an_adapter_is_published_and_opened_by_the_libraries(tmp_path, api, server):
    """Where a server gives the base under its run's id, plain transformers and peft find both by themselves."""
    pytest.importorskip("peft")
    import torch

    from hub.models import open_model
    from tests.hub.adapted import make_adapter, make_base

    lab = Workspace(tmp_path / "lab")
    base = make_base(lab)
    tuned = make_adapter(lab, base.id, quantization="none")
    told = push("tuned", "ada/tuned", lab, api=api)
    assert {"adapter_config.json", "adapter_model.safetensors", "base.json", "README.md", "generation_config.json",
            "tokenizer.json", "chat_template.jinja", "recipe.yaml"} <= set(told["files"])  # fmt: skip
    assert not [name for name in told["files"] if "state" in name or name == "config.json"]
    assert f"its base {base.id}@step-000010 is not of the Hub" in told["remark"]
    assert json.loads(server.repos["ada/tuned"]["adapter_config.json"])["base_model_name_or_path"] == base.id
    server.repos[base.id] = {path.name: path.read_bytes() for path in base.path.iterdir() if path.is_file()}
    environment = {
        **os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    code = LOADER.replace("BASE", repr(base.id))
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    model, _ = open_model(tuned.id, lab)
    with torch.no_grad():
        here = float(model(torch.tensor([[5, 9, 200, 31, 7]])).logits.double().abs().sum())
    direct, wrapped, converses = json.loads(ran.stdout.splitlines()[-1])
    assert direct == pytest.approx(here, rel=1e-5) and wrapped == pytest.approx(here, rel=1e-5) and converses
