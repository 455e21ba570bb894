"""What training asks of the model: losses that add up, gradients, one graph, and a head for classes."""

import pytest
import torch
import torch.nn.functional as F

from modeling import LabGPTConfig, LabGPTForCausalLM, LabGPTForSequenceClassification


def test_labels_are_shifted_or_taken_as_given(tiny, tokens):
    model, window = tiny(), tokens(2, 13)
    x, y = window[:, :-1], window[:, 1:].contiguous()
    with torch.no_grad():
        logits = model(x).logits
        every = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        given = model(x, labels=y, shift_labels=y).loss
        shifted = model(x, labels=x).loss
    torch.testing.assert_close(given, every)
    torch.testing.assert_close(shifted, F.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten()))


def test_parts_of_a_batch_add_up_to_it(tiny, tokens):
    """With the number of scored tokens of the whole step, ragged parts sum to the loss of the whole."""
    model, ids = tiny(), tokens(4, 12)
    labels = ids.clone()
    labels[1:, 5:] = -100
    scored = (labels[:, 1:] != -100).sum()
    with torch.no_grad():
        whole = model(ids, labels=labels).loss
        parts = [
            model(a, labels=b, num_items_in_batch=scored).loss
            for a, b in zip(ids.split(1), labels.split(1), strict=True)
        ]
        means = [model(a, labels=b).loss for a, b in zip(ids.split(1), labels.split(1), strict=True)]
    torch.testing.assert_close(sum(parts), whole)
    assert (sum(means) / 4 - whole).abs() > 1e-3, "the rows are alike: this test would see nothing"


def test_scoring_keeps_no_cache(tiny, tokens):
    model, ids = tiny(), tokens(1, 8)
    assert model(ids, labels=ids).past_key_values is None
    assert model(ids).past_key_values is not None


@pytest.mark.parametrize("fields", [{}, {"attention": "linear"}, {"norm_position": "post"}])
def test_activation_checkpointing_gives_the_same_gradients(tiny, tokens, fields):
    gradients = []
    for checkpointing in (False, True):
        model, ids = tiny(**fields).train(), tokens(2, 12)
        if checkpointing:
            model.activation_checkpointing_enable()
            assert model.is_activation_checkpointing
        model(ids, labels=ids).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert a.abs().sum() > 0
        torch.testing.assert_close(a, b)


def test_dropout_acts_in_training_alone(tiny, tokens):
    model, ids = tiny(hidden_dropout=0.5, attention_dropout=0.5), tokens(1, 8)
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"attention": "linear"},
        {"position_embedding": "alibi"},
        {"position_embedding": "learned", "sliding_window": 4},
    ],
    ids=str,
)
def test_a_training_step_is_one_graph(tiny, tokens, fields):
    """No graph break, forward or backward, and the eager numbers. The backend takes the graph apart as Inductor does,

    without its minute of C++.
    """
    model, ids = tiny(**fields).train(), tokens(2, 12)
    y = ids.roll(-1, 1).contiguous()
    batch = {"input_ids": ids, "labels": y, "shift_labels": y, "num_items_in_batch": torch.tensor(24)}
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager_decomp_partition")
    loss = compiled(**batch).loss
    loss.backward()
    got = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    expected = model(**batch).loss
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for a, p in zip(got, model.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, atol=1e-5, rtol=1e-4)


def test_one_standard_deviation_for_all(tokens):
    config = LabGPTConfig(vocab_size=61, initializer_range=0.05, tie_word_embeddings=True)
    for name, p in LabGPTForCausalLM(config).named_parameters():
        expected = 0.05 if p.ndim > 1 else 0.0
        assert p.std().item() == pytest.approx(expected, rel=0.1), name


def test_sequence_classification(tiny, tokens, tmp_path):
    """The class is read off the last token that is not padding, whichever side the padding is on."""
    config = LabGPTConfig(**{**tiny().config.to_dict(), "num_labels": 3, "initializer_range": 0.2})
    model, text = LabGPTForSequenceClassification(config).eval(), tokens(1, 7)
    pad, ones = torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 7, dtype=torch.long)
    with torch.no_grad():
        alone = model(text).logits
        left = model(torch.cat((pad, text), 1), attention_mask=torch.cat((pad, ones), 1)).logits
        right = model(torch.cat((text, pad), 1), attention_mask=torch.cat((ones, pad), 1)).logits
    assert alone.shape == (1, 3)
    torch.testing.assert_close(left, alone, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(right, alone, atol=2e-5, rtol=1e-4)

    loss = model(text.repeat(2, 1), labels=torch.tensor([0, 2])).loss
    loss.backward()
    assert model.score.weight.grad.abs().sum() > 0
    model.save_pretrained(tmp_path)
    again = LabGPTForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(again(text).logits, alone)
