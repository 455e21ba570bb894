"""How what a run records is written for people: values, tables, references. May import nothing of ours."""


def table(rows: list[list[str]]) -> str:
    """Columns as wide as their longest cell, two spaces between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def text(value: object) -> str:
    """A value as a person reads it: four digits of a fraction, thousands apart, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return " to ".join(map(text, value)) if len(value) == 2 else ", ".join(map(text, value))
    return str(value)


def named(item: dict | None) -> str | None:
    return f"{item['name']} ({item['sha256'][:12]})" if item else None


def commit(git: dict) -> str:
    return git["sha"][:12] + (" with changes" if git["dirty"] else "")


def reference(item: dict | None) -> str | None:
    if not item:
        return None
    return "@".join(filter(None, [item.get("id") or item.get("run"), item.get("revision")]))
