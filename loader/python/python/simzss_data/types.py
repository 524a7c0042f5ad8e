"""What the functions of this package return."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

if TYPE_CHECKING:
    from . import Table


class Position(NamedTuple):
    """The place of a batch in a run."""

    epoch: int
    step: int


class Mentions(TypedDict):
    """The mentions of a batch as columns, ordered by row and then from left to right. Arrays or tensors of int32."""

    offsets: Any
    """The mentions of row r are those from offsets[r] to before offsets[r + 1]."""
    label: Any
    """The label of the concept in the bank."""
    token_start: Any
    """The position of the mention's first token in its row of `text`."""
    token_end: Any
    """The position after its last token."""
    start: Any
    """The first character of the mention's words in the caption."""
    end: Any
    """The position after the last character."""


class Batch(TypedDict, total=False):
    """One rank's part of a batch, B rows. Arrays of NumPy or tensors of PyTorch."""

    image: Any
    """uint8 [B, 3, H, W], in memory as [B, H, W, 3]; [B, H, W, 3] with layout="channels_last"."""
    text: Any
    """The tokens of CLIP's vocabulary, int64 [B, context]."""
    caption: list[str]
    """The captions as CLIP's tokenizer normalises them."""
    key: list[str]
    sample: Any
    """The numbers of the samples over all shards, int64 [B]."""
    mentions: Mentions
    """The mentions whose concept is in the bank; none without a bank."""
    position: Position
    skipped: list[tuple[str, str, str]]
    """The broken samples that were replaced by others: shard, key, and what is wrong."""


class Statistics(NamedTuple):
    """How often concepts are mentioned, and which are mentioned together."""

    totals: dict[str, int]
    concepts: "Table"
    pairs: "Table"


class Written(TypedDict):
    """A sidecar that was written."""

    path: Path | str  # a text if it is an address
    samples: int
    mentions: int
    captions_without_mention: int
