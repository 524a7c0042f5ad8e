//! Another image for each mention: that of the next caption with mentions. On it the concept loss is computed only to be compared, and
//! it is the negative of the loss whose negatives are images.

use tch::Tensor;

use super::pooling::{Mention, Mentions};
use crate::distributed::Group;
use crate::error::Result;
use crate::towers::full_precision;

/// An image that is not the rank's own.
#[derive(Debug)]
pub struct NextImage {
    /// Its patches, of unit length, [1, N, d_v].
    pub patches: Tensor,
    /// The concepts that its captions mention, as far as they are known.
    pub labels: Vec<u32>,
}

/// The first image with mentions of the next rank that has one, for [`pool_next`]. `siblings`: of each mention, as in
/// `Unmentioned::siblings`; `labels`: of all ranks' mentions, of which there is at least one.
pub fn next_image(
    patches: &Tensor,
    mentions: &[Mention],
    siblings: &[&[u32]],
    labels: &[Vec<i64>],
    group: &Group,
) -> Result<NextImage> {
    let patches = patches.detach();
    let first = match mentions.first() {
        Some(mention) => patches.narrow(0, i64::from(mention.row), 1),
        None => Tensor::zeros([1, patches.size()[1], patches.size()[2]], (patches.kind(), patches.device())),
    };
    let all = group.gather(&full_precision(&first))?;
    let (ranks, own) = (labels.len(), group.rank());
    let next = (1..=ranks).map(|by| (own + by) % ranks).find(|&rank| !labels[rank].is_empty()).unwrap_or(own);
    let of_first = mentions.chunk_by(|a, b| a.row == b.row).next().unwrap_or_default();
    let known = of_first
        .iter()
        .map(|mention| mention.label)
        .chain(siblings.first().copied().unwrap_or_default().iter().copied());
    let mut known = group.gather_numbers(&known.map(i64::from).collect::<Vec<_>>())?;
    Ok(NextImage {
        patches: all.narrow(0, next as i64, 1).to_kind(patches.kind()),
        labels: known.swap_remove(next).into_iter().map(|label| label as u32).collect(),
    })
}

/// As [`Mentions::pool`], but each mention pools the patches of the next image with mentions, those of a rank's last image the patches
/// `next`, [1, N, d_v]. No gradient reaches them: on other ranks, none could.
pub fn pool_next(
    patches: &Tensor,
    next: &Tensor,
    mentions: &Mentions,
    queries: &Tensor,
    temperature: f64,
) -> Tensor {
    let (images, patches) = (mentions.images(), &patches.detach());
    let places = mentions.rows().map(|row| images.partition_point(|&image| image < row));
    let mention = |row: i64| Mention { row: row as u32, label: 0, positions: 0..1 };
    let (mut moved, mut last) = (Vec::new(), Vec::new());
    for place in places {
        match images.get(place + 1) {
            Some(&image) => moved.push(mention(image)),
            None => last.push(mention(0)),
        }
    }
    let pooled = [(moved, 0, patches), (last, 1, next)].map(|(mentions, part, patches)| {
        let count = mentions.len() as i64;
        let queries = if part == 0 {
            queries.narrow(0, 0, count)
        } else {
            queries.narrow(0, queries.size()[0] - count, count)
        };
        if mentions.is_empty() {
            return queries;
        }
        Mentions::new(&mentions, 1, patches.device()).pool(patches, &queries, temperature)
    });
    Tensor::cat(&pooled, 0)
}
