"""A tiny dataset that the tests make themselves."""

import contextlib
import http.server
import io
import re
import runpy
import struct
import subprocess
import sys
import tarfile
import textwrap
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SIDE = 16
COUNTS = [13, 9, 20, 6]
CAPTIONS = [
    "A photo of two Dogs near  snow",
    "The brown leather couch of a café",
    "Two tiny rubber ducks &amp; a soccer ball",
    "A tennis racket on the green grass",
    "🦜 A parrot eats a red apple",
]


def png(pixels):
    """A PNG file of pixels [H, W, 3]."""
    height, width, _ = pixels.shape

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pixels(shard, sample):
    return np.random.default_rng([shard, sample]).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def caption(shard, sample):
    return CAPTIONS[(shard + sample) % len(CAPTIONS)]


def write_shard(path, shard, count):
    with tarfile.open(path, "w") as tar:
        for sample in range(count):
            members = {
                "png": png(pixels(shard, sample)),
                "txt": caption(shard, sample).encode(),
                "json": b'{"shard": %d}' % shard,
            }
            for extension, data in members.items():
                member = tarfile.TarInfo(f"{shard}-{sample:03}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for shard, count in enumerate(COUNTS):
        write_shard(folder / f"{shard:05}.tar", shard, count)
    return folder


@pytest.fixture(scope="session")
def order():
    """The order of samples, from the implementation that the Rust tests compare with, too."""
    script = Path(__file__).parents[2] / "tests" / "fixtures" / "order.py"
    with contextlib.redirect_stdout(io.StringIO()), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script)])
        return runpy.run_path(str(script))["epoch_batches"]


@contextlib.contextmanager
def serve(folder, writable=True):
    """Serves a folder over http, and gives its address; with PUT if it is writable, as WebDAV has it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def path_of(self):
            return folder / self.path.rpartition("/")[2]

        def answer(self, status, body=b"", **headers):
            self.send_response(status)
            for name, value in {"Content-Length": len(body), **headers}.items():
                self.send_header(name.replace("_", "-"), str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self):
            if not self.path_of().is_file():
                return self.answer(404)
            body, common = self.path_of().read_bytes(), {"Last_Modified": "Sun, 01 Nov 2026 00:00:00 GMT"}
            if not (wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
                return self.answer(200, body, Accept_Ranges="bytes", **common)
            first, last = int(wanted[1]), min(int(wanted[2] or len(body)), len(body) - 1)
            self.answer(206, body[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(body)}", **common)

        do_HEAD = do_GET

        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if writable:
                self.path_of().write_bytes(body)
            self.answer(201 if writable else 405)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(code, *arguments, timeout=60):
    """Runs code in a Python of its own, which must end in time; returns the process."""
    code = textwrap.dedent(code)
    command = [sys.executable, "-X", "faulthandler", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def keys_of_steps(command):
    """Runs a training of the examples; returns the keys of each step, in the order of the ranks, by its place."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-6_000:]
    steps = {}
    # What several processes print may share a line.
    for _, place, keys in sorted(re.findall(r"rank (\d+): (\(\d+, \d+\)) (.*?) loss \d+\.\d{3}", done.stdout)):
        steps.setdefault(place, []).extend(keys.split())
    return steps
