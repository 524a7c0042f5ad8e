#!/usr/bin/env python3
"""Compares the time of a training step with PyTorch in eager mode: the forward pass of the frozen ViT, and the text tower with
losses and AdamW.

    tools/bench/step.py [--model s] [--batch 16] [--tokens 77] [--turns 3] [--threads 2] [--trainer target/release/trainer]
    tools/bench/step.py --device cuda --model b --batch 1024 --tokens 13

The PyTorch side is timm's ViT and open_clip's text transformer (random weights; float32 on a CPU, autocast to bfloat16 on a
GPU) with SimZSS's losses and PyTorch's fused AdamW, on the same shapes: the same numbers of captions, tokens, mentions and
patches. The two sides alternate for --turns turns; the figure of each is its lowest median time per step. Needs a Python
with torch 2.11, timm and open_clip. Prints a table and, as the last line, JSON.
"""

import argparse
import json
import math
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F


def peer(device, model, batch, tokens, mentions, concepts, steps):
    from open_clip.transformer import TextTransformer
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    torch.set_default_device(device)
    autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda")
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    width, text_width, heads = (384, 384, 6) if model == "s" else (768, 512, 8)
    vision = VisionTransformer(img_size=224, patch_size=14, embed_dim=width, depth=12, num_heads=width // 64,
                               init_values=1.0, num_classes=0).eval().requires_grad_(False)
    text = TextTransformer(context_length=77, vocab_size=49408, width=text_width, heads=heads, layers=12, output_dim=width)
    scale = torch.nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    parameters = [*text.parameters(), scale]
    optimizer = torch.optim.AdamW([
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.2},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ], lr=3e-5, betas=(0.9, 0.98), eps=1e-6, fused=True)
    pixels = torch.randint(256, (batch, 224, 224, 3), dtype=torch.uint8)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    seen, learned = [], []
    for step in range(steps + 2):
        ids = torch.randint(1000, 40000, (batch, tokens))
        ids[:, 0], ids[:, -1] = 49406, 49407
        first = torch.randint(1, tokens - 3, (batch * mentions,))
        rows = torch.arange(batch).repeat_interleave(mentions)
        labels = torch.randint(concepts, (batch * mentions,))
        wait()
        started = time.perf_counter()
        with torch.no_grad(), autocast:
            z = vision.forward_features((pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std)
            classes, patches = F.normalize(z[:, 0].float(), dim=-1), F.normalize(z[:, 1:].float(), dim=-1)
        wait()
        middle = time.perf_counter()
        with autocast:
            x = text.token_embedding(ids) + text.positional_embedding[:tokens]
            x = text.ln_final(text.transformer(x, attn_mask=text.attn_mask[:tokens, :tokens]))
        x = x.float()
        captions = F.normalize(x[:, -1] @ text.text_projection, dim=-1)
        logits = scale.exp() * classes @ captions.T
        diagonal = torch.arange(batch)
        loss = (F.cross_entropy(logits, diagonal) + F.cross_entropy(logits.T, diagonal)) / 2
        words = F.normalize((x[rows, first] + x[rows, first + 1]) / 2 @ text.text_projection, dim=-1)
        _, places = labels.unique(return_inverse=True)
        sums = torch.zeros(int(places.max()) + 1, width).index_add(0, places, words)
        vectors = F.normalize(sums, dim=-1)
        images = patches[rows]
        weights = torch.softmax(torch.einsum("mnd,md->mn", images, words) / 0.1, dim=-1)
        pooled = F.normalize(torch.einsum("mn,mnd->md", weights, images), dim=-1)
        loss = loss + 0.05 * F.cross_entropy(pooled @ vectors.T / 0.07, places)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            scale.clamp_(0, math.log(100))
        wait()
        if step >= 2:
            seen.append(1e3 * (middle - started))
            learned.append(1e3 * (time.perf_counter() - middle))
    return statistics.median(seen), statistics.median(learned)


def ours(options, objective):
    command = [options.trainer, "bench", "--objectives", objective, "--model", options.model, "--batch", options.batch,
               "--tokens", options.tokens, "--steps", options.steps, "--threads", options.threads, "--device", options.device, "--json",
               "--precision", "float32" if options.device == "cpu" else "auto"]
    output = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
    row = json.loads(output.splitlines()[-1])["measured"][0]
    return row["vision_milliseconds"], row["milliseconds"] - row["vision_milliseconds"], row["milliseconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model", choices=["s", "b"], default="s")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=77)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--trainer", default="target/release/trainer")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    turns = []
    for _ in range(options.turns):
        theirs = peer(options.device, options.model, options.batch, options.tokens, 3, 574, options.steps)
        simzss, lit = ours(options, "simzss"), ours(options, "lit")
        turns.append({"torch vision": theirs[0], "torch rest": theirs[1], "vision": simzss[0], "rest": simzss[1],
                      "simzss": simzss[2], "lit": lit[2], "lit rest": lit[1]})
    best = {name: min(turn[name] for turn in turns) for name in turns[0]}
    ratios = {
        "frozen vision tower over PyTorch": best["vision"] / best["torch vision"],
        "text tower and losses over PyTorch": best["rest"] / best["torch rest"],
        "simzss over lit": best["simzss"] / best["lit"],
        "simzss over lit, without the vision tower": best["rest"] / best["lit rest"],
    }
    for name, value in best.items():
        print(f"{name:<42}{value:10.1f} ms")
    for name, value in ratios.items():
        print(f"{name:<42}{value:10.3f}")
    print(json.dumps({"best": best, "ratios": ratios, "turns": turns, "torch": torch.__version__}))


main()
