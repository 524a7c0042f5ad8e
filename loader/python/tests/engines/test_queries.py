"""The queries of tools/queries.sql by Spark: the rows that DuckDB gives with the views of tools/duckdb.sql."""

import decimal
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simzss_data

from conftest import pixels, png

TOOLS = Path(__file__).parents[4] / "tools"
INGEST = os.path.join(sysconfig.get_path("scripts"), "ingest")

# A caption, and whether its image can be read.
SAMPLES = [
    ("A man walks a big brown dog and a small white dog.", True),
    ("Two men and a black dog near a tall tree", True),
    ("so it goes", True),
    ("A large orange cat on a wooden table", True),
    ("a dog that cannot be read", False),
    ("The old man's hat, a cat; and \"a dog\"", True),
    ("A dog chases a cat up a tree", True),
    ("a lost dog", False),
    ("a man, a dog and a very old wooden boat", True),
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Three tagged shards, and their statistics in a folder inside, as duckdb.sql expects them."""
    folder = tmp_path_factory.mktemp("dataset")
    images, shards = folder / "images", folder / "shards"
    images.mkdir()
    rows = []
    for number, (caption, readable) in enumerate(SAMPLES):
        (images / f"{number}.png").write_bytes(png(pixels(3, number)) if readable else b"this is not an image")
        rows.append({"file": f"{number}.png", "caption": caption})
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    make = [INGEST, "shard", folder / "captions.jsonl", "--images", images, "--out", shards, "--shard-size", 3]
    for command in ([*make, "--image-size", 16], [INGEST, "tag", shards]):
        subprocess.run(list(map(str, command)), check=True)
    statistics = shards / "statistics"
    statistics.mkdir()
    counts = simzss_data.statistics(shards)
    for name in ("concepts", "pairs"):
        pq.write_table(pa.table(getattr(counts, name)), statistics / f"{name}.parquet")
    return shards


def plain(value):
    return float(value) if isinstance(value, decimal.Decimal) else value


def test_spark(dataset, monkeypatch):
    pytest.importorskip("pyspark", reason="Spark is not installed")
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java, version 17 or newer")
    program = TOOLS / "queries_spark.py"
    command = ["spark-submit", "--master", "local[2]", program, dataset, dataset / "statistics"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600,
                          env={**os.environ, "PYSPARK_PYTHON": sys.executable})
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-6_000:]
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"query"')]

    monkeypatch.chdir(dataset)
    database = duckdb.connect()
    database.execute((TOOLS / "duckdb.sql").read_text())
    parts = [part.partition("\n")[::2] for part in (TOOLS / "queries.sql").read_text().split("\n-- ") if "SELECT" in part]
    assert [answer["query"] for answer in answers] == [title.partition(":")[0] for title, _ in parts]
    for answer, (title, query) in zip(answers, parts, strict=True):
        rows = database.execute(query)
        names = [column[0] for column in rows.description]
        expected = [dict(zip(names, map(plain, row), strict=True)) for row in rows.fetchall()]
        assert expected, f"{title} has no rows, so nothing is compared"
        assert len(answer["rows"]) == len(expected), title
        for row, of_duckdb in zip(answer["rows"], expected, strict=True):
            assert row == pytest.approx(of_duckdb), title
