"""The examples that spread a command of `ingest` over Spark and Ray, one task for each part. One task dies once."""

import functools
import hashlib
import http.server
import importlib.metadata
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import EXAMPLES, caption, pixels, png

IMAGES, SHARD_SIZE, PARTS, LOST = 48, 8, 3, 1
INGEST = os.path.join(sysconfig.get_path("scripts"), "ingest")

# In the place of `ingest`: the first time, part LOST makes a shard, and then the worker that has started it is killed with it.
DIES_ONCE = """#!{python}
import glob, os, signal, subprocess, sys, time
arguments = sys.argv[1:]
if arguments[arguments.index("--index") + 1] == "{lost}" and not os.path.exists("{mark}"):
    open("{mark}", "w").close()
    ingest = subprocess.Popen(["{ingest}", *arguments], stderr=subprocess.DEVNULL)
    while ingest.poll() is None and not glob.glob("{made}"):
        time.sleep(0.002)
    ingest.kill()
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
os.execv("{ingest}", ["ingest", *arguments])
"""


class Slow(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        threading.Event().wait(0.02)
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def urls(tmp_path_factory):
    """A list of images on a server of this machine."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(IMAGES):
        (folder / f"{number}.png").write_bytes(png(np.repeat(np.repeat(pixels(9, number), 4, 0), 4, 1)))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Slow, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    table = {"URL": [f"{address}/{n}.png" for n in range(IMAGES)], "TEXT": [caption(9, n) for n in range(IMAGES)]}
    pq.write_table(pa.table(table), folder / "urls.parquet")
    yield folder / "urls.parquet"
    server.shutdown()


def download(urls, out):
    return ["download", urls, "--out", out, "--shard-size", SHARD_SIZE, "--image-size", 32, "--allow-private"]


def content(folder):
    """Tars and mentions; the tables and counts have times."""
    tars = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.tar")}
    return tars, {path.name: pq.read_table(path).to_pylist() for path in folder.glob("*.concepts.parquet")}


@pytest.fixture(scope="module")
def expected(urls, tmp_path_factory):
    """The shards and mentions of one process."""
    shards = tmp_path_factory.mktemp("expected") / "shards"
    for arguments in (download(urls, shards), ["tag", shards]):
        subprocess.run([INGEST, *map(str, arguments)], check=True)
    return content(shards)


def spread(command, tmp_path, made, arguments):
    """Runs a command of `ingest` in parts; returns what the example printed."""
    program, mark = tmp_path / "bin" / "ingest", tmp_path / f"lost-{arguments[0]}"
    program.parent.mkdir(exist_ok=True)
    program.write_text(DIES_ONCE.format(python=sys.executable, lost=LOST, mark=mark, ingest=INGEST, made=made))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable, "RAY_TASK_RETRY_DELAY_MS": "0"}
    done = subprocess.run([*map(str, [*command, program, *arguments])], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-6_000:]
    assert mark.exists(), "the task that dies has not run"
    return sorted(line for line in done.stdout.splitlines() if line.startswith("part "))


def check(command, urls, expected, tmp_path):
    shards = tmp_path / "shards"
    lines = spread(command, tmp_path, shards / "0000[14]_stats.json", download(urls, shards))
    assert [line.split(":")[0] for line in lines] == [f"part {part} of {PARTS}" for part in range(PARTS)]
    assert len(list(shards.glob("*_stats.json"))) == IMAGES // SHARD_SIZE
    lines = spread(command, tmp_path, shards / "0000[14].concepts.parquet", ["tag", shards])
    assert len(lines) == PARTS
    assert content(shards) == expected
    left = subprocess.run([INGEST, "verify", shards], capture_output=True, text=True)
    assert left.returncode == 0, left.stderr


def test_spark(urls, expected, tmp_path):
    pytest.importorskip("pyspark", reason="Spark is not installed")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java, version 17 or newer")
    command = ["spark-submit", "--master", "local[2,4]", EXAMPLES / "parts_spark.py", PARTS]
    check(command, urls, expected, tmp_path)


def test_ray(urls, expected, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed")
    check([sys.executable, EXAMPLES / "parts_ray.py", PARTS, 1], urls, expected, tmp_path)


def test_the_command_is_installed():
    """`pip install simzss-ingest` puts the program next to Python, and its licences into the package."""
    done = subprocess.run([INGEST, "tag", "--text", "-"], input="Two Dogs\n", capture_output=True, text=True)
    assert '"concept":"dog"' in done.stdout, done.stderr
    names = {path.name for path in importlib.metadata.files("simzss-ingest")}
    assert {"LICENSE-MIT", "LICENSE-APACHE", "THIRD-PARTY.txt", "rust-standard-library.html", "LANGUAGE-DATA.md"} <= names
