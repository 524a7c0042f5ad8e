#!/usr/bin/env python3
"""Memory of `trainer serve` while different images are uploaded, each with a request for scores.

    tools/bench/serve_memory.py RUN [--trainer PATH] [--uploads N] [--size WIDTHxHEIGHT]

Prints the resident memory after the start and after 1, 100, 500, 1000, 2000 .. uploads. Standard library only.
"""
import argparse
import http.client
import json
import re
import struct
import subprocess
import time
import zlib


def png(width, height, seed):
    """A smooth image, another one for every seed."""
    row = lambda y: bytes((x * (1 + seed % 7) + y * (c + 1) + seed * 13) // 2 % 256 for x in range(width) for c in range(3))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    first = row(0)
    pixels = b"".join(b"\0" + first[3 * (y % width):] + first[:3 * (y % width)] for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    # The text makes files with equal pixels different.
    text = b"seed\0%d" % seed
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part) for part in [(b"IHDR", head), (b"tEXt", text), (b"IDAT", zlib.compress(pixels, 1)), (b"IEND", b"")])


def resident(process):
    with open(f"/proc/{process}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+) kB", status.read())[1]) / 1024


parser = argparse.ArgumentParser()
parser.add_argument("run")
parser.add_argument("--trainer", default="target/release/trainer")
parser.add_argument("--uploads", type=int, default=2000)
parser.add_argument("--size", default="448x336")
arguments = parser.parse_args()
width, height = map(int, arguments.size.split("x"))

command = [arguments.trainer, "serve", "--checkpoint", arguments.run, "--address", "127.0.0.1:0", "--threads", "1"]
server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
try:
    address = re.search(r"http://([^/\s]+)", server.stdout.readline())[1]
    print(f"at the start: {resident(server.pid):.0f} MB")
    started = time.monotonic()
    shown = {1, 100, 500} | {1000 * n for n in range(1, 1000)}
    connection = http.client.HTTPConnection(address)

    def ask(path, kind, body):
        connection.request("POST", path, body, {"Content-Type": kind})
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise SystemExit(f"{path}: status {response.status}: {answer[:200]}")
        return answer

    for upload in range(1, arguments.uploads + 1):
        picture = json.loads(ask("/pictures", "image/png", png(width, height, upload)))
        ask("/scores", "application/json", json.dumps({"picture": picture["id"], "classes": ["ball", f"thing {upload}"]}))
        if upload in shown:
            print(f"after {upload} uploads: {resident(server.pid):.0f} MB, {time.monotonic() - started:.0f} s", flush=True)
finally:
    server.kill()
    server.wait()
