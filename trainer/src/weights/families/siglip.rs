//! The state-dict keys of the vision tower of SigLIP and SigLIP 2 (those of fixed resolution), in timm and in Hugging Face
//! transformers. Internally they have those of timm.

use tch::Tensor;

use super::names::Row::{self, Apart, Same};
use super::names::{to_ours, to_theirs};
use super::{Named, below};

/// The query with which an image's patches are pooled, which no other tower has.
pub(crate) const QUERY: &str = "attn_pool.latent";
/// The same in Hugging Face's files.
pub(super) const HUGGINGFACE_QUERY: &str = "head.probe";

/// Keys of Hugging Face's `SiglipVisionModel`. The attention of its pooling is one module of PyTorch, see [`from_huggingface`].
const HUGGINGFACE: &[Row] = &[
    Same("patch_embed.proj.*", "embeddings.patch_embedding.*"),
    Same("pos_embed", "embeddings.position_embedding.weight"),
    Same("blocks.{}.norm1.*", "encoder.layers.{}.layer_norm1.*"),
    Apart(
        "blocks.{}.attn.qkv.*",
        [
            "encoder.layers.{}.self_attn.q_proj.*",
            "encoder.layers.{}.self_attn.k_proj.*",
            "encoder.layers.{}.self_attn.v_proj.*",
        ],
    ),
    Same("blocks.{}.attn.proj.*", "encoder.layers.{}.self_attn.out_proj.*"),
    Same("blocks.{}.norm2.*", "encoder.layers.{}.layer_norm2.*"),
    Same("blocks.{}.mlp.fc1.*", "encoder.layers.{}.mlp.fc1.*"),
    Same("blocks.{}.mlp.fc2.*", "encoder.layers.{}.mlp.fc2.*"),
    Same("norm.*", "post_layernorm.*"),
    Same(QUERY, HUGGINGFACE_QUERY),
    Same("attn_pool.proj.*", "head.attention.out_proj.*"),
    Same("attn_pool.norm.*", "head.layernorm.*"),
    Same("attn_pool.mlp.fc1.*", "head.mlp.fc1.*"),
    Same("attn_pool.mlp.fc2.*", "head.mlp.fc2.*"),
];

/// The layers of queries, and of keys and values, with their key in Hugging Face's files, where they are one.
const POOLING: [(&str, &str, &str); 2] = [
    ("attn_pool.q.weight", "attn_pool.kv.weight", "head.attention.in_proj_weight"),
    ("attn_pool.q.bias", "attn_pool.kv.bias", "head.attention.in_proj_bias"),
];

/// Whether tensors with our keys are a tower of SigLIP.
pub(crate) fn is_ours(tensors: &Named) -> bool {
    tensors.contains_key(QUERY)
}

/// The tensors below a prefix. The others, of SigLIP's text tower, which is of another kind than ours, are put into `beside`.
pub(super) fn alone(mut tensors: Named, prefix: &str, beside: &mut Named) -> Named {
    if prefix.is_empty() {
        return tensors;
    }
    let tower = below(&mut tensors, prefix);
    beside.extend(tensors);
    tower
}

/// From the keys of a `SiglipVisionModel`, without a prefix.
pub(super) fn from_huggingface(tensors: Named) -> Named {
    let mut ours = to_ours(HUGGINGFACE, tensors);
    if let Some(position) = ours.get_mut("pos_embed") {
        *position = position.unsqueeze(0);
    }
    for (query, rest, theirs) in POOLING {
        let Some(whole) = ours.get(theirs) else { continue };
        let rows = whole.size().first().copied().unwrap_or(0);
        // Otherwise it stays, and is reported.
        if rows > 0 && rows % 3 == 0 {
            let (first, others) = (whole.narrow(0, 0, rows / 3), whole.narrow(0, rows / 3, rows / 3 * 2));
            ours.remove(theirs);
            ours.extend([(query.to_owned(), first), (rest.to_owned(), others)]);
        }
    }
    ours
}

/// To the keys of a `SiglipVisionModel`.
pub(super) fn to_huggingface(mut tower: Named) -> Result<Named, String> {
    let mut pooling = Named::new();
    for (query, rest, theirs) in POOLING {
        if let (Some(first), Some(others)) = (tower.remove(query), tower.remove(rest)) {
            pooling.insert(theirs.to_owned(), Tensor::cat(&[first, others], 0));
        }
    }
    if let Some(position) = tower.get_mut("pos_embed") {
        *position = position.squeeze_dim(0);
    }
    pooling.extend(to_theirs(HUGGINGFACE, tower)?);
    Ok(pooling)
}
