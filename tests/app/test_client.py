"""A program at the page's door: it trains, follows, generates, and is refused what people are."""

import time

import pytest

gradio_client = pytest.importorskip("gradio_client")

RECIPE = {
    "data": {"corpus": "verdict", "tokenizer": "bpe", "vocab_size": 300},
    "model": {"preset": "tiny", "num_hidden_layers": 1},
    "train": {
        "steps": 12,
        "batch_size": 4,
        "context": 32,
        "compile": False,
        "threads": 1,
        "eval_sequences": 4,
        "sample_every": 12,
    },
}
HOSTILE = ["../secret", "/etc", "..%2f..%2fetc", "runs/../../..", "~root", "a\0b", "", "x" * 100_000]


@pytest.fixture(scope="module")
def client(server):
    return gradio_client.Client(server.url, verbose=False)


@pytest.fixture(scope="module")
def finished(client):
    run = client.predict(recipe=RECIPE, name="by-program", api_name="/start_training")["run"]
    deadline = time.monotonic() + 180
    while (status := client.predict(run=run, api_name="/run_status"))["status"] not in ("completed", "failed"):
        assert time.monotonic() < deadline, status
        assert status["status"] in ("queued", "running"), status
        time.sleep(0.5)
    assert status["status"] == "completed", status
    return run


@pytest.mark.slow
def test_a_program_trains_follows_and_generates(client, finished):
    assert finished in [row["id"] for row in client.predict(api_name="/list_runs")]
    shown = client.predict(run=finished, api_name="/show_run")
    assert shown["status"] == "completed" and shown["checkpoints"]
    loss = client.predict(run=finished, columns=["train_loss"], points=100, api_name="/metrics")["train_loss"]
    assert loss["step"] == list(range(1, 13))
    assert all(0 < value < 10 for value in loss["value"])
    written = client.predict(model=finished, prompt="I had", max_new_tokens=8, seed=3, api_name="/generate")
    again = client.predict(model=finished, prompt="I had", max_new_tokens=8, seed=3, api_name="/generate")
    assert written == again and written
    seen = client.predict(model=finished, prompt="I had always", layer=0, head=0, api_name="/attention")
    assert all(abs(sum(row) - 1) < 1e-2 for row in seen["weights"])


@pytest.mark.slow
def test_what_is_done_cannot_be_paused(client, finished):
    with pytest.raises(gradio_client.exceptions.AppError, match=f"{finished}"):
        client.predict(run=finished, verb="pause", api_name="/control_run")


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    ("endpoint", "arguments"),
    [
        ("/show_run", {"run": ...}),
        ("/metrics", {"run": ..., "columns": ["train_loss"], "points": 10}),
        ("/run_status", {"run": ...}),
        ("/control_run", {"run": ..., "verb": "stop"}),
        ("/start_training", {"recipe": {"data": {"corpus": ...}}, "name": "x"}),
        ("/start_training", {"recipe": {"data": {"tokenizer": ...}}, "name": "x"}),
        ("/start_training", {"recipe": {}, "name": ...}),
        ("/tokenize", {"tokenizer": ..., "text": "x"}),
        ("/generate", {"model": ..., "prompt": "x"}),
        ("/attention", {"model": ..., "prompt": "x", "layer": 0, "head": 0}),
    ],
)
def test_no_endpoint_leads_out_of_the_workspace(client, server, endpoint, arguments, name):
    if endpoint == "/start_training" and arguments["name"] is ... and name == "":
        pytest.skip("no name is the corpus's name")
    before = sorted(server.workspace.glob("runs/*"))

    def fill(value):
        return {k: fill(v) for k, v in value.items()} if isinstance(value, dict) else name if value is ... else value

    with pytest.raises(gradio_client.exceptions.AppError) as refused:
        client.predict(**fill(arguments), api_name=endpoint)
    said = str(refused.value)
    assert "Traceback" not in said and "root:" not in said and len(said) < 600
    assert sorted(server.workspace.glob("runs/*")) == before
