"""The base of a fine-tuning, opened and quantised, with a fresh adapter or a checkpoint's on it.

May import `hub` and `data`; peft late.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from data.console import nearest, one_line
from data.workspace import Workspace, read_json
from finetune.recipe import ALL_LINEAR, AdapterRecipe, FinetuneRecipe
from finetune.rendering import answer_end
from hub.adapters import find_base, identify, open_quantised
from hub.models import ADAPTER, resolve, run_of

# The base's own weights and arithmetic by `train.precision`; the adapter's stay in fp32.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WINDOW = 8  # tokens of each of the two texts that packing is tried on


@dataclasses.dataclass(frozen=True)
class Base:
    """Which model is adapted, and where it lies.

    Args:
        record: `inputs.base` of run.json: id, revision, sha256 of the weights.
    """

    folder: Path
    record: dict

    @property
    def name(self) -> str:
        return "@".join(filter(None, (self.record["id"], self.record["revision"])))


def find(recipe: AdapterRecipe, workspace: Workspace, record: dict | None = None) -> Base:
    """The base that a recipe names, fetched where it is on the Hub.

    Args:
        record: of a run that goes on: its base's, which has to be the same one.
    """
    if record is not None:
        return Base(find_base(record, workspace), record)
    return Base(*identify(resolve(recipe.base, workspace), workspace))


def adapted(base: Base, recipe: FinetuneRecipe, tokenizer, checkpoint: Path | None = None):
    """The base with an adapter on it, in training mode, as a `PeftModel`.

    Its fresh weights are drawn from torch's global generator. Generation stops at the token that ends an answer.

    Args:
        checkpoint: whose adapter it is; None: a fresh one.
    """
    peft = _peft()
    how, train = recipe.model, recipe.train
    model, _ = open_quantised(
        base.folder, how.quantization, how.double_quantization, DTYPES[train.precision], train.device,
        attn_implementation=train.attn_implementation,
    )  # fmt: skip
    check_vocabulary(model, tokenizer, base)
    if train.activation_checkpointing:
        model.activation_checkpointing_enable()
    stop_at(model, answer_end(tokenizer) if tokenizer.chat_template else None)
    if checkpoint is not None:
        check_adapter(how, checkpoint)
        model = peft.PeftModel.from_pretrained(model, checkpoint, is_trainable=True)
    else:
        tokens = control_tokens(tokenizer) if how.chat_tokens is True else []
        model = with_adapter(model, how, tokens)
    if how.quantization == "none":
        model.to(train.device)
    return model.train()


def stop_at(model, end: int | None) -> None:
    """Let the model's generation end with an answer, beside the tokens that end it already."""
    own = model.generation_config.eos_token_id
    known = [] if own is None else [own] if isinstance(own, int) else list(own)
    ends = list(dict.fromkeys([*([] if end is None else [end]), *known]))
    model.generation_config.eos_token_id = ends or None


def check_vocabulary(model, tokenizer, base: Base) -> None:
    """Raises ValueError where the tokenizer has entries that the base has no embedding for."""
    entries, rows = len(tokenizer), model.get_input_embeddings().weight.shape[0]
    if entries > rows:
        raise ValueError(f"{base.name} embeds {rows:,} tokens, and its tokenizer has {entries:,}: they do not belong")


def check_adapter(how: AdapterRecipe, checkpoint: Path) -> None:
    """Raises ValueError where a recipe's adapter is not that of a checkpoint."""
    saved = read_json(checkpoint / ADAPTER)
    here = {"r": how.rank, "lora_alpha": how.alpha, "use_rslora": how.rslora, "use_dora": how.dora}
    fields = {"r": "rank", "lora_alpha": "alpha", "use_rslora": "rslora", "use_dora": "dora"}
    for key, value in here.items():
        if saved.get(key) != value:
            raise ValueError(
                f"model.{fields[key]} is {saved.get(key)} in {checkpoint.name} and {value} in this recipe: go on "
                "without --model flags, or start a new run"
            )


def check_packing(model, name: str) -> None:
    """Raises ValueError where a text would see the one packed before it.

    Tried on two short texts in one row: position ids that begin again have to keep them apart.
    """
    ids = torch.arange(2 * WINDOW, device=model.device)[None] % model.config.vocab_size
    other = torch.cat((ids[:, :WINDOW].flip(1), ids[:, WINDOW:]), dim=1)
    places = torch.arange(WINDOW, device=model.device).repeat(2)[None]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        one, two = (model(input_ids=x, position_ids=places, use_cache=False).logits[:, WINDOW:] for x in (ids, other))
    model.train(was_training)
    if not torch.equal(one, two):
        raise ValueError(f"{name} does not keep packed examples apart: leave data.packing out")


def learns_chat_tokens(how: AdapterRecipe, place: Path | str) -> bool:
    """Whether the template's own entries are to be learnt, on a base that lies there or has that id on the Hub.

    In the texts that the lab trains on they are but letters: no base of its own knows them.
    """
    if how.chat_tokens != "auto":
        return how.chat_tokens
    run = run_of(place)
    return run is not None and run.info()["kind"] == "pretrain"


def control_tokens(tokenizer) -> list[int]:
    """Ids of the special entries that the chat template writes around a question and its answer."""
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    ids = tokenizer.apply_chat_template(talk, return_dict=False) if tokenizer.chat_template else []
    return sorted(set(ids) & set(tokenizer.all_special_ids) | set(ids) & set(tokenizer.added_tokens_decoder))


def with_adapter(model, how: AdapterRecipe, tokens: Sequence[int] = ()):
    """A fresh adapter on a base, as a `PeftModel`. Raises ValueError where none can be put on it.

    Args:
        tokens: ids whose embeddings, in a head of its own too, are learnt besides.
    """
    peft = _peft()
    rows = {table: list(tokens) for table in _tables(model)} if tokens else None
    targets = how.targets if how.targets == ALL_LINEAR else list(how.targets)
    config = peft.LoraConfig(
        r=how.rank, lora_alpha=how.alpha, lora_dropout=how.dropout, target_modules=targets, use_rslora=how.rslora,
        use_dora=how.dora, task_type="CAUSAL_LM", trainable_token_indices=rows,
    )  # fmt: skip
    if targets != ALL_LINEAR:
        last = {name.rpartition(".")[2] for name, module in model.named_modules() if not list(module.children())}
        for target in targets:
            if target.rpartition(".")[2] not in last:
                raise ValueError(f"model.targets: no matrix is called {target!r}; {nearest(target, last)}")
    try:
        return peft.get_peft_model(model, config)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(f"no adapter can be put on this base: {one_line(error)[:300]}") from error


def _tables(model) -> list[str]:
    """Names of the embedding and, where it is not the same matrix, of the head."""
    inside, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is None or head.weight is inside.weight
    return [name for name, module in model.named_modules() if module is inside or (module is head and not tied)]


def _peft():
    try:
        import peft
    except ImportError:
        raise ValueError("fine-tuning needs peft and bitsandbytes: pip install 'llm-lab[finetune]'") from None
    return peft
