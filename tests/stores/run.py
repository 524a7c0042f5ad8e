#!/usr/bin/env python3
"""Runs the commands of ingest, tools and trainer on every kind of store, against servers of the protocols.

    tests/stores/run.py [--programs target/release] [--only S3,Azure] [--write] [--keep FOLDER]

A cell is right if the command succeeds and its result is that of the disk. With --write, the table with the requests and
bytes of each cell replaces the one in docs/stores.md. `./check --stores` runs this; it is skipped, with the reason, where
the servers cannot be installed.
"""
import argparse
import csv
import functools
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from servers import ALL, Disk, Hub, Missing, free_port, install

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/stores.md"
MARKS = ("<!-- table: tests/stores/run.py -->", "<!-- end of the table -->")
SCENES = 40


class Wrong(Exception):
    """A command failed, or its result is not that of the disk."""


class Programs:
    def __init__(self, folder, place):
        self.folder, self.place = folder, place

    def run(self, store, name, *arguments, check=True):
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith(("AWS_", "AZURE_", "GOOGLE_", "HF_"))}
        # One thread of libtorch: the models are small, and the same sums give the same bytes.
        environment |= store.environment | {"LOADER_RETRY_SECONDS": "20", "OMP_NUM_THREADS": "1"}
        command = [str(self.folder / name), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=self.place, timeout=300)
        if check and done.returncode:
            raise Wrong(f"{name} {arguments[0]}: exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
        if Hub.TOKEN_LEAK(done.stdout + done.stderr):
            raise Wrong(f"{name} {arguments[0]} shows the token")
        return done


Hub.TOKEN_LEAK = staticmethod(lambda text: "hf_stand-in" in text)


def serve(folder):
    """Serves the images to download; returns the address."""
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


def make_data(programs, disk, folder):
    """A small set of every kind of input, made on the disk."""
    run = functools.partial(programs.run, disk)
    scenes = folder / "scenes"
    run("tools", "scenes", "--out", scenes, "--count", SCENES, "--size", 112)
    names = sorted(path.name for path in (scenes / "images").iterdir())
    for number, name in enumerate(names):
        (scenes / "images" / name).with_suffix(".txt").write_text(f"a ball on the grass and {number} fish\n")
    address = serve(scenes / "images")
    lists = folder / "lists"
    lists.mkdir()
    for table, prefix in [("urls.csv", f"{address}/"), ("files.csv", "")]:
        with open(lists / table, "w", newline="") as out:
            rows = csv.writer(out)
            rows.writerow(["url" if prefix else "file", "caption"])
            rows.writerows([prefix + name, f"a red ball and {number} fish in the grass"] for number, name in enumerate(names))
    (lists / "removed.txt").write_text(f"{address}/{names[0]}\n")
    (lists / "classes.txt").write_text("ball\nfish\ngrass\n")
    (lists / "jsonl.jsonl").write_text("".join(
        json.dumps({"file": name, "captions": [f"a ball number {number}"]}) + "\n" for number, name in enumerate(names[:8])))
    plain = folder / "plain"
    run("ingest", "shard", lists / "files.csv", "--images", scenes / "images", "--out", plain, "--resize-mode", "no",
        "--shard-size", SCENES // 2)
    shutil.copytree(plain, folder / "set")
    run("ingest", "tag", folder / "set")
    run("tools", "stats", folder / "set", "--out", folder / "statistics")
    tower = folder / "tower.safetensors"
    run("trainer", "pretrain", "--shards", plain, "--out", tower, "--steps", 0)
    shutil.copy(ROOT / "trainer/presets/demo.toml", folder / "demo.toml")
    run("trainer", "train", *settings(folder / "run", folder, folder / "copy", "2"))
    folders = folder / "classes/val"
    for number, name in enumerate(names[:8]):
        (folders / ["ball", "fish"][number % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(scenes / "images" / name, folders / ["ball", "fish"][number % 2])
    run("trainer", "eval", "segmentation", "--data", scenes, "--checkpoint", folder / "copy", "--limit", 4, "--out",
        folder / "scores")


def settings(out, data, copy, steps):
    """Options of a short training run; `data` is the folder or address of the inputs."""
    at = lambda name: f"{data}/{name}"
    values = [f"out={out}", f"data.shards=['{at('set')}']", f"vision.weights={at('tower.safetensors')}",
              "data.batch_size=8", f"steps={steps}", "threads=1"]
    if copy:
        values.append(f"checkpoint.copy_to={copy}")
    return ["--config", at("demo.toml"), *(part for value in values for part in ("--set", value))]


def same_files(*names):
    """The outputs of these names equal those of the disk."""
    def check(cell):
        for name in names:
            found, expected = cell.output(name), (cell.expected / name).read_bytes()
            if found != expected:
                raise Wrong(f"{name} is {'missing' if found is None else 'not that of the disk'}")
    return check


def same_tensors(name):
    """The output is the safetensors file of the disk; the order of its metadata is not fixed."""
    def parts(file):
        length = int.from_bytes(file[:8], "little")
        return json.loads(file[8:8 + length]), file[8 + length:]

    def check(cell):
        found = cell.output(name)
        if found is None or parts(found) != parts((cell.expected / name).read_bytes()):
            raise Wrong(f"{name} is not that of the disk")
    return check


def same_text(cell):
    """Standard output equals that of the disk, without the addresses."""
    if cell.text != cell.expected_text:
        raise Wrong(f"prints other results than on the disk: {cell.text[-200:]!r} instead of {cell.expected_text[-200:]!r}")


def nothing(_):
    pass


# Command, arguments, the files that it reads, and the check. {in} and {out} are addresses, {local} a folder on the disk.
RUN = "{in}/copy"
COMMANDS = [
    ("ingest download", "ingest download {in}/lists/urls.csv --out {out}/d --allow-private --image-size 64 --json", ["lists/urls.csv"],
     same_files("d/00000.tar")),
    ("ingest shard (table)", "ingest shard {in}/lists/files.csv --images {in}/scenes/images --out {out}/s --resize-mode no",
     ["lists/files.csv", "scenes/images/*.jpg"], same_files("s/00000.tar")),
    ("ingest shard (folder)", "ingest shard {in}/scenes/images --out {out}/p --resize-mode no", ["scenes/images/*"],
     same_files("p/00000.tar")),
    ("ingest tag", "ingest tag {scratch}/plain", ["plain/*.tar"], same_files("../scratch/plain/00000.concepts.parquet")),
    ("ingest tag --table", "ingest tag --table {in}/lists/files.csv --out {out}/t", ["lists/files.csv"],
     same_files("t/00000.concepts.parquet", "t/captions.json")),
    ("ingest tag --text", "ingest tag --text {in}/lists/files.csv", ["lists/files.csv"], same_text),
    ("ingest retry", "ingest retry {out}/d --allow-private", ["../out/d/*"], nothing),
    ("ingest refresh", "ingest refresh {out}/d --out {out}/rf --allow-private", ["../out/d/*.parquet"], nothing),
    ("ingest prune", "ingest prune {out}/d --urls {in}/lists/removed.txt", ["../out/d/*", "lists/removed.txt"], same_files("d/00000.tar")),
    ("ingest reshard", "ingest reshard {in}/set --out {out}/rs --samples-per-shard 30", ["set/*"],
     same_files("rs/00000.tar", "rs/00001.tar", "rs/00000.concepts.parquet")),
    ("ingest hash", "ingest hash {scratch}/plain --force", ["plain/*.tar"], same_files("../scratch/plain/00000.hash.parquet")),
    ("ingest verify", "ingest verify {in}/set", ["set/*"], nothing),
    ("tools stats", "tools stats {in}/set --out {out}/st", ["set/*.concepts.parquet", "set/*.json"],
     same_files("st/concepts.parquet", "st/pairs.parquet", "st/stats.json")),
    ("tools stats --class-file", "tools stats {in}/set --out {out}/sc --class-file {in}/lists/classes.txt",
     ["set/*.concepts.parquet", "set/*.json", "lists/classes.txt"], same_files("sc/coverage.json")),
    ("tools merge", "tools merge {in}/statistics --out {out}/m", ["statistics/*"], same_files("m/concepts.parquet", "m/stats.json")),
    ("tools duplicates", "tools duplicates {in}/set --out {out}/du.parquet", ["set/*.hash.parquet"], same_files("du.parquet")),
    ("tools select", "tools select {in}/set --count 10 --cap 3 --out {out}/se.parquet", ["set/*.parquet", "set/*.json"],
     same_files("se.parquet")),
    ("tools report", "tools report {in}/set --out {out}/r/report.html --name set", ["set/*"], same_files("r/report.html")),
    ("tools show", "tools show {in}/set/00000.tar", ["set/00000.tar", "set/00000.concepts.parquet"], same_text),
    ("tools sql (samples)", "tools sql|SELECT key, status FROM samples ORDER BY key|{in}/set", ["set/0000?.parquet"], same_text),
    ("tools sql (mentions)", "tools sql|SELECT concept, count(*) AS n FROM mentions GROUP BY concept ORDER BY n DESC, concept|{in}/set",
     ["set/*.concepts.parquet"], same_text),
    ("tools sql (shards)", "tools sql|SELECT * FROM shards ORDER BY shard|{in}/set", ["set/*.json", "set/*.concepts.parquet"], same_text),
    ("tools sql (concepts)", "tools sql|SELECT concept, mentions FROM concepts ORDER BY mentions DESC, concept|{in}/set|{in}/statistics",
     ["statistics/*"], same_text),
    ("tools bench loader", "tools bench loader {in}/set --size 32 --passes 1 --threads 1 --batch-size 8", ["set/*.tar"], nothing),
    ("tools scenes", "tools scenes --count 3 --size 32 --out {out}/sn", [], same_files("sn/scenes.json", "sn/images/000002.jpg")),
    ("trainer pretrain", "trainer pretrain --shards {in}/plain --out {out}/t.safetensors --steps 0", ["plain/*.tar"],
     same_files("t.safetensors")),
    ("trainer train", "TRAIN", ["set/*.tar", "set/*.parquet", "tower.safetensors"],
     same_files("run/step-00000002/model.safetensors", "run/latest")),
    ("trainer train --resume", "RESUME", ["set/*.tar", "set/*.parquet", "tower.safetensors", "copy/step-00000002/*"], nothing),
    ("trainer eval segmentation", f"trainer eval segmentation --data {{in}}/scenes --checkpoint {RUN} --limit 4 --out {{out}}/es",
     ["scenes/images/00000[0-3].jpg", "scenes/masks/00000[0-3].png", "copy/step-*/model.safetensors", "copy/vision.safetensors"],
     same_files("es/table.md")),
    ("trainer eval classification", f"trainer eval classification --data {{in}}/classes --checkpoint {RUN} --out {{out}}/ec",
     ["classes/val/*/*", "copy/step-*/model.safetensors", "copy/vision.safetensors"], same_files("ec/table.md")),
    ("trainer eval retrieval",
     f"trainer eval retrieval --data {{in}}/lists/jsonl.jsonl --images {{in}}/scenes/images --checkpoint {RUN} --out {{out}}/er",
     ["lists/jsonl.jsonl", "scenes/images/00000[0-7].jpg", "copy/step-*/model.safetensors", "copy/vision.safetensors"],
     same_files("er/table.md")),
    ("trainer eval table", "trainer eval table {in}/scores", ["scores/result.json"], same_text),
    ("trainer segment", f"trainer segment {{in}}/scenes/images/000001.jpg --class-file {{in}}/lists/classes.txt --checkpoint {RUN} --out {{out}}/sg",
     ["scenes/images/000001.jpg", "copy/step-*/model.safetensors", "copy/vision.safetensors"],
     same_files("sg/000001.png", "sg/000001.mask.png")),
    ("trainer similarity", f"trainer similarity {{in}}/scenes/images/000001.jpg --phrase ball --checkpoint {RUN} --out {{out}}/si.png",
     ["scenes/images/000001.jpg", "copy/step-*/model.safetensors", "copy/vision.safetensors"], same_files("si.png")),
    ("trainer pca", f"trainer pca {{in}}/scenes/images/000001.jpg --checkpoint {RUN} --out {{out}}/pc.png",
     ["scenes/images/000001.jpg", "copy/vision.safetensors"], same_files("pc.png")),
    ("trainer attention", f"trainer attention {{in}}/set/00000.tar --checkpoint {RUN} --out {{out}}/at.png",
     ["set/00000.parquet", "set/00000.concepts.parquet", "copy/step-*/model.safetensors", "copy/vision.safetensors"], same_files("at.png")),
    ("trainer serve", "SERVE", ["copy/step-*/model.safetensors", "copy/vision.safetensors"], nothing),
    ("trainer weights", "WEIGHTS", ["tower.safetensors"], same_files("w.safetensors")),
    ("trainer convert", "trainer convert {in}/tower.safetensors --to timm --out {out}/cv.safetensors", ["tower.safetensors"],
     same_files("cv.safetensors")),
    ("trainer embed", f"trainer embed --text ball --image {{in}}/scenes/images/000001.jpg --checkpoint {RUN} --out {{out}}/em.safetensors",
     ["scenes/images/000001.jpg", "copy/step-*/model.safetensors", "copy/vision.safetensors"], same_files("em.safetensors")),
    ("trainer export", f"trainer export --checkpoint {RUN} --out {{out}}/ex", ["copy/step-*/model.safetensors", "copy/vision.safetensors"],
     same_files("ex/vision.safetensors", "ex/text.safetensors", "ex/config.json")),
    ("trainer classes", f"trainer classes --class-file {{in}}/lists/classes.txt --checkpoint {RUN} --out {{out}}/cl.safetensors",
     ["lists/classes.txt", "copy/step-*/model.safetensors", "copy/vision.safetensors"], same_tensors("cl.safetensors")),
    ("trainer card", f"trainer card --checkpoint {RUN} --name x --out {{out}}/README.md", ["copy/step-*/state.json"], nothing),
    ("trainer cache", "trainer cache --shards {in}/plain --vision {in}/tower.safetensors --out {local}/features --size 112",
     ["plain/*.tar", "tower.safetensors"], nothing),
]


class Cell:
    """One command on one store."""

    def __init__(self, programs, store, data, place, expected):
        self.programs, self.store, self.data, self.place, self.expected = programs, store, data, place, expected
        self.text = self.expected_text = ""
        self.local = place / f"local-{store.name}"
        self.local.mkdir(exist_ok=True)
        # What cannot be written is read from the store and written to the disk.
        self.out = store.url("out") if store.writable else str(self.local / "out")
        self.scratch = store.url("scratch") if store.writable else None
        if not store.writable:
            (self.local / "out/r").mkdir(parents=True, exist_ok=True)
        if isinstance(store, Disk) and store.name == "disk":
            (store.root / "out/r").mkdir(parents=True, exist_ok=True)

    def output(self, name):
        if self.store.writable:
            return self.store.get(f"out/{name}".replace("out/../", ""))
        path = self.local / "out" / name
        return path.read_bytes() if path.exists() else None

    def fill(self, text):
        values = {"in": self.store.url("data"), "out": self.out, "scratch": self.scratch, "local": str(self.local)}
        return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], text)

    def run(self, template):
        if template == "TRAIN":
            run = settings(self.local / "train", self.store.url("data"), f"{self.out}/run", "2")
            return self.programs.run(self.store, "trainer", "train", *run)
        if template == "RESUME":
            copy = self.store.url("data/copy")
            shutil.rmtree(self.local / "resumed", ignore_errors=True)
            run = settings(self.local / "resumed", self.store.url("data"), copy, "2")
            return self.programs.run(self.store, "trainer", "train", "--resume", *run)
        if template == "SERVE":
            return self.serve()
        if template == "WEIGHTS":
            url = self.store.url("data/tower.safetensors")
            # A folder has no address to download from.
            url = f"{serve(self.store.root)}/data/tower.safetensors" if self.store.name == "disk" else url
            return self.programs.run(self.store, "trainer", "weights", "--from-url", url, "--out", f"{self.out}/w.safetensors")
        parts = template.split("|")
        words = parts[0].split(" ") + parts[1:]
        return self.programs.run(self.store, *[self.fill(word) for word in words])

    def serve(self):
        port = free_port()
        environment = os.environ | self.store.environment | {"OMP_NUM_THREADS": "1"}
        command = [self.programs.folder / "trainer", "serve", "--checkpoint", self.store.url("data/copy"), "--address", f"127.0.0.1:{port}",
                   "--class-file", self.store.url("data/lists/classes.txt"), self.store.url("data/scenes/images/000001.jpg")]
        server = subprocess.Popen([str(part) for part in command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  text=True, cwd=self.place)
        try:
            line = server.stdout.readline()
            if "open http" not in line:
                raise Wrong(f"trainer serve: {server.stderr.read().strip()[-300:]}")
            page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20).read()
            if b"<" not in page:
                raise Wrong("trainer serve: no page")
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=60)
        return subprocess.CompletedProcess([], 0, "", "")


def size(data, out, patterns):
    """Bytes of the files that a command reads."""
    total = 0
    for pattern in patterns:
        base = out.parent if pattern.startswith("../") else data
        total += sum(path.stat().st_size for path in base.glob(pattern.removeprefix("../")) if path.is_file())
    return total


def short(count):
    return f"{count} B" if count < 1000 else f"{count / 1000:.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=Path, default=ROOT / "target/release")
    parser.add_argument("--only", default="", help="stores, separated by commas")
    parser.add_argument("--commands", default="", help="commands that contain this text")
    parser.add_argument("--servers", type=Path, default=ROOT / "target/stores", help="folder for the servers")
    parser.add_argument("--write", action="store_true", help="write the table into docs/stores.md")
    options = parser.parse_args()
    try:
        python = install(options.servers)
    except Missing as why:
        print(f"skipped: {why}")
        return 1 if os.environ.get("CI") else 0
    place = Path(tempfile.mkdtemp(prefix="stores-"))
    stores, table, wrong = [], [], 0
    try:
        disk = Disk(place, python)
        programs = Programs(options.programs.resolve(), place)
        data = disk.root / "data"
        data.mkdir()
        print("making the data", flush=True)
        make_data(programs, disk, data)
        shutil.copytree(data / "plain", disk.root / "scratch/plain")
        wanted = options.only.split(",") if options.only else []
        for kind in ALL[1:]:
            if not wanted or kind.name in wanted:
                try:
                    store = kind(place, python)
                except (Missing, AssertionError, ValueError) as why:
                    print(f"skipped: {kind.name}: {why}")
                    continue
                store.put_folder(data, "data")
                store.put_folder(data / "plain", "scratch/plain")
                stores.append(store)
        expected = disk.root / "out"
        cells = {store.name: Cell(programs, store, data, place, expected) for store in [disk, *stores]}
        for name, template, files, check in COMMANDS:
            if options.commands and options.commands not in name:
                continue
            row = [name]
            for store in [disk, *stores]:
                cell = cells[store.name]
                started = time.time()
                if store.proxy:
                    store.proxy.take()
                try:
                    if ("{scratch}" in template or template == "RESUME") and not store.writable:
                        row.append("read only")
                        continue
                    # The addresses differ, the rest is the same.
                    plain = lambda text: text.replace(store.url("data"), "DATA")
                    cell.text = plain(cell.run(template).stdout)
                    if store is disk:
                        cell.reference = cell.text
                        row += [short(size(data, expected, files)), "yes"]
                    else:
                        requests, sent = store.proxy.take()
                        cell.expected_text = cells["disk"].text
                        check(cell)
                        row.append(f"{requests}, {short(sent)}")
                    if list(place.glob("*:*")):
                        raise Wrong(f"made the folder {list(place.glob('*:*'))}")
                except (Wrong, subprocess.TimeoutExpired) as why:
                    wrong += 1
                    print(f"FAILED {name}, {store.name}: {why}", flush=True)
                    row += [short(size(data, expected, files)), "no"] if store is disk else ["no"]
                print(f"{name}: {store.name} ({time.time() - started:.1f} s)", flush=True)
            table.append(row)
        leaked = [path for store in stores if isinstance(store, Hub) for path in store.leaked]
        if leaked:
            wrong += 1
            print(f"FAILED: the token was sent to another host: {leaked[:3]}")
    finally:
        for store in stores:
            store.stop()
        shutil.rmtree(place, ignore_errors=True)
    head = ["command", "files", "disk", *[store.name for store in stores]]
    lines = [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *table]]
    print("\n".join(lines))
    if options.write:
        text = PAGE.read_text()
        before, rest = text.split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        PAGE.write_text(before + MARKS[0] + "\n" + "\n".join(lines) + "\n" + MARKS[1] + after)
    print(f"{len(table)} commands on {len(stores) + 1} stores, {wrong} failed")
    return 1 if wrong else 0


sys.exit(main())
