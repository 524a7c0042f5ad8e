"""Runs a command of `ingest` on a Ray cluster, one task for each part; the part of a lost task is run again.

    python parts_ray.py PARTS CPUS ingest download list.parquet --out s3://bucket/shards
    python parts_ray.py PARTS CPUS ingest tag s3://bucket/shards

Runs on the cluster of RAY_ADDRESS, else on this machine. All machines need `ingest` (pip install simzss-ingest), and see the same
input and output. A part that is run again makes only what is missing. CPUS are the cores of a task: `ingest` uses all of a machine.
"""

import subprocess
import sys

import ray


@ray.remote(max_retries=3, retry_exceptions=True)
def run(command, part, parts):
    done = subprocess.run([*command, "--index", str(part), "--count", str(parts)], stderr=subprocess.PIPE, text=True)
    last = done.stderr.strip().rpartition("\n")[2]
    if done.returncode:
        raise RuntimeError(f"part {part} of {parts} ended with exit code {done.returncode}: {last}")
    return f"part {part} of {parts}: {last}"


def main():
    parts, cpus, command = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    ray.init()
    waiting = [run.options(num_cpus=cpus).remote(command, part, parts) for part in range(parts)]
    while waiting:
        (done,), waiting = ray.wait(waiting)
        print(ray.get(done), flush=True)


if __name__ == "__main__":
    main()
