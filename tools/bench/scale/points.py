#!/usr/bin/env python3
"""Measures on one machine what the models of this folder predict, and prints both.

    tools/bench/scale/points.py [--parts ingest,names,list,loader,gather,logits] [--ingest PROGRAM] [--tools PROGRAM]

    ingest  `ingest download` from servers of this script on thousands of addresses of 127.0.0.0/8, with the skew of the hosts in
            ingest.py; some answer late, some never, some refuse
    names   the same with host names, in a network namespace whose name server answers late (needs root)
    list    how fast a job passes over the rows of others in a list
    loader  `simzss_data.Shards` at 1, 2, 4 and 8 ranks from a server behind a relay that delays each direction
    gather  PyTorch's Gloo in 2, 4 and 8 network namespaces with a limited rate (tbf; needs root)
    logits  the memory of the contrastive loss

Run it with a Python that has simzss-data for `loader` and PyTorch for `gather` and `logits`. Needs 200 MB in the folder for
temporary files and about five minutes. The programs default to those of target/release. Nothing leaves the machine.
"""

import argparse
import asyncio
import collections
import json
import os
import random
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import gather
import ingest
import loader

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve()
# A GIF image of one pixel.
PIXEL = bytes.fromhex("47494638396101000100800000ff0000ffffff21f90400000000002c00000000010001000002024401003b")
SO_RCVBUFFORCE = 33  # of Linux; Python has no name for it
ERRORS = []


def line(part, point, unit, predicted, measured):
    error = predicted / measured - 1
    ERRORS.append((part, abs(error)))
    print(f"| {part} | {point} | {predicted:,.4g} | {measured:,.4g} | {unit} | {error:+.0%} |", flush=True)


class Threaded:
    """An asyncio loop in a thread."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def call(self, task):
        return asyncio.run_coroutine_threadsafe(task, self.loop).result()


# --- ingest ---


class Site(asyncio.Protocol):
    """An HTTP server that behaves as the host does that was asked for; `kinds` has its kind and the seconds of an answer."""

    kinds, error, served = {}, 0.0, 0

    def connection_made(self, transport):
        self.transport, self.got = transport, b""
        # A name server may give all names one address; then the header says which host is meant.
        self.address = transport.get_extra_info("sockname")[0]

    def data_received(self, data):
        self.got += data
        while b"\r\n\r\n" in self.got:
            head, self.got = self.got.split(b"\r\n\r\n", 1)
            kind, answer = Site.kinds.get(self.address, ("ok", Site.kinds.get("default", 0.05)))
            if kind != "silent":
                closes = b"connection: close" in head.lower()
                asyncio.get_running_loop().call_later(answer, self.answer, closes)

    def answer(self, closes):
        Site.served += 1
        failed = random.random() < Site.error
        status, body = (b"404 Not Found", b"") if failed else (b"200 OK", PIXEL)
        head = b"HTTP/1.1 %s\r\nContent-Type: image/gif\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
        self.transport.write(head + body)
        if closes:
            self.transport.close()


async def serve_sites():
    server = await asyncio.get_running_loop().create_server(Site, "0.0.0.0", 0, backlog=4096)
    return server.sockets[0].getsockname()[1]


def address(host):
    return f"127.{1 + (host >> 16)}.{host >> 8 & 255}.{host & 255}"


def run_ingest(program, folder, urls, options):
    (folder / "list.csv").write_text("url,caption\n" + "".join(f"{url},{number}\n" for number, url in enumerate(urls)))
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    command = [program, "download", folder / "list.csv", "--out", out, "--allow-private", "--json", "--image-size", "16"]
    command += ["--no-perceptual-hash", "--threads", "2", *map(str, options)]
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"ingest failed: {done.stderr[-500:]}")
    return seconds, json.loads(done.stdout.splitlines()[-1])


class Local:
    """Hosts of this script: as ingest.Web, but drawn by the number of the host, so that the server behaves as the model does."""

    def __init__(self, world):
        self.web = ingest.Web(world, ingest.HOSTS)
        self.world = world

    def __call__(self, host, _):
        return self.web(host, random.Random(f"host {host}"))


def measure_ingest(program, folder):
    port = Threaded().call(serve_sites())
    calm = ingest.World(large=0.2, answer=0.2, spread=0, error=0, no_name=0, refused=0, silent=0, crawling=0, look_up=0)
    quick = replace(calm, large=0.05, answer=0.05, silent=0.01)
    mixed = replace(calm, large=0.1, spread=0.8, error=0.13, refused=0.05, silent=0.03)
    # Tiny images: what the two cores do hardly counts.
    base = replace(ingest.DEFAULT, cores=2, core=1500, timeout=0.5, deadline=5)
    points = [
        ("in flight: 32 requests of 0.2 s", 1500, calm, replace(base, concurrency=32)),
        ("per host: 1 request of 0.2 s", 1000, calm, replace(base, per_host=1)),
        ("open shards of 200, 1 % of the hosts silent", 3000, quick, replace(base, shard=200)),
        ("the same, one attempt", 3000, quick, replace(base, shard=200, retries=0)),
        ("the same, three attempts, one shard of 3,000", 3000, quick, replace(base, shard=3000)),
        ("all together, 64 requests, shards of 500", 3000, mixed, replace(base, concurrency=64, shard=500)),
        ("the same, 256 requests", 3000, mixed, replace(base, concurrency=256, shard=500)),
        ("the same, one attempt", 3000, mixed, replace(base, concurrency=256, shard=500, retries=0)),
    ]
    for name, count, world, settings in points:
        draw = ingest.Draw(ingest.HOSTS, 1)
        hosts = [draw.host() for _ in range(count)]
        describe = Local(world)
        Site.kinds = {address(host): describe(host, None) for host in set(hosts)}
        Site.error = world.error
        to = [9 if describe(host, None)[0] == "refused" else port for host in hosts]
        urls = [f"http://{address(host)}:{to}/{number}" for number, (host, to) in enumerate(zip(hosts, to, strict=True))]
        options = ["--concurrency", settings.concurrency, "--per-host", settings.per_host, "--shard-size", settings.shard]
        options += ["--timeout", settings.timeout, "--deadline", settings.deadline, "--retries", settings.retries]
        measured, _ = run_ingest(program, folder, urls, options)
        predicted = ingest.simulate(hosts, settings, describe)
        line("ingest", name, "s", predicted.seconds, measured)


class Names(asyncio.DatagramProtocol):
    """A name server that gives every name the address 127.0.0.1, late."""

    late = 0.3

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, sender):
        end = data.index(b"\0", 12) + 5
        kind = struct.unpack(">H", data[end - 4 : end - 2])[0]
        answers = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 600, 4) + bytes([127, 0, 0, 1]) if kind == 1 else b""
        head = data[:2] + struct.pack(">HHHHH", 0x8180, 1, bool(answers), 0, 0)
        asyncio.get_running_loop().call_later(self.late, self.transport.sendto, head + data[12:end] + answers, sender)


def measure_names(program, folder):
    """In a namespace of its own."""

    async def start():
        queries = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # The usual 200 kB lose some of 512 queries at once, and a lost one costs `timeout`.
        queries.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        queries.bind(("127.0.0.1", 53))
        await asyncio.get_running_loop().create_datagram_endpoint(Names, sock=queries)
        return await serve_sites()

    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:10\n")
    subprocess.run(["mount", "--bind", folder / "resolv.conf", os.path.realpath("/etc/resolv.conf")], check=True)
    Site.kinds, Site.error = {"default": 0.02}, 0
    port = Threaded().call(start())
    for late in (0.3, 0.1):
        Names.late = late
        count = 1500
        urls = [f"http://h{number}.example{int(10 * late)}.test:{port}/{number}" for number in range(count)]
        measured, counts = run_ingest(program, folder, urls, ["--concurrency", 1024])
        if counts["successes"] != count:
            sys.exit(f"only {counts['successes']} of {count} names were found: {counts}")
        world = ingest.World(large=0.02, answer=0.02, spread=0, error=0, no_name=0, refused=0, silent=0, crawling=0, look_up=late)
        settings = replace(ingest.DEFAULT, cores=2, core=1500, concurrency=1024)
        predicted = ingest.simulate(list(range(count)), settings, ingest.Web(world, ingest.HOSTS))
        line("ingest", f"{count} names, look-ups of {late} s", "s", predicted.seconds, measured)


def measure_list(program, folder):
    rows = 1_000_000
    with open(folder / "list.csv", "w") as out:
        out.write("url,caption\n")
        for start in range(0, rows, 10_000):
            # Addresses that are not public fail at once, without a request.
            for number in range(start, start + 10_000):
                out.write(f"http://10.0.0.1/{number:012}.jpg,the caption of picture {number:09}\n")
    size = (folder / "list.csv").stat().st_size

    def passed(count):
        started = time.perf_counter()
        command = [program, "download", folder / "list.csv", "--out", folder / f"part{count}", "--index", "0"]
        command += ["--count", str(count)]
        # Every sample of the own shards fails, which is what the exit code says.
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - started

    both = {count: passed(count) for count in (200, 20)}
    own = (both[20] - both[200]) / (rows / 20 - rows / 200)
    skipping = (both[200] - own * rows / 200) / rows
    print(f"\nlist: {1 / skipping:,.0f} rows/s of others are passed over in a csv of {size / rows:.0f} bytes a row; ", end="")
    print(f"{1 / own:,.0f} rows/s fail without a request\n")


# --- loader ---


class Files(asyncio.Protocol):
    """A server of files, with ranges and entity tags. It notes what each port was asked for."""

    files, asked = {}, collections.defaultdict(list)

    def connection_made(self, transport):
        self.transport, self.got = transport, b""
        self.port = transport.get_extra_info("sockname")[1]

    def data_received(self, data):
        self.got += data
        while b"\r\n\r\n" in self.got:
            head, self.got = self.got.split(b"\r\n\r\n", 1)
            method, path, _ = head.split(b" ", 2)
            name = path.decode().lstrip("/")
            body, status, extra = Files.files.get(name), b"200 OK", b""
            wanted = re.search(rb"(?i)\r\nrange: *bytes=(\d+)-(\d*)", head)
            span = None
            if body is None:
                body, status = b"", b"404 Not Found"
            elif wanted and method == b"GET":
                first, last = int(wanted[1]), min(int(wanted[2] or len(body) - 1), len(body) - 1)
                extra = b"Content-Range: bytes %d-%d/%d\r\n" % (first, last, len(body))
                body, status, span = body[first : last + 1], b"206 Partial Content", (first, last + 1)
            Files.asked[self.port].append((method.decode(), name, span))
            answer = b"HTTP/1.1 %s\r\nETag: \"1\"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n" % status
            answer += b"Accept-Ranges: bytes\r\n%sContent-Length: %d\r\n\r\n" % (extra, len(body))
            self.transport.write(answer + (b"" if method == b"HEAD" else body))


class Relay(asyncio.Protocol):
    """Passes bytes on, each direction half of `late` seconds later. Connecting is not delayed."""

    late, connections = 0.0, collections.Counter()

    def __init__(self, port, other=None):
        self.port, self.other, self.early = port, other, []

    def connection_made(self, transport):
        self.transport = transport
        if self.other is None:
            Relay.connections[self.port] += 1
            asyncio.ensure_future(self.connect())
        else:
            self.other.other = self

    async def connect(self):
        await asyncio.get_running_loop().create_connection(lambda: Relay(self.port, self), "127.0.0.1", self.port)
        for data in self.early:
            self.data_received(data)

    def data_received(self, data):
        if self.other is None:
            self.early.append(data)
        else:
            asyncio.get_running_loop().call_later(Relay.late / 2, self.other.transport.write, data)

    def connection_lost(self, _):
        if self.other is not None:
            asyncio.get_running_loop().call_later(Relay.late / 2, self.other.transport.close)


RANK = """
import json, sys, time
from simzss_data import Shards
port, rank, world, at = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
names = f"http://127.0.0.1:{port}/" + "{00000..%05d}.tar" % (int(sys.argv[5]) - 1)
shards = Shards(names, 64, streams=16, window=64, bank=["fish", "donut"], image_size=32, rank=rank, world_size=world, threads=2,
    output="numpy")
time.sleep(max(0, at - time.time()))
start = time.perf_counter()
steps = len(shards)
opened = time.perf_counter()
batches = iter(shards)
next(batches)
first = time.perf_counter()
# The loader is two batches ahead, which it then has asked for: those of the next epoch must not be among them.
for _ in range(steps - 4):
    next(batches)
print(json.dumps([opened - start, first - opened, time.perf_counter() - first, steps]))
time.sleep(1)
"""


def measure_loader(tools, program, folder):
    count, per_shard = 1600, 50
    shards = count // per_shard
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    scenes = ["scenes", "--out", "scenes", "--count", str(count), "--size", "64", "--url-prefix", "scenes"]
    subprocess.run([tools, *scenes], **quiet)
    command = [program, "shard", "scenes/captions.parquet", "--images", ".", "--file-col", "URL", "--caption-col", "TEXT"]
    command += ["--resize-mode", "no", "--skip-reencode", "--shard-size", str(per_shard), "--out", "shards"]
    subprocess.run(command, **quiet)
    subprocess.run([program, "tag", "shards"], **quiet)
    Files.files = {path.name: path.read_bytes() for path in (folder / "shards").iterdir()}
    size = lambda end: sum(len(body) for name, body in Files.files.items() if name.endswith(end)) / count  # noqa: E731
    sidecars, tables = size(".concepts.parquet"), size(".parquet") - size(".concepts.parquet") - size(".hash.parquet")
    images = statistics.mean(path.stat().st_size for path in (folder / "scenes").rglob("*.jpg"))
    threaded = Threaded()

    async def start(ranks):
        loop = asyncio.get_running_loop()
        ports = []
        for _ in range(ranks):
            behind = (await loop.create_server(Files, "127.0.0.1", 0)).sockets[0].getsockname()[1]
            relay = await loop.create_server(lambda behind=behind: Relay(behind), "127.0.0.1", 0)
            ports.append((relay.sockets[0].getsockname()[1], behind))
        return ports

    cost = 0.0
    for late in (0.0, 0.02, 0.1):
        for ranks in (1, 2, 4, 8) if late else (1,):
            Relay.late = late
            Relay.connections.clear()
            Files.asked.clear()
            ports = threaded.call(start(ranks))
            at = str(time.time() + 1 + 0.2 * ranks)
            commands = [
                [sys.executable, "-c", RANK, str(port), str(rank), str(ranks), at, str(shards)]
                for rank, (port, _) in enumerate(ports)
            ]
            started = [subprocess.Popen(command, stdout=subprocess.PIPE) for command in commands]
            times = [json.loads(process.communicate()[0]) for process in started]
            opened, first, rest = (max(of[i] for of in times) for i in range(3))
            steps = times[0][3]
            asked = [Files.asked[behind] for _, behind in ports]
            connections = statistics.mean(Relay.connections[behind] for _, behind in ports)
            requests = sum(map(len, asked))
            if not late:
                cost = (opened + first + rest) / requests
                print(f"\nloader: {1e3 * cost:.2f} ms of this machine for a request without delay; ", end="")
                print(f"bytes a sample: table {tables:.0f}, sidecar {sidecars:.0f}, image {images:.0f}\n")
                continue
            run = loader.Run(
                shards, per_shard, ranks, 64 // ranks, 16, 64, threads=2, listed=False, answer=late + 0.001, image=images,
                cost=cost * ranks, limit=1e9,
            )
            name = f"{ranks} ranks, {1e3 * late:.0f} ms"
            of = loader.read(run, steps)
            line("loader", f"{name}: opened", "s", loader.start(run)[1], opened)
            line("loader", f"{name}: first batch after that", "s", of.first, first)
            after = loader.read(run, steps - 3).rate
            line("loader", f"{name}: images of a rank after that", "1/s", after, (steps - 4) * run.rows / rest)
            all_of = ranks * (loader.start(run)[0] + of.requests)
            line("loader", f"{name}: requests of all in an epoch", "", all_of, requests)
            spans = collections.Counter(
                (path, span)
                for rank in asked
                for _, path, span in rank
                # Headers that are compared with the table have 512 bytes.
                if path.endswith(".tar") and span and span[1] - span[0] != 512
            )
            twice = sum((span[1] - span[0]) * (times - 1) for (_, span), times in spans.items())
            print(f"|  | {name}: connections of a rank {connections:.0f}; bytes of images read twice {twice} | | | | |")


# --- gather ---

WORKER = """
import json, os, sys, time
import torch
import torch.distributed as dist
rank, world, rows, width = map(int, sys.argv[1:5])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="tcp://10.77.0.1:29555", rank=rank, world_size=world)
own = torch.ones(rows, width)
every = torch.empty(rows * world, width)
sent = lambda: int(open("/sys/class/net/eth0/statistics/tx_bytes").read())
def ring():
    now = own.clone()
    for _ in range(world - 1):
        other = torch.empty_like(now)
        send = dist.isend(now, (rank + 1) % world)
        dist.recv(other, (rank - 1) % world)
        send.wait()
        now = other
ways = {
    "gather": lambda: dist.all_gather_into_tensor(every, own),
    "scatter": lambda: dist.reduce_scatter_tensor(torch.empty(rows, width), every),
    "sum": lambda: dist.all_reduce(every),
    "ring": ring,
}
out = {}
for name, way in ways.items():
    dist.barrier()
    way()
    times = []
    dist.barrier()
    before = sent()
    for _ in range(3):
        dist.barrier()
        start = time.perf_counter()
        way()
        times.append(time.perf_counter() - start)
    dist.barrier()
    out[name] = [sorted(times)[1], (sent() - before) / 3]
if rank == 0:
    print(json.dumps(out))
"""


def measure_gather(rate=200e6, rows=1024, width=512):
    def run(*command):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    names = [f"scale{rank}" for rank in range(8)]
    try:
        run("ip", "link", "add", "scalebr", "type", "bridge")
        run("ip", "link", "set", "scalebr", "up")
        for rank, name in enumerate(names):
            run("ip", "netns", "add", name)
            run("ip", "link", "add", f"sc{rank}", "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "link", "set", f"sc{rank}", "master", "scalebr", "up")
            inside = ("ip", "netns", "exec", name)
            run(*inside, "ip", "link", "set", "lo", "up")
            run(*inside, "ip", "addr", "add", f"10.77.0.{rank + 1}/24", "dev", "eth0")
            run(*inside, "ip", "link", "set", "eth0", "up")
            limit = ("tbf", "rate", f"{rate:.0f}bit", "burst", "64kb", "latency", "200ms")
            run(*inside, "tc", "qdisc", "add", "dev", "eth0", "root", *limit)
        for world in (2, 4, 8):
            environment = {**os.environ, "GLOO_SOCKET_IFNAME": "eth0"}
            worker = (sys.executable, "-c", WORKER)
            started = [
                subprocess.Popen(
                    ["ip", "netns", "exec", names[rank], *worker, *map(str, (rank, world, rows, width))],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                )
                for rank in range(world)
            ]
            out = json.loads([process.communicate()[0] for process in started][0])
            # Headers of Ethernet, IP and TCP: 66 of 1,514 bytes.
            network = gather.Network("", rate / 8 * 1448 / 1514, 1e-3)
            all_bytes = world * rows * width * gather.FLOAT
            expected = {
                "gather": gather.gathered(all_bytes, world), "scatter": gather.scattered(all_bytes, world, gloo=True),
                "sum": gather.summed(all_bytes, world), "ring": gather.gathered(all_bytes, world),
            }  # fmt: skip
            for name, (seconds, sent) in out.items():
                of = f"{name}, {world} ranks of {rows} x {width}"
                line("gather", f"{of}: sent by rank 0", "MB", expected[name] * 1514 / 1448 / 1e6, sent / 1e6)
                line("gather", f"{of}: time", "s", gather.time(expected[name], world - 1, network), seconds)
    finally:
        for rank, name in enumerate(names):
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)
            subprocess.run(["ip", "link", "del", f"sc{rank}"], stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "link", "del", "scalebr"], stderr=subprocess.DEVNULL)


LOGITS = """
import resource, sys
import torch
rows, batch, width, scaled_before = map(int, sys.argv[1:5])
torch.set_num_threads(1)
def loss(own, everyone):
    unit = torch.nn.functional.normalize
    images, captions = unit(torch.randn(everyone, width)), unit(torch.randn(everyone, width)).requires_grad_()
    scale = torch.tensor(14.0, requires_grad=True)
    target = torch.arange(own)
    def side(a, b):
        logits = (a[:own] * scale) @ b.T if scaled_before else a[:own] @ b.T * scale
        return torch.nn.functional.cross_entropy(logits, target, reduction="sum")
    ((side(images, captions) + side(captions, images)) / (2 * everyone)).backward()
loss(8, 64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
loss(rows, batch)
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


def measure_logits():
    for rows, batch, before in ((512, 8192, 0), (512, 16_384, 0), (1024, 32_768, 0), (1024, 32_768, 1)):
        command = [sys.executable, "-c", LOGITS, str(rows), str(batch), "64", str(before)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        blocks = gather.SCALED if before else gather.BLOCKS
        predicted = 2 * gather.logits(rows, batch, blocks) + 3 * batch * 64 * gather.FLOAT
        name = f"{rows} rows against {batch:,}, both directions" + (", rows scaled before the product" if before else "")
        line("logits", name, "MB", predicted / 1e6, int(done.stdout) / 1e6)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--parts", default="ingest,names,list,loader,gather,logits")
    arguments.add_argument("--ingest", default=ROOT / "target/release/ingest")
    arguments.add_argument("--tools", default=ROOT / "target/release/tools")
    arguments.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = arguments.parse_args()
    program, tools = (Path(path).resolve() for path in (arguments.ingest, arguments.tools))
    if not arguments.inside:
        print("| part | point | predicted | measured | unit | error |\n|---|---|---|---|---|---|", flush=True)
    for part in arguments.parts.split(","):
        folder = Path(tempfile.mkdtemp(prefix="scale-"))
        try:
            if part == "ingest":
                measure_ingest(program, folder)
            elif part == "names" and not arguments.inside:
                command = [sys.executable, HERE, "--parts", "names", "--ingest", program, "--inside"]
                subprocess.run(["unshare", "--net", "--mount", *command], check=True)
            elif part == "names":
                measure_names(program, folder)
            elif part == "list":
                measure_list(program, folder)
            elif part == "loader":
                measure_loader(tools, program, folder)
            elif part == "gather":
                measure_gather()
            elif part == "logits":
                measure_logits()
            else:
                sys.exit(f"no part {part!r}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    for part in sorted({part for part, _ in ERRORS}):
        errors = [error for of, error in ERRORS if of == part]
        print(f"\n{part}: median error {statistics.median(errors):.0%}, largest {max(errors):.0%}, {len(errors)} points")


if __name__ == "__main__":
    main()
