#!/usr/bin/env python3
"""Do the settings for what captions do not mention help? Trains SimZSS with and without them on rendered scenes with five captions an
image, from one frozen tower, and prints tables of the scores on held-out scenes.

    tools/bench/unmentioned.py methods --out DIR [--seeds 5] [--jobs 2]    SimZSS and each setting: mIoU of all classes and of the
                                                                           third that captions mention least; the ladder over SimZSS
    tools/bench/unmentioned.py rates --out DIR [--seeds 3] [--jobs 2]      mIoU against the naming rate, the probability that a
                                                                           caption mentions a class that the image shows; with
                                                                           --picture FILE.png also drawn (needs Pillow)
    tools/bench/unmentioned.py names --out DIR [--seeds 3] [--jobs 2]      classes with two names: mIoU with the first and the second
    tools/bench/unmentioned.py shortcut --out DIR [--jobs 2]               the concept loss on the own and on another image, with true
                                                                           captions and with those of other images (needs pyarrow)

Data, tower and training are those of ./demo but for the captions: each step draws one of an image's five. What DIR has already is not
made again. Standard Python but for what is said above. The last line of the output is JSON.
"""

import argparse
import json
import math
import statistics
import sys

import trainings
from trainings import figure

CAPTIONS = "data.captions={ json = { key = 'captions', choice = 'random' } }"
# The averaged copy follows a training of 150 steps, and is used after the first third.
COPY = ["objective.doubtful.decay=0.95", "objective.doubtful.start=50"]
SIBLINGS = ["objective.siblings=ignore"]
POSITIVE = ["objective.siblings=positive"]
SEPARATION = ["objective.separation_weight=0.5"]
IMAGES = ["objective.image_negatives_weight=0.5"]
PATCHES = ["objective.patch_weight=2"]
SOFT = ["objective.doubtful.soft=0.1"]
ADDED = ["objective.doubtful.added_weight=0.5"]
METHODS = {
    "simzss": [],
    "siblings ignored": SIBLINGS,
    "siblings positive": POSITIVE,
    "doubtful": COPY,
    "soft": [*COPY, *SOFT],
    "added": [*COPY, *ADDED],
    "separation": SEPARATION,
    "image negatives": IMAGES,
    "siblings ignored, image negatives": [*SIBLINGS, *IMAGES],
    "the same, class+mean": [*SIBLINGS, *IMAGES, "vision.embedding=class+mean"],
    "patches": PATCHES,
    "siblings ignored, patches": [*SIBLINGS, *PATCHES],
    "siblings ignored, patches, class+mean": [*SIBLINGS, *PATCHES, "vision.embedding=class+mean"],
    "siblings ignored, image negatives, patches, class+mean": [*SIBLINGS, *IMAGES, *PATCHES, "vision.embedding=class+mean"],
    "all": [*SIBLINGS, *COPY, *SOFT, *ADDED, *SEPARATION, *IMAGES],
}
# What `rates` and `names` compare with SimZSS.
OURS = {"simzss": [], "siblings ignored, image negatives": [*SIBLINGS, *IMAGES], "siblings ignored, patches": [*SIBLINGS, *PATCHES]}
RATES = [0.2, 0.4, 0.7, 1.0]


class Bench:
    def __init__(self, arguments):
        self.place = trainings.Place(arguments.out, arguments.bin, arguments.jobs)
        self.only, self.picture = arguments.only, arguments.picture
        self.seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        # The tower of ./demo sees no captions.
        self.place.make_tower(self.place.shards("shards", self.place.scenes("scenes")))

    def data(self, name, *options):
        """Scenes, shards with five captions a sample, and features."""
        scenes = self.place.scenes(f"{name}-scenes", "--captions-per-image", 5, *options)
        shards = self.place.joined_shards(f"{name}-shards", scenes)
        return scenes, shards, self.place.features(f"{name}-features", shards)

    def trained(self, name, data, method, settings, seed):
        _, shards, features = data
        run = self.place.out / f"{name}-{method.replace(',', '').replace(' ', '-')}-{seed}"
        summary = self.place.train(run, shards, features, seed, [CAPTIONS, *settings])
        return run, summary

    def score(self, name, data, method, settings, seed, *options):
        """The result of the evaluation."""
        run, summary = self.trained(name, data, method, settings, seed)
        suffix = f".{options[1].stem}" if options else ""
        file = run.with_name(run.name + suffix + ".json")
        if not file.exists():
            file.write_text(json.dumps(self.place.evaluate(run, *options) | {"images_per_second": summary["images_per_second"]}))
        result = json.loads(file.read_text())
        print(f"{name}, seed {seed}, {method}: mIoU {100 * result['miou']:.1f} %", file=sys.stderr, flush=True)
        return result

    def scores(self, data_of, methods, *options):
        """The results of all seeds by (data, method)."""
        tasks = [(name, data, method, settings, seed, *options)
                 for name, data in data_of.items() for seed in self.seeds for method, settings in methods.items()]
        found = {}
        for (name, _, method, *_), result in zip(tasks, self.place.each(self.score, tasks)):
            found.setdefault((name, method), []).append(result)
        return found

    def methods(self):
        data = self.data("five")
        methods = {name: METHODS[name] for name in self.only or METHODS}
        rare = rarest_third(data[0])
        found = self.scores({"five": data}, methods)
        print("| method | mIoU % | of the rarest third of the classes | training images/s |\n|---|---|---|---|")
        results = {}
        for (_, method), scores in found.items():
            all_classes = [score["miou"] for score in scores]
            of_rare = [statistics.mean(entry["iou"] or 0 for entry in score["classes"] if entry["class"] in rare) for score in scores]
            speed = statistics.mean(score["images_per_second"] for score in scores)
            print(f"| {method} | {figure(all_classes)} | {figure(of_rare)} | {speed:.0f} |")
            results[method] = {"miou": all_classes, "rare": of_rare}
        run = self.place.out / f"five-simzss-{self.seeds[0]}"
        ladder = None if self.only else self.place.run("trainer", "eval", "probe", "--data", self.place.held_out, "--train", data[0], "--checkpoint", run,
                                "--out", self.place.out / "ladder", "--json")
        return results | {"rare classes": sorted(rare), "ladder": ladder}

    def rates(self):
        data = {f"rate-{rate}": self.data(f"rate-{rate}", "--naming-rate", rate) for rate in RATES}
        found = self.scores(data, OURS)
        print(f"| naming rate | {' | '.join(OURS)} |\n|---|{'---|' * len(OURS)}")
        for name in data:
            print(f"| {name[5:]} | {' | '.join(figure([score['miou'] for score in found[name, method]]) for method in OURS)} |")
        results = {f"{name} {method}": [score["miou"] for score in scores] for (name, method), scores in found.items()}
        if self.picture:
            draw(self.picture, {method: [[score["miou"] for score in found[name, method]] for name in data] for method in OURS})
        return results

    def names(self):
        data = self.data("names", "--two-names")
        second = data[0] / "second-names.txt"
        methods = OURS | {"soft": METHODS["soft"], "doubtful": COPY}
        first, other = self.scores({"names": data}, methods), self.scores({"names": data}, methods, "--class-file", second)
        print("| method | mIoU with the first names | with the second names |\n|---|---|---|")
        results = {}
        for (_, method), scores in first.items():
            pair = [[score["miou"] for score in of] for of in (scores, other["names", method])]
            print(f"| {method} | {figure(pair[0])} | {figure(pair[1])} |")
            results[method] = pair
        return results

    def shortcut(self):
        check = ["objective.shortcut_check=true", "log_every=25"]
        data = {"five": self.data("five"), "wrong": self.data("wrong", "--mismatched", 1)}
        tasks = [(name, of, f"{method} checked", [*settings, *check], self.seeds[0])
                 for name, of in data.items() for method, settings in {"simzss": [], "image negatives": IMAGES}.items()]
        lines, results = [], {}
        for (name, of, method, *_), (run, _) in zip(tasks, self.place.each(self.trained, tasks)):
            log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
            log = [line for line in log if "concept_on_other_images" in line]
            results[f"{name} {method}"] = [{key: line[key] for key in ("step", "concept", "concept_on_other_images")} for line in log]
            miou = self.place.evaluate(run)["miou"]
            shown = ", ".join(f"{line['concept']:.2f} / {line['concept_on_other_images']:.2f}" for line in log)
            captions = "true" if name == "five" else "of other images"
            lines.append(f"| {captions} | {method.removesuffix(' checked')} | {shown} | {100 * miou:.1f} |")
        steps = ", ".join(str(line["step"]) for line in log)
        print(f"| captions | method | concept loss on the own / another image after {steps} steps | mIoU % |\n|---|---|---|---|")
        print("\n".join(lines))
        entropy = self.entropy(data["wrong"][1])
        print(f"Entropy of the concepts of all mentions: {entropy:.2f}")
        return results | {"entropy": entropy}

    def entropy(self, shards):
        """Of the distribution of the concepts of all mentions, in nats: what a loss that sees neither image nor text can reach."""
        import pyarrow.parquet

        statistics_of = self.place.out / f"{shards.name}-statistics"
        if not statistics_of.exists():
            self.place.run("tools", "stats", shards, "--out", statistics_of)
        counts = pyarrow.parquet.read_table(statistics_of / "concepts.parquet").column("mentions").to_pylist()
        return -sum(count / sum(counts) * math.log(count / sum(counts)) for count in counts)


def rarest_third(scenes):
    """The classes that captions mention least."""
    counts = json.loads((scenes / "scenes.json").read_text())["classes"]
    ranked = sorted(counts, key=lambda entry: entry["captions"])
    return {entry["name"] for entry in ranked[: len(ranked) // 3]}


def draw(file, curves):
    """Curves of mean and standard deviation against RATES."""
    from PIL import Image, ImageDraw, ImageFont

    width, height, left, top, right, bottom = 1280, 640, 110, 64, 380, 90
    page = Image.new("RGB", (width, height), (250, 249, 246))
    pen, font, ink = ImageDraw.Draw(page), ImageFont.load_default(26), (52, 50, 48)
    values = [100 * value for curve in curves.values() for seeds in curve for value in seeds]
    low, high = 5 * math.floor(min(values) / 5), 5 * math.ceil(max(values) / 5)
    x = lambda rate: left + (width - left - right) * rate
    y = lambda value: height - bottom - (height - top - bottom) * (value - low) / (high - low)
    for value in range(low, high + 1, 5):
        pen.line([(left, y(value)), (width - right, y(value))], fill=(222, 219, 213), width=2)
        pen.text((left - 14, y(value)), f"{value}", fill=ink, font=font, anchor="rm")
    for rate in RATES:
        pen.text((x(rate), height - bottom + 12), f"{rate:g}", fill=ink, font=font, anchor="mt")
    pen.text((x(0.5), height - 14), "naming rate", fill=ink, font=font, anchor="mb")
    pen.text((12, 10), "mIoU %", fill=ink, font=font)
    for (name, curve), colour in zip(curves.items(), [(190, 90, 60), (40, 110, 170), (60, 140, 80)]):
        means = [100 * statistics.mean(seeds) for seeds in curve]
        points = [(x(rate), y(mean)) for rate, mean in zip(RATES, means)]
        pen.line(points, fill=colour, width=5)
        for (at, middle), seeds, mean in zip(points, curve, means):
            spread = 100 * statistics.stdev(seeds) if len(seeds) > 1 else 0
            pen.line([(at, y(mean - spread)), (at, y(mean + spread))], fill=colour, width=3)
            pen.ellipse([at - 7, middle - 7, at + 7, middle + 7], fill=colour)
        for line, words in enumerate(name.split(", ")):
            pen.text((points[-1][0] + 20, points[-1][1] - 14 + 30 * line), words, fill=colour, font=font)
    page.save(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", choices=["methods", "rates", "names", "shortcut"])
    parser.add_argument("--only", action="append", choices=METHODS, help="of `methods`: one of them; may be repeated")
    parser.add_argument("--picture", help="of `rates`: a file for the curves")
    trainings.options(parser)
    arguments = parser.parse_args()
    print(json.dumps(getattr(Bench(arguments), arguments.comparison)()))


if __name__ == "__main__":
    main()
