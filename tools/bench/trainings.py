"""What the comparisons of trainings on rendered scenes (objectives.py, unmentioned.py) have in common: the data and the frozen tower of
./demo, the programs, and several trainings at a time. Standard Python only. What a folder already holds is not made again."""

import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TRAINING, HELD_OUT = 4000, 400


class Place:
    """A folder with data, a tower and runs."""

    def __init__(self, out, programs, jobs):
        self.out, self.programs, self.jobs = out, programs, jobs
        self.held_out, self.tower = out / "held-out", out / "tower.safetensors"
        out.mkdir(parents=True, exist_ok=True)

    def run(self, program, *words):
        """The summary that a program prints as its last line, if it is one."""
        done = subprocess.run([self.programs / program, *map(str, words)], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"{program} {' '.join(map(str, words))}: failed")
        last = done.stdout.strip().rsplit("\n", 1)[-1]
        return json.loads(last) if last.startswith("{") else None

    def scenes(self, name, *options, count=TRAINING, seed=1):
        folder = self.out / name
        if not folder.exists():
            self.run("tools", "scenes", "--out", folder, "--count", count, "--seed", seed, "--url-prefix", "", *options)
        return folder

    def shards(self, name, scenes, tag=True):
        """Shards with a sample for each caption."""
        shards = self.out / name
        self.run("ingest", "shard", scenes / "captions.parquet", "--images", scenes, "--file-col", "URL", "--caption-col", "TEXT",
                 "--out", shards, "--resize-mode", "no", "--skip-reencode", "--shard-size", 1000)
        if tag:
            self.run("ingest", "tag", shards)
        return shards

    def captions(self, scenes):
        """The captions of each image. They are read from shards, so that nothing but Python is needed."""
        file = scenes / "captions.jsonl"
        if not file.exists():
            captions = {}
            for shard in sorted(self.shards(f"{scenes.name}-captions", scenes, tag=False).glob("*.tar")):
                with tarfile.open(shard) as tar:
                    for member in tar:
                        if member.name.endswith(".json"):
                            sample = json.load(tar.extractfile(member))
                            captions.setdefault(sample["url"], []).append(sample["caption"])
            lines = [json.dumps({"file": image, "captions": of_image}) for image, of_image in captions.items()]
            file.write_text("\n".join(lines) + "\n")
        return file

    def joined_shards(self, name, scenes):
        """Shards with a sample for each image, whose captions are the list `captions` in its .json."""
        shards = self.out / name
        if not shards.exists():
            lines = [json.loads(line) for line in self.captions(scenes).read_text().splitlines()]
            new = shards.with_suffix(".new")
            new.mkdir(exist_ok=True)
            for first in range(0, len(lines), 1000):
                with tarfile.open(new / f"{first // 1000:05}.tar", "w") as tar:
                    for number, line in enumerate(lines[first : first + 1000], first):
                        sample = {"jpg": (scenes / line["file"]).read_bytes(), "json": json.dumps({"captions": line["captions"]}).encode()}
                        for extension, content in sample.items():
                            member = tarfile.TarInfo(f"{number:06}.{extension}")
                            member.size = len(content)
                            tar.addfile(member, io.BytesIO(content))
            self.run("ingest", "tag", new, "--captions", "json:captions")
            new.rename(shards)
        return shards

    def make_tower(self, shards):
        """The tower, which is pretrained on the images alone, and the scenes to evaluate on."""
        self.scenes("held-out", count=HELD_OUT, seed=2)
        if not self.tower.exists():
            self.run("trainer", "pretrain", "--shards", shards, "--out", self.tower, "--seed", 0)

    def features(self, name, shards):
        features = self.out / name
        if not features.exists():
            self.run("trainer", "cache", "--shards", shards, "--vision", self.tower, "--size", 112, "--out", features)
        return features

    def train(self, run, shards, features, seed, settings):
        """Trains as ./demo does, with other settings."""
        done = run / "summary.json"
        if done.exists():
            return json.loads(done.read_text())
        # What an interrupted comparison left.
        shutil.rmtree(run, ignore_errors=True)
        all_settings = [f"out={run}", f"seed={seed}", f"data.shards=['{shards}']", f"data.features={features}",
                        f"vision.weights={self.tower}", f"threads={self.threads()}", *settings]
        summary = self.run("trainer", "train", "--config", "trainer/presets/demo.toml", "--json",
                           *(word for setting in all_settings for word in ("--set", setting)))
        done.write_text(json.dumps(summary))
        return summary

    def evaluate(self, run, *options):
        return self.run("trainer", "eval", "segmentation", "--data", self.held_out, "--checkpoint", run, "--threads", self.threads(),
                        "--json", *options)

    def threads(self):
        return max(1, (os.cpu_count() or 1) // self.jobs)

    def each(self, work, tasks):
        """The results of work(*task) in order, `jobs` at a time."""
        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(lambda task: work(*task), tasks))


def options(parser):
    """What all comparisons take."""
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, which share the cores")
    parser.add_argument("--bin", type=Path, default=Path("target/release"))


def figure(shares):
    """Mean and standard deviation of shares, in percent."""
    spread = f" ± {100 * statistics.stdev(shares):.1f}" if len(shares) > 1 else ""
    return f"{100 * statistics.mean(shares):.1f}{spread}"
