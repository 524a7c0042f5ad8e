//! The state-dict keys of DINOv3, and of towers of the same structure such as EUPE's, in its own code, in timm and in Hugging Face
//! transformers. Internally they have those of DINOv3.

use tch::Tensor;

use super::Named;
use super::names::Row::{self, Apart, Same, WithoutKey};
use super::names::{to_ours, to_theirs};

/// The first rows are those of a gated MLP.
const TIMM: &[Row] = &[
    Same("blocks.{}.mlp.w1.*", "blocks.{}.mlp.fc1_g.*"),
    Same("blocks.{}.mlp.w2.*", "blocks.{}.mlp.fc1_x.*"),
    Same("blocks.{}.mlp.w3.*", "blocks.{}.mlp.fc2.*"),
    Same("blocks.{}.mlp.fc1.*", "blocks.{}.mlp.fc1.*"),
    Same("blocks.{}.mlp.fc2.*", "blocks.{}.mlp.fc2.*"),
    Same("cls_token", "cls_token"),
    Same("storage_tokens", "reg_token"),
    Same("patch_embed.proj.*", "patch_embed.proj.*"),
    Same("blocks.{}.norm1.*", "blocks.{}.norm1.*"),
    Same("blocks.{}.attn.qkv.weight", "blocks.{}.attn.qkv.weight"),
    WithoutKey("blocks.{}.attn.qkv.bias", ["blocks.{}.attn.q_bias", "blocks.{}.attn.v_bias"]),
    Same("blocks.{}.attn.proj.*", "blocks.{}.attn.proj.*"),
    Same("blocks.{}.ls1.gamma", "blocks.{}.gamma_1"),
    Same("blocks.{}.norm2.*", "blocks.{}.norm2.*"),
    Same("blocks.{}.ls2.gamma", "blocks.{}.gamma_2"),
    Same("norm.*", "norm.*"),
];

/// The first rows are those of a gated MLP.
const HUGGINGFACE: &[Row] = &[
    Same("blocks.{}.mlp.w1.*", "layer.{}.mlp.gate_proj.*"),
    Same("blocks.{}.mlp.w2.*", "layer.{}.mlp.up_proj.*"),
    Same("blocks.{}.mlp.w3.*", "layer.{}.mlp.down_proj.*"),
    Same("blocks.{}.mlp.fc1.*", "layer.{}.mlp.up_proj.*"),
    Same("blocks.{}.mlp.fc2.*", "layer.{}.mlp.down_proj.*"),
    Same("cls_token", "embeddings.cls_token"),
    Same("mask_token", "embeddings.mask_token"),
    Same("storage_tokens", "embeddings.register_tokens"),
    Same("patch_embed.proj.*", "embeddings.patch_embeddings.*"),
    Same("blocks.{}.norm1.*", "layer.{}.norm1.*"),
    Apart(
        "blocks.{}.attn.qkv.weight",
        [
            "layer.{}.attention.q_proj.weight",
            "layer.{}.attention.k_proj.weight",
            "layer.{}.attention.v_proj.weight",
        ],
    ),
    WithoutKey(
        "blocks.{}.attn.qkv.bias",
        ["layer.{}.attention.q_proj.bias", "layer.{}.attention.v_proj.bias"],
    ),
    Same("blocks.{}.attn.proj.*", "layer.{}.attention.o_proj.*"),
    Same("blocks.{}.ls1.gamma", "layer.{}.layer_scale1.lambda1"),
    Same("blocks.{}.norm2.*", "layer.{}.norm2.*"),
    Same("blocks.{}.ls2.gamma", "layer.{}.layer_scale2.lambda1"),
    Same("norm.*", "norm.*"),
];

/// Number of rows for a gated MLP at the start of a table.
const GATED: usize = 3;

/// The last part of the name of Hugging Face's patch embedding, by which its files are known.
pub(super) const HUGGINGFACE_PATCHES: &str = "embeddings.patch_embeddings.weight";

/// Tensors of the published files that a tower does not use: the mean of local crops' tokens is normalized by another LayerNorm in
/// DINOv3's training, and EUPE's teachers have projections.
pub(super) fn is_beside(name: &str) -> bool {
    name.starts_with("local_cls_norm.") || name.starts_with("projectors.")
}

/// Whether tensors with our keys, or those of DINOv3's code, are a tower with rotary positions.
pub(crate) fn is_ours(tensors: &Named) -> bool {
    let has = |name: &str| tensors.contains_key(name);
    !has("pos_embed") && (has("storage_tokens") || has("rope_embed.periods"))
}

/// Whether the keys are those of timm's `Eva`, as far as DINOv3's towers have them.
pub(super) fn is_timms(tensors: &Named) -> bool {
    !tensors.contains_key("pos_embed") && tensors.contains_key("blocks.0.gamma_1")
}

pub(super) fn from_timm(tensors: Named) -> Named {
    let gated = tensors.contains_key("blocks.0.mlp.fc1_g.weight");
    to_ours(if gated { TIMM } else { &TIMM[GATED..] }, tensors)
}

pub(super) fn from_huggingface(tensors: Named) -> Named {
    // The blocks are in a module `model`, which the library leaves out when it saves a tower by itself.
    let tensors: Named = tensors
        .into_iter()
        .map(|(name, tensor)| match name.strip_prefix("model.") {
            Some(rest) if rest.starts_with("layer.") => (rest.to_owned(), tensor),
            _ => (name, tensor),
        })
        .collect();
    let gated = tensors.contains_key("layer.0.mlp.gate_proj.weight");
    let rows = if gated { HUGGINGFACE } else { &HUGGINGFACE[GATED..] };
    with_mask_token(to_ours(rows, tensors), |mask| mask.squeeze_dim(0))
}

/// The tensors with timm's keys. Takes out what timm does not have, and adds its name to `left`.
pub(super) fn to_timm(mut tensors: Named, left: &mut Vec<String>) -> Result<Named, String> {
    left.extend(tensors.remove("mask_token").map(|_| "mask_token".to_owned()));
    to_theirs(TIMM, without_buffers(tensors, left))
}

/// The tensors with Hugging Face's keys, as [`to_timm`].
pub(super) fn to_huggingface(tensors: Named, left: &mut Vec<String>) -> Result<Named, String> {
    let tensors = with_mask_token(without_buffers(tensors, left), |mask| mask.unsqueeze(0));
    to_theirs(HUGGINGFACE, tensors)
}

/// Takes out what only DINOv3's own code saves: the periods, and the mask that makes the bias of the keys zero.
fn without_buffers(mut tensors: Named, left: &mut Vec<String>) -> Named {
    let buffers: Vec<String> = tensors
        .keys()
        .filter(|name| name.ends_with(".bias_mask") || *name == "rope_embed.periods")
        .cloned()
        .collect();
    for name in buffers {
        tensors.remove(&name);
        left.push(name);
    }
    tensors
}

/// The mask token has one dimension more in Hugging Face's files, [1, 1, d].
fn with_mask_token(mut tensors: Named, change: impl Fn(&Tensor) -> Tensor) -> Named {
    if let Some(mask) = tensors.get_mut("mask_token") {
        *mask = change(mask);
    }
    tensors
}
