//! Number of floating-point operations of the towers, for the model FLOPs utilization (MFU).
//!
//! The usual way to count: a multiply-add is 2 operations, attention counts all pairs of tokens, training costs three times the
//! forward pass, and what is computed twice to save memory counts once.

/// The forward pass of `depth` blocks of width `width` over one sequence of `tokens` tokens.
pub fn transformer(tokens: i64, width: i64, depth: i64) -> f64 {
    let (tokens, width, depth) = (tokens as f64, width as f64, depth as f64);
    // Multiply-adds per token: query, key, value and output 4 d², MLP 8 d²; similarities and weighted values T d each.
    depth * (24.0 * tokens * width * width + 4.0 * tokens * tokens * width)
}

/// The forward pass of a vision transformer over one square image.
pub fn vision(size: i64, patch: i64, width: i64, depth: i64, extra_tokens: i64) -> f64 {
    let patches = (size / patch).pow(2);
    let embedding = 2.0 * (3 * patch * patch * width * patches) as f64;
    embedding + transformer(patches + extra_tokens, width, depth)
}

/// Cost of training in forward passes: the forward pass, the gradients of the inputs, the gradients of the weights.
pub const TRAINING: f64 = 3.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables of the DINOv2 and ViT papers: ViT-B/16 at 224 px has 17.6 G multiply-adds in the whole model (55.4 G at 384 px);
    /// twice as many operations.
    #[test]
    fn vit_b_has_its_published_cost() {
        let giga = vision(224, 16, 768, 12, 1) / 2e9;
        assert!((17.4..17.7).contains(&giga), "{giga}");
        let giga = vision(384, 16, 768, 12, 1) / 2e9;
        assert!((55.2..55.7).contains(&giga), "{giga}");
    }
}
