//! The number of attention heads, which does not follow from the tensors of a weights file: published towers are known by their
//! width, for others the user has to say it.

use std::path::Path;

use crate::error::{Error, Result};

/// Width of an attention head in DINOv2 and in CLIPs of up to ViT-L.
pub(crate) const HEAD_WIDTH: i64 = 64;
/// Vision transformers with wider heads, in timm and in open_clip: width of the tower and of a head.
const WIDER: [(i64, i64); 5] = [
    (1152, 72),  // SO400M
    (1280, 80),  // ViT-H
    (1408, 88),  // ViT-g
    (1664, 104), // ViT-G, bigG
    (1792, 112), // ViT-e
];
/// Widths of published CLIPs whose heads are 64 wide (open_clip's `model_configs`, OpenAI's ViTs).
const CLIP_VISION: [i64; 5] = [384, 512, 768, 896, 1024];
const CLIP_TEXT: [i64; 7] = [256, 384, 512, 640, 768, 1024, 1280];

/// Heads of a vision tower of DINOv2 or timm; `None` if the width is not that of any.
pub(crate) fn of_vision(width: i64) -> Option<i64> {
    let head = WIDER.iter().find(|(tower, _)| *tower == width).map_or(HEAD_WIDTH, |(_, head)| *head);
    (width > 0 && width % head == 0).then(|| width / head)
}

/// Heads of a vision tower of DINOv3: they are 64 wide, except in the tower of 7 billion parameters. `None` if the width is not that
/// of any.
pub(crate) fn of_dinov3(width: i64) -> Option<i64> {
    const LARGEST: i64 = 4096;
    let head = if width == LARGEST { 2 * HEAD_WIDTH } else { HEAD_WIDTH };
    (width > 0 && width % head == 0).then(|| width / head)
}

/// Heads of the vision tower of a CLIP: `given` by the user, or those of the published ones of this width.
///
/// # Errors
/// Wrong use if neither is known; the message says what to pass.
pub(crate) fn of_clip_vision(width: i64, given: Option<i64>, option: &str, path: &Path) -> Result<i64> {
    let known = CLIP_VISION.contains(&width) || WIDER.iter().any(|(tower, _)| *tower == width);
    let known = if known { of_vision(width) } else { None };
    let source = "vision_cfg.width / vision_cfg.head_width in open_clip's configuration of the model, \
                  vision_config.num_attention_heads in that of Hugging Face";
    chosen("vision", width, given.or(known), option, source, path)
}

/// Heads of the text towers of this width that have been published.
pub(crate) fn known_of_text(width: i64) -> Option<i64> {
    CLIP_TEXT.contains(&width).then_some(width / HEAD_WIDTH)
}

/// Heads of the text tower of a CLIP or of SimZSS: `given` by the user, or those of the published ones of this width.
///
/// # Errors
/// Wrong use if neither is known; the message says what to pass.
pub fn of_text(width: i64, given: Option<i64>, option: &str, path: &Path) -> Result<i64> {
    let known = known_of_text(width);
    let source = "text_cfg.heads in open_clip's configuration of the model, text_config.num_attention_heads in that of Hugging \
                  Face, text.heads in the settings of a run";
    chosen("text", width, given.or(known), option, source, path)
}

fn chosen(
    tower: &str,
    width: i64,
    heads: Option<i64>,
    option: &str,
    source: &str,
    path: &Path,
) -> Result<i64> {
    match heads {
        Some(heads) if heads > 0 && width % heads == 0 => Ok(heads),
        Some(heads) => Err(Error::Setting {
            name: option.to_owned(),
            problem: format!("is {heads}; it must divide the width of the {tower} tower, {width}"),
        }),
        None => Err(Error::Usage(format!(
            "{}: the number of attention heads of the {tower} tower does not follow from its tensors, and no published model is \
             {width} wide; add {option} N ({source})",
            path.display()
        ))),
    }
}
