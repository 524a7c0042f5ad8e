"""Load both towers with timm and open_clip. Requirements: pip install open_clip_torch timm safetensors"""

import json
from functools import partial
from pathlib import Path

import open_clip
import torch
from open_clip.transformer import TextTransformer
from safetensors.torch import load_file
from timm.models import Eva, VisionTransformer

folder = Path(__file__).parent
config = json.loads((folder / "config.json").read_text())


class Vision(VisionTransformer):
    """timm's, except that the position embedding is resized to other image sizes as in training, config["position"]."""

    def _pos_embed(self, x):
        if config["position"] == "timm" or self.reg_token is not None:  # with registers, all methods are timm's
            return super()._pos_embed(x)
        height, width = x.shape[1:3]
        x = x.flatten(1, 2)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        return self.pos_drop(x + self.resized(height, width))

    def resized(self, height, width):
        rows, columns = self.patch_embed.grid_size
        if (height, width) == (rows, columns):
            return self.pos_embed
        target = {"size": (height, width)}
        if config["position"] == "dinov2":
            target = {"scale_factor": ((height + 0.1) / rows, (width + 0.1) / columns)}
        first, grid = self.pos_embed.split([self.num_prefix_tokens, rows * columns], 1)
        grid = grid.unflatten(1, (rows, columns)).permute(0, 3, 1, 2).float()
        grid = torch.nn.functional.interpolate(grid, mode="bicubic", **target)
        return torch.cat([first, grid.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)], 1)


if config.get("rope_periods"):  # DINOv3
    vision = Eva(**config["vision"], norm_layer=partial(torch.nn.LayerNorm, eps=1e-5)).eval()
    vision.rope.periods.copy_(torch.tensor(config["rope_periods"]))
else:
    vision = Vision(**config["vision"]).eval()
vision.load_state_dict(load_file(folder / "vision.safetensors"))


class HeadBlock(torch.nn.Module):
    """A block of the vision head of dino.txt: attention without biases of queries, keys and values, and a gated MLP."""

    def __init__(self, width, hidden):
        super().__init__()
        self.norm1, self.norm2 = torch.nn.LayerNorm(width, eps=1e-5), torch.nn.LayerNorm(width, eps=1e-5)
        self.qkv, self.proj = torch.nn.Linear(width, 3 * width, bias=False), torch.nn.Linear(width, width)
        self.w12, self.w3 = torch.nn.Linear(width, 2 * hidden), torch.nn.Linear(hidden, width)
        self.ls1, self.ls2 = torch.nn.Parameter(torch.ones(width)), torch.nn.Parameter(torch.ones(width))

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, -1, 64)).permute(2, 0, 3, 1, 4)
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.ls1 * self.proj(attended.transpose(1, 2).flatten(2))
        gate, value = self.w12(self.norm2(x)).chunk(2, -1)
        return x + self.ls2 * self.w3(torch.nn.functional.silu(gate) * value)


class Head(torch.nn.Module):
    """What was trained behind the vision tower: tokens without registers, [B, 1 + N, width], to the same."""

    def __init__(self, blocks, width):
        super().__init__()
        hidden = (8 * width // 3 + 63) // 64 * 64
        self.blocks = torch.nn.ModuleList(HeadBlock(width, hidden) for _ in range(blocks))
        self.ln_final = torch.nn.LayerNorm(width, eps=1e-5) if blocks else torch.nn.Identity()

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.ln_final(x)


head = Head(**config["head"]).eval()
if config["head"]["blocks"]:
    names = [(".attn.", "."), (".mlp.", "."), (".gamma", "")]
    state = {name.removeprefix("head."): tensor for name, tensor in load_file(folder / "head.safetensors").items()}
    for old, new in names:
        state = {name.replace(old, new): tensor for name, tensor in state.items()}
    head.load_state_dict(state)


def image_features(pixels):
    """Embeddings of images, [B, d], and their patches, [B, N, width]. With the embedding "class+mean", the second half of a text's
    embedding is compared with patches."""
    tokens = vision.forward_features(pixels)
    # Towers without a class token, such as SigLIP's, pool the patches.
    embedding = tokens[:, 0] if vision.num_prefix_tokens else vision.pool(tokens)
    tokens = head(torch.cat([embedding[:, None], tokens[:, vision.num_prefix_tokens :]], 1))
    patches = tokens[:, 1:]
    embedding = tokens[:, 0]
    if config["embedding"] == "class+mean":
        embedding = torch.cat([embedding, patches.mean(1)], -1)
    return embedding, patches


activation = open_clip.transformer.QuickGELU if config.get("quick_gelu") else torch.nn.GELU
text = TextTransformer(**config["text"], act_layer=activation).eval()
text.load_state_dict(load_file(folder / "text.safetensors"))
tokenizer = open_clip.SimpleTokenizer(context_length=config["text"]["context_length"])

# Caption embeddings, [1, d]: text(tokenizer(["a cat"]))
# Image embeddings, [B, d], and patches, [B, N, width]: image_features(pixels)
# Pixels are divided by 255 and normalized with config["mean"] and config["std"]. The similarity of both is their cosine.
