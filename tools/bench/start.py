#!/usr/bin/env python3
"""How long does a training take to its first steps, on a set of the size of LAION-400M in a store that answers slowly?

    tools/bench/start.py OUT [--shards 41408] [--latency 0.02] [--programs target/release] [--before FOLDER --before-shards 500]

One shard of rendered scenes is made and tagged; a small S3 server in this process shows it under as many names as the set has
shards (with the name in the sidecar's footer, so that each fits its shard), pages of a thousand keys, and answers every request
after the latency. `tools stats` counts the set and writes its index. Then `trainer/examples/start.rs` makes the vocabulary and the first batch
without the index, with the index, and with index and statistics. With --before, `trainer train --dry-run` of another version in that
folder runs on fewer shards. Prints, for each: seconds, peak memory of the process, requests, bytes. Standard Python only; build
first with `cargo build --release` and `cargo build --release --example start`.
"""

import argparse
import asyncio
import bisect
import json
import os
import re
import subprocess
import threading
import time
import urllib.parse
from pathlib import Path

NAMED = re.compile(rb'"shard":"00000\.tar"')


class Store:
    """The objects of one bucket: those of the set by formula, and those that were put."""

    def __init__(self, one):
        self.files = {path.name.removeprefix("00000"): path.read_bytes() for path in one.iterdir() if path.name.startswith("00000")}
        self.suffixes = sorted(self.files)
        self.put, self.hidden, self.latency = {}, set(), 0.0
        self.show(0)

    def show(self, shards):
        self.keys = [f"set/{shard:05}{suffix}" for shard in range(shards) for suffix in self.suffixes]
        self.forget()

    def forget(self):
        self.requests, self.sent = {}, 0

    def get(self, key):
        if key in self.put:
            return None if key in self.hidden else self.put[key]
        found = re.fullmatch(r"set/(\d{5})(.*)", key)
        if not found or found[2] not in self.files or int(found[1]) * len(self.suffixes) >= len(self.keys):
            return None
        data = self.files[found[2]]
        return NAMED.sub(b'"shard":"%s.tar"' % found[1].encode(), data) if found[2].endswith(".parquet") else data

    def list(self, query):
        prefix, after = query.get("prefix", ""), query.get("continuation-token") or query.get("start-after", "")
        more = [key for key in self.put if key not in self.hidden]
        keys = sorted(more + [""]) if not prefix.startswith("set/") else None
        if keys is None:
            keys, extra = self.keys, sorted(key for key in more if key.startswith(prefix))
            at = bisect.bisect_right(keys, after)
            page = sorted([key for key in keys[at:at + 1001] if key.startswith(prefix)] + [key for key in extra if key > after])
        else:
            page = [key for key in keys if key.startswith(prefix) and key > after]
        page, rest = page[:1000], page[1000:]
        text = "".join(
            f"<Contents><Key>{key}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified><ETag>\"1\"</ETag></Contents>"
            for key in page)
        token = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if rest else ""
        return (f"<?xml version=\"1.0\"?><ListBucketResult>{text}{token}<IsTruncated>{'true' if rest else 'false'}</IsTruncated>"
                "</ListBucketResult>").encode()

    def answer(self, method, target, headers, body):
        path, _, query = target.partition("?")
        key = urllib.parse.unquote(path).split("/", 2)[2] if path.count("/") > 1 else ""
        query = {name: value for name, value in urllib.parse.parse_qsl(query, keep_blank_values=True)}
        kind = "LIST" if "list-type" in query else method
        self.requests[kind] = self.requests.get(kind, 0) + 1
        if kind == "LIST":
            return "200 OK", [], self.list(query)
        if method == "PUT":
            self.put[key] = body
            return "200 OK", ['ETag: "1"'], b""
        if method == "DELETE":
            self.put.pop(key, None)
            return "204 No Content", [], b""
        data = self.get(key)
        if data is None:
            return "404 Not Found", [], b""
        about = ["Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT", 'ETag: "1"']
        if "range" in headers:
            first, last = headers["range"].removeprefix("bytes=").split("-")
            first, last = int(first), min(int(last or len(data)), len(data) - 1)
            return "206 Partial Content", about + [f"Content-Range: bytes {first}-{last}/{len(data)}"], data[first:last + 1]
        return "200 OK", about, data


class Connection(asyncio.Protocol):
    def __init__(self, store):
        self.store, self.buffer = store, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines if ": " in line)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        method, target, _ = first.split(" ")
        status, more, content = self.store.answer(method, target, headers, rest[:length])
        head = "".join(f"{line}\r\n" for line in [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", *more, ""])
        content = b"" if method == "HEAD" else content
        self.store.sent += len(content)
        asyncio.get_running_loop().call_later(self.store.latency, self.transport.write, head.encode() + content)


def serve(store):
    """Starts the server on a thread; returns its address."""
    loop, started = asyncio.new_event_loop(), threading.Event()
    address = []

    async def start():
        server = await loop.create_server(lambda: Connection(store), "127.0.0.1", 0, backlog=1000)
        address.append("http://127.0.0.1:%d" % server.sockets[0].getsockname()[1])
        started.set()

    def run():
        loop.run_until_complete(start())
        loop.run_forever()

    threading.Thread(target=run, daemon=True).start()
    started.wait()
    return address[0]


def run(environment, *command):
    """Seconds, peak memory in MB and output of a program that must succeed."""
    print("+", *command, flush=True)
    started = time.monotonic()
    process = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command[0]} failed")
    return time.monotonic() - started, usage.ru_maxrss / 1000, output.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shards", type=int, default=41_408)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--latency", type=float, default=0.02)
    parser.add_argument("--programs", type=Path, default=Path("target/release"))
    parser.add_argument("--before", type=Path)
    parser.add_argument("--before-shards", type=int, default=500)
    arguments = parser.parse_args()
    out, programs = arguments.out, arguments.programs.absolute()
    out.mkdir(exist_ok=True)
    plain = dict(os.environ)
    if not (out / "one").exists():
        run(plain, programs / "tools", "scenes", "--out", out / "scenes", "--count", arguments.samples, "--size", 112, "--url-prefix", "")
        run(plain, programs / "ingest", "shard", out / "scenes/captions.parquet", "--images", out / "scenes", "--file-col", "URL",
            "--resize-mode", "no", "--out", out / "one")
        run(plain, programs / "ingest", "tag", out / "one")
        run(plain, programs / "trainer", "pretrain", "--shards", out / "one", "--out", out / "tower.safetensors", "--steps", 0)

    store = Store(out / "one")
    address = serve(store)
    there = plain | {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": address}
    store.show(arguments.shards)
    seconds, memory, _ = run(there, programs / "tools", "stats", "s3://bucket/set", "--out", "s3://bucket/statistics")
    print(f"tools stats, without latency: {seconds:.1f} s, {memory:.0f} MB; index {len(store.put['set/index.parquet']):,} bytes, "
          f"statistics {len(store.put['statistics/concepts.parquet']):,} bytes\n", flush=True)

    def settings(*more):
        changes = [f"out={out / 'run'}", "data.shards=['s3://bucket/set']", f"vision.weights={out / 'tower.safetensors'}",
                   f"data.window={arguments.samples}", "data.batch_size=64", *more]
        return Path(__file__).parents[2] / "trainer/presets/demo.toml", changes

    def measure(name, shards, hidden, *command):
        store.show(shards)
        store.hidden, store.latency = set(hidden), arguments.latency
        seconds, memory, output = run(there, *command)
        store.latency = 0.0
        total = sum(store.requests.values())
        print(json.dumps({"what": name, "shards": shards, "seconds": round(seconds, 1), "MB": round(memory), "requests": total,
                          **store.requests, "sent MB": round(store.sent / 1e6, 1)}), flush=True)
        print(output, flush=True)

    without = ["set/index.parquet"]
    if arguments.before:
        # All of a dry run; what grows with the shards is the difference of the two.
        for shards in (arguments.before_shards, 2 * arguments.before_shards):
            preset, changes = settings()
            values = [part for change in changes for part in ("--set", change)]
            measure("before, dry run", shards, without, arguments.before.absolute() / "trainer", "train", "--config", preset, *values,
                    "--dry-run", out / "first.png")
    preset, changes = settings()
    start = programs / "examples/start"
    measure("without index and statistics", arguments.shards, without, start, preset, *changes)
    measure("index", arguments.shards, [], start, preset, *changes)
    preset, changes = settings("bank.statistics=s3://bucket/statistics")
    measure("index and statistics", arguments.shards, [], start, preset, *changes)


if __name__ == "__main__":
    main()
