"""What a program asks of the page: `generate`, as `gradio_client` finds it. Draws nothing.

May import `hub` and `data`; of ours here `interpret.continuation`.
"""

from collections.abc import Callable, Iterator

from data.access import Access
from hub.loaded import loaded
from interpret.continuation import Continuation, paced, settings_from, start, take_turns


def endpoint(access: Access) -> Callable:
    """The endpoint for one workspace."""

    def generate(
        model: str,
        prompt: str,
        max_new_tokens: int = 100,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float = 1.0,
        greedy: bool = False,
        seed: int | None = None,
    ) -> Iterator[dict]:
        """Let a model continue a text. Each value of the stream holds all that is written so far, the last one all.

        Args:
            model: a run's id, name or `latest`, with `@revision` if wanted; a folder; an id on the Hub.
            prompt: what to continue; empty for the beginning of a text.
            max_new_tokens: 1 to 2,000.
            temperature: below 1 more cautious, above 1 bolder.
            top_k: draw from the k likeliest tokens only.
            top_p: draw from the fewest tokens that together have this probability only.
            repetition_penalty: above 1 avoids what occurred.
            greedy: always the likeliest token; temperature, top_k, top_p and seed then do not matter.
            seed: the same seed writes the same text; without one, a new one is drawn and told.

        Returns:
            `text`, what follows the prompt; `seed`; `stop`, why it ended: `eos`, `length` or `context`, None while it
            is written; `tokens`, of each its `token`, the model's own `probability` of it, the probability it was
            `drawn_with`, and its `rank`, 1 being the likeliest.
        """
        settings = settings_from(max_new_tokens, greedy, temperature, top_k, top_p, repetition_penalty, seed)
        ref = access.reference(str(model or ""))
        text, tokens = start(ref, *loaded(ref, access), prompt, settings)
        for _ in paced(take_turns([(text, tokens)]), [text]):
            yield record(text)
        yield record(text)

    return generate


def record(text: Continuation) -> dict:
    names = ("token", "probability", "drawn_with", "rank")
    tokens = [{name: getattr(token, name) for name in names} for token in text.tokens]
    return {"text": text.text, "seed": text.settings.seed, "stop": text.stop, "tokens": tokens}
