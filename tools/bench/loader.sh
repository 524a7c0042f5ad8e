#!/usr/bin/env bash
# Compares the speed of the loader with webdataset + Pillow + torchvision; prints a table and one line of JSON.
#
#     tools/bench/loader.sh PHOTOS.. [-- TIMES]
#
# PHOTOS are .jpg files or folders of them. They are written into 8 shards, every photo TIMES times (default: 8). Both
# sides make random resized crops of 224 x 224 px (bicubic, flipped with probability 0.5) in batches of 64 with 2
# workers. Every figure is the best of three passes. The passes of the two sides alternate, so that other work on the
# machine slows both. Environment variables:
# - TOOLS: path of a built `tools` program; without it, the script builds it.
# - PYTHON: path of a Python with torch, torchvision and webdataset; without it, the script makes a virtual environment
#   (torch is large).
# - DATAGO: path of a Python with datago and numpy; datago is then measured too, with centre crops resized to
#   224 x 224 px, on the photos as files (datago reads shards only from web servers).
set -euo pipefail
photos=() times=8
while [ $# -gt 0 ]; do
    if [ "$1" = -- ]; then times=$2; shift; else photos+=("$(realpath "$1")"); fi
    shift
done
[ ${#photos[@]} -gt 0 ] || { sed -n '2,6p' "$0" >&2; exit 2; }
cd "$(dirname "$0")/../.."
if [ -z "${TOOLS:-}" ]; then
    cargo build --release --locked -p simzss-tools
    TOOLS=target/release/tools
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if [ -z "${PYTHON:-}" ]; then
    python3 -m venv "$folder/venv"
    PYTHON=$folder/venv/bin/python
    "$PYTHON" -m pip install --quiet --disable-pip-version-check torch==2.11.0 torchvision==0.26.0 webdataset==1.0.2 pillow
fi

"$PYTHON" tools/bench/loader_peer.py shards "$folder" "$times" "${photos[@]}"
: > "$folder/all_datago"
for turn in 1 2 3; do
    "$TOOLS" bench loader "$folder/shards" --threads 2 --passes 1 --json > "$folder/ours"
    "$PYTHON" tools/bench/loader_peer.py read "$folder/shards" > "$folder/theirs"
    grep -v '^{' "$folder/ours" | sed "s/^/$turn  /"
    sed "s/^/$turn  /" "$folder/theirs"
    tail -n 1 "$folder/ours" >> "$folder/all_ours"
    awk '{ print $(NF - 1) }' "$folder/theirs" >> "$folder/all_theirs"
    if [ -n "${DATAGO:-}" ]; then
        "$DATAGO" tools/bench/loader_peer.py datago "$folder/files" > "$folder/datago"
        sed "s/^/$turn  /" "$folder/datago"
        awk '{ print $(NF - 1) }' "$folder/datago" >> "$folder/all_datago"
    fi
done

"$PYTHON" - "$folder" <<'PY'
import json, sys
folder = sys.argv[1]
runs = [json.loads(line)["measured"] for line in open(folder + "/all_ours")]
ours = {name: max(run[name]["value"] for run in runs) for name in runs[0]}
theirs = max(float(line) for line in open(folder + "/all_theirs"))
datago = max((float(line) for line in open(folder + "/all_datago")), default=None)
ratios = {
    "exact over webdataset": ours["exact"] / theirs,
    "fast over webdataset": ours["fast"] / theirs,
    "Huffman codes only over webdataset": ours["loop: Huffman codes only"] / theirs,
    "exact over loop: decode, resize": ours["exact"] / ours["loop: decode, resize"],
    "exact over loop: crop, exact": ours["exact"] / ours["loop: crop, exact"],
    "fast over loop: crop, fast": ours["fast"] / ours["loop: crop, fast"],
}
if datago:
    ratios["exact over datago"] = ours["exact"] / datago
for name, ratio in ratios.items():
    print(f"{name:<38}{ratio:6.2f}")
print(json.dumps({"ours": ours, "webdataset": theirs, "datago": datago, "ratios": ratios}))
PY
