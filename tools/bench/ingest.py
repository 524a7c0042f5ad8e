#!/usr/bin/env python3
"""Compares the download speed of `ingest` with img2dataset, and with its image work alone: the same photographs from the same
nginx, on the same two cores.

    tools/bench/ingest.py PHOTOS.. [--copies 8] [--runs 3] [--keep FOLDER] [--tiny 0]

PHOTOS are JPEG files or folders of them. Each photograph is listed `--copies` times, under different URLs. Both programs
write 256 px keep_ratio JPEGs of quality 95 in shards of 1,000, with the SHA-256 and the EXIF tags of each original. Their
runs alternate. `TLS` and `HTTP/2` are `ingest` from the same server over TLS with HTTP/1.1 and HTTP/2; `images` is a loop in
which two threads do the image work (`ingest/examples/images.rs`) on files in memory, without requests, hashes and shards. With
`--tiny N` `ingest` also downloads N rows that all have the same image of one pixel. The figures are of each program's fastest run in wall-clock time, including start-up and writing:

- `cpu` is the user and system time of the program and all its processes;
- `MB` is the maximum sum of their proportional set sizes (shared pages count once);
- `steady` excludes the start-up: the figures of a run over 8 photographs are subtracted.

Needs nginx (apt-get install nginx-light), openssl, python3.11 (the newest version that img2dataset 1.47 runs on) and, once, a Python
package index, from which it installs img2dataset into a virtual environment in ~/.cache/ingest-bench. The environment
variable INGEST is the path of a built `ingest` program, beside which is `examples/images`; without it, the script builds both. Prints a table and, as the last
line, JSON. `ingest_equality.py` compares what both programs write.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERSION = "img2dataset==1.47.0"
# A GIF image of one pixel.
PIXEL = bytes.fromhex("47494638396101000100800000ff0000ffffff21f90400000000002c00000000010001000002024401003b")
CPUS = {0, 1}

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    types {{ image/jpeg jpg; }}
    server {{
        listen 127.0.0.1:{http} backlog=4096;
        listen 127.0.0.1:{tls} ssl backlog=4096;
        listen 127.0.0.1:{http2} ssl http2 backlog=4096;
        ssl_certificate {folder}/certificate.pem; ssl_certificate_key {folder}/key.pem;
        location /tiny {{ root {folder}; try_files /pixel.gif =404; }}
        # The copy's number is a folder in the URL only, not on disk.
        location ~ ^/[0-9]+/(.+)$ {{ alias {photos}/$1; }}
    }}
}}
"""


def environment():
    """The Python of a virtual environment with img2dataset; makes it if necessary."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ingest-bench"
    python = folder / "bin/python"
    if not (folder / "bin/img2dataset").exists():
        base = shutil.which("python3.11") or sys.exit("img2dataset needs python3.11; install it")
        subprocess.run([base, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", VERSION, "pillow"], check=True)
    return python


def build():
    """The path of `ingest`: that in INGEST, or that of this checkout, which is built."""
    if "INGEST" in os.environ:
        return Path(os.environ["INGEST"]).resolve()
    what = ["-p", "simzss-ingest", "--bin", "ingest", "--example", "images"]
    subprocess.run(["cargo", "build", "--release", "--locked", *what], cwd=ROOT, check=True)
    return ROOT / "target/release/ingest"


def serve(photos, folder):
    """Starts nginx; returns its process and its URLs, by protocol."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not nginx:
        sys.exit("nginx is not installed: run apt-get install nginx-light")
    certificate = folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
         "-keyout", folder / "key.pem", "-out", certificate], check=True, stderr=subprocess.DEVNULL)
    (folder / "pixel.gif").write_bytes(PIXEL)
    ports = {}
    with contextlib.ExitStack() as stack:
        for protocol in ("http", "tls", "http2"):
            free = stack.enter_context(socket.socket())
            free.bind(("127.0.0.1", 0))
            ports[protocol] = free.getsockname()[1]
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, photos=photos, **ports))
    server = subprocess.Popen([nginx, "-p", folder, "-e", "stderr", "-c", configuration])
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", ports["http"])) == 0:
                scheme = {"http": "http", "tls": "https", "http2": "https"}
                return server, {name: f"{scheme[name]}://127.0.0.1:{port}" for name, port in ports.items()}
        time.sleep(0.05)
    sys.exit("nginx did not start within 5 seconds")


def tree(pid):
    """The process id and those of all its descendants."""
    found, waiting = [], [pid]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                waiting += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        except OSError:
            pass
    return found


def memory(pid):
    """Sum of the proportional set sizes of the process and its descendants, bytes."""
    total = 0
    for process in tree(pid):
        try:
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            pass
    return total


def run(command, log):
    """Wall-clock seconds, CPU seconds and peak memory of a command on the two cores."""
    started = time.perf_counter()
    with open(log, "wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, preexec_fn=lambda: os.sched_setaffinity(0, CPUS),
            env=os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"},
        )
    peak, done = 0, threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.1):
            peak = max(peak, memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    done.set()
    watcher.join()
    if status:
        sys.exit(f"{command[0]} failed:\n{Path(log).read_text(errors='replace')[-2000:]}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "mb": peak / 1e6}


def successes(folder):
    return sum(json.loads(path.read_text())["successes"] for path in folder.glob("*_stats.json"))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("photos", nargs="+", type=Path)
    arguments.add_argument("--copies", type=int, default=8)
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--tiny", type=int, default=0, help="also this many rows with an image of one pixel")
    arguments.add_argument("--keep", type=Path, help="copy the last outputs to this folder")
    arguments = arguments.parse_args()

    python = environment()
    program = build()
    folder = Path(tempfile.mkdtemp())
    server = None
    try:
        photos = folder / "photos"
        photos.mkdir()
        files = [f for p in arguments.photos for f in (sorted(p.glob("*.jpg")) if p.is_dir() else [p])]
        for number, file in enumerate(files):
            shutil.copyfile(file, photos / f"{number}.jpg")
        photos.chmod(0o755)
        folder.chmod(0o755)
        server, addresses = serve(photos, folder)
        urllib.request.urlopen(f"{addresses['http']}/0/0.jpg").read()

        lists = {"all": [(c, p) for c in range(arguments.copies) for p in range(len(files))], "few": [(0, p) for p in range(8)]}
        for protocol, address in addresses.items():
            for name, rows in lists.items():
                lines = [f"{address}/{copy}/{photo}.jpg,photograph {photo} of copy {copy}\n" for copy, photo in rows]
                (folder / f"{name}-{protocol}.csv").write_text("url,caption\n" + "".join(lines))

        def download(rows, out, protocol):
            return [
                program, "download", folder / f"{rows}-{protocol}.csv", "--out", out, "--allow-private",
                "--ca-certificates", folder / "certificate.pem",
                "--shard-size", "1000", "--image-size", "256", "--resize-mode", "keep_ratio", "--per-host", "64",
                "--json",
            ]

        def ingest(rows, out):
            return download(rows, out, "http")

        def tls(rows, out):
            return download(rows, out, "tls")

        def http2(rows, out):
            return download(rows, out, "http2")

        def exact(rows, out):
            return ingest(rows, out) + ["--exact", "--ignore-orientation"]

        def images(rows, out):
            few = folder / "few"
            if not few.exists():
                few.mkdir()
                for number in range(8):
                    (few / f"{number}.jpg").symlink_to(photos / f"{number}.jpg")
            loop = program.with_name("examples") / "images"
            return [loop, few, "1"] if rows == "few" else [loop, photos, str(arguments.copies)]

        def img2dataset(rows, out):
            return [
                python, python.with_name("img2dataset"), "--url_list", folder / f"{rows}-http.csv", "--input_format", "csv",
                "--url_col", "url", "--caption_col", "caption", "--output_format", "webdataset", "--output_folder", out,
                "--processes_count", "2", "--thread_count", "64", "--number_sample_per_shard", "1000",
                "--image_size", "256", "--resize_mode", "keep_ratio", "--encode_quality", "95",
                "--enable_wandb", "False",
            ]

        programs = {
            "ingest": ingest, "TLS": tls, "HTTP/2": http2, "ingest --exact": exact, "images": images,
            "img2dataset": img2dataset,
        }
        best, steady = {}, {}
        for _ in range(arguments.runs):
            for name, command in programs.items():
                out = folder / "out" / name.replace(" ", "").replace("/", "")
                shutil.rmtree(out, ignore_errors=True)
                out.parent.mkdir(exist_ok=True)
                few = run(command("few", out), folder / "log")
                shutil.rmtree(out, ignore_errors=True)
                figures = run(command("all", out), folder / "log")
                wanted = len(lists["all"])
                if command is not images and successes(out) != wanted:
                    sys.exit(f"{name}: {successes(out)} of {wanted} succeeded")
                if name not in best or figures["wall"] < best[name]["wall"]:
                    best[name] = figures
                    steady[name] = {key: figures[key] - few[key] for key in ("wall", "cpu")}
        if arguments.tiny:
            lines = (f"{addresses['http']}/tiny/{number},pixel {number}\n" for number in range(arguments.tiny))
            (folder / "tiny-http.csv").write_text("url,caption\n" + "".join(lines))
            command = ingest("tiny", folder / "tiny")
            command[command.index("--shard-size") + 1] = "10000"
            command[command.index("--image-size") + 1] = "16"
            figures = run(command, folder / "log")
            rows = successes(folder / "tiny")
            print(f"{rows} rows of one pixel: {rows / figures['wall']:.0f} rows/s, "
                  f"{figures['cpu'] * 1e6 / rows:.0f} us of CPU time each, {figures['mb']:.0f} MB")
        if arguments.keep:
            shutil.rmtree(arguments.keep, ignore_errors=True)
            shutil.copytree(folder / "out", arguments.keep)
    finally:
        if server:
            server.terminate()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)

    images = len(lists["all"])
    print(f"{images} images; load average of the last minute: {os.getloadavg()[0]:.2f}")
    print(f"{'':<16}{'images/s':>10}{'cpu ms/image':>14}{'MB':>7}{'steady images/s':>17}{'steady cpu ms':>15}")
    rows = []
    for name in programs:
        rows.append({
            "name": name,
            "images_per_s": images / best[name]["wall"],
            "cpu_ms": best[name]["cpu"] * 1e3 / images,
            "mb": best[name]["mb"],
            "steady_images_per_s": images / steady[name]["wall"],
            "steady_cpu_ms": steady[name]["cpu"] * 1e3 / images,
        })
        row = rows[-1]
        print(f"{name:<16}{row['images_per_s']:>10.0f}{row['cpu_ms']:>14.2f}{row['mb']:>7.0f}"
              f"{row['steady_images_per_s']:>17.0f}{row['steady_cpu_ms']:>15.2f}")
    peer = rows[-1]
    ratios = {
        row["name"]: {key: round(row[key] / peer[key], 3) for key in row if key != "name"} for row in rows[:-1]
    }
    for name, ratio in ratios.items():
        print(f"{name} over img2dataset: " + ", ".join(f"{key} {value:g}" for key, value in ratio.items()))
    print(json.dumps({"runs": rows, "ratios": ratios}))


if __name__ == "__main__":
    main()
