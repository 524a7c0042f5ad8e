//! Detects the family of a weights file by its state-dict keys, and converts the keys. Internally, vision towers have the keys of
//! DINOv2, with rotary positions of DINOv3, without a class token of SigLIP in timm; text towers and CLIPs those of open_clip.

pub(crate) mod augreg;
mod dinotxt;
mod dinov2;
mod dinov3;
mod heads;
mod names;
mod siglip;

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use names::{HUGGINGFACE, HUGGINGFACE_CLIP, to_ours, to_theirs};

/// Tensors by name.
pub(crate) type Named = BTreeMap<String, Tensor>;

/// The library or project whose state-dict keys a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// DINOv2: a vision tower. A DVT denoiser is stored with the prefix `denoiser.`.
    Dinov2,
    /// DINOv3 and EUPE: a vision tower with rotary positions. Read only: the text tower of dino.txt.
    Dinov3,
    /// timm: `VisionTransformer`, among them SigLIP's, or `Eva` for DINOv3 and EUPE.
    Timm,
    /// Hugging Face transformers: `Dinov2Model`, `Dinov2WithRegistersModel`, `DINOv3ViTModel`, `SiglipVisionModel` or `CLIPModel`.
    Huggingface,
    /// open_clip and OpenAI: a CLIP, or only its text tower.
    OpenClip,
    /// The SimZSS release: a vision tower of timm, optionally a denoiser, and a text tower. Files of DVT have the keys of its vision part.
    Simzss,
    /// AugReg's vision towers in the files of Google's `vision_transformer`. Read only.
    Augreg,
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dinov2 => "DINOv2",
            Self::Dinov3 => "DINOv3",
            Self::Timm => "timm",
            Self::Huggingface => "Hugging Face",
            Self::OpenClip => "open_clip",
            Self::Simzss => "SimZSS",
            Self::Augreg => "AugReg",
        })
    }
}

/// The parts of a weights file; tensors have their stored kind.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// A vision tower with the keys of DINOv2, and its denoiser with the prefix `denoiser.`; or one with those of DINOv3 or SigLIP.
    pub(crate) vision: Named,
    /// CLIP's vision tower with the keys of open_clip, without their prefix `visual.`.
    pub(crate) clip: Named,
    /// The text tower with the keys of open_clip, including `logit_scale`.
    pub(crate) text: Named,
    /// Tensors that are not weights of a tower: buffers, and heads that only its own training needs.
    pub(crate) beside: Named,
}

impl Parts {
    /// Whether the file is one of OpenAI's own, whose CLIPs have an activation function of theirs.
    pub(crate) fn are_openais(&self) -> bool {
        OPENAIS.iter().all(|name| self.beside.contains_key(*name))
    }
}

/// Buffers that older versions saved, and other tensors from the training of SimZSS.
const BESIDE: [&str; 10] = [
    "attn_mask",
    "position_ids",
    "classification_weights_ema",
    "beta_ema",
    "logit_scale_local",
    "logit_bias_local",
    "large_pos_embed",
    OPENAIS[0],
    OPENAIS[1],
    OPENAIS[2],
];

/// Buffers of OpenAI's archives, by which these are known.
const OPENAIS: [&str; 3] = ["input_resolution", "context_length", "vocab_size"];

/// Splits the tensors of a file into parts; `None` if the keys do not belong to any family.
pub(crate) fn parts(mut tensors: Named) -> Option<(Family, Parts)> {
    let mut parts = Parts::default();
    let beside: Vec<String> = tensors
        .keys()
        .filter(|name| {
            BESIDE.contains(&name.rsplit('.').next().unwrap_or_default()) || dinov3::is_beside(name)
        })
        .cloned()
        .collect();
    parts.beside = beside.into_iter().filter_map(|name| tensors.remove_entry(&name)).collect();
    if dinotxt::is_theirs(&tensors) {
        parts.text = dinotxt::from_theirs(tensors, &mut parts.beside);
        return Some((Family::Dinov3, parts));
    }
    if augreg::is_theirs(&tensors) {
        parts.vision = augreg::from_theirs(tensors, &mut parts.beside);
        return Some((Family::Augreg, parts));
    }
    parts.beside.extend(heads::without(&mut tensors));
    let has = |name: &str| tensors.contains_key(name);
    // Some models have a prefix for their tower (`dinov2.`, `dinov2_with_registers.`).
    let inside = |end: &str| tensors.keys().find_map(|name| name.strip_suffix(end).map(str::to_owned));
    let family = if let Some(prefix) = inside("embeddings.patch_embeddings.projection.weight") {
        parts.vision = to_ours(HUGGINGFACE, stripped(tensors, &prefix));
        Family::Huggingface
    } else if let Some(prefix) = inside(dinov3::HUGGINGFACE_PATCHES) {
        parts.vision = dinov3::from_huggingface(stripped(tensors, &prefix));
        Family::Huggingface
    } else if let Some(prefix) = inside(siglip::HUGGINGFACE_QUERY) {
        parts.vision = siglip::from_huggingface(siglip::alone(tensors, &prefix, &mut parts.beside));
        Family::Huggingface
    } else if has("visual.trunk.attn_pool.latent") {
        parts.vision = siglip::alone(tensors, "visual.trunk.", &mut parts.beside);
        Family::OpenClip
    } else if has("text_model.embeddings.token_embedding.weight") {
        let ours = to_ours(HUGGINGFACE_CLIP, tensors);
        open_clip(ours, &mut parts);
        Family::Huggingface
    } else if let Some(prefix) = inside("vit.model.patch_embed.proj.weight") {
        let mut visual = below(&mut tensors, &prefix);
        parts.vision = dinov2::from_timm(below(&mut visual, "vit.model."));
        parts.vision.extend(denoiser(visual));
        parts.text = below(&mut tensors, "text.");
        parts.text.extend(tensors);
        Family::Simzss
    } else if has("denoiser.norm1.weight") && !has("patch_embed.proj.weight") {
        parts.vision = denoiser(tensors);
        Family::Simzss
    } else if siglip::is_ours(&tensors) {
        parts.vision = tensors;
        Family::Timm
    } else if has("patch_embed.proj.weight") && dinov3::is_ours(&tensors) {
        parts.vision = tensors;
        Family::Dinov3
    } else if has("patch_embed.proj.weight") && dinov3::is_timms(&tensors) {
        parts.vision = dinov3::from_timm(tensors);
        Family::Timm
    } else if has("patch_embed.proj.weight") {
        let timm = has("reg_token")
            || tensors.get("pos_embed").is_some_and(dinov2::without_class)
            || has("blocks.0.mlp.fc1.weight") && dinov2::is_gated(&tensors)
            || !tensors.keys().any(|name| dinov2::is_of_dinov2(name));
        parts.vision = if timm { dinov2::from_timm(tensors) } else { dinov2::unchunked(tensors) };
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
        Family::Augreg => {
            return Err(format!("cannot be written in the format of {family}, which is read only"));
        }
        Family::Timm if augreg::is_ours(&tower) => {
            left.extend(parts.clip.keys().chain(parts.text.keys()).cloned());
            augreg::to_timm(tower)
        }
        _ if augreg::is_ours(&tower) => {
            return Err(format!("is a tower of AugReg, whose format is timm's, not that of {family}"));
        }
        Family::Dinov2 | Family::Simzss if dinov3::is_ours(&tower) => {
            return Err(format!("has rotary positions, as DINOv3; the format of {family} has none"));
        }
        Family::Dinov3 | Family::Timm | Family::Huggingface if dinov3::is_ours(&tower) => {
            left.extend(parts.clip.keys().chain(parts.text.keys()).cloned());
            match family {
                Family::Dinov3 => tower,
                Family::Timm => dinov3::to_timm(tower, &mut left)?,
                _ => dinov3::to_huggingface(tower, &mut left)?,
            }
        }
        Family::Dinov2 | Family::Dinov3 | Family::Simzss if siglip::is_ours(&tower) => {
            return Err(format!("has no class token, as SigLIP; the format of {family} needs one"));
        }
        Family::Timm | Family::Huggingface if siglip::is_ours(&tower) => {
            left.extend(parts.clip.keys().chain(parts.text.keys()).cloned());
            if family == Family::Timm { tower } else { siglip::to_huggingface(tower)? }
        }
        Family::Dinov3 if !tower.is_empty() => {
            return Err("has learned positions, as DINOv2; the format of DINOv3 has none".to_owned());
        }
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
                Family::Timm => dinov2::to_timm(tower),
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
            let mut out =
                above("visual.vit.model.", if tower.is_empty() { tower } else { dinov2::to_timm(tower) });
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

/// A tower, without a denoiser, with the keys of timm; buffers that timm does not save are left out.
pub(crate) fn to_timm(tower: Named) -> Result<Named, String> {
    if siglip::is_ours(&tower) {
        Ok(tower)
    } else if augreg::is_ours(&tower) {
        Ok(augreg::to_timm(tower))
    } else if dinov3::is_ours(&tower) {
        dinov3::to_timm(tower, &mut Vec::new())
    } else {
        Ok(dinov2::to_timm(tower))
    }
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
