#!/usr/bin/env python3
"""Compares what can be trained on one frozen vision tower: mIoU and image-caption retrieval on held-out rendered scenes, over several
seeds.

    tools/bench/objectives.py --out DIR [--seeds 5] [--first-seed 0] [--only simzss,head] [--jobs 2] [--bin target/release]

The data, the tower, the number of steps and of samples are those of ./demo (4,000 scenes for training, 400 held out, a tower that
is pretrained on the images alone, 150 steps of 256 samples, its preset). All methods and seeds have the same tower. Retrieval is among
the held-out scenes, with five captions each: the recall at 10, image to text and text to image. Border accuracy: of the pixels at
most 4 pixels from another class, those with the right one. Stochastic depth is off, except for dino.txt's recipe: 150 steps are few.
Talk2DINO starts from the text tower of the CLIP preset, trained for as many steps with the same seed; it is frozen then. Prints a table
of mean and standard deviation and, as the last line, JSON. Needs NumPy and Pillow. What DIR has already is not made again.
"""

import argparse
import json
import statistics
import sys

import gap
import trainings
from trainings import figure

HEAD = ["vision.head.blocks=2", "vision.head.drop_path=0", "vision.embedding=class+mean"]
PATCHES = ["objective.patch_weight=2"]
SIGMOID = ["objective.caption=sigmoid", "objective.logit_bias=-2.71"]
# The settings of each method, in addition to those of the demo's preset.
METHODS = {
    "lit": ["objective.name=lit"],
    "simzss": [],
    "mean": ["vision.embedding=class+mean"],
    "patches": PATCHES,
    "mean+patches": ["vision.embedding=class+mean", *PATCHES],
    "dinotxt": ["objective.name=lit", *HEAD, "vision.head.drop_path=0.3"],
    "head": HEAD,
    "sigmoid": SIGMOID,
    "mean+sigmoid": ["vision.embedding=class+mean", *SIGMOID],
    "head+sigmoid": [*HEAD, *SIGMOID],
    "head+patches": [*HEAD, *PATCHES],
    "head+gram": [*HEAD, "objective.gram_weight=1"],
    "talk2dino": ["objective.name=talk2dino"],
    # Parts of `head`, to see which of them counts.
    "head1": [*HEAD, "vision.head.blocks=1"],
    "head-class": [*HEAD, "vision.embedding=class"],
    # Another weight of the patch loss, and it alone.
    "patches-4": ["objective.patch_weight=4"],
    "only-patches": ["objective.concept_weight=0", *PATCHES],
}
DEFAULT = ["lit", "simzss", "mean", "patches", "mean+patches", "dinotxt", "head", "head+sigmoid"]
SCORES = ["miou", "border", "image_to_text", "text_to_image"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    trainings.options(parser)
    parser.add_argument("--only", default=",".join(DEFAULT), help=f"of {', '.join(METHODS)}; `lit` to `head+sigmoid` if not given")
    arguments = parser.parse_args()
    methods = [name.strip() for name in arguments.only.split(",")]
    if unknown := [name for name in methods if name not in METHODS]:
        parser.error(f"unknown methods: {', '.join(unknown)}")

    place = trainings.Place(arguments.out, arguments.bin, arguments.jobs)
    shards = place.shards("shards", place.scenes("scenes"))
    place.make_tower(shards)
    features = place.features("features", shards)
    pairs = place.scenes("pairs", "--captions-per-image", 5, count=trainings.HELD_OUT, seed=2)
    captions = place.captions(pairs)
    if "talk2dino" in methods:
        means = place.out / "head-means"
        if not means.exists():
            place.run("trainer", "cache", "--shards", shards, "--vision", place.tower, "--size", 112, "--head-means", "--out", means)

    def score(name, seed):
        folder = place.out / f"seed-{seed}"
        folder.mkdir(exist_ok=True)
        found, run = folder / f"{name}.json", folder / name
        if not found.exists():
            settings, of_run = METHODS[name], features
            if name == "talk2dino":
                clip = folder / "clip"
                place.train(clip, shards, features, seed, ["objective.name=lit"])
                settings, of_run = [*settings, f"text.weights={clip}"], place.out / "head-means"
            trained = place.train(run, shards, of_run, seed, settings)
            maps = folder / f"{name}-maps"
            scored = place.evaluate(run, "--save-predictions", maps)
            scores = {"miou": scored["miou"], "border": gap.border_accuracy(maps, place.held_out / "masks", 4),
                      "images_per_second": trained["images_per_second"]}
            # The embeddings of Talk2DINO say nothing about whole images.
            if name != "talk2dino":
                retrieved = place.run("trainer", "eval", "retrieval", "--data", captions, "--images", pairs, "--checkpoint", run,
                                      "--threads", place.threads(), "--json")["scores"]
                scores |= {way: retrieved[way]["r10"] for way in ("image_to_text", "text_to_image")}
            found.write_text(json.dumps(scores))
        result = json.loads(found.read_text())
        print(f"seed {seed}, {name}: mIoU {100 * result['miou']:.1f} %", file=sys.stderr, flush=True)
        return name, result

    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    rows = {name: [] for name in methods}
    for name, result in place.each(score, [(name, seed) for seed in seeds for name in methods]):
        rows[name].append(result)
    print("| method | mIoU % | border accuracy % | image to text, R@10 % | text to image, R@10 % | training images/s |")
    print("|---|---|---|---|---|---|")
    for name, results in rows.items():
        speed = statistics.mean(result["images_per_second"] for result in results)
        shown = [figure([result[score] for result in results]) if score in results[0] else "" for score in SCORES]
        print(f"| {name} | {' | '.join(shown)} | {speed:.0f} |")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
