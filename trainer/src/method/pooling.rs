//! Concept pooling: the mean of the patches of an image, weighted by the attention of a mention.

use tch::{Device, Tensor};

use crate::device::send;
use crate::towers::{full_precision, unit};

/// The positions of all mentions of a batch, in the order of its captions.
#[derive(Debug)]
pub struct Mentions {
    /// Row of the caption and image of each mention, [b].
    rows: Tensor,
    /// Index of each mention within its caption, [b]: 0, 1, ..
    places: Tensor,
    /// Indices into the flattened [B * T] tokens: the token positions of all mentions, one mention after the other.
    token_rows: Tensor,
    /// The mention to which each entry of `token_rows` belongs.
    token_mentions: Tensor,
    /// 1 / number of tokens of each mention, [b, 1].
    weights: Tensor,
    /// Maximum number of mentions in one caption.
    most: i64,
    /// Concept of each mention.
    labels: Vec<u32>,
    /// The rows again, on the host.
    rows_on_host: Vec<i64>,
}

/// One mention: the row of its caption, its concept, and the token positions of its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// Row in the batch.
    pub row: u32,
    /// Index of the concept in the vocabulary (bank).
    pub label: u32,
    /// Token positions S_l; the start token is at position 0.
    pub positions: std::ops::Range<u32>,
}

impl Mentions {
    /// From mentions sorted by row. `tokens` is T, the number of tokens per row of the batch.
    pub fn new(mentions: &[Mention], tokens: i64, device: Device) -> Self {
        let (mut rows, mut places, mut labels, mut weights) = (vec![], vec![], vec![], vec![]);
        let (mut token_rows, mut token_mentions) = (vec![], vec![]);
        let mut most = 0;
        for (index, mention) in mentions.iter().enumerate() {
            let row = i64::from(mention.row);
            let place = if rows.last() == Some(&row) { places.last().map_or(0, |p| p + 1) } else { 0 };
            rows.push(row);
            places.push(place);
            most = most.max(place + 1);
            labels.push(mention.label);
            weights.push(1.0 / mention.positions.len().max(1) as f32);
            for position in mention.positions.clone() {
                token_rows.push(row * tokens + i64::from(position));
                token_mentions.push(index as i64);
            }
        }
        let on = |values: &[i64]| send(&Tensor::from_slice(values), device);
        Self {
            rows: on(&rows),
            places: on(&places),
            token_rows: on(&token_rows),
            token_mentions: on(&token_mentions),
            weights: send(&Tensor::from_slice(&weights), device).unsqueeze(1),
            most,
            labels,
            rows_on_host: rows,
        }
    }

    /// Number of mentions b.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no mentions.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Concept of each mention.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Row of the caption and image of each mention.
    pub fn rows(&self) -> impl Iterator<Item = i64> + '_ {
        self.rows_on_host.iter().copied()
    }

    /// The rows that have mentions, in ascending order.
    pub fn images(&self) -> Vec<i64> {
        let mut images = self.rows_on_host.clone();
        images.dedup();
        images
    }

    /// Index of the first mention of each of these rows.
    pub fn starts(&self) -> Vec<usize> {
        let of_captions = self.rows_on_host.chunk_by(|a, b| a == b).map(<[i64]>::len);
        of_captions
            .scan(0, |next, count| {
                let start = *next;
                *next += count;
                Some(start)
            })
            .collect()
    }

    /// For each mention, where its row is in [`Mentions::images`]: `[b]`.
    pub fn image_places(&self) -> Tensor {
        let of_captions = self.rows_on_host.chunk_by(|a, b| a == b).zip(0i64..);
        let places: Vec<i64> =
            of_captions.flat_map(|(mentions, place)| mentions.iter().map(move |_| place)).collect();
        send(&Tensor::from_slice(&places), self.rows.device())
    }

    /// For each mention, the concepts of all mentions of its caption.
    pub fn labels_of_captions(&self) -> Vec<&[u32]> {
        let mut rest = self.labels.as_slice();
        let of_captions = self.rows_on_host.chunk_by(|a, b| a == b).map(<[i64]>::len);
        of_captions
            .flat_map(|count| {
                let (own, others) = rest.split_at(count);
                rest = others;
                std::iter::repeat_n(own, count)
            })
            .collect()
    }

    /// The tokens of all mentions, one mention after the other: [B, T, d_t] -> [.., d_t].
    pub fn tokens(&self, tokens: &Tensor) -> Tensor {
        tokens.reshape([-1, tokens.size()[2]]).index_select(0, &self.token_rows)
    }

    /// For each mention, the sum of its rows; the rows are in the order of [`Mentions::tokens`]. [.., d] -> [b, d].
    pub fn sum(&self, rows: &Tensor) -> Tensor {
        let sums = Tensor::zeros([self.labels.len() as i64, rows.size()[1]], (rows.kind(), rows.device()));
        sums.index_add(0, &self.token_mentions, rows)
    }

    /// c_t: the mean of the tokens of each mention; [B, T, d_t] -> [b, d_t].
    pub fn mean_tokens(&self, tokens: &Tensor) -> Tensor {
        self.sum(&self.tokens(tokens)) * self.weights.to_kind(tokens.kind())
    }

    /// c_v: for each mention, the mean of the patches of its image, weighted by a softmax over their similarity to the mention.
    ///
    /// `patches`: z_v of unit length, [B, N, d_v]; `queries`: c~_t of unit length, [b, d_v]. Returns rows of unit length,
    /// [b, d_v]. Mentions are padded to the maximum number per caption, so that one batched matrix product computes everything and
    /// no patches are copied per mention.
    pub fn pool(&self, patches: &Tensor, queries: &Tensor, temperature: f64) -> Tensor {
        let size = patches.size();
        let (batch, width) = (size[0], size[2]);
        let slots = &self.rows * self.most + &self.places;
        let padded = Tensor::zeros([batch * self.most, width], (queries.kind(), queries.device()))
            .index_copy(0, &slots, queries)
            .view([batch, self.most, width])
            .to_kind(patches.kind());
        let similarity = full_precision(&padded.bmm(&patches.transpose(1, 2)));
        let attention = (similarity / temperature).softmax(-1, None).to_kind(patches.kind());
        let pooled = attention.bmm(patches).reshape([-1, width]).index_select(0, &slots);
        unit(&pooled)
    }
}
