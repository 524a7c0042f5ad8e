//! The state-dict keys of the text tower of dino.txt (Jose et al., 2024), in DINOv3's own code. Internally it has those of open_clip.

use tch::Tensor;

use super::names::Row::{self, Same, Turned};
use super::names::to_ours;
use super::{Named, below};

const ROWS: &[Row] = &[
    Same("logit_scale", "logit_scale"),
    Same("token_embedding.weight", "text_model.backbone.token_embedding.weight"),
    Same("positional_embedding", "text_model.backbone.positional_embedding"),
    Same("transformer.resblocks.{}.ln_1.*", "text_model.backbone.blocks.{}.attention_norm.*"),
    Same(
        "transformer.resblocks.{}.attn.in_proj_weight",
        "text_model.backbone.blocks.{}.attention.qkv.weight",
    ),
    Same("transformer.resblocks.{}.attn.out_proj.*", "text_model.backbone.blocks.{}.attention.proj.*"),
    Same("transformer.resblocks.{}.ln_2.*", "text_model.backbone.blocks.{}.ffn_norm.*"),
    Same("transformer.resblocks.{}.mlp.c_fc.*", "text_model.backbone.blocks.{}.feed_forward.fc1.*"),
    Same("transformer.resblocks.{}.mlp.c_proj.*", "text_model.backbone.blocks.{}.feed_forward.fc2.*"),
    Same("ln_final.*", "text_model.backbone.ln_final.*"),
    Turned("text_projection", "text_model.head.linear_projection.weight"),
];

/// Whether the keys are those of dino.txt.
pub(super) fn is_theirs(tensors: &Named) -> bool {
    tensors.contains_key("text_model.backbone.token_embedding.weight")
}

/// The text tower with our keys. Queries, keys and values have no biases there, so they get zeros. What belongs to the images is taken
/// out into `beside`: the blocks behind the vision tower, which see the registers too.
pub(super) fn from_theirs(mut tensors: Named, beside: &mut Named) -> Named {
    let images = below(&mut tensors, "visual_model.");
    beside.extend(images.into_iter().map(|(name, tensor)| (format!("visual_model.{name}"), tensor)));
    let mut ours = to_ours(ROWS, tensors);
    // [1] there.
    if let Some(scale) = ours.get_mut("logit_scale").filter(|scale| scale.size() == [1]) {
        *scale = scale.squeeze_dim(0);
    }
    let biases: Vec<(String, Tensor)> = ours
        .iter()
        .filter_map(|(name, weight)| {
            let block = name.strip_suffix("in_proj_weight")?;
            Some((format!("{block}in_proj_bias"), weight.select(1, 0).zeros_like()))
        })
        .collect();
    ours.extend(biases);
    ours
}
