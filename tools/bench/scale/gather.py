#!/usr/bin/env python3
"""What the losses over a global batch cost at 8 to 512 ranks: bytes, time and memory of gathering, and of two other ways.

    tools/bench/scale/gather.py

Prints the tables of docs/scale.md, "Gathering and the losses". Standard Python only. `points.py` compares `gathered`, `scattered`
and `logits` with Gloo and PyTorch.

- now (trainer/src/method/objective.rs): each rank gathers captions and images of all ranks in float32 and computes the logits of its own
  rows against all, a few rows at a time with a backward pass each (trainer/src/method/pieces.rs). The gradients of what it gathered are
  summed and scattered (all-gather and reduce-scatter; the images' only if they are trained). The mentions of a concept are summed on
  each rank, and these sums, and their gradients, over the ranks. Then the gradients of the weights are summed.
- before (until November 2026): mentions were gathered and their gradients scattered as captions are, and all logits of a rank were in
  memory at a time.
- ring: the rows travel from rank to rank in a ring, so that a rank has those of two ranks at a time, and the logits of one block.
"""

from dataclasses import dataclass
from math import exp

FLOAT = 4  # bytes

# --- The run: docs/benchmarks.md, "Training on a GPU". ---
ROWS = 1_024  # of a rank
WIDTH = 768  # of the embeddings: ViT-B/14
MENTIONS = 3  # of a caption
STEP = 0.143  # seconds of a step of one H200
WEIGHTS = 63e6  # trained: the text tower
PIECE = 1 << 24  # logits that `pieces::sum` computes at a time
# Arrays of the size of the logits that a direction needs; the same if rows are scaled first. Measured: points.py, 512 x 16,384
BLOCKS, SCALED = 3, 2
# Distinct concepts of a batch: all n mentions are of k(n) = BANK · (1 - exp(-n / BANK_TURN)) concepts. Assumed: a bank of 20,000
BANK, BANK_TURN = 20_000, 60_000


@dataclass(frozen=True)
class Network:
    name: str
    bandwidth: float  # bytes/s of a rank, each way
    delay: float  # seconds of one message


# Published rates of the links; 80 % of them used, and the delays, are assumed.
NETWORKS = (
    Network("400 Gbit/s per rank", 0.8 * 50e9, 10e-6),
    Network("100 Gbit/s per rank", 0.8 * 12.5e9, 20e-6),
    Network("10 Gbit/s per rank", 0.8 * 1.25e9, 50e-6),
)


def gathered(bytes_, ranks):
    """Bytes that a rank receives (and sends) when `bytes_` are gathered in all, by a ring: all but its own."""
    return bytes_ * (ranks - 1) / ranks


def scattered(bytes_, ranks, gloo=False):
    """The same for a reduce-scatter. That of Gloo in PyTorch 2.11 is an all-reduce (measured: points.py)."""
    return (1 + gloo) * gathered(bytes_, ranks)


def summed(bytes_, ranks):
    """The same for an all-reduce: a reduce-scatter, then a gathering."""
    return 2 * gathered(bytes_, ranks)


def time(bytes_, steps, network):
    return bytes_ / network.bandwidth + steps * network.delay


def concepts(mentions):
    return round(BANK * (1 - exp(-mentions / BANK_TURN)))


def logits(rows, columns, blocks=BLOCKS):
    """Bytes of the logits of `rows` against `columns` in the forward and backward pass."""
    return blocks * rows * columns * FLOAT


@dataclass
class Cost:
    sent: float
    time: float
    memory: float


def gathered_mentions(ranks, network, rows=ROWS, width=WIDTH):
    batch, mentions = rows * ranks, MENTIONS * rows * ranks
    row = width * FLOAT
    wide = gathered(batch * row, ranks)
    sent = 2 * wide + wide + MENTIONS * wide * 2  # captions, images; back: captions; mentions and back
    # Captions and images, the gradient of the captions and what is added to it; mentions and their gradient.
    memory = (2 + 2 + 2 * MENTIONS) * batch * width * FLOAT + 2 * logits(rows, batch)
    memory += logits(MENTIONS * rows, concepts(mentions))
    return Cost(sent, time(sent, 5 * (ranks - 1), network), memory)


def now(ranks, network, rows=ROWS, width=WIDTH):
    batch, mentions = rows * ranks, MENTIONS * rows * ranks
    kinds = concepts(mentions)
    wide = gathered(batch * width * FLOAT, ranks)
    sent = 3 * wide + 2 * summed(kinds * width * FLOAT, ranks)
    memory = 4 * batch * width * FLOAT + 2 * kinds * width * FLOAT + logits(1, min(PIECE, rows * batch), SCALED)
    memory += logits(MENTIONS * rows, kinds)
    return Cost(sent, time(sent, 3 * (ranks - 1) + 4 * (ranks - 1), network), memory)


def ring(ranks, network, rows=ROWS, width=WIDTH):
    """Captions and images in a ring, twice: InfoNCE needs the sum of each row before its gradients. The gradients of the captions
    travel along the second time. Mentions by sums."""
    kinds = concepts(MENTIONS * rows * ranks)
    wide = gathered(rows * ranks * width * FLOAT, ranks)
    sent = 2 * 2 * wide + wide + 2 * summed(kinds * width * FLOAT, ranks)
    memory = 6 * rows * width * FLOAT + 2 * logits(rows, rows) + 2 * kinds * width * FLOAT
    memory += logits(MENTIONS * rows, kinds)
    return Cost(sent, time(sent, 5 * (ranks - 1) + 4 * (ranks - 1), network), memory)


def main():
    ways = (("before: mentions gathered", gathered_mentions), ("now", now), ("ring, sums", ring))
    print(f"Rows of a rank {ROWS:,}, width {WIDTH}, {MENTIONS} mentions of a caption, float32; a step takes {1e3 * STEP:.0f} ms.\n")
    print("| ranks | global batch | way | received by a rank | " + " | ".join(it.name for it in NETWORKS) + " | memory |")
    print("|---|---|---|---|" + "---|" * len(NETWORKS) + "---|")
    for ranks in (8, 32, 64, 128, 256, 512):
        for name, way in ways:
            costs = [way(ranks, network) for network in NETWORKS]
            times = " | ".join(f"{1e3 * cost.time:,.0f} ms ({cost.time / STEP:.0%})" for cost in costs)
            sizes = [f"{cost / 1e9:.2f} GB" for cost in (costs[0].sent, costs[0].memory)]
            print(f"| {ranks} | {ROWS * ranks:,} | {name} | {sizes[0]} | {times} | {sizes[1]} |")
    print("\nBesides, the gradients of the weights: ", end="")
    each = [f"{time(summed(WEIGHTS * FLOAT, 512), 1022, network) * 1e3:,.0f} ms ({network.name})" for network in NETWORKS]
    print(f"{summed(WEIGHTS * FLOAT, 512) / 1e9:.2f} GB, " + ", ".join(each))
    print("\nThe global batch fixed at 32,768:\n")
    print("| ranks | rows of a rank | way | received by a rank | " + " | ".join(it.name for it in NETWORKS) + " | memory |")
    print("|---|---|---|---|" + "---|" * len(NETWORKS) + "---|")
    for ranks in (8, 32, 128, 512):
        rows = 32_768 // ranks
        for name, way in ways:
            costs = [way(ranks, network, rows=rows) for network in NETWORKS]
            times = " | ".join(f"{1e3 * cost.time:,.1f} ms" for cost in costs)
            sizes = [f"{cost / 1e9:.2f} GB" for cost in (costs[0].sent, costs[0].memory)]
            print(f"| {ranks} | {rows:,} | {name} | {sizes[0]} | {times} | {sizes[1]} |")


if __name__ == "__main__":
    main()
