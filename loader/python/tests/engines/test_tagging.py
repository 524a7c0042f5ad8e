"""The examples that tag tables in other programs: what they write is what `tag` gives when it is called directly."""

import os
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from simzss_data import tag

from conftest import CAPTIONS, EXAMPLES

ROWS = 5_000


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of several row groups, with captions that are null, empty, or not ASCII."""
    captions = [f"{CAPTIONS[row % len(CAPTIONS)]} and {row} small dogs" for row in range(ROWS)]
    captions[7], captions[8] = None, ""
    path = tmp_path_factory.mktemp("captions") / "captions.parquet"
    pq.write_table(pa.table({"key": [f"{row:05}" for row in range(ROWS)], "caption": captions}), path, row_group_size=700)
    return path


@pytest.fixture(scope="module")
def expected(table):
    """The mentions of each row, by its key."""
    columns = pq.read_table(table)
    return dict(zip(columns["key"].to_pylist(), tag(columns["caption"].combine_chunks()).to_pylist(), strict=True))


def run_example(*command, **environment):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-6_000:]


def test_spark(table, expected, tmp_path):
    pytest.importorskip("pyspark", reason="Spark is not installed")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java, version 17 or newer")
    master = ["spark-submit", "--master", "local[2]", "--conf", "spark.sql.execution.arrow.maxRecordsPerBatch=300"]
    run_example(*master, EXAMPLES / "tag_spark.py", table, tmp_path / "mentions", PYSPARK_PYTHON=sys.executable)
    found = {key: [] for key in expected}
    for mention in pq.read_table(tmp_path / "mentions").to_pylist():
        found[mention.pop("key")].append(mention)
    names = ("phrase", "concept", "head", "start", "end")
    assert found == {
        key: [{name: mention[name] for name in names} for mention in row["mentions"] or []] for key, row in expected.items()
    }


def check_columns(path, expected):
    found = pq.read_table(path).to_pylist()
    assert len(found) == ROWS
    for row in found:
        assert {name: row[name] for name in ("text", "mentions")} == expected[row["key"]]


def test_ray(table, expected, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed")
    run_example(sys.executable, EXAMPLES / "tag_ray.py", table, tmp_path / "tagged")
    check_columns(tmp_path / "tagged", expected)


@pytest.mark.parametrize("processes", [1, 2])
def test_datasets(table, expected, tmp_path, processes):
    pytest.importorskip("datasets", reason="datasets is not installed")
    written = tmp_path / "tagged.parquet"
    command = [sys.executable, EXAMPLES / "tag_datasets.py", table, written, "--processes", processes]
    run_example(*command, HF_HOME=str(tmp_path / "cache"), HF_HUB_OFFLINE="1")
    check_columns(written, expected)
