#!/usr/bin/env python3
"""Downloads 100,000 URLs, 30 % of them from hosts that fail; measures the time, checks that memory does not grow and that
every row is in the output exactly once.

    tools/bench/ingest_failing.py [--urls 100000] [--hosts 700] [--shard-size 10000]

70 % of the URLs are served by a local nginx under 700 host addresses (in 127.0.0.0/8; --hosts allows up to 65,536). The
others are on 300 hosts: a third refuse connections, a third accept them and never answer, a sixth have host names that do
not resolve, a sixth answer with HTTP status 503. Prints the figures, the maximum resident memory in each tenth of the run
and, as the last line, JSON. Needs nginx, and pyarrow to read the tables (pip install pyarrow).
"""

import argparse
import collections
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pyarrow.parquet

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ingest

# A GIF image of one pixel.
PIXEL = bytes.fromhex("47494638396101000100800000ff0000ffffff21f90400000000002c00000000010001000002024401003b")
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
    access_log off; keepalive_requests 100000;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    server {{
        listen 0.0.0.0:{port} backlog=8192;
        location / {{ root {folder}; try_files /pixel.gif =404; }}
        location /down {{ return 503; }}
    }}
}}
"""


def url(number, port, silent, hosts):
    """The URL of a row, and the status it must get."""
    host = number // 10 % 100
    kind = number % 10
    if kind < 7:
        good = (number // 10 * 7 + kind) % hosts
        return f"http://127.1.{good >> 8}.{good & 255}:{port}/{number}", "success"
    if kind == 7:
        return f"http://127.2.0.{host}:9/{number}", "failed_to_download"
    if kind == 8:
        return f"http://127.3.0.{host}:{silent}/{number}", "failed_to_download"
    if host % 2:
        return f"http://host{host}.invalid/{number}", "failed_to_download"
    return f"http://127.4.0.{host}:{port}/down/{number}", "failed_to_download"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--urls", type=int, default=100_000)
    arguments.add_argument("--hosts", type=int, default=700)
    arguments.add_argument("--shard-size", type=int, default=10_000)
    arguments = arguments.parse_args()
    program = ingest.build()
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not nginx:
        sys.exit("nginx is not installed: run apt-get install nginx-light")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    server = None
    try:
        (folder / "pixel.gif").write_bytes(PIXEL)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
        server = subprocess.Popen([nginx, "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"])
        silent = socket.create_server(("0.0.0.0", 0), backlog=4096)
        rows = [url(number, port, silent.getsockname()[1], arguments.hosts) for number in range(arguments.urls)]
        lines = "".join(f"{address},{number}\n" for number, (address, _) in enumerate(rows))
        (folder / "list.csv").write_text("url,caption\n" + lines)
        time.sleep(0.5)

        out = folder / "out"
        command = [
            program, "download", folder / "list.csv", "--out", out, "--allow-private", "--json",
            "--shard-size", str(arguments.shard_size), "--image-size", "16",
        ]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        sizes, done = [], threading.Event()

        def watch():
            while not done.wait(0.1):
                try:
                    status = Path(f"/proc/{process.pid}/status").read_text()
                    sizes.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
                except (OSError, IndexError):
                    pass

        watcher = threading.Thread(target=watch)
        watcher.start()
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        done.set()
        watcher.join()
        if status:
            sys.exit("ingest failed")
        summary = json.loads(printed.splitlines()[-1])

        found = collections.Counter()
        for table in sorted(out.glob("*.parquet")):
            for row in pyarrow.parquet.read_table(table, columns=["caption", "url", "status"]).to_pylist():
                number = int(row["caption"])
                assert (row["url"], row["status"]) == rows[number], row
                found[number] += 1
        assert len(found) == arguments.urls and set(found.values()) == {1}, "a row is missing or duplicated"
    finally:
        if server:
            server.terminate()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)

    tenths = [max(sizes[i * len(sizes) // 10 : (i + 1) * len(sizes) // 10] or [0]) for i in range(10)]
    cpu = usage.ru_utime + usage.ru_stime
    print(f"{arguments.urls} URLs in {seconds:.1f} s, {cpu:.1f} s of CPU time; every row is in the output exactly once")
    for cause, count in summary["causes"].items():
        print(f"{count:>8}  {cause}")
    print("maximum memory in each tenth of the run, MB: " + " ".join(f"{size:.0f}" for size in tenths))
    print(json.dumps({"seconds": seconds, "mb": tenths, "causes": summary["causes"], "successes": summary["successes"]}))


if __name__ == "__main__":
    main()
