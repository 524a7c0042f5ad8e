//! The names that published checkpoints give their tensors, and DINOv2's and open_clip's for the same tensors, which
//! are the ones used here.

use std::collections::BTreeMap;

use clap::ValueEnum;
use tch::{Kind, Tensor};

/// Tensors by name.
pub(crate) type Named = BTreeMap<String, Tensor>;

/// Who named the tensors of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// facebookresearch's DINOv2: a vision tower. Here a DVT denoiser may lie beside it, under `denoiser.`.
    Dinov2,
    /// timm's `VisionTransformer`.
    Timm,
    /// transformers: `Dinov2Model`, `Dinov2WithRegistersModel` or `CLIPModel`.
    Huggingface,
    /// open_clip and OpenAI: a CLIP, or its text tower alone.
    #[value(name = "open_clip")]
    OpenClip,
    /// The SimZSS release: timm's vision tower, a denoiser or none, and a text tower. A file of DVT is its vision part.
    Simzss,
}

/// A checkpoint taken apart, its tensors in the kinds they are stored in.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// DINOv2's vision transformer in DINOv2's names, its denoiser's under `denoiser.`.
    pub(super) vision: Named,
    /// CLIP's vision transformer in open_clip's names, without their `visual.`.
    pub(super) clip: Named,
    /// The text tower in open_clip's names, `logit_scale` with it.
    pub(super) text: Named,
    /// What training left beside the weights.
    pub(super) beside: Named,
}

/// Names of the same tensor in both; `{}` stands for the number of a block, `*` for `weight` or `bias`.
enum Row {
    Same(&'static str, &'static str),
    /// Query, key and value one above the other, and apart.
    Apart(&'static str, [&'static str; 3]),
    /// Rows and columns exchanged.
    Turned(&'static str, &'static str),
}
use Row::{Apart, Same, Turned};

/// DINOv2's names and Hugging Face's.
const HUGGINGFACE: &[Row] = &[
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

/// open_clip's names and Hugging Face's `CLIPModel`'s (with its own spelling).
const HUGGINGFACE_CLIP: &[Row] = &[
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

/// DINOv2's names and timm's, but for the class token's position: see [`to_timm`].
const TIMM: &[Row] = &[
    Same("register_tokens", "reg_token"),
    Same("blocks.{}.mlp.w12.*", "blocks.{}.mlp.fc1.*"),
    Same("blocks.{}.mlp.w3.*", "blocks.{}.mlp.fc2.*"),
];

/// Buffers that older versions saved, and what the training of SimZSS kept.
const BESIDE: [&str; 7] = [
    "attn_mask",
    "position_ids",
    "classification_weights_ema",
    "beta_ema",
    "logit_scale_local",
    "logit_bias_local",
    "large_pos_embed",
];

/// Takes a file's tensors apart; None when no family has such names.
pub(super) fn parts(mut tensors: Named) -> Option<(Family, Parts)> {
    let mut parts = Parts::default();
    let beside: Vec<String> = tensors
        .keys()
        .filter(|name| BESIDE.contains(&name.rsplit('.').next().unwrap_or_default()))
        .cloned()
        .collect();
    parts.beside = beside.into_iter().filter_map(|name| tensors.remove_entry(&name)).collect();
    let has = |name: &str| tensors.contains_key(name);
    // Some models hold their towers under a name of their own (`dinov2.`, `dinov2_with_registers.`).
    let inside = |end: &str| tensors.keys().find_map(|name| name.strip_suffix(end).map(str::to_owned));
    let family = if let Some(prefix) = inside("embeddings.patch_embeddings.projection.weight") {
        parts.vision = to_ours(HUGGINGFACE, stripped(tensors, &prefix));
        Family::Huggingface
    } else if has("text_model.embeddings.token_embedding.weight") {
        let ours = to_ours(HUGGINGFACE_CLIP, tensors);
        open_clip(ours, &mut parts);
        Family::Huggingface
    } else if let Some(prefix) = inside("vit.model.patch_embed.proj.weight") {
        let mut visual = below(&mut tensors, &prefix);
        parts.vision = from_timm(below(&mut visual, "vit.model."));
        parts.vision.extend(denoiser(visual));
        parts.text = below(&mut tensors, "text.");
        parts.text.extend(tensors);
        Family::Simzss
    } else if has("denoiser.norm1.weight") && !has("patch_embed.proj.weight") {
        parts.vision = denoiser(tensors);
        Family::Simzss
    } else if has("patch_embed.proj.weight") {
        let timm = has("reg_token")
            || tensors.get("pos_embed").is_some_and(without_class)
            || has("blocks.0.mlp.fc1.weight") && is_gated(&tensors);
        parts.vision = if timm { from_timm(tensors) } else { unchunked(tensors) };
        if timm { Family::Timm } else { Family::Dinov2 }
    } else if has("token_embedding.weight") || has("text.token_embedding.weight") {
        // A model with a text tower of its own (CustomTextCLIP) puts `text.` before its names.
        let text = below(&mut tensors, "text.");
        tensors.extend(text);
        open_clip(tensors, &mut parts);
        Family::OpenClip
    } else {
        return None;
    };
    Some((family, parts))
}

/// The same tensors in the names of a family: the other way of [`parts`]. Says which of them have no place there.
pub(super) fn named(parts: &Parts, family: Family) -> Result<(Named, Vec<String>), String> {
    let (mut tower, denoiser): (Named, Named) =
        copy(&parts.vision).into_iter().partition(|(name, _)| !name.starts_with(DENOISER));
    let mut left: Vec<String> = parts.beside.keys().cloned().collect();
    let missing = |what: &str| Err(format!("there is no {what} in it to write"));
    let out = match family {
        Family::Dinov2 | Family::Timm | Family::Huggingface if !tower.is_empty() => {
            left.extend(parts.clip.keys().chain(parts.text.keys()).cloned());
            match family {
                Family::Dinov2 => tower.extend(denoiser),
                _ => left.extend(denoiser.into_keys()),
            }
            if family == Family::Timm && tower.remove("mask_token").is_some() {
                left.push("mask_token".to_owned());
            }
            match family {
                Family::Dinov2 => tower,
                Family::Timm => to_timm(tower),
                _ => to_theirs(HUGGINGFACE, tower)?,
            }
        }
        Family::Huggingface if !parts.clip.is_empty() => to_theirs(HUGGINGFACE_CLIP, whole_clip(parts))?,
        Family::OpenClip if !parts.text.is_empty() => {
            left.extend(parts.vision.keys().cloned());
            whole_clip(parts)
        }
        Family::Simzss if !tower.is_empty() || !denoiser.is_empty() => {
            left.extend(parts.clip.keys().cloned());
            left.extend(tower.remove("mask_token").map(|_| "mask_token".to_owned()));
            let mut out = above("visual.vit.model.", if tower.is_empty() { tower } else { to_timm(tower) });
            for (name, tensor) in denoiser {
                let name = match name.as_str() {
                    "denoiser.pos_embed" => "visual.pos_embed".to_owned(),
                    _ => format!("visual.{name}"),
                };
                out.insert(name, tensor);
            }
            for (name, tensor) in copy(&parts.text) {
                out.insert(if name == "logit_scale" { name } else { format!("text.{name}") }, tensor);
            }
            out
        }
        Family::OpenClip => return missing("text tower"),
        _ => return missing("vision tower of DINOv2"),
    };
    Ok((out, left))
}

const DENOISER: &str = "denoiser.";

/// A denoiser in DVT's names under the ones used here: its block's, and its position embedding's beside them.
fn denoiser(tensors: Named) -> Named {
    // Without a block the embedding is never used: the released code makes one all the same.
    if !tensors.contains_key("denoiser.norm1.weight") {
        return tensors.into_iter().filter(|(name, _)| name != "pos_embed").collect();
    }
    tensors
        .into_iter()
        .map(|(name, tensor)| {
            (if name == "pos_embed" { "denoiser.pos_embed".to_owned() } else { name }, tensor)
        })
        .collect()
}

fn open_clip(mut tensors: Named, parts: &mut Parts) {
    parts.clip = below(&mut tensors, "visual.");
    parts.text = tensors;
}

/// The text tower in open_clip's names, and CLIP's vision tower with it.
pub(super) fn whole_clip(parts: &Parts) -> Named {
    let mut out = above("visual.", copy(&parts.clip));
    out.extend(copy(&parts.text));
    out
}

/// timm's tower under DINOv2's names. With registers timm's class token has no position: it gets one of zeros, as its
/// own was added to the token when it was converted to timm.
fn from_timm(mut tensors: Named) -> Named {
    let gated = is_gated(&tensors);
    if let Some(position) = tensors.get_mut("pos_embed").filter(|position| without_class(position)) {
        let class = position.narrow(1, 0, 1).zeros_like();
        *position = Tensor::cat(&[class, position.shallow_clone()], 1);
    }
    to_ours(if gated { TIMM } else { &TIMM[..1] }, tensors)
}

/// DINOv2's tower under timm's names, as timm itself converts it: with registers, the class token's position is added
/// to the class token.
pub(crate) fn to_timm(mut tensors: Named) -> Named {
    if let (true, Some(class), Some(position)) = (
        tensors.contains_key("register_tokens"),
        tensors.get("cls_token").map(Tensor::shallow_clone),
        tensors.get("pos_embed").map(Tensor::shallow_clone),
    ) {
        tensors.insert("cls_token".to_owned(), class + position.narrow(1, 0, 1));
        tensors.insert("pos_embed".to_owned(), position.narrow(1, 1, position.size()[1] - 1));
    }
    tensors
        .into_iter()
        .map(|(name, tensor)| {
            let renamed = TIMM.iter().find_map(|row| match row {
                Same(ours, theirs) => translate(&name, ours, theirs),
                _ => None,
            });
            (renamed.unwrap_or(name), tensor)
        })
        .collect()
}

/// Whether a position embedding [1, n, d] is a square of patches without a class token.
fn without_class(position: &Tensor) -> bool {
    let count = position.size().get(1).copied().unwrap_or(0);
    let side = (count as f64).sqrt().round() as i64;
    side > 1 && side * side == count
}

/// Whether timm's MLP is DINOv2-g's: its first layer makes twice what its second takes.
fn is_gated(tensors: &Named) -> bool {
    let size =
        |name: &str, side: usize| tensors.get(name).and_then(|tensor| tensor.size().get(side).copied());
    match (size("blocks.0.mlp.fc1.weight", 0), size("blocks.0.mlp.fc2.weight", 1)) {
        (Some(rows), Some(columns)) => rows == 2 * columns,
        _ => false,
    }
}

/// DINOv2 saves blocks in chunks during training (`blocks.1.6.norm1.weight` is block 6): without the chunk.
fn unchunked(tensors: Named) -> Named {
    let plain = |name: &str| {
        let (chunk, rest) = name.strip_prefix("blocks.")?.split_once('.')?;
        let (block, _) = rest.split_once('.')?;
        (is_number(chunk) && is_number(block)).then(|| format!("blocks.{rest}"))
    };
    tensors.into_iter().map(|(name, tensor)| (plain(&name).unwrap_or(name), tensor)).collect()
}

/// Names that no row knows stay as they are: the tower that finds them says so.
fn to_ours(rows: &[Row], mut tensors: Named) -> Named {
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
                    // One that is missing or of another size stays where it is, to be named.
                    if names.len() == 3 && names.iter().all(|name| alike(name) == first) {
                        let apart: Vec<Tensor> =
                            names.iter().filter_map(|name| tensors.remove(name)).collect();
                        out.insert(renamed, Tensor::cat(&apart, 0));
                    }
                }
            }
        }
    }
    out.extend(tensors);
    out
}

fn to_theirs(rows: &[Row], tensors: Named) -> Result<Named, String> {
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
        });
        if !placed {
            return Err(format!("tensor {name} has no place among those names"));
        }
    }
    Ok(out)
}

/// `name` as `to` writes it, if `from` describes it.
fn translate(name: &str, from: &str, to: &str) -> Option<String> {
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

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Takes what lies under `prefix` out, under the rest of its name.
fn below(tensors: &mut Named, prefix: &str) -> Named {
    let names: Vec<String> = tensors.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
    names
        .into_iter()
        .filter_map(|name| Some((name.strip_prefix(prefix)?.to_owned(), tensors.remove(&name)?)))
        .collect()
}

/// Takes `prefix` off where it is.
fn stripped(mut tensors: Named, prefix: &str) -> Named {
    let inside = below(&mut tensors, prefix);
    tensors.extend(inside);
    tensors
}

fn above(prefix: &str, tensors: Named) -> Named {
    tensors.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect()
}

fn copy(tensors: &Named) -> Named {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
}

/// Half precision as float32, which is what towers are kept in.
pub(super) fn full(tensor: Tensor) -> Tensor {
    if matches!(tensor.kind(), Kind::Half | Kind::BFloat16) { tensor.to_kind(Kind::Float) } else { tensor }
}
