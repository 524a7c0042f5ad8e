"""Image-caption shards for training, and the concepts that captions mention.

`Shards` loads batches in an exact order, at any number of processes; `tag` finds the noun phrases of captions, as Arrow data.
"""

import atexit as _atexit

from ._simzss_data import Array, Bank, Error, Table, stop_waiting as _stop_waiting, tag, write_sidecar
from ._tables import list_shards, read_mentions, statistics
from .types import Batch, Mentions, Position, Statistics, Written

__all__ = [
    "Array",
    "Bank",
    "Batch",
    "Error",
    "Mentions",
    "Position",
    "Shards",
    "Statistics",
    "Table",
    "Written",
    "list_shards",
    "read_mentions",
    "statistics",
    "tag",
    "write_sidecar",
]

# Threads that wait in Rust have to stop before the interpreter does.
_atexit.register(_stop_waiting)


def __getattr__(name):
    # `Shards` is a PyTorch dataset where there is PyTorch, which takes seconds to import: only those who use it wait.
    if name == "Shards":
        from ._shards import Shards

        return Shards
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
