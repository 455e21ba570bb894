"""Fine-tuned runs small enough to make by the dozen: an adapter with weights of its own on a tiny base, not trained."""

import torch
from transformers import Qwen2Config, Qwen3Config
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from data.tokenizer_kinds import train_tokenizer
from data.workspace import Workspace
from hub.adapters import identify, open_quantised, write_adapter
from hub.checkpoints import publish, save_checkpoint
from hub.metrics import Metrics
from hub.models import resolve
from hub.runs import Run
from modeling import LabGPTConfig

TEXT = ["the cat sat on the mat, and the dog sat on the cat. "] * 20
# Widths are multiples of what is quantised as one block, 64 numbers. The tables are larger than the tokenizer.
SIZE = {"vocab_size": 288, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZE |= {"max_position_embeddings": 128, "initializer_range": 0.1, "bos_token_id": None, "eos_token_id": None}
GROUPED = {"intermediate_size": 128, "num_key_value_heads": 2}
BASES = {
    "qwen3": Qwen3Config(**SIZE, **GROUPED, head_dim=16, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SIZE, **GROUPED, tie_word_embeddings=False),
    "labgpt": LabGPTConfig(**SIZE, **GROUPED),
}
RECIPE = """schema: 1
data: {{source: stories, validation_fraction: 0.1}}
model: {{base: {base}, quantization: {quantization}, double_quantization: true, rank: 4, alpha: 8.0, dropout: 0.0,
  targets: all-linear, rslora: {rslora}, dora: {dora}}}
train: {{steps: 20, learning_rate: 0.0002, seed: 0}}
"""
EXAMPLES = {"name": "stories", "sha256": "e" * 64}


def tokenizer():
    return train_tokenizer("bpe", TEXT, 280)


def make_base(workspace: Workspace, kind: str = "qwen3", name: str = "base", template: bool = True, **choices) -> Run:
    """A pretrained run of a random model of this kind; `choices` are for its `save_pretrained`."""
    inputs = {"corpus": {"name": "tales", "sha256": "c" * 64}}
    run = Run.create(workspace, name, "pretrain", ["python", "-m", "training.pretrain"], "", 0, inputs)
    torch.manual_seed(3)
    model, words = AutoModelForCausalLM.from_config(BASES[kind]), tokenizer()
    if not template:
        words.chat_template = None

    def write(folder):
        model.save_pretrained(folder, **choices)
        words.save_pretrained(folder)

    publish(run, save_checkpoint(run, 10, write, lambda folder: None))
    run.update(model={"parameters": model.num_parameters()}, progress={"step": 10, "steps": 10})
    run.finish("completed", result={"val_loss": 2.0})
    return run


def make_adapter(
    workspace: Workspace, base: str, name: str = "tuned", quantization: str = "nf4", rslora=False, dora=False, **lora
) -> Run:
    """A finished run whose adapter changes its base a good deal; `base` as for `hub.models.resolve`."""
    import peft

    place = resolve(base, workspace)
    folder, record = identify(place, workspace)
    given = {"base": base, "quantization": quantization, "rslora": str(rslora).lower(), "dora": str(dora).lower()}
    command = ["python", "-m", "finetune.qlora", "--base", base, "--data", "stories"]
    inputs = {"examples": EXAMPLES, "base": record}
    run = Run.create(workspace, name, "finetune", command, RECIPE.format(**given), 0, inputs)
    model, _ = open_quantised(folder, quantization)
    config = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | lora
    torch.manual_seed(4)
    model = peft.get_peft_model(
        model, peft.LoraConfig(**config, use_rslora=rslora, use_dora=dora, init_lora_weights=False)
    )
    words = tokenizer()
    model.generation_config.eos_token_id = [words.convert_tokens_to_ids("<|im_end|>")]
    stated = record | {"quantization": quantization, "double_quantization": True}
    publish(
        run,
        save_checkpoint(run, 20, lambda folder: write_adapter(model, stated, None, words, folder), lambda folder: None),
    )
    measured = Metrics(run.path)
    measured.add(10, train_loss=2.5, val_loss=2.4)
    measured.add(20, train_loss=2.1, val_loss=2.2)
    measured.close()
    trained = sum(weights.numel() for name, weights in model.named_parameters() if "lora_" in name)
    run.update(
        model={"parameters": 100_000, "parameters_trainable": trained},
        progress={"step": 20, "steps": 20, "tokens": 1234},
    )
    result = {"train_loss": 2.1, "val_loss": 2.2, "perplexity": 9.03, "val_tokens": 300, "seconds": 4.0}
    run.finish("completed", result=result)
    return run
