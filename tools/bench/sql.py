#!/usr/bin/env python3
"""SQL over many mentions: `tools sql`, `tools sql` with workers on this machine, and DuckDB, in turns.

    tools/bench/sql.py captions_val2017.json OUT [--mentions 100_000_000] [--programs target/release] [--runs 3] [--workers 2]

Makes a dataset as `ingest` writes it, with the captions of COCO's file drawn again and again with all their mentions, so that concepts,
phrases and what occurs together are as frequent as in COCO; 4 % of the samples failed, for three causes. There are no images: a tar is
an empty one. `tools stats` and `tools sql` read it and must find what was written. Then each query of tools/queries.sql is asked `--runs`
times of each engine, in turns. Every engine must give the same rows. What OUT already holds is not made again.

Needs `ingest`, `tools` and `tools-sql`, for --workers with its feature `distributed`, and a Python with numpy, pyarrow and duckdb.
Time is that of the process from its start to its end, with planning and opening files; memory is the largest resident memory of it and,
with workers, of all of them.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
FAILURES = ["HTTP Error 404: Not Found", "HTTP Error 403: Forbidden", "timed out: no response"]
FAILED = 0.04

# Asks one query in the folder of shards.
ASK_DUCKDB = """
import duckdb, json, sys
database = duckdb.connect()
# It goes to standard output, in queries of more than two seconds.
database.execute("SET enable_progress_bar = false")
database.execute(open(sys.argv[1]).read())
rows = database.execute(sys.argv[2])
names = [column[0] for column in rows.description]
for row in rows.fetchall():
    print(json.dumps(dict(zip(names, row)), default=float))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mentions", type=int, default=100_000_000)
    parser.add_argument("--samples", type=int, default=10_000, help="attempted samples of a shard")
    parser.add_argument("--programs", type=Path, default=ROOT / "target/release")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    arguments.programs = arguments.programs.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    shards = arguments.out / "shards"
    make(arguments, shards)
    workers = [Worker(arguments.programs) for _ in range(arguments.workers)]
    try:
        measure(arguments, shards, workers)
    finally:
        for worker in workers:
            worker.stop()


# Starts a process and tells its exit code, seconds and largest resident memory in kB. It is small itself: what counts as the largest
# memory of a process begins with the memory of the one that started it.
START = """
import os, sys, time
started = time.monotonic()
process = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(process, 0)
seconds = time.monotonic() - started
os.write(int(sys.argv[1]), f"{os.waitstatus_to_exitcode(status)} {seconds} {used.ru_maxrss}".encode())
"""


def timed(command, **options):
    """Output, seconds and largest resident memory in MB of a process that must succeed."""
    read, write = os.pipe()
    start = [sys.executable, "-S", "-c", START, str(write), *map(str, command)]
    output = subprocess.run(start, stdout=subprocess.PIPE, pass_fds=[write], check=True, **options).stdout
    os.close(write)
    with os.fdopen(read) as told:
        code, seconds, memory = told.read().split()
    if code != "0":
        sys.exit(f"{command[0]} ended with exit code {code}")
    return output.decode(), float(seconds), int(memory) / 1024


class Source:
    """COCO's captions, and their mentions by `ingest tag`."""

    def __init__(self, file, folder, programs):
        annotations = json.loads(file.read_text())["annotations"]
        self.captions = [annotation["caption"] for annotation in annotations]
        table = folder / "captions.parquet"
        if not (folder / "captions.json").exists():
            folder.mkdir(exist_ok=True)
            pq.write_table(pa.table({"caption": self.captions}), table)
            timed([programs / "ingest", "tag", "--table", table, "--out", folder, "--part-size", 10_000_000])
        part = folder / "00000.concepts.parquet"
        self.about = json.loads(pq.read_metadata(part).metadata[b"concepts"])
        start, end = self.about["captions"]["offset"], self.about["captions"]["offset"] + 8 * len(self.captions)
        self.checks = np.frombuffer(part.read_bytes()[start:end], np.uint64)
        mentions = pq.read_table(part)
        of = mentions["sample"].to_numpy()
        self.first = np.searchsorted(of, np.arange(len(self.captions)))
        self.count = np.searchsorted(of, np.arange(len(self.captions)), side="right") - self.first
        self.numbers = {name: mentions[name].to_numpy() for name in
                        ("phrase_start", "phrase_end", "concept_start", "concept_end")}
        self.texts = {}
        for name in ("phrase", "concept", "head", "tags"):
            column = mentions[name].combine_chunks()
            column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
            self.texts[name] = column.indices.to_numpy(), column.dictionary
        self.caption_texts = pa.array(self.captions)


def drawn(texts, codes):
    """A column of texts by their numbers, with no text that it does not need."""
    used, codes = np.unique(codes, return_inverse=True)
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), texts.take(pa.array(used)))


def write_shard(source, shards, number, samples):
    """One shard; returns its number of mentions."""
    draw = np.random.default_rng([0, number])
    name, width = f"{number:05}", len(str(samples - 1))
    caption = draw.integers(0, len(source.captions), samples)
    failed = draw.random(samples) < FAILED
    cause = draw.integers(0, len(FAILURES), samples)
    keys = pa.array([f"{name}{row:0{width}}" for row in range(samples)])
    tar = shards / f"{name}.tar.zst"
    tar.write_bytes(pa.compress(bytes(1024), "zstd", asbytes=True))

    # The mentions of the samples that did not fail.
    kept = np.flatnonzero(~failed)
    count = source.count[caption[kept]]
    sample = np.repeat(np.arange(len(kept)), count)
    mention = np.repeat(source.first[caption[kept]] - np.cumsum(count) + count, count) + np.arange(len(sample))
    columns = {"key": keys.take(pa.array(kept[sample])), "sample": pa.array(sample, pa.uint32())}
    for text in ("phrase", "concept", "head"):
        codes, texts = source.texts[text]
        columns[text] = drawn(texts, codes[mention])
    columns |= {text: pa.array(numbers[mention], pa.uint32()) for text, numbers in source.numbers.items()}
    codes, texts = source.texts["tags"]
    columns["tags"] = texts.take(pa.array(codes[mention]))
    table = pa.table(columns)
    checks = source.checks[caption[kept]].tobytes()
    options = dict(compression="zstd", write_statistics=["key", "sample"])
    with open(shards / f"{name}.concepts.parquet", "wb") as file, pq.ParquetWriter(file, table.schema, **options) as writer:
        writer.write_table(table, row_group_size=122_880)
        about = {key: source.about[key] for key in ("version", "tagger", "tagger_hash", "grammar", "canonical")} | {
            "shard": tar.name, "shard_bytes": tar.stat().st_size, "samples": len(kept), "mentions": table.num_rows,
            "captions_without_mention": int((count == 0).sum()),
            "captions": {"check": "xxh64", "offset": file.tell(), "sha256": hashlib.sha256(checks).hexdigest()},
        }
        file.write(checks)
        writer.add_key_value_metadata({"concepts": json.dumps(about)})

    side = pa.array(np.where(failed, 0, 256), pa.int32(), mask=failed)
    place = pa.array(np.cumsum(~failed) * 20_480, pa.int64(), mask=failed)
    pq.write_table(pa.table({
        "caption": source.caption_texts.take(pa.array(caption)),
        "url": pa.array([f"https://example.org/{name}/{row}.jpg" for row in range(samples)]),
        "key": keys,
        "status": pa.array(["success", "failed_to_download"]).take(pa.array(failed.astype(int))),
        "error_message": pa.array(FAILURES).take(pa.array(cause, mask=~failed)),
        "width": side, "height": side, "original_width": side, "original_height": side,
        "exif": pa.array(["{}"]).take(pa.array(np.zeros(samples, int), mask=failed)),
        "offset": place, "length": pa.array(np.full(samples, 20_000), pa.int64(), mask=failed),
    }), shards / f"{name}.parquet", compression="snappy")
    totals = {"count": samples, "successes": len(kept), "failed_to_read": 0, "failed_to_download": int(failed.sum()),
              "failed_to_resize": 0, "duration": 0.0, "start_time": 0.0, "end_time": 0.0, "status_dict": {}}
    (shards / f"{name}_stats.json").write_text(json.dumps(totals))
    return table.num_rows


def write_numbered(job):
    return write_shard(write_numbered.source, *job)


def make(arguments, shards):
    """The dataset and its statistics."""
    source = Source(arguments.captions, arguments.out / "source", arguments.programs)
    made = arguments.out / "made.json"
    if not made.exists():
        shards.mkdir(exist_ok=True)
        started, mentions, number = time.monotonic(), 0, 0
        write_numbered.source = source
        with multiprocessing.get_context("fork").Pool() as pool:
            per_shard = source.count.mean() * (1 - FAILED) * arguments.samples
            total = round(arguments.mentions / per_shard) or 1
            for mentions_of_one in pool.imap(write_numbered, [(shards, n, arguments.samples) for n in range(total)], 16):
                mentions, number = mentions + mentions_of_one, number + 1
        made.write_text(json.dumps({"shards": number, "mentions": mentions}))
        print(f"written in {time.monotonic() - started:.0f} s", flush=True)
    about = json.loads(made.read_text())
    statistics = shards / "statistics"
    if not statistics.exists():
        _, seconds, memory = timed([arguments.programs / "tools", "stats", shards, "--out", statistics])
        print(f"tools stats: {seconds:.1f} s, {memory:.0f} MB", flush=True)
    counted = json.loads((statistics / "stats.json").read_text())
    query = "SELECT count(*) AS n FROM mentions"
    rows, _, _ = timed([arguments.programs / "tools", "sql", query, shards, "--format", "json"])
    assert counted["mentions"] == about["mentions"] == json.loads(rows)["n"], (counted, about, rows)
    size = sum(file.stat().st_size for file in shards.rglob("*") if file.is_file())
    print(f"{about['shards']} shards, {counted['samples']} samples, {about['mentions']} mentions of {counted['concepts']} concepts, "
          f"{counted['pairs']} pairs, {size / 1e9:.2f} GB", flush=True)


class Worker:
    """A worker process."""

    def __init__(self, programs):
        command = [programs / "tools", "sql", "--worker", "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
        self.address = re.match(r"worker: listening on (\S+)", self.process.stderr.readline())[1]

    def reset(self):
        """Its largest memory counts from now on."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def memory(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024

    def stop(self):
        self.process.terminate()
        self.process.wait()


def queries():
    """Name and text of each query."""
    parts = (ROOT / "tools/queries.sql").read_text().split("\n-- ")[1:]
    named = [part.partition("\n")[::2] for part in parts if "SELECT" in part]
    return {title.partition(":")[0]: query.strip().rstrip(";") for title, query in named}


def same(a, b):
    """Whether two values are equal, apart from rounding."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
    return abs(a - b) < 1e-6 if numbers else a == b


def measure(arguments, shards, workers):
    tools = [arguments.programs / "tools", "sql"]
    by = ["--workers", ",".join(worker.address for worker in workers)]

    def alone(query):
        return timed([*tools, query, shards, "--format", "json"])

    def together(query):
        for worker in workers:
            worker.reset()
        output, seconds, memory = timed([*tools, query, shards, "--format", "json", *by])
        return output, seconds, memory + sum(worker.memory() for worker in workers)

    def ask_duckdb(query):
        command = [sys.executable, "-c", ASK_DUCKDB, ROOT / "tools/duckdb.sql", query]
        return timed(command, cwd=shards)

    engines = {"tools sql": alone, f"DuckDB {duckdb.__version__}": ask_duckdb}
    if workers:
        engines[f"{len(workers)} workers"] = together
    print("median of", arguments.runs, "runs; s, MB")
    print("| query |", " | ".join(engines), "|")
    for name, query in queries().items():
        results = {engine: [] for engine in engines}
        for _ in range(arguments.runs):
            for engine, ask in engines.items():
                results[engine].append(ask(query))
        rows = {engine: [json.loads(line) for line in runs[0][0].splitlines()] for engine, runs in results.items()}
        expected = rows["tools sql"]
        for engine, found in rows.items():
            if len(found) != len(expected) or not all(map(same, found, expected)):
                print(f"{name}: {engine} gives other rows: {found[:3]} .. instead of {expected[:3]} ..", file=sys.stderr)
        cells = []
        for runs in results.values():
            seconds, memory = sorted(run[1] for run in runs), max(run[2] for run in runs)
            cells.append(f"{seconds[len(seconds) // 2]:.2f} s ({seconds[0]:.2f} to {seconds[-1]:.2f}), {memory:.0f} MB")
        print(f"| `{name}` ({len(expected)} rows) |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
