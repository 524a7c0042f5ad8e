//! An opened set of shards: what the threads share.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use concepts::sidecar::Metadata;

use crate::Error;
use crate::order::{Mixture, Place, Position, SampleId};
use crate::settings::{Options, Settings};
use crate::shards::{MANY, Store, for_each_shard, selection, set_index, sidecar};

/// The shards of one or several datasets, their order, and how they are loaded.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) settings: Settings,
    pub(crate) order: Mixture,
    /// The streams of this rank.
    pub(crate) streams: Range<u64>,
    pub(crate) store: Store,
    /// The footers of the sidecars, if mentions are loaded.
    pub(crate) sidecars: Vec<Metadata>,
    /// Number of each shard's first sample, counted over all shards.
    pub(crate) starts: Vec<u64>,
    /// Number of shards that are in use at the same time.
    pub(crate) in_use: u64,
    /// The check of the selection, if there is one.
    pub(crate) selection: Option<u64>,
}

impl Set {
    /// Checks the settings and counts the samples: from the indices of the folders, from the shards' `_stats.json`, or, for shards
    /// without one (written by other tools), by a pass over the headers. With a concept vocabulary, checks the footers of all
    /// sidecars. `done` counts the shards of which this is known, and those whose footers are.
    pub(crate) fn open(settings: Settings, done: &AtomicU64) -> Result<Self, Error> {
        settings.check()?;
        let known = set_index::known(&settings.shards)?;
        let sidecars = if settings.bank.is_some() {
            sidecar::footers_for(
                &settings.shards,
                &known,
                settings.options.captions.field(),
                settings.siblings,
                done,
            )?
        } else {
            Vec::new()
        };
        let store = Store::new(
            settings.shards.clone(),
            settings.bank.is_some(),
            settings.options.captions.clone(),
            settings.options.cache.clone(),
            known,
        );
        // On a disk the work is in the headers; elsewhere it is waiting for answers.
        let threads = settings.options.thread_count();
        let threads = if store.is_remote() { threads.max(MANY) } else { threads };
        let counts = for_each_shard(store.shards(), threads, "counted its samples", |shard| {
            let count = store.count(shard as u32);
            done.fetch_add(1, Ordering::Relaxed);
            count
        })?;
        let Options { streams, window, batch_size, .. } = settings.options;
        let shards = counts.len();
        let starts = counts
            .iter()
            .scan(0, |next, &count| {
                let start = *next;
                *next += u64::from(count);
                Some(start)
            })
            .collect();
        let mut check = None;
        let selected = match &settings.options.selection {
            None => None,
            Some(file) => {
                let selection = selection::read(file, store.shards(), &counts)?;
                store.expect(selection.expected)?;
                check = Some(selection.check);
                Some(selection.shards)
            }
        };
        let order =
            Mixture::new(counts, selected, &settings.sets, settings.seed, streams, window, batch_size)?;
        let streams = order.streams_of(settings.rank, settings.world_size)?;
        // Every stream has the shards of its window open, plus one at each end.
        let samples_of_a_shard = (order.samples() / shards as u64).max(1);
        let shards_of_a_window = (window as u64).div_ceil(samples_of_a_shard) + 2;
        let in_use = (streams.end - streams.start).saturating_mul(shards_of_a_window).min(shards as u64);
        store.limit(in_use as usize);
        Ok(Self { settings, order, streams, store, sidecars, starts, in_use, selection: check })
    }

    /// The samples that may come into each row of a batch, in the order in which they are tried.
    pub(crate) fn samples_of(&self, at: Position) -> Vec<impl Iterator<Item = SampleId> + use<>> {
        let mut epochs = vec![None; self.order.sets().len()];
        let row = |Place { set, epoch, stream, position }| {
            let epoch = epochs[set].get_or_insert_with(|| Arc::new(self.order.sets()[set].epoch(epoch)));
            let (epoch, first) = (Arc::clone(epoch), self.order.first_shard(set));
            let mut tried = 0;
            std::iter::from_fn(move || {
                let SampleId { shard, sample } = epoch.replacements(stream, position).nth(tried)?.id;
                tried += 1;
                Some(SampleId { shard: shard + first, sample })
            })
        };
        self.order.rows(at, self.streams.clone()).map(row).collect()
    }

    /// Number of rows in this rank's part of a batch.
    pub(crate) fn rows(&self) -> usize {
        ((self.streams.end - self.streams.start) * self.order.rows_per_stream()) as usize
    }
}
