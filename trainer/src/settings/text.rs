//! The section `[text]`: the size of the text tower, and the weights it starts with.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::towers::{Activation, TextShape};

/// Size of the text tower, which is trained, and its initial weights. The default size is that of CLIP with a ViT-B.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextSettings {
    /// Embedding width of a token.
    pub width: i64,
    /// Number of transformer blocks.
    pub depth: i64,
    /// Number of attention heads; must divide `width`.
    pub heads: i64,
    /// Context length in tokens, including the start and end tokens; longer captions are truncated.
    pub context: i64,
    /// Weights to start with instead of random ones: a CLIP, PyTorch (.pt, .pth, .bin) or safetensors, with the state-dict keys of
    /// OpenAI, open_clip, Hugging Face, SimZSS or dino.txt, of which the text tower is used; or a run folder or checkpoint of this
    /// program, of which everything that it trained is used. `width`, `depth` and `heads` must be those of the weights; `context` may
    /// be smaller. The optimizer starts anew. Required for `objective.name = "talk2dino"`, which keeps them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// With `weights`: start with a new projection into the embedding space of the images, and a new logit scale, instead of those of
    /// the file. For weights that were trained with another vision tower, as a CLIP's always are.
    #[serde(skip_serializing_if = "is_false")]
    pub new_projection: bool,
    /// Use OpenAI's approximation of GELU, with which its CLIPs were trained. Weights of others rarely need it.
    #[serde(skip_serializing_if = "is_false")]
    pub quick_gelu: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Default for TextSettings {
    fn default() -> Self {
        TextShape { width: 512, depth: 12, heads: 8, context: 77 }.into()
    }
}

impl From<TextShape> for TextSettings {
    fn from(shape: TextShape) -> Self {
        let TextShape { width, depth, heads, context } = shape;
        Self { width, depth, heads, context, weights: None, new_projection: false, quick_gelu: false }
    }
}

impl TextSettings {
    /// Its size.
    pub fn shape(&self) -> TextShape {
        let &Self { width, depth, heads, context, .. } = self;
        TextShape { width, depth, heads, context }
    }

    /// The activation function of its MLPs.
    pub fn activation(&self) -> Activation {
        if self.quick_gelu { Activation::QuickGelu } else { Activation::Gelu }
    }
}
