//! Captions as input of the text tower: token ids, the position of the end token, and groups of similar length.

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
        let step = if device.is_cuda() { STEP_OF_GPU } else { 1 };
        let longest = rounded_up(lengths.iter().copied().max().unwrap_or(1), step).min(context as i64);
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

    fn groups(&self) -> Vec<Group> {
        let step = if self.ids.device().is_cuda() { STEP_OF_GPU } else { 1 };
        groups(&self.lengths, step, self.ids.size()[1])
    }

    /// Calls `each` with the rows of each group and joins its results, [rows, length, ..], in the order of the captions,
    /// [B, T, ..]; values after the end of a caption are arbitrary. Without groups, a few long captions would make all captions of
    /// the batch as expensive as the longest.
    pub(super) fn by_length(&self, each: impl Fn(&Tensor) -> Tensor) -> Tensor {
        let groups = self.groups();
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
/// On a GPU, lengths are rounded up to a multiple of this. cuDNN makes an execution plan for the attention of each new shape,
/// which takes longer than the attention of many steps.
const STEP_OF_GPU: i64 = 8;

/// Groups of rows, short ones first. The size of each group, except for the last, is a multiple of the same number of rows.
fn groups(lengths: &[i64], step: i64, most: i64) -> Vec<Group> {
    let count = SMALLEST.max(lengths.len().div_ceil(MOST_GROUPS));
    let mut rows: Vec<i64> = (0..lengths.len() as i64).collect();
    rows.sort_by_key(|&row| lengths[row as usize]);
    let mut groups: Vec<Group> = Vec::new();
    for rows in rows.chunks(count) {
        let longest = rows.last().map_or(0, |&row| lengths[row as usize]);
        let length = rounded_up(longest, step).min(most);
        match groups.last_mut() {
            Some(last) if last.length == length => last.rows.extend(rows),
            _ => groups.push(Group { rows: rows.to_vec(), length }),
        }
    }
    groups
}

fn rounded_up(length: i64, step: i64) -> i64 {
    (length + step - 1) / step * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_each_row_once_and_no_longer_ones() {
        let lengths: Vec<i64> = (0..400).map(|i| if i % 10 == 0 { 30 + i % 40 } else { 8 + i % 5 }).collect();
        for step in [1, 8] {
            let groups = groups(&lengths, step, 77);
            assert!(groups.len() > 1);
            let mut seen: Vec<i64> = groups.iter().flat_map(|group| group.rows.clone()).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..400).collect::<Vec<i64>>());
            for group in &groups {
                assert!(group.rows.iter().all(|&row| lengths[row as usize] <= group.length));
                assert!(group.length % step == 0 && group.rows.len() % 50 == 0);
            }
            let padded: i64 = groups.iter().map(|group| group.rows.len() as i64 * group.length).sum();
            assert!(padded < 400 * 70 / 2, "{padded}");
        }
    }

    #[test]
    fn few_or_equal_captions_are_one_group() {
        assert_eq!(groups(&[3, 77, 5], 1, 77), [Group { rows: vec![0, 2, 1], length: 77 }]);
        assert_eq!(groups(&[12; 500], 8, 77).len(), 1);
        assert_eq!(groups(&[77; 500], 8, 77)[0].length, 77);
        assert!(groups(&[], 1, 77).is_empty());
    }

    /// Rows come back in their original order.
    #[test]
    fn what_is_made_of_groups_keeps_the_captions_order() {
        let rows: Vec<Vec<i64>> = (0..100)
            .map(|row| (0..40).map(|at| if at == row * 7 % 39 { 49_407 } else { row }).collect())
            .collect();
        let captions = CaptionTokens::new(&rows.concat(), 40, Device::Cpu);
        assert!(captions.groups().len() > 1);
        let made = captions.by_length(|ids| ids.unsqueeze(2));
        for (row, &length) in (0..).zip(captions.lengths()) {
            let found = Vec::<i64>::try_from(made.get(row).narrow(0, 0, length).squeeze_dim(1)).unwrap();
            assert_eq!(found, rows[row as usize][..length as usize]);
        }
    }
}
