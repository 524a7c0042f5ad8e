#!/usr/bin/env python3
"""Measures the Python package beside the programs of the same libraries; prints a table and one line of JSON.

    tools/bench/python.py SHARDS CAPTIONS.txt [--tools target/release/tools] [--ingest target/release/ingest] [--passes 3]

Run it with a Python that has the package, pyarrow, duckdb and polars, such as target/python/bin/python after
`./check --python`. The folder SHARDS is loaded with random resized crops of 224 x 224 px, flipped with probability 0.5, in
batches of 64 by 2 threads, by `Shards` and by `tools bench loader`. CAPTIONS.txt has one caption per line; it is repeated up
to a million lines, which are tagged by one thread and by two. Every figure is the best of the passes, which alternate.
"""
import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
from simzss_data import Shards, tag

LINES = 1_000_000
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("shards", type=Path)
parser.add_argument("captions", type=Path)
parser.add_argument("--tools", default="target/release/tools")
parser.add_argument("--ingest", default="target/release/ingest")
parser.add_argument("--passes", type=int, default=3)
options = parser.parse_args()
best = {}


def measure(name, unit, count, seconds):
    rate = count / seconds
    best[name] = max(best.get(name, 0), rate)
    print(f"{name:34}{rate:>12,.0f} {unit}/s", flush=True)


def shards():
    dataset = Shards(options.shards, 64, scale=(0.08, 1.0), flip=0.5, threads=2, output="numpy")
    batches = iter(dataset)
    # As the program does: the clock starts after the first batch.
    next(batches)
    started, images = time.perf_counter(), 0
    for batch in batches:
        images += len(batch["image"])
    measure("Shards", "images", images, time.perf_counter() - started)
    command = [options.tools, "bench", "loader", str(options.shards), "--threads", "2", "--passes", "1", "--json"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    rate = json.loads(lines[-1])["measured"]["exact"]["value"]
    measure("tools bench loader", "images", rate, 1)


def tagging(captions, file):
    array = pa.array(captions)
    tag(array[:10])
    for threads in (1, 2):
        started = time.perf_counter()
        tag(array, threads=threads)
        measure(f"tag, {threads} threads", "captions", LINES, time.perf_counter() - started)
    for threads in (1, 2):
        command = ["taskset", "-c", ",".join(map(str, range(threads))), options.ingest, "tag", "--text", file]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        measure(f"ingest tag --text, {threads} cores", "captions", LINES, time.perf_counter() - started)
    frame = pl.DataFrame({"caption": array})
    started = time.perf_counter()
    pl.Series(tag(frame["caption"]))
    measure("Polars", "captions", LINES, time.perf_counter() - started)
    con = duckdb.connect()
    con.execute("CREATE TABLE captions AS SELECT caption FROM frame")
    con.create_function(
        "concepts", lambda column: pa.array(tag(column)["mentions"]), parameters=["VARCHAR"], type="arrow",
        return_type='STRUCT(phrase VARCHAR, concept VARCHAR, head VARCHAR, "start" INTEGER, "end" INTEGER, '
        "concept_start INTEGER, concept_end INTEGER, tags VARCHAR)[]",
    )
    started = time.perf_counter()
    con.sql("SELECT sum(len(concepts(caption))) FROM captions").fetchall()
    measure("DuckDB", "captions", LINES, time.perf_counter() - started)


given = options.captions.read_text().splitlines()
captions = [given[line % len(given)] for line in range(LINES)]
with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
    file.write("\n".join(captions) + "\n")
    file.flush()
    for _ in range(options.passes):
        shards()
        tagging(captions, file.name)
print(json.dumps({name: round(rate) for name, rate in best.items()}))
