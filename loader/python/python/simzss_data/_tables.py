"""What is in sidecars."""

from typing import NamedTuple

from . import _simzss_data as _rust
from ._inputs import inputs
from ._simzss_data import Table


class Statistics(NamedTuple):
    """How often concepts are mentioned, and which are mentioned together."""

    totals: dict[str, int]
    concepts: Table
    pairs: Table


def list_shards(shards):
    """The shards that paths, folders, patterns and addresses stand for."""
    return _rust.list_shards(inputs(shards))


def read_mentions(shards):
    """The mentions of shards, from their sidecars: a table that is read while it is used."""
    return _rust.read_mentions(inputs(shards))


def statistics(shards):
    """The statistics of a folder that `tools stats` wrote, or of shards, counted from their sidecars."""
    return Statistics(*_rust.statistics(inputs(shards)))
