//! Tables of corresponding state-dict keys in two families.

use tch::Tensor;

use super::Named;

/// Keys for the same tensor in both; `{}` stands for the number of a block, `*` for `weight` or `bias`.
pub(super) enum Row {
    Same(&'static str, &'static str),
    /// Query, key and value as one tensor, and as three.
    Apart(&'static str, [&'static str; 3]),
    /// The bias of query, key and value as one tensor, and those of query and value: that of the key is zero.
    WithoutKey(&'static str, [&'static str; 2]),
    /// Transposed.
    Turned(&'static str, &'static str),
}
use Row::{Apart, Same, Turned, WithoutKey};

/// Keys of DINOv2 and Hugging Face.
pub(super) const HUGGINGFACE: &[Row] = &[
    Same("cls_token", "embeddings.cls_token"),
    Same("mask_token", "embeddings.mask_token"),
    Same("register_tokens", "embeddings.register_tokens"),
    Same("pos_embed", "embeddings.position_embeddings"),
    Same("patch_embed.proj.*", "embeddings.patch_embeddings.projection.*"),
    Same("blocks.{}.norm1.*", "encoder.layer.{}.norm1.*"),
    Apart(
        "blocks.{}.attn.qkv.*",
        [
            "encoder.layer.{}.attention.attention.query.*",
            "encoder.layer.{}.attention.attention.key.*",
            "encoder.layer.{}.attention.attention.value.*",
        ],
    ),
    Same("blocks.{}.attn.proj.*", "encoder.layer.{}.attention.output.dense.*"),
    Same("blocks.{}.ls1.gamma", "encoder.layer.{}.layer_scale1.lambda1"),
    Same("blocks.{}.norm2.*", "encoder.layer.{}.norm2.*"),
    Same("blocks.{}.mlp.fc1.*", "encoder.layer.{}.mlp.fc1.*"),
    Same("blocks.{}.mlp.fc2.*", "encoder.layer.{}.mlp.fc2.*"),
    Same("blocks.{}.mlp.w12.*", "encoder.layer.{}.mlp.weights_in.*"),
    Same("blocks.{}.mlp.w3.*", "encoder.layer.{}.mlp.weights_out.*"),
    Same("blocks.{}.ls2.gamma", "encoder.layer.{}.layer_scale2.lambda1"),
    Same("norm.*", "layernorm.*"),
];

/// Keys of open_clip and of Hugging Face's `CLIPModel` (`pre_layrnorm` is spelled like that there).
pub(super) const HUGGINGFACE_CLIP: &[Row] = &[
    Same("logit_scale", "logit_scale"),
    Same("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
    Same("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    Apart(
        "transformer.resblocks.{}.attn.in_proj_weight",
        [
            "text_model.encoder.layers.{}.self_attn.q_proj.weight",
            "text_model.encoder.layers.{}.self_attn.k_proj.weight",
            "text_model.encoder.layers.{}.self_attn.v_proj.weight",
        ],
    ),
    Apart(
        "transformer.resblocks.{}.attn.in_proj_bias",
        [
            "text_model.encoder.layers.{}.self_attn.q_proj.bias",
            "text_model.encoder.layers.{}.self_attn.k_proj.bias",
            "text_model.encoder.layers.{}.self_attn.v_proj.bias",
        ],
    ),
    Same("transformer.resblocks.{}.attn.out_proj.*", "text_model.encoder.layers.{}.self_attn.out_proj.*"),
    Same("transformer.resblocks.{}.ln_1.*", "text_model.encoder.layers.{}.layer_norm1.*"),
    Same("transformer.resblocks.{}.mlp.c_fc.*", "text_model.encoder.layers.{}.mlp.fc1.*"),
    Same("transformer.resblocks.{}.mlp.c_proj.*", "text_model.encoder.layers.{}.mlp.fc2.*"),
    Same("transformer.resblocks.{}.ln_2.*", "text_model.encoder.layers.{}.layer_norm2.*"),
    Same("ln_final.*", "text_model.final_layer_norm.*"),
    Turned("text_projection", "text_projection.weight"),
    Same("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    Same("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"),
    Same("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    Same("visual.ln_pre.*", "vision_model.pre_layrnorm.*"),
    Apart(
        "visual.transformer.resblocks.{}.attn.in_proj_weight",
        [
            "vision_model.encoder.layers.{}.self_attn.q_proj.weight",
            "vision_model.encoder.layers.{}.self_attn.k_proj.weight",
            "vision_model.encoder.layers.{}.self_attn.v_proj.weight",
        ],
    ),
    Apart(
        "visual.transformer.resblocks.{}.attn.in_proj_bias",
        [
            "vision_model.encoder.layers.{}.self_attn.q_proj.bias",
            "vision_model.encoder.layers.{}.self_attn.k_proj.bias",
            "vision_model.encoder.layers.{}.self_attn.v_proj.bias",
        ],
    ),
    Same(
        "visual.transformer.resblocks.{}.attn.out_proj.*",
        "vision_model.encoder.layers.{}.self_attn.out_proj.*",
    ),
    Same("visual.transformer.resblocks.{}.ln_1.*", "vision_model.encoder.layers.{}.layer_norm1.*"),
    Same("visual.transformer.resblocks.{}.mlp.c_fc.*", "vision_model.encoder.layers.{}.mlp.fc1.*"),
    Same("visual.transformer.resblocks.{}.mlp.c_proj.*", "vision_model.encoder.layers.{}.mlp.fc2.*"),
    Same("visual.transformer.resblocks.{}.ln_2.*", "vision_model.encoder.layers.{}.layer_norm2.*"),
    Same("visual.ln_post.*", "vision_model.post_layernorm.*"),
    Turned("visual.proj", "visual_projection.weight"),
];

/// Keys of DINOv2 and timm that differ. For the position embedding of the class token see [`super::dinov2::to_timm`].
pub(super) const TIMM: &[Row] = &[
    Same("register_tokens", "reg_token"),
    Same("blocks.{}.mlp.w12.*", "blocks.{}.mlp.fc1.*"),
    Same("blocks.{}.mlp.w3.*", "blocks.{}.mlp.fc2.*"),
];

/// Converts to our keys. Unknown keys stay as they are; the tower reports them.
pub(super) fn to_ours(rows: &[Row], mut tensors: Named) -> Named {
    let mut out = Named::new();
    let names: Vec<String> = tensors.keys().cloned().collect();
    for name in names {
        for row in rows {
            match row {
                Same(ours, theirs) | Turned(ours, theirs) => {
                    let Some(renamed) = translate(&name, theirs, ours) else { continue };
                    let Some(tensor) = tensors.remove(&name) else { continue };
                    let turned = matches!(row, Turned(..)) && tensor.dim() == 2;
                    out.insert(renamed, if turned { tensor.tr() } else { tensor });
                }
                Apart(ours, theirs) => {
                    let Some(renamed) = translate(&name, theirs[0], ours) else { continue };
                    let names: Vec<String> =
                        theirs.iter().filter_map(|theirs| translate(&renamed, ours, theirs)).collect();
                    let alike = |name: &String| tensors.get(name).map(|t| (t.size(), t.kind()));
                    let first = alike(&names[0]);
                    // If one is missing or has another shape, all stay as they are and are reported.
                    if names.len() == 3 && names.iter().all(|name| alike(name) == first) {
                        let apart: Vec<Tensor> =
                            names.iter().filter_map(|name| tensors.remove(name)).collect();
                        out.insert(renamed, Tensor::cat(&apart, 0));
                    }
                }
                WithoutKey(ours, [query, value]) => {
                    let Some(renamed) = translate(&name, query, ours) else { continue };
                    let Some(value) = translate(&renamed, ours, value) else { continue };
                    let size = |name: &String| tensors.get(name).map(Tensor::size);
                    if size(&name) != size(&value) {
                        continue;
                    }
                    if let (Some(query), Some(value)) = (tensors.remove(&name), tensors.remove(&value)) {
                        out.insert(renamed, Tensor::cat(&[&query, &query.zeros_like(), &value], 0));
                    }
                }
            }
        }
    }
    out.extend(tensors);
    out
}

/// Converts from our keys; an unknown key is an error.
pub(super) fn to_theirs(rows: &[Row], tensors: Named) -> Result<Named, String> {
    let mut out = Named::new();
    for (name, tensor) in tensors {
        let placed = rows.iter().any(|row| match row {
            Same(ours, theirs) | Turned(ours, theirs) => {
                let Some(renamed) = translate(&name, ours, theirs) else { return false };
                let turned = matches!(row, Turned(..)) && tensor.dim() == 2;
                out.insert(renamed, if turned { tensor.tr() } else { tensor.shallow_clone() });
                true
            }
            Apart(ours, theirs) => {
                let names: Vec<String> =
                    theirs.iter().filter_map(|theirs| translate(&name, ours, theirs)).collect();
                if names.len() < 3 || tensor.size().first().is_none_or(|rows| rows % 3 != 0) {
                    return false;
                }
                out.extend(names.into_iter().zip(tensor.chunk(3, 0)));
                true
            }
            WithoutKey(ours, [query, value]) => {
                let names = [query, value].map(|theirs| translate(&name, ours, theirs));
                let [Some(query), Some(value)] = names else { return false };
                if tensor.size().first().is_none_or(|rows| rows % 3 != 0) {
                    return false;
                }
                let parts = tensor.chunk(3, 0);
                out.insert(query, parts[0].shallow_clone());
                out.insert(value, parts[2].shallow_clone());
                true
            }
        });
        if !placed {
            return Err(format!("has tensor {name}, which this format does not have"));
        }
    }
    Ok(out)
}

/// `name` in the form `to` if it has the form `from`.
pub(super) fn translate(name: &str, from: &str, to: &str) -> Option<String> {
    let (mut number, mut ending) = ("", "");
    let (mut parts, mut pattern) = (name.split('.'), from.split('.'));
    loop {
        match (parts.next(), pattern.next()) {
            (None, None) => break,
            (Some(part), Some("{}")) if is_number(part) => number = part,
            (Some(part @ ("weight" | "bias")), Some("*")) => ending = part,
            (Some(part), Some(same)) if part == same => {}
            _ => return None,
        }
    }
    Some(to.replace("{}", number).replace('*', ending))
}

pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
