#!/usr/bin/env python3
"""What a download costs at 1 to 100 machines: a simulation of one process of `ingest download`, event by event, and sums.

    tools/bench/scale/ingest.py [--urls LIST.txt] [--rows 60000] [--seed 0]

Prints the tables of docs/scale.md, "Building the set". `--urls` takes a text file with one URL per line and counts its hosts in
place of HOSTS. Standard Python only. `points.py` compares `simulate` with the program.

The simulation has the limits of the program as they are in ingest/src/download/ and ingest/src/pipeline/feed.rs: requests in flight
(held until the image is processed), requests per host and 4 of them before its first answer, started rows, rows set aside,
attempts, backoff, the circuit breaker, threads for name look-ups and their cache, open shards.
"""

import argparse
import heapq
import math
import random
import urllib.parse
from collections import Counter, deque
from dataclasses import dataclass, replace

# Hosts of 10,000 rows of a published list of the kind of LAION's (test_10000.parquet of img2dataset, commit 95523bc7):
# {URLs of a host: number of such hosts}, 4,474 hosts.
HOSTS = {
    641: 1, 196: 1, 194: 1, 130: 1, 100: 1, 89: 1, 88: 1, 84: 1, 75: 2, 73: 1, 71: 1, 69: 1, 62: 1, 60: 2, 58: 1, 48: 1, 47: 1,
    43: 1, 42: 2, 40: 1, 39: 1, 38: 2, 37: 1, 36: 1, 34: 1, 33: 1, 32: 2, 30: 4, 29: 2, 28: 3, 27: 1, 26: 1, 25: 3, 24: 2, 23: 2,
    22: 1, 21: 4, 20: 4, 19: 6, 18: 2, 17: 1, 16: 3, 15: 4, 14: 5, 13: 9, 12: 3, 11: 14, 10: 13, 9: 13, 8: 12, 7: 27, 6: 28, 5: 48,
    4: 67, 3: 129, 2: 346, 1: 3685,
}  # fmt: skip

# --- Constants of the program (source: ingest/src/download/, pipeline/feed.rs). ---
BEFORE_ANSWER = 4  # hosts.rs, CONNECTIONS_BEFORE_ANSWER
FAILURES_TO_OPEN = 20  # hosts.rs
TIMEOUT_WEIGHT = 4  # hosts.rs
OPEN_FOR = 60.0  # hosts.rs
ROWS_PER_REQUEST = 8  # download.rs
OPEN_SHARDS, MOST_OPEN_SHARDS, IDLE_FOR = 4, 32, 1.0  # feed.rs
RENEW_EVERY = 15.0  # claim.rs
NAME_LASTS = 600.0  # resolver.rs, TTL

# --- The world. ---
CORE = 420.0  # images/s of a core. Measured: docs/benchmarks.md, "Beside other work", 796 to 879 on two cores
CORES = 16  # of a machine. Assumed
SUCCESS = 0.78  # Published: img2dataset #361, November 2023 (docs/datasets/laion-400m.md)
STORED = 25e3  # bytes per listed pair at 256 px. Published: img2dataset's page of LAION-400M
RECEIVED = 100e3  # bytes of a downloaded file. Assumed; DataComp and LAION publish none
LIST_ROW = 120.0  # bytes of a row of the list. Published: 50 GB for 413 million rows
PASSED = 2.0e6  # rows/s of others that a job passes over. Measured: points.py, a csv
PART = 8 << 20  # bytes of a part of an upload (loader/storage/src/remote.rs)
# Prices, US dollars. Assumed: list prices of a large provider in 2025; change them.
MACHINE_HOUR, WRITE_MILLION, READ_MILLION, TB_MONTH = 0.80, 5.0, 0.4, 23.0


@dataclass(frozen=True)
class World:
    """What hosts do. All assumed; the tables show how much the result depends on them."""

    large: float = 0.15  # seconds from the start of a request to the end of its answer at hosts with 10 URLs in 10,000 or more
    answer: float = 0.3  # the same at others, median over hosts
    spread: float = 0.8  # standard deviation of its logarithm over hosts
    error: float = 0.13  # share of the URLs that are answered with 404, 403 or the like
    # Shares of the hosts with one URL in 10,000 or fewer:
    no_name: float = 0.08  # whose name does not exist
    refused: float = 0.03  # that refuse connections
    silent: float = 0.03  # that accept connections and do not answer, or do not accept them
    crawling: float = 0.003  # that send more slowly than the deadline allows
    look_up: float = 0.06  # seconds of a name look-up
    look_up_failed: float = 0.5  # of one that fails


@dataclass(frozen=True)
class Settings:
    concurrency: int = 256
    per_host: int = 16
    timeout: float = 10.0
    deadline: float = 60.0
    retries: int = 2
    backoff: float = 1.0
    shard: int = 10_000
    cores: float = CORES
    core: float = CORE
    threads: int = 256  # for name look-ups
    # More shards than OPEN_SHARDS are opened while fewer rows than `concurrency` divided by this are started.
    waiting: float = 4.0
    most_open: int = MOST_OPEN_SHARDS

    @property
    def started_below(self):
        return self.concurrency / self.waiting


DEFAULT = Settings()
TUNED = Settings(concurrency=4096)
# As the program was until November 2026: another shard only if no row was started.
BEFORE = {"threads": 64, "waiting": math.inf, "most_open": 64}
# Short timeouts in a first pass; `ingest retry` asks the failed ones again.
PASSES = replace(TUNED, timeout=5.0, deadline=20.0, retries=0)


def counts_of(path):
    """The table of HOSTS for a list of URLs."""
    with open(path, encoding="utf-8", errors="replace") as lines:
        hosts = Counter(urllib.parse.urlsplit(line.strip()).hostname or "" for line in lines if line.strip())
    return dict(Counter(hosts.values()))


class Draw:
    """Hosts of a longer list with the same skew. The next URL is on a known host with c URLs with the probability (c - d) / n, on
    a new one otherwise (the Pitman-Yor process), where d is the share of the sampled hosts that have one URL. With d = 0.824
    and n = 10,000 this predicts 37 % new hosts, and the sample itself grew so: 656 hosts in 1,000 URLs, 2,518 in 5,000, 4,474
    in 10,000 (by the formula: 672, 2,528)."""

    def __init__(self, counts, seed):
        self.random = random.Random(seed)
        self.count = [urls for urls, hosts in sorted(counts.items(), reverse=True) for _ in range(hosts)]
        self.discount = counts[1] / len(self.count)
        self.tokens = [host for host, urls in enumerate(self.count) for _ in range(urls)]
        self.sample = len(self.tokens)

    def host(self):
        while True:
            if self.random.random() * len(self.tokens) < self.discount * len(self.count):
                host = len(self.count)
                self.count.append(0)
            else:
                host = self.random.choice(self.tokens)
                if self.random.random() * self.count[host] < self.discount:
                    continue
            self.count[host] += 1
            self.tokens.append(host)
            return host


class Permits:
    """A semaphore whose waiters get the permits in their order."""

    def __init__(self, loop, free):
        self.loop, self.free, self.waiting = loop, free, deque()

    def release(self, count=1):
        for _ in range(count):
            if self.waiting:
                self.loop.ready.append(self.waiting.popleft())
            else:
                self.free += 1


class Loop:
    """Runs generators: `yield seconds` sleeps, `yield permits` takes one."""

    def __init__(self):
        self.now, self.ready, self.heap, self.number = 0.0, deque(), [], 0

    def start(self, task):
        self.ready.append(task)

    def run(self):
        while self.ready or self.heap:
            if not self.ready:
                self.now, _, task = heapq.heappop(self.heap)
                self.ready.append(task)
            task = self.ready.popleft()
            for wanted in task:
                if isinstance(wanted, Permits):
                    if wanted.free:
                        wanted.free -= 1
                        continue
                    wanted.waiting.append(task)
                else:
                    self.number += 1
                    heapq.heappush(self.heap, (self.now + wanted, self.number, task))
                break


class Host:
    def __init__(self, loop, settings, kind, answer):
        self.kind, self.answer = kind, answer
        self.most = ROWS_PER_REQUEST * settings.per_host
        self.rows = Permits(loop, self.most)
        self.connections = Permits(loop, min(settings.per_host, BEFORE_ANSWER))
        self.reserve = max(settings.per_host - BEFORE_ANSWER, 0)
        self.answered, self.failures, self.open_until = False, 0, 0.0
        self.aside, self.starting, self.asked = deque(), False, None


@dataclass
class Result:
    seconds: float
    rate: float  # URLs/s, between a fifth and four fifths of the URLs
    requests: float  # per URL
    look_ups: float  # per URL
    held: float  # seconds that a URL holds one of the requests in flight, all attempts
    looked: float  # seconds that a URL holds one of the threads for names


def simulate(hosts, settings, describe, seed=0):
    """Simulates the download of URLs, of which only the host is known: `hosts`, in the order of the list. `describe(host, random)`
    gives its kind (ok, no_name, refused, silent, crawling), the seconds of an answer, and the share of errors; see World."""
    loop, draw = Loop(), random.Random(seed)
    started = Permits(loop, ROWS_PER_REQUEST * settings.concurrency)
    most = started.free
    flight, names = Permits(loop, settings.concurrency), Permits(loop, settings.threads)
    cores = Permits(loop, max(1, round(settings.cores)))
    known, done_at = {}, []
    left = {}
    state = {"open": 0, "requests": 0, "look_ups": 0, "held": 0.0, "looked": 0.0}
    world = describe.world

    def fetch(row, host, attempt):
        """One row, with permits of its host and to be started."""
        while True:
            transient = False
            if host.open_until <= loop.now:
                yield host.connections
                if host.open_until > loop.now:
                    host.connections.release()
                    break
                yield flight
                begun = loop.now
                failed, weight = False, 1
                key = id(host)
                # A name that is being looked up is waited for; one that is known costs nothing.
                entry = known.get(key)
                if entry is None or entry[0] + NAME_LASTS < loop.now:
                    state["look_ups"] += 1
                    known[key] = entry = [loop.now, Permits(loop, 0)]
                    yield names
                    takes = world.look_up_failed if host.kind == "no_name" else world.look_up
                    state["looked"] += takes
                    yield takes
                    names.release()
                    entry[1].release(len(entry[1].waiting))
                    entry[1] = None
                elif entry[1] is not None:
                    yield entry[1]
                if host.kind != "no_name":
                    state["requests"] += 1
                    if host.kind == "silent" or host.answer > 2 * settings.timeout:
                        yield 2 * settings.timeout
                        failed, weight, transient = True, TIMEOUT_WEIGHT, True
                    elif host.kind == "crawling":
                        yield settings.deadline
                        failed, weight, transient = True, TIMEOUT_WEIGHT, True
                    elif host.kind == "refused":
                        yield host.answer / 3
                        failed = True
                    else:
                        yield host.answer
                else:
                    failed = True
                state["held"] += loop.now - begun
                if failed:
                    host.failures += weight
                    if host.failures >= FAILURES_TO_OPEN:
                        host.open_until = loop.now + OPEN_FOR
                    host.connections.release()
                    flight.release()
                else:
                    host.failures = 0
                    if not host.answered:
                        host.answered = True
                        host.connections.release(host.reserve)
                    host.connections.release()
                    if draw.random() < world.error:
                        flight.release()
                    else:
                        loop.start(process(row))
                        row = None
                    break
            if not transient or attempt >= settings.retries:
                break
            yield settings.backoff * 2**attempt * (0.5 + 0.5 * draw.random())
            attempt += 1
        if row is not None:
            finish(row)
        host.rows.release()
        started.release()

    def process(row):
        yield cores
        yield 1 / settings.core
        cores.release()
        flight.release()
        finish(row)

    def finish(row):
        done_at.append(loop.now)
        shard = row // settings.shard
        left[shard] -= 1
        if not left[shard]:
            state["open"] -= 1

    def start_aside(host):
        while host.aside:
            yield host.rows
            yield started
            loop.start(fetch(host.aside.popleft(), host, 0))
        host.starting = False

    def feed():
        made = {}
        for row, name in enumerate(hosts):
            if row % settings.shard == 0:
                idle = 0.0
                while state["open"] >= OPEN_SHARDS:
                    yield 0.1
                    idle = idle + 0.1 if most - started.free < settings.started_below else 0.0
                    if idle > IDLE_FOR and state["open"] < settings.most_open:
                        break
                state["open"] += 1
                left[row // settings.shard] = min(settings.shard, len(hosts) - row)
            host = made.get(name)
            if host is None:
                kind, answer = describe(name, draw)
                host = made[name] = Host(loop, settings, kind, answer)
            if host.aside or not host.rows.free:
                host.aside.append(row)
                if not host.starting:
                    host.starting = True
                    loop.start(start_aside(host))
                continue
            host.rows.free -= 1
            yield started
            loop.start(fetch(row, host, 0))

    loop.start(feed())
    loop.run()
    low, high = len(done_at) // 5, len(done_at) * 4 // 5
    span = max(done_at[high - 1] - done_at[low], 1e-9)
    each = [state[what] / len(hosts) for what in ("requests", "look_ups", "held", "looked")]
    return Result(done_at[-1], (high - 1 - low) / span, *each)


class Web:
    """Hosts of the open web: those of many URLs answer, some of the others do not."""

    def __init__(self, world, counts):
        self.world = world
        self.heads = sum(hosts for urls, hosts in counts.items() if urls > 1)
        self.large = sum(hosts for urls, hosts in counts.items() if urls >= 10)

    def __call__(self, host, draw):
        answer = min(self.world.answer * draw.lognormvariate(0, self.world.spread), 8.0)
        if host < self.large:
            answer = self.world.large
        kind = "ok"
        if host >= self.heads:
            chance = draw.random()
            for name in ("no_name", "refused", "silent", "crawling"):
                chance -= getattr(self.world, name)
                if chance < 0:
                    kind = name
                    break
        return kind, answer


def hours(urls, rate):
    return urls / rate / 3600


def limits(settings, world, result, top):
    """URLs/s that each limit of one process allows by itself."""
    longest = max(2 * settings.timeout, settings.deadline if world.crawling else 0) * (settings.retries + 1)
    longest += sum(0.75 * settings.backoff * 2**attempt for attempt in range(settings.retries))
    return [
        settings.cores * settings.core / (1 - world.error),
        settings.concurrency / result.held,
        settings.per_host / world.large / top,
        settings.threads / result.looked,
        # One shard is being filled; the others wait for their slowest row.
        (OPEN_SHARDS - 1) * settings.shard / longest,
    ]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--urls", metavar="LIST.txt")
    arguments.add_argument("--rows", type=int, default=60_000)
    arguments.add_argument("--seed", type=int, default=0)
    arguments = arguments.parse_args()
    counts = counts_of(arguments.urls) if arguments.urls else HOSTS
    draw = Draw(counts, arguments.seed)
    urls = [draw.host() for _ in range(arguments.rows)]
    order = sorted((urls for urls, hosts in counts.items() for _ in range(hosts)), reverse=True)
    top = order[0] / draw.sample
    print(f"{arguments.rows:,} URLs on {len(set(urls)):,} hosts; the largest has {top:.1%}\n")

    world = World()
    calm = replace(world, crawling=0)
    rows = [
        ("before: defaults", replace(DEFAULT, **BEFORE), world),
        ("before: --concurrency 4096", replace(TUNED, **BEFORE), world),
        ("defaults", DEFAULT, world),
        ("defaults, no crawling hosts", DEFAULT, calm),
        ("A: --concurrency 4096", TUNED, world),
        ("B: A --timeout 5 --deadline 20 --retries 0", PASSES, world),
        ("A, half as many hosts fail", TUNED, replace(world, no_name=0.04, refused=0.015, silent=0.015, crawling=0.0015)),
        ("A, answers twice as slow", TUNED, replace(world, answer=0.6, large=0.3)),
    ]
    print("| one process | URLs/s | 400 M on 1, 10, 100 machines, h | 5 B, h ", end="")
    print("| cores | in flight | largest host | names | open shards |")
    print("|---|---|---|---|---|---|---|---|---|")
    results = {}
    for name, settings, its in rows:
        result = simulate(urls, settings, Web(its, counts), arguments.seed)
        alone = limits(settings, its, result, top)
        if settings.waiting < math.inf:
            alone[-1] = math.inf
        # These two need a longer list to show in full: rows of the largest host pile up, and the first shards have no others open.
        results[name] = result = replace(result, rate=min(result.rate, alone[2], alone[4]))
        each = [
            ", ".join(f"{hours(total, machines * result.rate):,.1f}" for machines in (1, 10, 100)) for total in (4e8, 5e9)
        ]
        cells = " | ".join("-" if limit == math.inf else f"{limit:,.0f}" for limit in alone)
        print(f"| {name} | {result.rate:,.0f} | {each[0]} | {each[1]} | {cells} |", flush=True)

    plain, best = results["defaults"], next(result for name, result in results.items() if name.startswith("A:"))
    print(f"\nWhat it costs; prices are assumptions (defaults: {plain.rate:,.0f} URLs/s; A: {best.rate:,.0f}):\n")
    print("| | LAION-400M, defaults | A | 5 B pairs, defaults | A |\n|---|---|---|---|---|")
    for (name, value), other in zip(costs(plain).items(), costs(best).values(), strict=True):
        print(f"| {name} | {value(4e8)} | {other(4e8)} | {value(5e9)} | {other(5e9)} |")

    print("\nRequests/s that the largest hosts get (A), and hours if a host takes no more than 100/s:\n")
    print("| place, URLs in 10,000 | 1 machine | 10 | 100 | 400 M: URLs | h | 5 B: URLs | h |")
    print("|---|---|---|---|---|---|---|---|")
    for place in (1, 2, 5, 10, 50, 100, 200):
        share = order[place - 1] / draw.sample
        speeds = " | ".join(f"{machines * best.rate * share:,.1f}" for machines in (1, 10, 100))
        cells = " | ".join(f"{total * share / 1e6:,.1f} M | {total * share / 100 / 3600:,.0f}" for total in (4e8, 5e9))
        print(f"| {place}, {order[place - 1]} | {speeds} | {cells} |")

    print("\nThe last of several processes, if their speeds differ (standard deviation of the logarithm 0.2), relative to")
    print("equal speeds; what each of them asks the store about shards of others, at 30 ms a request:\n")
    print("| machines | --index, --count: the last ends at | claims: at | claims: requests of each, 400 M | h | 5 B | h |")
    print("|---|---|---|---|---|---|---|")
    for machines in (1, 10, 100):
        speeds = [[random.Random(f"{trial} {i}").lognormvariate(0, 0.2) for i in range(machines)] for trial in range(200)]
        fixed = sum(sum(of) / machines / min(of) for of in speeds) / len(speeds)
        looks = [total / 10_000 * (1 - 1 / machines) for total in (4e8, 5e9)]
        cells = " | ".join(f"{look:,.0f} | {look * 0.03 / 3600:.1f}" for look in looks)
        print(f"| {machines} | {fixed:.2f} | 1.0 | {cells} |")


def costs(result):
    machine_hours = lambda urls: hours(urls, result.rate)  # noqa: E731
    shards = lambda urls: urls / 10_000  # noqa: E731
    # A shard: claim, its confirmation and removal, statistics looked for and removed, table, signals, checksums and statistics
    # written, the tar in parts with its start and end; renewals of the claim (four shards are open at a time).
    parts = 10_000 * STORED / PART
    renewals = 4 * 10_000 / result.rate / RENEW_EVERY
    writes = lambda urls: shards(urls) * (9 + parts + 2 + renewals)  # noqa: E731
    return {
        "machine hours (16 cores)": lambda urls: f"{machine_hours(urls):,.0f}",
        "machines, $": lambda urls: f"{machine_hours(urls) * MACHINE_HOUR:,.0f}",
        "list read by each of several machines": lambda urls: f"{urls * LIST_ROW / 1e9:,.0f} GB",
        "minutes of passing over the rows of others": lambda urls: f"{urls / PASSED / 60:,.0f}",
        "requests to hosts": lambda urls: f"{urls * result.requests / 1e6:,.0f} M",
        "received": lambda urls: f"{urls * SUCCESS * RECEIVED / 1e12:,.0f} TB",
        "received, Gbit/s per machine": lambda urls: f"{result.rate * SUCCESS * RECEIVED * 8 / 1e9:.1f}",
        "stored": lambda urls: f"{urls * STORED / 1e12:,.0f} TB",
        "stored, $ per month": lambda urls: f"{urls * STORED / 1e12 * TB_MONTH:,.0f}",
        "shards of 10,000": lambda urls: f"{shards(urls):,.0f}",
        "requests to the store": lambda urls: f"{writes(urls) / 1e6:,.1f} M",
        "requests to the store, $": lambda urls: f"{writes(urls) / 1e6 * WRITE_MILLION:,.0f}",
    }


if __name__ == "__main__":
    main()
