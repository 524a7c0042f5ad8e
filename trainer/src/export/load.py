"""Load both towers with timm and open_clip. Requirements: pip install open_clip_torch timm safetensors"""

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

# Caption embeddings, [1, d]: text(tokenizer(["a cat"]))
# Patch features, [B, N, d]: vision.forward_features(pixels)[:, vision.num_prefix_tokens :]
# Pixels are divided by 255 and normalized with config["mean"] and config["std"]. The similarity of both is their cosine.
