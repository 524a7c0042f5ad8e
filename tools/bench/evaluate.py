#!/usr/bin/env python3
"""Compares the time of `trainer eval segmentation` with a plain loop in PyTorch: the published protocol (448-px windows every 224 px,
scores upsampled to the mask) with a ViT of random weights.

    tools/bench/evaluate.py PHOTOS [--model b] [--images 8] [--classes 60] [--batch 16] [--turns 3] [--threads 2] [--trainer ..]

The PyTorch side is timm's ViT, one window after another as in MMSegmentation's `slide_inference`, in float32 and in bfloat16. The sides
alternate for --turns turns; the figure of each is its lowest time per window, without start-up. PHOTOS: a folder of JPEGs, of which the
first --images with 640 x 480 px are used: two windows each. Masks are random. Needs a Python with torch 2.11, timm and Pillow, and the
built programs. Prints a table and, as the last line, JSON.
"""

import argparse
import csv
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from PIL import Image

SIDE, STRIDE, PATCH = 448, 224, 14


def photos(folder, count):
    """The first photos of one size."""
    found = []
    for path in sorted(Path(folder).rglob("*.jpg")):
        with Image.open(path) as image:
            if image.size == (640, 480) and image.mode == "RGB":
                found.append(path)
        if len(found) == count:
            return found
    raise SystemExit(f"{folder} has only {len(found)} photos of 640 x 480 px")


def run(program, *arguments):
    done = subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def prepare(options, folder, model):
    """A dataset with random masks, and a run of one step with the weights of `model` as its frozen tower."""
    paths, data = photos(options.photos, options.images), folder / "set"
    for part in ("images", "masks"):
        (data / part).mkdir(parents=True)
    random = numpy.random.default_rng(0)
    for number, path in enumerate(paths):
        shutil.copy(path, data / f"images/{number}.jpg")
        Image.fromarray(random.integers(options.classes, size=(480, 640), dtype=numpy.uint8)).save(data / f"masks/{number}.png")
    (data / "classes.txt").write_text("".join(f"class {i}\n" for i in range(options.classes)))
    with open(folder / "captions.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file", "caption"), *((f"{number}.jpg", "a photo of a dog") for number in range(options.images))])
    programs = Path(options.trainer).parent
    run(programs / "ingest", "shard", folder / "captions.csv", "--images", data / "images", "--out", folder / "shards")
    run(programs / "ingest", "tag", folder / "shards")
    torch.save(model.state_dict(), folder / "tower.pth")
    settings = {"out": folder / "run", "data.shards": f"['{folder / 'shards'}']", "vision.weights": folder / "tower.pth",
                "steps": 1, "data.batch_size": options.images, "device": "cpu", "precision": "float32"}
    changes = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    presets = Path(__file__).parents[2] / "trainer/presets"
    run(options.trainer, "train", "--config", presets / f"vit-{options.model}.toml", *changes)
    return data


def ours(options, folder, data, precision):
    """Milliseconds per window."""
    output = run(options.trainer, "eval", "segmentation", "--data", data, "--checkpoint", folder / "run", "--templates", "simple",
                 "--device", "cpu", "--precision", precision, "--threads", options.threads, "--batch", options.batch, "--json")
    return 1e3 / json.loads(output.splitlines()[-1])["images_per_second"] / 2


def theirs(options, data, model, words, kind):
    """Milliseconds per window."""
    model = model.to(kind)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    counts = numpy.zeros(options.classes**2, dtype=numpy.int64)
    started = time.perf_counter()
    for number in range(options.images):
        pixels = torch.from_numpy(numpy.array(Image.open(data / f"images/{number}.jpg"))).permute(2, 0, 1)[None].float()
        truth = numpy.array(Image.open(data / f"masks/{number}.png"))
        height, width = pixels.shape[2:]
        scale = SIDE / min(height, width)
        pixels = F.interpolate(pixels, (round(height * scale), round(width * scale)), mode="bilinear")
        pixels = (pixels / 255 - mean) / std
        sums = torch.zeros(1, options.classes, *pixels.shape[2:])
        seen = torch.zeros(1, 1, *pixels.shape[2:])
        across = pixels.shape[3] - SIDE
        for x in sorted({*range(0, across, STRIDE), across}):
            tokens = model.forward_features(pixels[..., x : x + SIDE].to(kind))[:, 1:].float()
            scores = (F.normalize(tokens, dim=-1) @ words.T).transpose(1, 2).reshape(1, -1, SIDE // PATCH, SIDE // PATCH)
            sums[..., x : x + SIDE] += F.interpolate(scores, (SIDE, SIDE), mode="bilinear")
            seen[..., x : x + SIDE] += 1
        labels = F.interpolate(sums / seen, (height, width), mode="bilinear").argmax(1)[0].numpy()
        counts += numpy.bincount((truth * numpy.int64(options.classes) + labels).ravel(), minlength=counts.size)
    return 1e3 * (time.perf_counter() - started) / options.images / 2


def main():
    import timm

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos")
    parser.add_argument("--model", choices=["s", "b"], default="b")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--classes", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--trainer", default="target/release/trainer")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    name = {"s": "vit_small_patch14_dinov2", "b": "vit_base_patch14_dinov2"}[options.model]
    model = timm.create_model(name, num_classes=0, img_size=SIDE).eval()
    words = F.normalize(torch.randn(options.classes, model.embed_dim), dim=-1)
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    turns = []
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(options, Path(folder), model)
        for _ in range(options.turns):
            turn = {}
            for precision, kind in kinds.items():
                turn[f"trainer, {precision}"] = ours(options, Path(folder), data, precision)
                turn[f"PyTorch, {precision}"] = theirs(options, data, model, words, kind)
            turns.append(turn)
    side = 1536
    a, b = torch.randn(side, side), torch.randn(side, side)
    product = min(timed(lambda: a @ b) for _ in range(8))
    best = {name: min(turn[name] for turn in turns) for name in turns[0]}
    ratios = {kind: best[f"trainer, {kind}"] / best[f"PyTorch, {kind}"] for kind in kinds}
    operations = 2 * 12 * ((SIDE // PATCH) ** 2 + 1) * (12 * model.embed_dim**2 + 2 * ((SIDE // PATCH) ** 2 + 1) * model.embed_dim)
    share = operations / best["trainer, float32"] * 1e3 / (2 * side**3 / product)
    for name, value in best.items():
        print(f"{name:<24}{value:10.0f} ms per window")
    for name, value in ratios.items():
        print(f"{'trainer / PyTorch, ' + name:<36}{value:10.3f}")
    print(f"{'of the speed of a large product':<36}{share:10.3f}")
    print(json.dumps({"best": best, "ratios": ratios, "share": share, "turns": turns, "torch": torch.__version__}))


def timed(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


main()
