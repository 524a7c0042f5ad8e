"""Loads both towers with timm and open_clip: pip install open_clip_torch timm safetensors"""

import json
from pathlib import Path

import open_clip
from open_clip.transformer import TextTransformer
from safetensors.torch import load_file
from timm.models import VisionTransformer

folder = Path(__file__).parent
config = json.loads((folder / "config.json").read_text())
vision = VisionTransformer(**config["vision"]).eval()
vision.load_state_dict(load_file(folder / "vision.safetensors"))
text = TextTransformer(**config["text"]).eval()
text.load_state_dict(load_file(folder / "text.safetensors"))
tokenizer = open_clip.SimpleTokenizer(context_length=config["text"]["context_length"])

# captions: text(tokenizer(["a cat"])), [1, d]; patches: vision.forward_features(pixels)[:, vision.num_prefix_tokens :]
# [B, N, d], of pixels / 255 normalised with config["mean"] and config["std"]; similarity is the cosine of both.
