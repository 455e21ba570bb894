"""How a model's writing is drawn: texts side by side with their tokens shaded, how it went, a token's runners-up.

As everywhere in this room: plain values in, HTML text out, nothing of ours imported but this room itself. Texts are as
`interpret.continuation.Continuation`, tokens as `interpret.writing.Token`.
"""

import math
from collections.abc import Iterable, Sequence

from page.html import Markup, code, escape, note
from page.tokens import shade, shaded_tokens, visible

SHADES = (0.5, 0.2, 0.07, 0.02, 0.005, 0.0)  # the least probability of each shade of `page.tokens`
PROMPT_SHOWN = 1_000  # characters of a prompt's end that stand before the text
STOPS = {  # why a text ended, for those who read it
    None: "writing …",
    "eos": "the model ended its text",
    "length": "all new tokens are written",
    "context": "the model has no position left",
    "stopped": "stopped",
}
HINT = Markup('<p class="lab-generate-hint">Choose a token to see what else might have stood there.</p>')


def side_by_side(texts: Sequence) -> Markup:
    """Each text behind its prompt, with how it went; below them what the shades mean."""
    if not texts:
        return Markup("")
    columns = "".join(
        f'<section data-text="{i}">{f"<h4>{escape(text.ref)}</h4>" if len(texts) > 1 else ""}'
        f'<div class="lab-generate-text"><span class="lab-generate-prompt">{prompt_end(text.prompt)}</span>'
        f"{shaded(text.tokens)}</div>{how(text)}</section>"
        for i, text in enumerate(texts)
    )
    return Markup(f'<div class="lab-generate-columns">{columns}</div>{legend("How likely each token was:")}')


def beside(parts: Sequence[str]) -> Markup:
    """Pieces of HTML beside one another where there is room, else one below the other."""
    shown = "".join(f"<section>{part}</section>" for part in parts)
    return Markup(f'<div class="lab-generate-columns">{shown}</div>')


def prompt_end(prompt: str) -> Markup:
    return escape(prompt if len(prompt) <= PROMPT_SHOWN else f"… {prompt[-PROMPT_SHOWN:]}")


def shaded(tokens: Iterable) -> Markup:
    return shaded_tokens([(token.token, token.probability, title(token)) for token in tokens])


def title(token) -> str:
    return f"{percent(token.probability)}, rank {token.rank:,}; drawn with {percent(token.drawn_with)}"


def percent(probability: float) -> str:
    """To a tenth of a percent; what is less and yet above 0 says so."""
    return "under 0.1%" if 0 < probability < 0.0005 else f"{probability:.1%}"


def legend(words: str) -> Markup:
    """The shades with the probabilities they stand for, after `words` that say of what."""
    names = [f"{SHADES[0]:.0%} and more", *(f"to {low:.1%}".replace(".0%", "%") for low in SHADES[1:-1]), "less"]
    shades = zip(SHADES, names, strict=True)
    keys = "".join(f'<li><i class="lab-token p{shade(low)}"></i>{name}</li>' for low, name in shades)
    return Markup(f'<ul class="lab-legend lab-shades"><li>{escape(words)}</li>{keys}</ul>')


def how(text) -> Markup:
    """How the writing went, in one line; and a warning where the text is longer than the model was made for."""
    words = [f"{len(text.tokens):,} tokens", f"{text.rate:,.0f} tokens/s", STOPS[text.stop]]
    if text.tokens:
        words.insert(2, f"{text.nats:.2f} nats per token")
    words.append("greedy" if text.settings.sampling.greedy else f"seed {text.settings.seed}")
    beyond = f"The last {text.beyond:,} tokens stand beyond the {text.context} that the model was made for."
    warning = note(beyond, "warning") if text.beyond and text.stop else ""
    return Markup(f'<p class="lab-generate-how">{escape(" · ".join(words))}</p>{warning}')


def afterwards(texts: Sequence, commands: Sequence[str]) -> Markup:
    """What is wanted of finished texts: their seed (the event `keep`), the same in a terminal, the texts alone."""
    settings = texts[0].settings
    keep = (
        f'<button type="button" class="lab-generate-keep" data-act="keep" data-seed="{settings.seed}">'
        f"Keep seed {settings.seed}</button>"
    )
    plain = "".join(code(text.prompt + text.text) for text in texts)
    return Markup(
        f"{'' if settings.sampling.greedy else keep}<p>The same in a terminal:</p>{code(chr(10).join(commands))}"
        f'<details class="lab-generate-plain"><summary>The text alone</summary>{plain}</details>'
    )


def runners_up(token) -> Markup:
    """What else might have stood in a token's place, the likeliest first."""
    found = [(token.probability, token.token, "chosen"), *((c.probability, c.token, "") for c in token.runners_up)]
    rows = [(quote(spelled), probability, kind) for probability, spelled, kind in sorted(found, reverse=True)]
    others = max(0.0, 1 - math.fsum(probability for probability, _, _ in found))
    return Markup(
        f'<div class="lab-generate-panel" aria-live="polite"><h4>{escape(quote(token.token))}</h4>'
        f"<p>{escape(title(token))}</p>{bars([*rows, ('all others', others, 'rest')])}</div>"
    )


def bars(rows: Iterable[tuple[str, float, str]]) -> Markup:
    """(name, probability, kind) one below the other; a kind is `chosen`, `rest` or empty."""
    shown = "".join(
        f'<li class="{escape(kind)}"><span>{escape(name)}</span>'
        f'<i><b style="width:{probability:.2%}"></b></i><span>{percent(probability)}</span></li>'
        for name, probability, kind in rows
    )
    return Markup(f'<ol class="lab-probabilities">{shown}</ol>')


def quote(token: str) -> str:
    """In quotes, so that its spaces can be seen."""
    return f"“{visible(token)}”"
