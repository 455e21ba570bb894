"""The rows of a dataset on the Hub, whole, one after another.

Uses `datasets`; of ours `data.hub_source`, which opens a dataset and tells its mistakes.
"""

from collections.abc import Iterator

from huggingface_hub import constants

from data.console import nearest
from data.hub_corpora import Request
from data.hub_source import ask_hub, licence_of, open_builder, open_splits, quiet, told


def stream(request: Request, hub: dict) -> Iterator[tuple[str, object]]:
    """("owner/name:12", the row), of the split that was asked for.

    Args:
        hub: is told the commit that is read, and the licence that the dataset's card names.
    """
    if constants.HF_HUB_OFFLINE:
        raise ValueError(
            f"{request.dataset} has to be fetched and HF_HUB_OFFLINE is set: unset it where there is a network, or "
            "copy the folder of its examples from a machine that has it into the workspace's examples/"
        )
    with quiet():
        info = ask_hub(request, None)
        splits = open_splits(request, open_builder(request, info.sha))
    if request.split not in splits:
        raise ValueError(f"{request.dataset} has no split {request.split!r}; {nearest(request.split, splits)}")
    hub.update(revision=info.sha, licence=licence_of(info))
    rows, number = iter(splits[request.split]), 0
    while True:
        try:
            with quiet():
                row = next(rows, None)
        except Exception as error:  # of the network, of Parquet, of JSON: each library has its own
            raise ValueError(told(request, f"row {number + 1} of the split {request.split}", error)) from error
        if row is None:
            return
        number += 1
        yield f"{request.dataset}:{number}", without_none(row)


def without_none(value: object) -> object:
    """A table has every key in every row: those that an object did not have come back as None."""
    if isinstance(value, dict):
        return {key: without_none(one) for key, one in value.items() if one is not None}
    return [without_none(one) for one in value] if isinstance(value, list) else value
