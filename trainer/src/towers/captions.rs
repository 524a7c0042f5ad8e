//! Captions as input of the text tower: token ids, the position of the end token, and how tokens after the end are left out: on a CPU
//! all of them, on a GPU by groups of similar length.

use tch::{Device, Tensor};

use crate::device::send;

/// The tokens of captions, and where each caption ends.
#[derive(Debug)]
pub struct CaptionTokens {
    /// Token ids, [B, T], truncated to the longest caption: with causal attention, tokens after the end have no effect.
    pub ids: Tensor,
    /// Position of the end-of-text token, `[B]`.
    pub end: Tensor,
    /// Number of tokens of each caption.
    lengths: Vec<i64>,
}

/// The tokens of captions one after the other, without those after their ends.
#[derive(Debug)]
pub(super) struct Packed {
    /// Token ids, `[n]`.
    pub(super) ids: Tensor,
    /// Position of each token in its caption, `[n]`.
    pub(super) positions: Tensor,
    /// Place of each token in [B T], `[n]`.
    places: Tensor,
    /// B and T.
    size: [i64; 2],
}

impl Packed {
    /// [n, d] to [B, T, d], with zeros after the ends.
    pub(super) fn spread(&self, tokens: &Tensor) -> Tensor {
        let [rows, longest] = self.size;
        let width = tokens.size()[1];
        let all = Tensor::zeros([rows * longest, width], (tokens.kind(), tokens.device()));
        all.index_copy(0, &self.places, tokens).view([rows, longest, width])
    }

    /// [B, T, d] to [n, d].
    pub(super) fn collect(&self, tokens: &Tensor) -> Tensor {
        tokens.flatten(0, 1).index_select(0, &self.places)
    }
}

/// Rows of similar length, and the length of the longest.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    rows: Vec<i64>,
    length: i64,
}

impl CaptionTokens {
    /// From rows of `context` ids; the end token has the highest id of its row.
    pub fn new(ids: &[i64], context: usize, device: Device) -> Self {
        let ends: Vec<i64> = ids
            .chunks_exact(context)
            .map(|row| (0..context).rev().max_by_key(|&i| row[i]).unwrap_or(0) as i64)
            .collect();
        let lengths: Vec<i64> = ends.iter().map(|end| end + 1).collect();
        let longest = lengths.iter().copied().max().unwrap_or(1);
        let longest = if device.is_cuda() { rounded_up(longest).min(context as i64) } else { longest };
        let rows = ends.len() as i64;
        let ids = Tensor::from_slice(ids).view([rows, context as i64]).narrow(1, 0, longest);
        Self { ids: send(&ids, device), end: send(&Tensor::from_slice(&ends), device), lengths }
    }

    /// Rows `start .. start + count`.
    #[must_use]
    pub fn narrow(&self, start: i64, count: i64) -> Self {
        Self {
            ids: self.ids.narrow(0, start, count),
            end: self.end.narrow(0, start, count),
            lengths: self.lengths[start as usize..(start + count) as usize].to_vec(),
        }
    }

    /// Number of tokens of each caption, including the start and end tokens.
    pub fn lengths(&self) -> &[i64] {
        &self.lengths
    }

    /// The tokens without those after the ends. `None` on a GPU, where each number of tokens would be a new shape.
    pub(super) fn packed(&self) -> Option<Packed> {
        let device = self.ids.device();
        let size = [self.ids.size()[0], self.ids.size()[1]];
        if device.is_cuda() {
            return None;
        }
        let rows = || (0..).zip(&self.lengths);
        let places: Vec<i64> =
            rows().flat_map(|(row, &length)| (0..length).map(move |at| row * size[1] + at)).collect();
        let places = Tensor::from_slice(&places);
        let ids = self.ids.reshape([-1]).index_select(0, &places);
        Some(Packed { ids, positions: places.remainder(size[1]), places, size })
    }

    /// Calls `each` with the rows of each group and joins its results, [rows, length, ..], in the order of the captions,
    /// [B, T, ..]; values after the end of a caption are arbitrary. Without groups, a few long captions would make all captions of
    /// the batch as expensive as the longest.
    pub(super) fn by_length(&self, each: impl Fn(&Tensor) -> Tensor) -> Tensor {
        let groups = groups(&self.lengths, self.ids.size()[1]);
        let longest = self.ids.size()[1];
        if groups.len() <= 1 {
            let length = groups.first().map_or(longest, |group| group.length);
            return padded(&each(&self.ids.narrow(1, 0, length)), longest);
        }
        let order: Vec<i64> = groups.iter().flat_map(|group| group.rows.iter().copied()).collect();
        let mut places = vec![0; order.len()];
        for (place, &row) in order.iter().enumerate() {
            places[row as usize] = place as i64;
        }
        let on = |rows: &[i64]| send(&Tensor::from_slice(rows), self.ids.device());
        let parts: Vec<Tensor> = groups
            .iter()
            .map(|Group { rows, length }| self.ids.narrow(1, 0, *length).index_select(0, &on(rows)))
            .map(|ids| padded(&each(&ids), longest))
            .collect();
        Tensor::cat(&parts, 0).index_select(0, &on(&places))
    }
}

/// [rows, length, d] to [rows, longest, d].
fn padded(tokens: &Tensor, longest: i64) -> Tensor {
    let length = tokens.size()[1];
    if length == longest {
        tokens.shallow_clone()
    } else {
        tokens.constant_pad_nd([0, 0, 0, longest - length])
    }
}

/// Maximum number of groups.
const MOST_GROUPS: usize = 8;
/// Minimum number of rows of a group: each group launches as many kernels as the whole batch would.
const SMALLEST: usize = 32;
/// Lengths are rounded up to a multiple of this. cuDNN makes an execution plan for the attention of each new shape,
/// which takes longer than the attention of many steps.
const STEP: i64 = 8;

/// Groups of rows, short ones first. The size of each group, except for the last, is a multiple of the same number of rows.
fn groups(lengths: &[i64], most: i64) -> Vec<Group> {
    let count = SMALLEST.max(lengths.len().div_ceil(MOST_GROUPS));
    let mut rows: Vec<i64> = (0..lengths.len() as i64).collect();
    rows.sort_by_key(|&row| lengths[row as usize]);
    let mut groups: Vec<Group> = Vec::new();
    for rows in rows.chunks(count) {
        let longest = rows.last().map_or(0, |&row| lengths[row as usize]);
        let length = rounded_up(longest).min(most);
        match groups.last_mut() {
            Some(last) if last.length == length => last.rows.extend(rows),
            _ => groups.push(Group { rows: rows.to_vec(), length }),
        }
    }
    groups
}

fn rounded_up(length: i64) -> i64 {
    (length + STEP - 1) / STEP * STEP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_each_row_once_and_no_longer_ones() {
        let lengths: Vec<i64> = (0..400).map(|i| if i % 10 == 0 { 30 + i % 40 } else { 8 + i % 5 }).collect();
        let groups = groups(&lengths, 77);
        assert!(groups.len() > 1);
        let mut seen: Vec<i64> = groups.iter().flat_map(|group| group.rows.clone()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..400).collect::<Vec<i64>>());
        for group in &groups {
            assert!(group.rows.iter().all(|&row| lengths[row as usize] <= group.length));
            assert!(group.length % 8 == 0 && group.rows.len() % 50 == 0);
        }
        let padded: i64 = groups.iter().map(|group| group.rows.len() as i64 * group.length).sum();
        assert!(padded < 400 * 70 / 2, "{padded}");
    }

    #[test]
    fn few_or_equal_captions_are_one_group() {
        assert_eq!(groups(&[3, 77, 5], 77), [Group { rows: vec![0, 2, 1], length: 77 }]);
        assert_eq!(groups(&[12; 500], 77).len(), 1);
        assert_eq!(groups(&[77; 500], 77)[0].length, 77);
        assert!(groups(&[], 77).is_empty());
    }

    /// Rows come back in their original order.
    #[test]
    fn what_is_made_of_groups_keeps_the_captions_order() {
        let rows: Vec<Vec<i64>> = (0..100)
            .map(|row| (0..40).map(|at| if at == row * 7 % 39 { 49_407 } else { row }).collect())
            .collect();
        let captions = CaptionTokens::new(&rows.concat(), 40, Device::Cpu);
        assert!(groups(captions.lengths(), 40).len() > 1);
        let packed = captions.packed().unwrap();
        assert_eq!(packed.ids.size(), [captions.lengths().iter().sum::<i64>()]);
        for made in [captions.by_length(|ids| ids.unsqueeze(2)), packed.spread(&packed.ids.unsqueeze(1))] {
            for (row, &length) in (0..).zip(captions.lengths()) {
                let found = Vec::<i64>::try_from(made.get(row).narrow(0, 0, length).squeeze_dim(1)).unwrap();
                assert_eq!(found, rows[row as usize][..length as usize]);
            }
        }
        assert!(packed.collect(&captions.ids.unsqueeze(2)).squeeze_dim(1).equal(&packed.ids));
        let at =
            |caption: i64| packed.positions.narrow(0, captions.lengths()[..caption as usize].iter().sum(), 2);
        assert!(at(7).equal(&Tensor::from_slice(&[0_i64, 1])));
    }
}
