"""What is in sidecars."""

from . import _simzss_data as _rust
from ._inputs import inputs
from .types import Statistics


def list_shards(shards):
    """The shards that paths, folders, patterns and addresses stand for."""
    return _rust.list_shards(inputs(shards))


def read_mentions(shards):
    """The mentions of shards, from their sidecars: a table that is read while it is used."""
    return _rust.read_mentions(inputs(shards))


def statistics(shards):
    """The statistics of a folder that `tools stats` wrote, or of shards, counted from their sidecars."""
    return Statistics(*_rust.statistics(inputs(shards)))
