"""What stands for shards."""

import os


def inputs(shards):
    """One path or address, or several, as a list of texts."""
    if isinstance(shards, (str, os.PathLike)):
        shards = [shards]
    return [os.fspath(shard) for shard in shards]
