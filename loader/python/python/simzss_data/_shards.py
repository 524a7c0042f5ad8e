"""The dataset."""

import hashlib
import os
import sys

from . import _arrays
from ._distributed import rank_and_world_size
from ._inputs import inputs
from ._simzss_data import Bank, Batches, Loader, Samples
from .types import Position

try:
    from torch.utils.data import IterableDataset as _Base
except ModuleNotFoundError as _error:
    if _error.name is None or _error.name.split(".")[0] != "torch":
        raise
    _Base = object

#: What a state must agree in with the dataset that it is loaded into: what the order of the samples depends on.
_ORDER = ("seed", "batch_size", "streams", "window", "samples", "shards", "selection")


class Shards(_Base):
    """Batches of images and captions from WebDataset shards.

    Iterating gives the batches of one epoch; the order depends on the seed, the epoch and the shards only.
    `DataLoader(shards, batch_size=None)` works too. Arguments: see the type stubs and the README.
    """

    def __init__(
        self,
        shards,
        batch_size,
        *,
        weights=None,
        seed=0,
        streams=64,
        window=4096,
        images=True,
        image_size=224,
        crop="random",
        scale=(0.9, 1.0),
        flip=0.0,
        decoding="exact",
        captions=True,
        caption_key=None,
        caption_choice="first",
        context=77,
        bank=None,
        max_mentions=32,
        max_mention_tokens=15,
        threads=None,
        prefetch=2,
        cache=None,
        cache_size=1 << 40,
        selection=None,
        rank=None,
        world_size=None,
        layout="channels_first",
        output=None,
        pin_memory=None,
    ):
        super().__init__()
        if layout not in ("channels_first", "channels_last"):
            raise ValueError(f"layout is {layout!r}; choose one of channels_first, channels_last")
        if isinstance(bank, (str, os.PathLike)):
            bank = Bank.from_file(bank)
        elif bank is not None and not isinstance(bank, Bank):
            bank = Bank(list(bank))
        self._bank = bank
        self._options = {
            "sets": _sets(shards, weights),
            "batch_size": batch_size,
            "seed": seed,
            "streams": streams,
            "window": window,
            "images": images,
            "image_size": image_size,
            "crop": crop,
            "scale": tuple(scale),
            "flip": flip,
            "decoding": decoding,
            "captions": captions,
            "caption_key": caption_key,
            "caption_choice": caption_choice,
            "context": context,
            "max_mentions": max_mentions,
            "max_mention_tokens": max_mention_tokens,
            "threads": threads,
            "prefetch": prefetch,
            "cache": None if cache is None else os.fspath(cache),
            "cache_size": cache_size,
            "selection": None if selection is None else os.fspath(selection),
        }
        self._rank, self._world_size = rank, world_size
        self._layout, self._output, self._pin_memory = layout, output, pin_memory
        # Where the next iteration starts, and where the latest one is.
        self._start = self._position = Position(0, 0)
        # Whether the start comes from a state, which `set_epoch` of the same epoch must not undo.
        self._is_resumed = False
        self._state = None
        self._loader = None

    def __getstate__(self):
        return {**self.__dict__, "_loader": None}

    def __len__(self):
        """Number of batches in an epoch, the same for every rank."""
        return self._open().steps_per_epoch()

    @property
    def samples_per_epoch(self):
        """Number of samples in an epoch: in all shards, or in the selection."""
        return self._open().samples()

    @property
    def rows(self):
        """Number of samples in this rank's part of a batch."""
        return self._open().rows()

    @property
    def position(self):
        """The position of the batch that comes next."""
        return self._position

    def set_epoch(self, epoch):
        """The next iteration is of this epoch: from its start, or, in the epoch of a loaded state, from there."""
        if epoch != self._start.epoch or not self._is_resumed:
            self._start = self._position = Position(int(epoch), 0)
            self._is_resumed = False

    def state_dict(self):
        """Where the latest iteration is, for any number of ranks: what it has given out does not come again."""
        return {"version": 1, "epoch": self._position.epoch, "step": self._position.step, **self._order()}

    def load_state_dict(self, state):
        """The next iteration continues where the state was taken."""
        if state.get("version") != 1:
            raise ValueError(f"a state of version {state.get('version')!r} cannot be loaded; this is version 1")
        self._state = dict(state)
        self._start = self._position = Position(state["epoch"], state["step"])
        self._is_resumed = True
        if self._loader is not None:
            self._check_state()

    def __iter__(self):
        self._refuse_workers()
        arrays = _arrays.of(self._output, self._pin_memory)
        loader = self._open()
        return _Batches(self, loader, self._begin(), arrays, self._layout)

    def samples(self):
        """The samples of one epoch as they are stored, as WebDataset has them: `__key__`, and bytes by extension.

        They come in the order of the batches, and a state continues at the last batch that was not given out completely.
        """
        self._refuse_workers()
        return self._samples(self._open(), self._begin())

    def _samples(self, loader, position):
        stored = Samples(loader, *position)
        while (step := stored.next()) is not None:
            yield from step
            position = self._advance(position)

    def _begin(self):
        """The start of an iteration. The one after it starts at the beginning of an epoch."""
        steps = len(self)
        start = self._start
        if start.step >= steps:
            start = Position(start.epoch + start.step // steps, start.step % steps)
        self._position = start
        self._start, self._is_resumed = Position(start.epoch, 0), False
        return start

    def _advance(self, position):
        position = Position(position.epoch, position.step + 1)
        if position.step == len(self):
            position = self._start = Position(position.epoch + 1, 0)
        self._position = position
        return position

    def _open(self):
        if self._loader is None or not self._loader.is_here():
            rank, world_size = rank_and_world_size(self._rank, self._world_size)
            self._loader = Loader({**self._options, "rank": rank, "world_size": world_size}, self._bank)
            if warning := self._loader.warning():
                import warnings

                warnings.warn(warning, stacklevel=3)
            if self._state is not None:
                self._check_state()
        return self._loader

    def _order(self):
        loader = self._open()
        digest = hashlib.sha256()
        for name, count in loader.shards():
            digest.update(f"{name.rsplit('/', 1)[-1]}\t{count}\n".encode())
        weights = [weight for _, weight in self._options["sets"]]
        if len(weights) > 1:
            digest.update(repr(weights).encode())
        return {
            **{name: self._options[name] for name in ("seed", "batch_size", "streams", "window")},
            "samples": loader.samples(),
            "shards": digest.hexdigest(),
            "selection": loader.selection(),
        }

    def _check_state(self):
        state, self._state = self._state, None
        ours = self._order()
        different = [
            f"{name} was {state.get(name)!r} and is {ours[name]!r}" for name in _ORDER if state.get(name) != ours[name]
        ]
        if different:
            self._start = self._position = Position(0, 0)
            self._is_resumed = False
            raise ValueError(f"the state is of a dataset with another order: {', '.join(different)}")

    @staticmethod
    def _refuse_workers():
        data = sys.modules.get("torch.utils.data")
        if data is not None and data.get_worker_info() is not None:
            raise ValueError("Shards has threads of its own, which all workers would repeat; use DataLoader(.., num_workers=0)")


class _Batches:
    """An iteration over the batches of an epoch."""

    def __init__(self, shards, loader, position, arrays, layout):
        self._shards, self._at, self._arrays, self._layout = shards, position, arrays, layout
        self._batches = Batches(loader, *position, arrays.lend)

    def __iter__(self):
        return self

    def __next__(self):
        if self._batches is None:
            raise StopIteration
        batch = self._batches.next()
        if batch is None:
            self.close()
            raise StopIteration
        epoch = self._at.epoch
        result = self._converted(batch)
        self._at = self._shards._advance(self._at)
        if self._at.epoch != epoch:
            self.close()
        return result

    def close(self):
        """Ends the threads. The end of the epoch does, and so does dropping the iteration."""
        batches, self._batches = self._batches, None
        if batches is not None:
            batches.close()

    def _converted(self, batch):
        arrays = self._arrays
        if "lent" in batch:
            side = self._shards._options["image_size"]
            batch["image"] = batch.pop("lent").view(-1, side, side, 3)
        elif "image" in batch:
            batch["image"] = arrays.array(batch["image"])
        if "image" in batch and self._layout == "channels_first":
            batch["image"] = arrays.channels_first(batch["image"])
        if "text" in batch:
            batch["text"] = arrays.array(batch["text"])
        batch["sample"] = arrays.array(batch["sample"])
        batch["mentions"] = {name: arrays.array(column) for name, column in batch["mentions"].items()}
        batch["position"] = Position(*batch["position"])
        return batch


def _sets(shards, weights):
    """The datasets and their weights."""
    if isinstance(shards, dict):
        if weights is not None:
            raise ValueError("the weights of a dict of datasets are its values")
        return [(inputs(name), float(weight)) for name, weight in shards.items()]
    if weights is None:
        return [(inputs(shards), 1.0)]
    shards = list(shards)
    if len(shards) != len(weights):
        raise ValueError(f"{len(shards)} datasets have {len(weights)} weights")
    return [(inputs(names), float(weight)) for names, weight in zip(shards, weights)]
