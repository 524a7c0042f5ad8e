//! The state-dict keys of DINOv2, which are our own for towers with learned positions, and those of timm's `VisionTransformer`.

use tch::Tensor;

use super::Named;
use super::names::{Row::Same, TIMM, is_number, to_ours, translate};

/// Converts a tower of timm to the keys of DINOv2. With registers, timm's class token has no position embedding, because it was added
/// to the token in the conversion to timm; here it becomes zero.
pub(super) fn from_timm(mut tensors: Named) -> Named {
    let gated = is_gated(&tensors);
    if let Some(position) = tensors.get_mut("pos_embed").filter(|position| without_class(position)) {
        let class = position.narrow(1, 0, 1).zeros_like();
        *position = Tensor::cat(&[class, position.shallow_clone()], 1);
    }
    to_ours(if gated { TIMM } else { &TIMM[..1] }, tensors)
}

/// Converts a tower of DINOv2 to the keys of timm, as timm's own conversion: with registers, the position embedding of the class token
/// is added to the class token.
pub(super) fn to_timm(mut tensors: Named) -> Named {
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
pub(super) fn is_of_dinov2(name: &str) -> bool {
    matches!(name, "mask_token" | "register_tokens")
        || name.contains(".mlp.w12.")
        || unchunked_name(name).is_some()
}

/// Whether a position embedding [1, n, d] is for a square of patches without a class token.
pub(super) fn without_class(position: &Tensor) -> bool {
    let count = position.size().get(1).copied().unwrap_or(0);
    let side = (count as f64).sqrt().round() as i64;
    side > 1 && side * side == count
}

/// Whether the MLP of a timm tower is gated, as in DINOv2-g: the output of the first layer is twice as wide as the input of the second.
pub(super) fn is_gated(tensors: &Named) -> bool {
    let size =
        |name: &str, side: usize| tensors.get(name).and_then(|tensor| tensor.size().get(side).copied());
    match (size("blocks.0.mlp.fc1.weight", 0), size("blocks.0.mlp.fc2.weight", 1)) {
        (Some(rows), Some(columns)) => rows == 2 * columns,
        _ => false,
    }
}

/// Removes the chunk number from the keys of blocks that DINOv2 saves during training (`blocks.1.6.norm1.weight` is block 6).
pub(super) fn unchunked(tensors: Named) -> Named {
    tensors.into_iter().map(|(name, tensor)| (unchunked_name(&name).unwrap_or(name), tensor)).collect()
}

fn unchunked_name(name: &str) -> Option<String> {
    let (chunk, rest) = name.strip_prefix("blocks.")?.split_once('.')?;
    let (block, _) = rest.split_once('.')?;
    (is_number(chunk) && is_number(block)).then(|| format!("blocks.{rest}"))
}
