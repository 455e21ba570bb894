"""A run's recipe as it stands in its folder. May import nothing of ours but the run."""

import yaml

from hub.runs import Run


def leaves(run: Run) -> dict:
    """The recipe's values by their dotted names, as the flags spell them; none where there is no recipe.

    Raises ValueError where it is no YAML.
    """
    found = {}

    def walk(prefix: str, value: object) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(f"{prefix}.{name}" if prefix else str(name), inner)
        else:
            found[prefix] = value

    path = run.path / "recipe.yaml"
    try:
        walk("", (yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None) or {})
    except yaml.YAMLError as error:
        raise ValueError(f"the recipe of {run.id} is no YAML: {error}") from error
    return found
