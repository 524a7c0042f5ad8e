#!/usr/bin/env bash
# Measures the speed of tagging and counting; prints a table and one line of JSON.
#
#     tools/bench/tag.sh CAPTIONS.txt [LINES]
#
# CAPTIONS.txt has one caption per line; it is repeated up to LINES lines (default: 1,000,000). Every figure is the best
# of three runs of the whole program, including start-up and writing. `cpu` is user and system time in seconds, which
# other work on the machine influences less than wall-clock time. The measurements:
#
#     parquet 1, 2     ingest tag --table, on one core and on two; writes sidecars
#     json 1, 2        ingest tag --text, on one core and on two; writes JSON lines
#     brill, nlprule   as parquet 1, with these taggers instead of the default, on LINES / 50 lines
#     start            ingest tag --text of a single caption: the start-up time
#     statistics       tools stats of 10,000,000 mentions with the frequencies of CAPTIONS.txt
set -euo pipefail
[ $# -ge 1 ] && [ -f "$1" ] || { sed -n '2,6p' "$0" >&2; exit 2; }
captions=$(realpath "$1") lines=${2:-1000000}
cd "$(dirname "$0")/../.."
cargo build --release --locked -p simzss-ingest -p simzss-tools -p simzss-concepts --bins --example make_sidecars
ingest=target/release/ingest tools=target/release/tools
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 - "$captions" "$folder/captions.txt" "$lines" <<'PY'
import sys
captions, target, lines = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open(captions, "rb") as file:
    captions = file.read().splitlines()
with open(target, "wb") as file:
    for line in range(lines):
        file.write(captions[line % len(captions)] + b"\n")
PY
head -n $((lines / 50)) "$folder/captions.txt" > "$folder/few.txt"

# run NAME CPUS UNITS COMMAND..: the best of three runs; $folder/out is removed before each.
run() {
    local name=$1 cpus=$2 units=$3
    shift 3
    taskset -c "$cpus" true 2> /dev/null || { echo "skipped: $name needs CPU $cpus" >&2; return 0; }
    python3 - "$name" "$cpus" "$units" "$folder" "$@" <<'PY' || echo "skipped: $name" >&2
import json, os, resource, shutil, subprocess, sys, time
name, cpus, units, folder, *command = sys.argv[1:]
best = None
for _ in range(3):
    shutil.rmtree(folder + "/out", ignore_errors=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(["taskset", "-c", cpus] + command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stderr.decode(errors="replace").strip().splitlines()[-1])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if best is None or wall < best["wall"]:
        best = {"wall": wall, "cpu": cpu}
best["rss_mb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
best = {key: round(value, 3) for key, value in best.items()}
best["per_second"] = round(int(units) / best["wall"])
best["per_cpu_second"] = round(int(units) / max(best["cpu"], 1e-3))
with open(folder + "/results", "a") as file:
    file.write(json.dumps({"name": name} | best) + "\n")
PY
}

table() { echo "$ingest tag --table $1 --out $folder/out"; }
# shellcheck disable=SC2046 # word splitting is intended: the output is a command
{
    run "parquet 1" 0 "$lines" $(table "$folder/captions.txt") --threads 1
    run "parquet 2" 0,1 "$lines" $(table "$folder/captions.txt") --threads 2
    run "json 1" 0 "$lines" $ingest tag --text "$folder/captions.txt" --threads 1
    run "json 2" 0,1 "$lines" $ingest tag --text "$folder/captions.txt" --threads 2
    run brill 0 "$((lines / 50))" $(table "$folder/few.txt") --threads 1 --tagger brill
    run nlprule 0 "$((lines / 50))" $(table "$folder/few.txt") --threads 1 --tagger nlprule
}
head -n 1 "$captions" > "$folder/one.txt"
run start 0 1 $ingest tag --text "$folder/one.txt"
target/release/examples/make_sidecars "$folder/drawn" 10000000 "$captions"
run statistics 0,1 10000000 $tools stats "$folder/drawn" --out "$folder/out" --threads 2

python3 - "$folder/results" <<'PY'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
print(f"{'':<12}{'seconds':>9}{'cpu':>9}{'per s':>12}{'per cpu s':>12}{'MB':>7}")
for row in rows:
    print(f"{row['name']:<12}{row['wall']:>9.2f}{row['cpu']:>9.2f}{row['per_second']:>12,}"
          f"{row['per_cpu_second']:>12,}{row['rss_mb']:>7.0f}")
by_name = {row["name"]: row for row in rows}
ratios = {}
for name, over, under in [("two cores over one", "parquet 2", "parquet 1"), ("perceptron over nlprule", "parquet 1", "nlprule")]:
    if over in by_name and under in by_name:
        ratios[name] = round(by_name[over]["per_second"] / by_name[under]["per_second"], 2)
        print(f"{name}: {ratios[name]}")
print(json.dumps({"runs": rows, "ratios": ratios}))
PY
