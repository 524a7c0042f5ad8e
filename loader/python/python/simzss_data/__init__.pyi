from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, Protocol, TypeAlias, final

from .types import Batch as Batch, Mentions as Mentions, Position as Position, Statistics as Statistics, Written as Written

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

_Path: TypeAlias = str | PathLike[str]
_Paths: TypeAlias = _Path | Iterable[_Path]

class _ArrowArray(Protocol):
    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...

class _ArrowStream(Protocol):
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

class Error(Exception):
    """Data that is damaged, or does not belong together."""

class Shards:
    """Batches of images and captions from WebDataset shards: a torch.utils.data.IterableDataset, if there is PyTorch.

    Iterating gives the batches of one epoch. Their order depends on the seed, the epoch and the shards only: neither on the
    number of processes and threads, nor on where a run was interrupted.
    """

    def __init__(
        self,
        shards: _Paths | Mapping[str, float] | Sequence[_Paths],
        batch_size: int,
        *,
        weights: Sequence[float] | None = None,
        seed: int = 0,
        streams: int = 64,
        window: int = 4096,
        images: bool = True,
        image_size: int = 224,
        crop: Literal["random", "centre"] = "random",
        scale: tuple[float, float] = (0.9, 1.0),
        flip: float = 0.0,
        decoding: Literal["exact", "fast"] = "exact",
        captions: bool = True,
        caption_key: str | None = None,
        caption_choice: Literal["first", "random"] = "first",
        context: int = 77,
        bank: Bank | Sequence[str] | _Path | None = None,
        max_mentions: int = 32,
        max_mention_tokens: int = 15,
        threads: int | None = None,
        prefetch: int = 2,
        cache: _Path | None = None,
        cache_size: int = ...,
        selection: _Path | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        layout: Literal["channels_first", "channels_last"] = "channels_first",
        output: Literal["torch", "numpy"] | None = None,
        pin_memory: bool | None = None,
    ) -> None:
        """Nothing is opened before it is needed.

        shards: folders, shards, patterns such as "shards/{00000..00295}.tar", on disk or at https, s3, gs, az or hf addresses;
            or several datasets, as a dict from such to their weights.
        batch_size: of the global batch, over all ranks.
        weights: of several datasets; `shards` then is a sequence of them.
        streams: number of parts of the dataset that are read in parallel.
        window: number of samples of a stream that are shuffled among each other.
        crop: "random" as torchvision's RandomResizedCrop with `scale`, or "centre".
        decoding: Pillow's pixels ("exact"), or faster with small differences.
        caption_key: the field of a sample's .json with its caption, or with a list of which `caption_choice` takes one.
            Default: the .txt.
        context: number of tokens per caption.
        bank: the concepts to load mentions of; the shards need sidecars then. A list of names, or a file with one per line.
        threads: that read and decode. Default: one per processor.
        prefetch: number of batches that are prepared ahead.
        cache: a folder for copies of remote and of compressed shards, of at most `cache_size` bytes.
        selection: a Parquet file with the samples to load (`shard`, `sample`, `weight`), as `tools select` writes it.
        rank, world_size: default: those of torch.distributed if it is initialised, else RANK and WORLD_SIZE of the environment.
        output: tensors of "torch" (the default, if it is installed), or arrays of "numpy".
        pin_memory: decode into pinned memory. Default: if PyTorch has a GPU.
        """

    def __iter__(self) -> Iterator[Batch]: ...
    def __len__(self) -> int:
        """Number of batches in an epoch, the same for every rank."""

    @property
    def samples_per_epoch(self) -> int:
        """Number of samples in all shards."""

    @property
    def rows(self) -> int:
        """Number of samples in this rank's part of a batch."""

    @property
    def position(self) -> Position:
        """The position of the batch that comes next."""

    def samples(self) -> Iterator[dict[str, Any]]:
        """The samples of one epoch as they are stored, as WebDataset has them: `__key__`, `__url__`, and bytes by extension.

        They come in the order of the batches; images are not decoded, so broken ones come too. A state continues at the last
        batch that was not given out completely.
        """

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is of this epoch: from its start, or, in the epoch of a loaded state, from there."""

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iteration is, for any number of ranks: what it has given out does not come again."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next iteration continues where the state was taken."""

@final
class Bank:
    """A concept vocabulary: names, whose labels are their positions."""

    def __new__(cls, names: Sequence[str], matching: Literal["longest", "strict"] = "longest") -> Bank: ...
    @staticmethod
    def from_file(path: _Path, matching: Literal["longest", "strict"] = "longest") -> Bank:
        """The lines of a file."""

    @property
    def names(self) -> list[str]: ...
    @property
    def matching(self) -> str: ...
    def __len__(self) -> int: ...
    def find(self, phrase: str, concept: str | None = None, head: str | None = None) -> int | None:
        """The label of a phrase, with its concept and the lemma of its head; `None` if no name matches."""

@final
class Array:
    """An Arrow array, for every library that knows Arrow: `pyarrow.array(a)`, `polars.Series(a)`."""

    def __arrow_c_schema__(self) -> object: ...
    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, name: str, /) -> Array:
        """A column of an array of structs."""

    def to_pylist(self) -> list[Any]: ...

@final
class Table:
    """An Arrow table, for every library that knows Arrow: `pyarrow.table(t)`, `polars.DataFrame(t)`, a name in DuckDB's SQL."""

    def __arrow_c_schema__(self) -> object: ...
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...
    @property
    def column_names(self) -> list[str]: ...
    def to_pylist(self) -> list[dict[str, Any]]: ...

def tag(
    captions: Iterable[str | None] | _ArrowArray | _ArrowStream,
    *,
    offsets: Literal["characters", "bytes"] = "characters",
    tagger: Literal["perceptron", "brill", "nlprule"] = "perceptron",
    bank: Bank | None = None,
    threads: int | None = None,
) -> Array:
    """The noun phrases of captions, and their concepts.

    The result has one struct per caption: `text`, the caption as CLIP's tokenizer normalises it, and `mentions`, a list of
    structs with phrase, concept, head, start, end, concept_start, concept_end and tags. Offsets count in `text`. With a bank,
    mentions also have the label of their concept, and where its words are: label, label_start, label_end; null if it has none.
    """

def list_shards(shards: _Paths) -> list[str]:
    """The shards that folders, patterns and addresses stand for."""

def read_mentions(shards: _Paths) -> Table:
    """The mentions of shards, from their sidecars: a table that is read while it is used. Offsets count in bytes."""

def write_sidecar(
    shard: _Path,
    mentions: _ArrowArray | _ArrowStream | None = None,
    *,
    tagger: str | None = None,
    offsets: Literal["characters", "bytes"] = "characters",
) -> Written:
    """Tags the captions of a shard, on a local disk or in a store, and writes its sidecar next to it.

    Mentions of a tagger of your own: an Arrow array with a list of structs for each sample of the tar, in its order, as
    `tag(..)["mentions"]` has them. `start`, `end` and `concept` are needed; `head` (default: the last word of the concept),
    `concept_start`, `concept_end` (default: the phrase) and `tags` are not. `tagger` is then a name of your choice.
    """

def statistics(shards: _Paths) -> Statistics:
    """The statistics of a folder that `tools stats` wrote, or of shards, counted from their sidecars."""
