#!/usr/bin/env python3
"""Compares the time of an evaluation with PyTorch: segmentation of photographs with a ViT-B/14, windows of 448 px every 224 px.

    tools/bench/evaluate.py PHOTOS.. [--limit 24] [--turns 3] [--threads 2] [--classes 20] [--trainer target/release/trainer]

PHOTOS are JPEG files or folders of them; their masks are noise, which costs the same. The PyTorch side is what the published evaluations
do: for each photograph, OpenCV's resizing of the short side to 448 px, all its windows as one batch through timm's ViT, similarities
with the classes, each window's scores upsampled to its pixels and averaged, then upsampled to the photograph, the best class, and a
confusion matrix. Both have random weights, those of the same file, compute in float32 (the trainer, where the processor multiplies
matrices in it, in bfloat16 too) and read the photographs from files. They take
turns; the figure of each is that of its fastest turn, without start-up. Needs a Python with torch 2.11, timm, safetensors, pillow and
opencv-python-headless. Prints a table and, as the last line, JSON.
"""

import argparse
import io
import json
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

SIDE, STRIDE, PATCH, WIDTH = 448, 224, 14, 768
MEAN = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)
# The text encoder is as small as it can be: only class names pass through it.
RUN = """
steps = 1
objective.name = "lit"
precision = "float32"
data.batch_size = 8
text = {{ width = 64, heads = 1, depth = 1 }}
vision.weights = "{folder}/tower.safetensors"
data.shards = ["{folder}/shard.tar"]
out = "{folder}/run"
"""


def dataset(photos, limit, classes, folder):
    """Writes images/, masks/ and classes.txt of the first `limit` photographs."""
    files = sorted(f for p in photos for f in (p.glob("*.jpg") if p.is_dir() else [p]))[:limit]
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    random = np.random.default_rng(0)
    for file in files:
        (folder / "images" / file.name).symlink_to(file.resolve())
        width, height = Image.open(file).size
        noise = random.integers(0, classes, (height, width), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "masks" / f"{file.stem}.png", compress_level=1)
    (folder / "classes.txt").write_text("".join(f"class {i}\n" for i in range(classes)))
    return len(files)


def shard(photos, path):
    """A shard of these photographs, which a run needs."""
    with tarfile.open(path, "w") as tar:
        for number, photo in enumerate(photos):
            for end, data in (("jpg", photo.read_bytes()), ("txt", b"a photograph")):
                member = tarfile.TarInfo(f"{number:05}.{end}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def places(length):
    """Where windows along a side of the image start."""
    count = max(length - SIDE + STRIDE - 1, 0) // STRIDE + 1
    return [min(i * STRIDE, max(length - SIDE, 0)) for i in range(count)]


@torch.no_grad()
def theirs(tower, vectors, folder):
    """Seconds for all images of the dataset."""
    classes = len(vectors)
    started = time.perf_counter()
    confusion = np.zeros((classes, classes), np.int64)
    for file in sorted((folder / "images").iterdir()):
        image = cv2.imread(str(file))[:, :, ::-1]
        truth = cv2.imread(str(folder / "masks" / f"{file.stem}.png"), cv2.IMREAD_UNCHANGED)
        height, width = image.shape[:2]
        scale = SIDE / min(height, width)
        resized = cv2.resize(image, (int(width * scale + 0.5), int(height * scale + 0.5)), interpolation=cv2.INTER_LINEAR)
        pixels = (torch.from_numpy(resized).permute(2, 0, 1).float()[None] - MEAN) / STD
        corners = [(y, x) for y in places(pixels.shape[2]) for x in places(pixels.shape[3])]
        windows = torch.cat([pixels[:, :, y:y + SIDE, x:x + SIDE] for y, x in corners])
        patches = F.normalize(tower.forward_features(windows)[:, 1:], dim=-1)
        scores = (patches @ vectors.T).transpose(1, 2).unflatten(2, (SIDE // PATCH, SIDE // PATCH))
        scores = F.interpolate(scores, (SIDE, SIDE), mode="bilinear")
        total, count = torch.zeros(classes, *pixels.shape[2:]), torch.zeros(pixels.shape[2:])
        for (y, x), window in zip(corners, scores):
            total[:, y:y + SIDE, x:x + SIDE] += window
            count[y:y + SIDE, x:x + SIDE] += 1
        labels = F.interpolate((total / count)[None], (height, width), mode="bilinear").argmax(1)[0].numpy()
        confusion += np.bincount(truth.ravel().astype(int) * classes + labels.ravel(), minlength=classes**2).reshape(classes, classes)
    return time.perf_counter() - started


def ours(options, folder, count, *more):
    """Seconds for all images of the dataset."""
    command = [options.trainer, "eval", "segmentation", "--checkpoint", folder / "run", "--data", folder / "set", "--size", SIDE,
               "--stride", STRIDE, "--threads", options.threads, "--json", *more]
    output = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
    return count / json.loads(output.splitlines()[-1])["scores"]["images_per_second"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=24)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--trainer", default="target/release/trainer")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tower = VisionTransformer(img_size=SIDE, patch_size=PATCH, embed_dim=WIDTH, depth=12, num_heads=12, init_values=1.0,
                              num_classes=0).eval().requires_grad_(False)
    vectors = F.normalize(torch.randn(options.classes, WIDTH), dim=-1)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        count = dataset(options.photos, options.limit, options.classes, folder / "set")
        save_file(tower.state_dict(), folder / "tower.safetensors")
        shard(sorted((folder / "set/images").iterdir())[:8], folder / "shard.tar")
        (folder / "run.toml").write_text(RUN.format(folder=folder))
        subprocess.run([options.trainer, "train", "--config", folder / "run.toml"], check=True, stderr=subprocess.DEVNULL)
        formats = ["float32"]
        if "avx512_bf16" in Path("/proc/cpuinfo").read_text():
            formats.append("bfloat16-vision")
        turns = []
        for _ in range(options.turns):
            turn = {"PyTorch": theirs(tower, vectors, folder / "set")}
            for form in formats:
                turn[f"trainer, {form}"] = ours(options, folder, count, "--precision", form)
            turns.append(turn)
    best = {name: min(turn[name] for turn in turns) / count for name in turns[0]}
    for name, seconds in best.items():
        print(f"{name:<28}{seconds:8.3f} s per image  {seconds / best['PyTorch']:6.3f}")
    print(json.dumps({"images": count, "seconds per image": best, "turns": turns, "torch": torch.__version__}))


main()
