#!/usr/bin/env python3
"""What reading shards from an object store costs at 1 to 1,024 ranks: requests, connections, the time to the first batch, bytes.

    tools/bench/scale/loader.py

Prints the tables of docs/scale.md, "Reading the set". Standard Python only. `points.py` compares `start` and `read` with the
loader.

The order of the samples is that of docs/sample-order.md: each rank has its streams, a stream its window of neighbouring samples.
The requests are those of loader/src/: one for the statistics of every shard, two for the footer of every sidecar (a training reads
the footers twice, and without bank.names all sidecars), and, for each shard that is used, five, with mentions seven, one after
another; then one for each image.
"""

import heapq
import math
import random
from dataclasses import dataclass, replace

# --- Constants of the program. ---
READERS = 256  # loader/src/pipeline.rs: threads that read images, each with one request at a time
FOOTER_READERS = 16  # loader/src/shards/sidecar.rs
FOOTER = 64 << 10  # the same: bytes that are read of a sidecar's end
OPENING, OPENING_SIDECAR = 5, 2  # shards/store.rs, table.rs: tar (HEAD), table, two headers, statistics; sidecar and tar (HEAD)
MOST_OPEN = 512  # shards/store.rs

# --- The store. ---
ANSWER = 0.030  # seconds to the first byte of a small read. Assumed; stores publish 10 to 100 ms, most of it without the network
BANDWIDTH = 80e6  # bytes/s of one connection. Assumed
LIMIT = 5_500  # reads/s of one prefix. Published: Amazon S3, "Optimizing performance"
READ_MILLION = 0.4  # US dollars. Assumed: a list price
PAGE = 1_000  # names in an answer to a listing, answered one after another. Published: S3, ListObjectsV2
CORES = 16  # threads that count samples: one for each core (`data.threads`). Assumed

# --- The set. ---
IMAGE = 20e3  # bytes of a stored image at 256 px. Published: 25 kB a listed pair with text and headers (img2dataset)
TABLE = 2.0e6  # bytes of the table of a shard of 10,000. Measured: points.py prints bytes a sample, of short captions
SIDECAR = 1.2e6  # bytes of its sidecar. Measured: the same
INDEX = 200  # bytes that an index has of a shard. Assumed
FILES = 6  # names per shard: tar, table, signals, checksums, statistics, sidecar
NEEDED = 7_100  # images/s of `simzss` with ViT-B/14 on an H200: docs/benchmarks.md, "Throughput"


@dataclass(frozen=True)
class Run:
    shards: int
    samples: int = 10_000  # of a shard
    ranks: int = 1
    rows: int = 1_024  # of a rank
    streams: int = 64
    window: int = 4_096
    prefetch: int = 2
    threads: int = CORES
    mentions: bool = True
    listed: bool = True  # a folder, whose names are asked for; False: a brace list
    trainer: bool = False  # reads the footers twice (trainer/src/data/bank.rs, loader)
    counted: bool = False  # without bank.names: the vocabulary from all sidecars, one after another
    index: bool = False  # one file says what the statistics and footers say
    readers: int = READERS
    answer: float = ANSWER
    image: float = IMAGE
    cost: float = 0.0  # seconds of CPU for a request, all threads together
    limit: float = LIMIT

    def used_streams(self):
        return math.gcd(max(self.streams, self.ranks), self.rows * self.ranks)

    def opening(self):
        return OPENING + (OPENING_SIDECAR if self.mentions else 0)

    def fetch(self):
        return self.answer + self.image / BANDWIDTH


def start(run):
    """Requests of each rank before it asks for samples; seconds; bytes."""
    listing = math.ceil(FILES * run.shards / PAGE) if run.listed else 0
    if run.index:
        # The parts of the list are asked for at once.
        bytes_ = INDEX * run.shards
        return 1 + listing, run.answer * (1 + listing / 16) + bytes_ / BANDWIDTH, bytes_
    footers = 2 * run.shards * (2 if run.trainer else 1) if run.mentions else 0
    sidecars = 2 * run.shards if run.counted else 0
    seconds = listing * run.answer
    seconds += max(footers / min(FOOTER_READERS, run.shards) * run.answer, footers * run.cost)
    seconds += max(run.shards / min(run.threads, run.shards) * run.answer, run.shards * run.cost)
    seconds += sidecars * run.answer + sidecars / 2 * SIDECAR / BANDWIDTH
    requests = listing + footers + run.shards + sidecars
    bytes_ = run.shards * 300 + footers / 2 * min(FOOTER, SIDECAR) + sidecars / 2 * SIDECAR
    # All ranks ask the same store at the same time.
    return requests, max(seconds, run.ranks * requests / run.limit), bytes_


@dataclass
class Read:
    first: float  # seconds to the first batch
    first_requests: int
    opened: int  # shards for it
    rate: float  # images/s after it
    requests: int


def read(run, batches=20, seed=0):
    """After the start: what the readers of one rank do for this many batches, if nothing else takes time. They take the rows in
    their order; who needs a shard that is being opened waits for it. A batch is asked for when the one `prefetch` + 1 before it is
    taken."""
    draw = random.Random(seed)
    streams = run.used_streams() // run.ranks
    q = run.rows // streams
    of_stream = run.shards * run.samples // run.used_streams()
    window = math.ceil(of_stream / math.ceil(of_stream / run.window))

    def samples(stream):
        for start in range(0, of_stream, window):
            places = list(range(start, min(start + window, of_stream)))
            draw.shuffle(places)
            yield from (stream * of_stream + place for place in places)

    orders = [samples(stream) for stream in range(streams)]
    readers = [0.0] * run.readers
    opened, requests, taken, first = {}, 0, [], None
    for batch in range(batches):
        asked = taken[batch - run.prefetch - 1] if batch > run.prefetch else 0.0
        end = taken[-1] if taken else 0.0
        for order in orders:
            for _ in range(q):
                shard = next(order) // run.samples
                now = max(heapq.heappop(readers), asked)
                if shard not in opened:
                    opened[shard] = now + run.opening() * run.answer
                    requests += run.opening()
                done = max(now, opened[shard]) + run.fetch()
                requests += 1
                end = max(end, done, requests * run.cost)
                heapq.heappush(readers, done)
        taken.append(end)
        if batch == 0:
            first = (end, requests, len(opened))
    rate = (batches - 1) * run.rows / (taken[-1] - taken[0]) if batches > 1 else 0.0
    return Read(*first, rate, requests)


def in_use(run):
    """Shards that a rank keeps open."""
    return run.used_streams() // run.ranks * (math.ceil(run.window / run.samples) + 2)


def table_bytes(run):
    """Bytes of tables and sidecars that all ranks read in an epoch, relative to their size: where a stream begins and ends
    in the middle of a shard, both its ranks read them."""
    return 1 + run.used_streams() / run.shards


def duration(seconds):
    return f"{seconds:.1f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def main():
    print("| pairs | ranks | requests of a rank | of all | time ", end="")
    print("| without bank.names: time | bytes of a rank | with an index: of all | time |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, shards in (("400 M", 40_000), ("5 B", 500_000)):
        for ranks in (1, 8, 64, 256, 1024):
            run = Run(shards, ranks=ranks, trainer=True)
            requests, seconds, _ = start(run)
            _, counted, bytes_ = start(replace(run, counted=True))
            few, soon, _ = start(replace(run, index=True))
            print(
                f"| {name} | {ranks:,} | {requests:,} | {ranks * requests / 1e6:,.1f} M | {duration(seconds)} "
                f"| {duration(counted)} | {bytes_ / 1e9:,.0f} GB | {ranks * few:,} | {duration(soon)} |"
            )
    print("\nAfter the start, shards of 10,000, 1,024 rows of a rank, 400 M pairs:\n")
    print("| ranks | streams of a rank | shards that it opens | requests to the first batch | time, 32 readers | 256 ", end="")
    print("| open shards | connections of all | tables read |")
    print("|---|---|---|---|---|---|---|---|---|")
    for ranks in (1, 2, 8, 64, 256, 1024):
        run = Run(40_000, ranks=ranks)
        of = read(run, 1)
        print(
            f"| {ranks:,} | {run.used_streams() // ranks} | {of.opened} | {of.first_requests:,} "
            f"| {duration(read(replace(run, readers=32), 1).first)} | {duration(of.first)} | {in_use(run)} "
            f"| {ranks * run.readers:,} | {table_bytes(run):.3f} times |"
        )
    print("\nImages/s of a rank from the store, and what an epoch costs:\n")
    print(f"| readers | answer | images/s | share of the {NEEDED:,} of one H200 |\n|---|---|---|---|")
    for readers in (32, 128, 256):
        for answer in (0.015, 0.030, 0.060):
            rate = read(Run(40_000, ranks=8, readers=readers, answer=answer)).rate
            print(f"| {readers} | {1e3 * answer:.0f} ms | {rate:,.0f} | {min(rate / NEEDED, 1):.0%} |")
    print("\n| pairs | ranks | requests of an epoch | $ | reads/s at 7,100 images/s per rank | prefixes of 5,500/s |")
    print("|---|---|---|---|---|---|")
    for name, pairs in (("400 M", 4e8), ("5 B", 5e9)):
        for ranks in (8, 64, 1024):
            reads = ranks * NEEDED
            print(
                f"| {name} | {ranks:,} | {pairs / 1e6:,.0f} M | {pairs / 1e6 * READ_MILLION:,.0f} | {reads:,} "
                f"| {math.ceil(reads / LIMIT):,} |"
            )
    _, _, bytes_ = start(Run(40_000, trainer=True))
    print(f"\nWith bank.names each rank reads at the start, 400 M pairs: {bytes_ / 1e9:.1f} GB; 5 B: {12.5 * bytes_ / 1e9:.0f} GB.")
    companions = 40_000 * (TABLE + SIDECAR)
    print(f"Tables and sidecars of an epoch, all ranks, 400 M: {companions / 1e9:.0f} GB; images {4e8 * IMAGE / 1e12:.0f} TB.")


if __name__ == "__main__":
    main()
