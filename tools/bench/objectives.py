#!/usr/bin/env python3
"""Compares what can be trained on one frozen vision tower: mIoU and image-caption retrieval on held-out rendered scenes, over several
seeds.

    tools/bench/objectives.py --out DIR [--seeds 3] [--first-seed 0] [--steps 150] [--only simzss,head] [--bin target/release]

The data, the tower, the number of steps and of samples are those of ./demo (4,000 scenes for training, 400 held out, a tower that
is pretrained on the images alone, 150 steps of 256 samples, its preset). All methods and seeds have the same tower. Retrieval is among
the held-out scenes, with five captions each: the recall at 10, image to text and text to image. What DIR has already is not made
again. Prints a table of mean and standard deviation and, as the last line, JSON. Stochastic depth is off, except for dino.txt's recipe: 150 steps are few.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tarfile
from pathlib import Path

HEAD = ["vision.head.blocks=2", "vision.head.drop_path=0", "vision.embedding=class+mean"]
SIGMOID = ["objective.caption=sigmoid", "objective.logit_bias=-2.71"]
# The settings of each method, in addition to those of the demo's preset.
METHODS = {
    "lit": ["objective.name=lit"],
    "simzss": [],
    "dinotxt": ["objective.name=lit", *HEAD, "vision.head.drop_path=0.3"],
    "head": HEAD,
    "head+sigmoid": [*HEAD, *SIGMOID],
    # Parts of `head+sigmoid`, to see which of them counts.
    "sigmoid": SIGMOID,
    "mean": ["vision.embedding=class+mean"],
    "head1": [*HEAD, "vision.head.blocks=1"],
    "head-class": [*HEAD, "vision.embedding=class"],
}
DEFAULT = ["lit", "simzss", "dinotxt", "head", "head+sigmoid"]


def captions_of(run, folder):
    """Writes the captions of each image as JSON Lines. They are read from shards, so that nothing but Python is needed."""
    run("ingest", "shard", folder / "scenes/captions.parquet", "--images", folder / "scenes", "--file-col", "URL", "--caption-col", "TEXT",
        "--out", folder / "shards", "--resize-mode", "no", "--skip-reencode")
    captions = {}
    for shard in sorted((folder / "shards").glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    sample = json.load(tar.extractfile(member))
                    captions.setdefault(sample["url"], []).append(sample["caption"])
    lines = [json.dumps({"file": file, "captions": of_image}) for file, of_image in captions.items()]
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--only", default=",".join(DEFAULT), help=f"of {', '.join(METHODS)}; `lit` to `head+sigmoid` if not given")
    parser.add_argument("--bin", type=Path, default=Path("target/release"))
    arguments = parser.parse_args()
    out, methods = arguments.out, [name.strip() for name in arguments.only.split(",")]
    if unknown := [name for name in methods if name not in METHODS]:
        parser.error(f"unknown methods: {', '.join(unknown)}")

    def run(program, *words):
        done = subprocess.run([arguments.bin / program, *map(str, words)], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"{program} {words[0]} failed")
        return done.stdout

    shards, held_out, scenes, pairs = out / "shards", out / "held-out", out / "scenes", out / "pairs"
    if not held_out.exists():
        run("tools", "scenes", "--out", scenes, "--count", 4000, "--seed", 1, "--url-prefix", "")
        run("ingest", "shard", scenes / "captions.parquet", "--images", scenes, "--file-col", "URL", "--caption-col", "TEXT",
            "--out", shards, "--resize-mode", "no", "--skip-reencode", "--shard-size", 1000)
        run("ingest", "tag", shards)
        run("tools", "scenes", "--out", held_out, "--count", 400, "--seed", 2)
    if not (pairs / "captions.jsonl").exists():
        run("tools", "scenes", "--out", pairs / "scenes", "--count", 400, "--seed", 2, "--captions-per-image", 5, "--url-prefix", "")
        captions_of(run, pairs)
    tower, features = out / "tower.safetensors", out / "features"
    if not tower.exists():
        run("trainer", "pretrain", "--shards", shards, "--out", tower, "--seed", 0)
    if not features.exists():
        run("trainer", "cache", "--shards", shards, "--vision", tower, "--size", 112, "--out", features)
    scores = {}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        folder = out / f"seed-{seed}"
        folder.mkdir(exist_ok=True)
        for name in methods:
            found = folder / f"{name}.json"
            if not found.exists():
                settings = [f"out={folder / name}", f"seed={seed}", f"data.shards=['{shards}']", f"data.features={features}",
                            f"vision.weights={tower}", f"steps={arguments.steps}", *METHODS[name]]
                trained = run("trainer", "train", "--config", "trainer/presets/demo.toml", "--json",
                              *(word for setting in settings for word in ("--set", setting)))
                model = ["--checkpoint", folder / name, "--json"]
                scored = run("trainer", "eval", "segmentation", "--data", held_out, *model)
                retrieved = run("trainer", "eval", "retrieval", "--data", pairs / "captions.jsonl", "--images", pairs / "scenes", *model)
                last = lambda text: json.loads(text.splitlines()[-1])
                results = {"train": last(trained), "eval": last(scored), "retrieval": last(retrieved)}
                found.write_text(json.dumps(results))
            scores.setdefault(name, []).append(json.loads(found.read_text()))
            result = scores[name][-1]
            print(f"seed {seed}, {name}: mIoU {100 * result['eval']['miou']:.1f} %", file=sys.stderr, flush=True)

    rows = {}
    print(f"{'method':<14}{'mIoU %':>16}{'pixel accuracy %':>20}{'image to text':>16}{'text to image':>16}{'training images/s':>20}")
    for name, results in scores.items():
        of = {
            "miou": [result["eval"]["miou"] for result in results],
            "pixel_accuracy": [result["eval"]["pixel_accuracy"] for result in results],
            "image_to_text_r10": [result["retrieval"]["scores"]["image_to_text"]["r10"] for result in results],
            "text_to_image_r10": [result["retrieval"]["scores"]["text_to_image"]["r10"] for result in results],
        }
        speed = statistics.mean(result["train"]["images_per_second"] for result in results)
        shown = [with_spread(numbers) for numbers in of.values()]
        print(f"{name:<14}{shown[0]:>16}{shown[1]:>20}{shown[2]:>16}{shown[3]:>16}{speed:>20.0f}")
        rows[name] = of | {"images_per_second": speed}
    print(json.dumps(rows))


def with_spread(numbers):
    """Mean and standard deviation of shares, in percent."""
    spread = f" ± {100 * statistics.stdev(numbers):.1f}" if len(numbers) > 1 else ""
    return f"{100 * statistics.mean(numbers):.1f}{spread}"


main()
