//! The rank of the correct answer among all scores, from which top-k accuracy and recall are computed.

/// Number of answers with a higher score than answer `target`. Equal scores count as higher if they come before it, so that a model
/// with constant scores gains nothing. `None` if a score is NaN.
pub fn rank(scores: &[f32], target: usize) -> Option<usize> {
    let own = *scores.get(target)?;
    let mut higher = 0;
    for (answer, &score) in scores.iter().enumerate() {
        if score.is_nan() {
            return None;
        }
        higher += usize::from(score > own || (score == own && answer < target));
    }
    Some(higher)
}

/// Fraction of the ranks that are below `k`.
pub fn within(ranks: &[usize], k: usize) -> f64 {
    ranks.iter().filter(|&&rank| rank < k).count() as f64 / ranks.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_by_hand() {
        assert_eq!(rank(&[0.1, 0.9, 0.5], 1), Some(0));
        assert_eq!(rank(&[0.1, 0.9, 0.5], 0), Some(2));
        assert_eq!(rank(&[0.5, 0.5, 0.5], 2), Some(2), "equal scores are no success");
        assert_eq!(rank(&[f32::NAN, f32::NAN], 0), None);
        assert_eq!(within(&[0, 4, 5, 9], 5), 0.5);
    }
}
