"""Which part of the batches this process gets."""

import os
import sys


def rank_and_world_size(rank, world_size):
    """As given; else those of torch.distributed, if it is initialised; else those of the environment, as torchrun sets it."""
    if (rank is None) != (world_size is None):
        raise ValueError("give both rank and world_size, or neither")
    if rank is None:
        rank, world_size = _of_torch() or _of_environment()
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is not below the number of ranks, {world_size}")
    return rank, world_size


def _of_torch():
    # A process that has initialised it has imported it.
    torch = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return None


def _of_environment():
    rank, world_size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None and world_size is None:
        return 0, 1
    try:
        return int(rank), int(world_size)
    except (TypeError, ValueError):
        raise ValueError(
            f"the environment has RANK={rank} and WORLD_SIZE={world_size}: set both to numbers, or neither"
        ) from None
