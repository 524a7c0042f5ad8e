#!/usr/bin/env python3
"""Does choosing samples help? Trains SimZSS on selections of rendered scenes with the faults of collected data, and prints a table.

    tools/bench/selections.py OUT [--seeds 5] [--scenes 20000] [--zipf 0.96] [--programs target/release]

The scenes: classes of objects by Zipf's law with the exponent of COCO's concepts (val2017, maximum likelihood), 10 % near-duplicates
of earlier scenes, 15 % captions of other scenes. Every selection but the first has half of them; all are trained with the same frozen
tower, batch size, settings and number of steps, and evaluated on 400 held-out scenes in which all classes are equally frequent and no
caption is wrong. Standard Python only. What OUT already holds is not made again.
"""

import argparse
import json
import statistics
import subprocess
from pathlib import Path

HELD_OUT = 400


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--scenes", type=int, default=20_000)
    parser.add_argument("--zipf", type=float, default=0.96)
    parser.add_argument("--programs", type=Path, default=Path("target/release"))
    arguments = parser.parse_args()
    bench = Bench(arguments)
    bench.make_data()
    bench.make_tower()
    selections = bench.select()
    rows = {name: [bench.train(name, file, seed) for seed in range(arguments.seeds)] for name, file in selections.items()}
    report(rows, selections, bench.frequent(), arguments.out)


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.out = arguments.out
        self.shards, self.held_out = self.out / "shards", self.out / "held-out"
        self.tower, self.features = self.out / "tower.safetensors", self.out / "features"
        self.out.mkdir(exist_ok=True)

    def run(self, program, *arguments):
        """The summary that the program prints as its last line, if it is one."""
        command = [self.arguments.programs / program, *map(str, arguments)]
        print("+", program, *arguments, flush=True)
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        last = output.strip().rsplit("\n", 1)[-1]
        return json.loads(last) if last.startswith("{") else None

    def make_data(self):
        count, faults = self.arguments.scenes, ["--duplicates", 0.1, "--mismatched", 0.15]
        if not (self.out / "scenes").exists():
            self.run("tools", "scenes", "--out", self.out / "scenes", "--count", count, "--seed", 1, "--url-prefix", "",
                     "--zipf", self.arguments.zipf, *faults)
        if not self.held_out.exists():
            self.run("tools", "scenes", "--out", self.held_out, "--count", HELD_OUT, "--seed", 2)
        self.run("ingest", "shard", self.out / "scenes/captions.parquet", "--images", self.out / "scenes", "--file-col", "URL",
                 "--out", self.shards, "--resize-mode", "no", "--skip-reencode", "--shard-size", 1000)
        self.run("ingest", "tag", self.shards)

    def make_tower(self):
        if not self.tower.exists():
            self.run("trainer", "pretrain", "--shards", self.shards, "--out", self.tower, "--seed", 0)
        if not self.features.exists():
            self.run("trainer", "cache", "--shards", self.shards, "--vision", self.tower, "--size", 112, "--out", self.features)

    def choose(self, name, *rules):
        """A selection, and how many samples it has."""
        file = self.out / f"{name}.parquet"
        file.unlink(missing_ok=True)
        summary = self.run("tools", "select", self.shards, "--out", file, "--json", *rules)
        return file, summary["samples"]

    def balanced(self, name, *rules):
        """Half of the samples, balanced with the smallest T (in steps of a tenth) that leaves at least so many."""
        half, most = self.arguments.scenes // 2, self.arguments.scenes / 400
        while self.choose(name, *rules, "--balance", round(most))[1] < half:
            if most > 4 * self.arguments.scenes:
                raise SystemExit(f"{name}: fewer than {half} samples are left to balance")
            most *= 1.1
        return self.choose(name, *rules, "--balance", round(most), "--count", half)[0]

    def select(self):
        half = self.arguments.scenes // 2
        duplicates = self.out / "duplicates.parquet"
        if not duplicates.exists():
            self.run("tools", "duplicates", self.shards, "--out", duplicates)
        unique = ["--without", duplicates]
        random = self.choose("random", "--count", half)[0]
        # The scores are of a model that was trained on the random half, with a seed that is not compared.
        self.train("random", random, 1000)
        self.run("trainer", "score", self.shards, "--checkpoint", self.out / "random-1000")
        best = lambda fraction: ["--best", fraction, "--by", "score.similarity"]
        return {
            "everything": None,
            "random half": random,
            "balanced half": self.balanced("balanced"),
            "without duplicates, balanced": self.balanced("unique", *unique),
            "best half by score": self.choose("scored", *best(0.5))[0],
            "best 80 %, random half": self.choose("filtered", *best(0.8), "--count", half)[0],
            "without duplicates, best 80 %, balanced": self.balanced("all", *unique, *best(0.8)),
        }

    def train(self, name, selection, seed):
        run = self.out / f"{selection.stem if selection else 'everything'}-{seed}"
        scores = run.with_suffix(".json")
        if not scores.exists():
            chosen = ["--set", f"data.selection={selection}"] if selection else []
            self.run("trainer", "train", "--config", "trainer/presets/demo.toml", "--json", "--set", f"out={run}",
                     "--set", "objective.name=simzss", "--set", f"seed={seed}", "--set", f"data.shards=['{self.shards}']",
                     "--set", f"data.features={self.features}", "--set", f"vision.weights={self.tower}", *chosen)
            result = self.run("trainer", "eval", "segmentation", "--data", self.held_out, "--checkpoint", run, "--json")
            scores.write_text(json.dumps(result))
        return json.loads(scores.read_text())

    def frequent(self):
        """The more frequent half of the classes, by the number of training captions with them."""
        counts = json.loads((self.out / "scenes/scenes.json").read_text())["classes"]
        ranked = sorted(counts, key=lambda entry: -entry["captions"])
        return {entry["name"] for entry in ranked[: len(ranked) // 2]}


def report(rows, selections, frequent, out):
    def figure(values):
        spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
        return f"{100 * statistics.mean(values):.1f}{spread}"

    results = {}
    print(f"\n| selection | mIoU % | of the rare half of the classes | of the frequent half |\n|---|---|---|---|")
    for name, scores in rows.items():
        rare = lambda score, wanted: statistics.mean(
            entry["iou"] or 0 for entry in score["classes"] if (entry["class"] in frequent) != wanted)
        whole = [score["miou"] for score in scores]
        halves = [[rare(score, wanted) for score in scores] for wanted in (True, False)]
        print(f"| {name} | {figure(whole)} | {figure(halves[0])} | {figure(halves[1])} |")
        results[name] = {"miou": whole, "rare": halves[0], "frequent": halves[1]}
    (out / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
