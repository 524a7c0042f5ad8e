//! Heads that a training program saves next to the backbone of a vision tower, such as `teacher.dino_head.*` next to
//! `teacher.backbone.*` in DINOv2's `teacher_checkpoint.pth`, or in it, such as the classifiers of timm's towers. A tower does not have
//! them.

use tch::Tensor;

use super::{Named, below};

/// The last tensor name of a backbone, by which its prefix is found: DINOv2's, DINOv3's and timm's, and Hugging Face's.
const PATCHES: [&str; 3] = [
    "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embeddings.weight",
];
/// The end of the prefix of MoCo-v3's tower.
const MOCO: &str = "base_encoder.";
/// The heads of DINOv2 and iBOT, which are heads wherever they are.
const PRETRAINING: [&str; 2] = ["dino_head", "ibot_head"];

/// Takes the heads out, and removes the prefix of the backbone. Tensors that are not known to be heads stay: the tower reports
/// them.
pub(super) fn without(tensors: &mut Named) -> Named {
    let prefix = backbone(tensors).unwrap_or_default();
    let beside: Vec<String> =
        tensors.keys().filter(|name| !is_inside(name, &prefix) && is_head(name, &prefix)).cloned().collect();
    let heads = beside.into_iter().filter_map(|name| tensors.remove_entry(&name)).collect();
    if !prefix.is_empty() {
        let inside = below(tensors, &prefix);
        tensors.extend(inside);
    }
    let mut heads: Named = heads;
    heads.extend(classifier(tensors, prefix.ends_with(MOCO)));
    heads
}

/// Takes out the classifier of a vision transformer, `head.weight` and `head.bias`, or with `several` the layers of MoCo-v3's projection,
/// `head.0.weight` and so on.
fn classifier(tensors: &mut Named, several: bool) -> Named {
    let width = tensors.get("cls_token").map(Tensor::size).and_then(|size| size.last().copied());
    let fits = |name: &str, tensor: &Tensor| match name {
        "head.weight" => tensor.dim() == 2 && tensor.size().last().copied() == width,
        "head.bias" => tensor.dim() == 1,
        _ => several && name.starts_with("head."),
    };
    let weight = tensors.get("head.weight").is_some_and(|weight| fits("head.weight", weight));
    if width.is_none() || !(weight || several) {
        return Named::new();
    }
    let names: Vec<String> =
        tensors.iter().filter(|(name, tensor)| fits(name, tensor)).map(|(name, _)| name.clone()).collect();
    names.into_iter().filter_map(|name| tensors.remove_entry(&name)).collect()
}

/// The prefix of the backbone, which ends with a dot. Of a student and a teacher, the teacher is the published tower; of MoCo-v3's two
/// encoders, the one that its authors evaluate.
fn backbone(tensors: &Named) -> Option<String> {
    let ends = |name: &String| PATCHES.iter().find_map(|end| name.strip_suffix(end).map(str::to_owned));
    let mut prefixes: Vec<String> =
        tensors.keys().filter_map(ends).filter(|prefix| prefix.ends_with('.')).collect();
    if prefixes.len() > 1 {
        prefixes.retain(|prefix| prefix.split('.').any(|part| part == "teacher") || prefix.ends_with(MOCO));
    }
    (prefixes.len() == 1).then(|| prefixes.remove(0)).filter(|prefix| !is_tower(prefix))
}

/// Prefixes that are part of the names of a family.
fn is_tower(prefix: &str) -> bool {
    prefix.ends_with("vit.model.") || prefix.starts_with("visual.")
}

fn is_inside(name: &str, prefix: &str) -> bool {
    !prefix.is_empty() && name.starts_with(prefix)
}

/// Whether a tensor belongs to a head, or to what else only the training needs. Without a prefix, names such as `head.weight`
/// may belong to a tower of another kind.
fn is_head(name: &str, prefix: &str) -> bool {
    let mut parts = name.split('.');
    if prefix.is_empty() {
        return parts.next().is_some_and(|first| PRETRAINING.contains(&first));
    }
    parts.any(|part| {
        part == "head"
            || part == "heads"
            || part.ends_with("_head")
            || part.ends_with("_loss")
            || matches!(part, "classifier" | "student" | "momentum_encoder" | "predictor")
    })
}
