//! How many floating-point operations the towers need: what a run's speed is measured against (MFU).
//!
//! Counted as is usual: a product of matrices is 2 operations a multiply-add, attention counts all pairs of tokens,
//! training costs three times the forward pass, and what is computed twice to save memory counts once.

/// The forward pass of `depth` blocks of `width` over sequences of `tokens` tokens, for one sequence.
pub fn transformer(tokens: i64, width: i64, depth: i64) -> f64 {
    let (tokens, width, depth) = (tokens as f64, width as f64, depth as f64);
    // Query, key, value and output: 4 d², the MLP: 8 d²; similarities and their products with values: 2 T d each.
    depth * (24.0 * tokens * width * width + 4.0 * tokens * tokens * width)
}

/// The forward pass of a vision transformer over one square image.
pub fn vision(size: i64, patch: i64, width: i64, depth: i64, extra_tokens: i64) -> f64 {
    let patches = (size / patch).pow(2);
    let embedding = 2.0 * (3 * patch * patch * width * patches) as f64;
    embedding + transformer(patches + extra_tokens, width, depth)
}

/// Training in terms of the forward pass: back to the inputs, and back to the weights.
pub const TRAINING: f64 = 3.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// The DINOv2 and ViT papers' tables: ViT-B/16 at 224 px has 17.6 GFLOPs as multiply-adds of the whole model (55.4 at
    /// 384 px); twice that in operations.
    #[test]
    fn vit_b_has_its_published_cost() {
        let giga = vision(224, 16, 768, 12, 1) / 2e9;
        assert!((17.4..17.7).contains(&giga), "{giga}");
        let giga = vision(384, 16, 768, 12, 1) / 2e9;
        assert!((55.2..55.7).contains(&giga), "{giga}");
    }
}
