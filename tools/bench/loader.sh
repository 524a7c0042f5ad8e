#!/usr/bin/env bash
# Compares the speed of the loader with webdataset (decoding by Pillow, or by torchvision's decode_jpeg), SPDL and DALI on
# CPUs; and, for progressive JPEGs, PNGs and WebPs, with a loop that only decodes. Prints a table and one line of JSON.
#
#     tools/bench/loader.sh PHOTOS.. [-- TIMES]
#
# PHOTOS are .jpg files or folders of them. They are written into 8 shards, every photo TIMES times (default: 8). All
# make random resized crops of 224 x 224 px (bicubic, flipped with probability 0.5) in batches of 64 with 2 workers. Every
# figure is the best of three passes. All take turns, so that other work on the machine slows all. Environment variables:
# - TOOLS: path of a built `tools` program; without it, the script builds it.
# - PYTHON: path of a Python with torch, torchvision, webdataset and, if they are to be compared, spdl-io with ffmpeg's
#   libraries and nvidia-dali-cuda120; without it, the script makes a virtual environment (torch is large).
# - DATAGO: path of a Python with datago and numpy; datago is then measured too, with centre crops resized to
#   224 x 224 px, on the photos as files (datago reads shards only from web servers).
set -euo pipefail
photos=() times=8
while [ $# -gt 0 ]; do
    if [ "$1" = -- ]; then times=$2; shift; else photos+=("$(realpath "$1")"); fi
    shift
done
[ ${#photos[@]} -gt 0 ] || { sed -n '2,5p' "$0" >&2; exit 2; }
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
    "$PYTHON" -m pip install --quiet --disable-pip-version-check torch==2.11.0 torchvision==0.26.0 webdataset==1.0.2 pillow \
        spdl-core==0.8.0 spdl-io==0.8.0 nvidia-dali-cuda120==2.4.0
fi

peer() { "$PYTHON" tools/bench/loader_peer.py "$@" | tee -a "$folder/theirs" | sed "s/^/$turn  /"; }

"$PYTHON" tools/bench/loader_peer.py shards "$folder" "$times" "${photos[@]}"
for turn in 1 2 3; do
    "$TOOLS" bench loader "$folder/shards" --threads 2 --passes 1 --json > "$folder/last"
    grep -v '^{' "$folder/last" | sed "s/^/$turn  /"
    tail -n 1 "$folder/last" >> "$folder/ours"
    peer read "$folder/shards"
    peer read "$folder/shards" decode_jpeg
    # They need more than is in the Python index for every machine; without them, the others are measured.
    peer spdl "$folder/shards" || echo "$turn  SPDL left out"
    peer dali "$folder/shards" || echo "$turn  DALI left out"
    if [ -n "${DATAGO:-}" ]; then PYTHON=$DATAGO peer datago "$folder/files"; fi
done
for format in progressive png webp; do
    "$PYTHON" tools/bench/loader_peer.py convert "$folder" "$format" "${photos[@]}"
    mkdir "$folder/of-$format"
    "$PYTHON" tools/bench/loader_peer.py shards "$folder/of-$format" 1 "$folder/$format"
    rm -r "${folder:?}/$format"
    "$TOOLS" bench loader "$folder/of-$format/shards" --threads 2 --json | tail -n 1 | sed "s/^/$format /" >> "$folder/formats"
done

"$PYTHON" - "$folder" <<'PY'
import json, sys
folder = sys.argv[1]
runs = [json.loads(line)["measured"] for line in open(folder + "/ours")]
ours = {name: max(run[name]["value"] for run in runs) for name in runs[0]}
theirs = {}
for line in open(folder + "/theirs"):
    if not line.endswith("images/s\n"):
        continue
    name, rate = line.rsplit(maxsplit=2)[:2]
    theirs[name] = max(theirs.get(name, 0), float(rate))
ratios = {f"{mode} over {name}": ours[mode] / rate for name, rate in theirs.items() for mode in ["exact", "fast"]}
loops = ["loop: decode", "loop: decode, resize", "loop: crop, exact"]
ratios |= {f"exact over {loop}": ours["exact"] / ours[loop] for loop in loops}
ratios["fast over loop: crop, fast"] = ours["fast"] / ours["loop: crop, fast"]
for line in open(folder + "/formats"):
    form, line = line.split(maxsplit=1)
    measured = {name: row["value"] for name, row in json.loads(line)["measured"].items()}
    print(f"{form}: exact {measured['exact']:.1f} images/s, loop: decode {measured['loop: decode']:.1f}")
    for loop in loops[:2]:
        ratios[f"{form}: exact over {loop}"] = measured["exact"] / measured[loop]
for name, ratio in ratios.items():
    print(f"{name:<48}{ratio:6.2f}")
print(json.dumps({"ours": ours, "theirs": theirs, "ratios": ratios}))
PY
