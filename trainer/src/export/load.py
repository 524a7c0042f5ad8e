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
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(1, 2)], 1)
        return self.pos_drop(x + self.resized(height, width))

    def resized(self, height, width):
        rows, columns = self.patch_embed.grid_size
        if (height, width) == (rows, columns):
            return self.pos_embed
        target = {"size": (height, width)}
        if config["position"] == "dinov2":
            target = {"scale_factor": ((height + 0.1) / rows, (width + 0.1) / columns)}
        grid = self.pos_embed[:, 1:].unflatten(1, (rows, columns)).permute(0, 3, 1, 2).float()
        grid = torch.nn.functional.interpolate(grid, mode="bicubic", **target)
        return torch.cat([self.pos_embed[:, :1], grid.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)], 1)


if config.get("rope_periods"):  # DINOv3
    vision = Eva(**config["vision"], norm_layer=partial(torch.nn.LayerNorm, eps=1e-5)).eval()
    vision.rope.periods.copy_(torch.tensor(config["rope_periods"]))
else:
    vision = Vision(**config["vision"]).eval()
vision.load_state_dict(load_file(folder / "vision.safetensors"))
text = TextTransformer(**config["text"]).eval()
text.load_state_dict(load_file(folder / "text.safetensors"))
tokenizer = open_clip.SimpleTokenizer(context_length=config["text"]["context_length"])

# Caption embeddings, [1, d]: text(tokenizer(["a cat"]))
# Patch features, [B, N, d]: vision.forward_features(pixels)[:, vision.num_prefix_tokens :]
# Pixels are divided by 255 and normalized with config["mean"] and config["std"]. The similarity of both is their cosine.
