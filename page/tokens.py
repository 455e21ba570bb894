"""Text as its tokens, each a coloured piece, as HTML text. Standard library only.

A token may hold anything, a tag too: all is escaped. Spaces and line ends stay visible where they are a token's own.
"""

from collections.abc import Iterable, Sequence

from page.html import Markup, escape


def coloured_tokens(tokens: Iterable[str], titles: Sequence[str] = ()) -> Markup:
    """Tokens side by side in alternating colours, so that one sees where each begins.

    Args:
        titles: what hovering over each token says, such as its id; or none.
    """
    return _pieces((token, f"t{i % 5}", titles[i] if titles else "") for i, token in enumerate(tokens))


def shaded_tokens(tokens: Sequence[tuple[str, float, str]]) -> Markup:
    """(token, probability from 0 to 1, title) side by side; the less likely a token was, the deeper its colour."""
    return _pieces((token, f"p{shade(probability)}", title) for token, probability, title in tokens)


def scored_tokens(pieces: Sequence[str], scored: Iterable[bool]) -> Markup:
    """The text of a training example: what a model is scored on set off, what it only reads in grey."""
    spans = (
        f'<span class="lab-token {"scored" if counts else "masked"}">{escape(visible(piece))}</span>'
        for piece, counts in zip(pieces, scored, strict=True)
    )
    return Markup(f'<div class="lab-tokens lab-tune-tokens">{"".join(spans)}</div>')


def shade(probability: float) -> int:
    """0 (sure) to 5 (surprising), a step for each factor of about 3: the classes `p0` to `p5` of the style sheet."""
    bounds = (0.5, 0.2, 0.07, 0.02, 0.005)
    return sum(probability < bound for bound in bounds)


def visible(token: str) -> str:
    """A token as it can be seen: line ends and tabs as signs."""
    return token.replace("\n", "⏎\n").replace("\t", "⇥\t").replace("\r", "␍")


def _pieces(pieces: Iterable[tuple[str, str, str]]) -> Markup:
    spans = (
        f'<button type="button" class="lab-token {css}" data-token="{i}" title="{escape(title)}">'
        f"{escape(visible(token))}</button>{'<br>' if token.endswith(chr(10)) else ''}"  # a button breaks no line
        for i, (token, css, title) in enumerate(pieces)
    )
    return Markup(f'<div class="lab-tokens">{"".join(spans)}</div>')
