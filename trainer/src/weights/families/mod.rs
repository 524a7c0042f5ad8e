//! Detects the family of a weights file by its state-dict keys, and converts the keys. Internally, vision towers have the keys of
//! DINOv2, text towers and CLIPs those of open_clip.

mod heads;
mod names;

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use names::{HUGGINGFACE, HUGGINGFACE_CLIP, Row::Same, TIMM, is_number, to_ours, to_theirs, translate};

/// Tensors by name.
pub(crate) type Named = BTreeMap<String, Tensor>;

/// The library or project whose state-dict keys a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// DINOv2: a vision tower. A DVT denoiser is stored with the prefix `denoiser.`.
    Dinov2,
    /// timm: `VisionTransformer`.
    Timm,
    /// Hugging Face transformers: `Dinov2Model`, `Dinov2WithRegistersModel` or `CLIPModel`.
    Huggingface,
    /// open_clip and OpenAI: a CLIP, or only its text tower.
    OpenClip,
    /// The SimZSS release: a vision tower of timm, optionally a denoiser, and a text tower. Files of DVT have the keys of its vision part.
    Simzss,
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dinov2 => "DINOv2",
            Self::Timm => "timm",
            Self::Huggingface => "Hugging Face",
            Self::OpenClip => "open_clip",
            Self::Simzss => "SimZSS",
        })
    }
}

/// The parts of a weights file; tensors have their stored kind.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// A DINOv2 vision tower with the keys of DINOv2, and its denoiser with the prefix `denoiser.`.
    pub(crate) vision: Named,
    /// CLIP's vision tower with the keys of open_clip, without their prefix `visual.`.
    pub(crate) clip: Named,
    /// The text tower with the keys of open_clip, including `logit_scale`.
    pub(crate) text: Named,
    /// Tensors that are not weights of a tower: buffers, and heads that only its own training needs.
    pub(crate) beside: Named,
}

/// Buffers that older versions saved, and other tensors from the training of SimZSS.
const BESIDE: [&str; 7] = [
    "attn_mask",
    "position_ids",
    "classification_weights_ema",
    "beta_ema",
    "logit_scale_local",
    "logit_bias_local",
    "large_pos_embed",
];

/// Splits the tensors of a file into parts; `None` if the keys do not belong to any family.
pub(crate) fn parts(mut tensors: Named) -> Option<(Family, Parts)> {
    let mut parts = Parts::default();
    let beside: Vec<String> = tensors
        .keys()
        .filter(|name| BESIDE.contains(&name.rsplit('.').next().unwrap_or_default()))
        .cloned()
        .collect();
    parts.beside = beside.into_iter().filter_map(|name| tensors.remove_entry(&name)).collect();
    parts.beside.extend(heads::without(&mut tensors));
    let has = |name: &str| tensors.contains_key(name);
    // Some models have a prefix for their tower (`dinov2.`, `dinov2_with_registers.`).
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
            || has("blocks.0.mlp.fc1.weight") && is_gated(&tensors)
            || !tensors.keys().any(|name| is_of_dinov2(name));
        parts.vision = if timm { from_timm(tensors) } else { unchunked(tensors) };
        if timm { Family::Timm } else { Family::Dinov2 }
    } else if has("token_embedding.weight") || has("text.token_embedding.weight") {
        // Models with a separate text tower (CustomTextCLIP) have the prefix `text.`.
        let text = below(&mut tensors, "text.");
        tensors.extend(text);
        open_clip(tensors, &mut parts);
        Family::OpenClip
    } else {
        return None;
    };
    Some((family, parts))
}

/// The inverse of [`parts`]: the tensors with the keys of a family. Also returns the names of those that this family does not have.
pub(crate) fn named(parts: &Parts, family: Family) -> Result<(Named, Vec<String>), String> {
    let (mut tower, denoiser): (Named, Named) =
        copy(&parts.vision).into_iter().partition(|(name, _)| !name.starts_with(DENOISER));
    let mut left: Vec<String> = parts.beside.keys().cloned().collect();
    let missing = |what: &str| Err(format!("contains no {what}"));
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

/// Renames the keys of a denoiser of DVT to the internal ones.
fn denoiser(tensors: Named) -> Named {
    // Without a block the position embedding is not used, but the authors' code saves one anyway.
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

/// The text tower with the keys of open_clip, together with CLIP's vision tower.
pub(super) fn whole_clip(parts: &Parts) -> Named {
    let mut out = above("visual.", copy(&parts.clip));
    out.extend(copy(&parts.text));
    out
}

/// Converts a tower of timm to the keys of DINOv2. With registers, timm's class token has no position embedding, because it was added
/// to the token in the conversion to timm; here it becomes zero.
fn from_timm(mut tensors: Named) -> Named {
    let gated = is_gated(&tensors);
    if let Some(position) = tensors.get_mut("pos_embed").filter(|position| without_class(position)) {
        let class = position.narrow(1, 0, 1).zeros_like();
        *position = Tensor::cat(&[class, position.shallow_clone()], 1);
    }
    to_ours(if gated { TIMM } else { &TIMM[..1] }, tensors)
}

/// Converts a tower of DINOv2 to the keys of timm, as timm's own conversion: with registers, the position embedding of the class token
/// is added to the class token.
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

/// Whether DINOv2 has a tensor of this name and timm has not. Without any such name a file is timm's, which drops the mask token of
/// DINOv2's files and keeps the other names.
fn is_of_dinov2(name: &str) -> bool {
    matches!(name, "mask_token" | "register_tokens")
        || name.contains(".mlp.w12.")
        || unchunked_name(name).is_some()
}

/// Whether a position embedding [1, n, d] is for a square of patches without a class token.
fn without_class(position: &Tensor) -> bool {
    let count = position.size().get(1).copied().unwrap_or(0);
    let side = (count as f64).sqrt().round() as i64;
    side > 1 && side * side == count
}

/// Whether the MLP of a timm tower is gated, as in DINOv2-g: the output of the first layer is twice as wide as the input of the second.
fn is_gated(tensors: &Named) -> bool {
    let size =
        |name: &str, side: usize| tensors.get(name).and_then(|tensor| tensor.size().get(side).copied());
    match (size("blocks.0.mlp.fc1.weight", 0), size("blocks.0.mlp.fc2.weight", 1)) {
        (Some(rows), Some(columns)) => rows == 2 * columns,
        _ => false,
    }
}

/// Removes the chunk number from the keys of blocks that DINOv2 saves during training (`blocks.1.6.norm1.weight` is block 6).
fn unchunked(tensors: Named) -> Named {
    tensors.into_iter().map(|(name, tensor)| (unchunked_name(&name).unwrap_or(name), tensor)).collect()
}

fn unchunked_name(name: &str) -> Option<String> {
    let (chunk, rest) = name.strip_prefix("blocks.")?.split_once('.')?;
    let (block, _) = rest.split_once('.')?;
    (is_number(chunk) && is_number(block)).then(|| format!("blocks.{rest}"))
}

/// Takes all tensors with a prefix out, and removes the prefix.
fn below(tensors: &mut Named, prefix: &str) -> Named {
    let names: Vec<String> = tensors.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
    names
        .into_iter()
        .filter_map(|name| Some((name.strip_prefix(prefix)?.to_owned(), tensors.remove(&name)?)))
        .collect()
}

/// Removes a prefix from the keys that have it.
fn stripped(mut tensors: Named, prefix: &str) -> Named {
    let inside = below(&mut tensors, prefix);
    tensors.extend(inside);
    tensors
}

fn above(prefix: &str, tensors: Named) -> Named {
    tensors.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect()
}

/// The same tensors; they share their memory.
pub(crate) fn copy(tensors: &Named) -> Named {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
}

/// Converts half and double precision to float32; `None` if the tensor holds no floating-point numbers.
pub(super) fn full(tensor: Tensor) -> Option<Tensor> {
    match tensor.kind() {
        Kind::Float => Some(tensor),
        Kind::Half | Kind::BFloat16 | Kind::Double => Some(tensor.to_kind(Kind::Float)),
        _ => None,
    }
}
