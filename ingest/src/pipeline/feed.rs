//! Reads the rows of the inputs in order, assigns them to shards, and skips the shards of other jobs and complete shards.

use crossbeam::channel::Sender;

use super::{Event, Inputs, Run, Task};
use crate::dataset::Dataset;
use crate::error::Error;
use crate::rows::Rows;
use crate::sample::{Problem, Sample};
use crate::shard::ShardWriter;
use crate::stats::Totals;

/// Submits the rows of the inputs, shard by shard.
pub(super) struct Feeder<'a> {
    pub(super) dataset: &'a Dataset,
    pub(super) run: &'a Run,
    pub(super) events: Sender<Event>,
    /// One message per open shard; full if the maximum number of shards is open.
    pub(super) opened: Sender<()>,
    /// Counts of the shards that were complete before this run.
    pub(super) finished: Totals,
}

impl Feeder<'_> {
    /// Submits all rows of this job, except those of complete shards.
    pub(super) fn feed(
        &mut self,
        shards: Option<&[u32]>,
        inputs: Inputs<'_>,
        submit: &mut dyn FnMut(Task) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if let Some(shards) = shards {
            for (&shard, rows) in shards.iter().zip(inputs) {
                self.feed_rows(shard, rows?.as_mut(), submit)?;
            }
            return Ok(());
        }
        let mut shard = 0;
        for rows in inputs {
            let mut rows = rows?;
            while self.feed_shard(shard, rows.as_mut(), submit)? {
                shard += 1;
            }
        }
        Ok(())
    }

    /// Submits or skips the rows of one shard; false if no rows are left.
    fn feed_shard(
        &mut self,
        shard: u32,
        rows: &mut dyn Rows,
        submit: &mut dyn FnMut(Task) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let size = self.dataset.shard_size;
        if self.run.stopped() {
            return Err(Error::Interrupted);
        }
        if !self.dataset.part.owns(shard) {
            return Ok(rows.skip(size as usize)? > 0);
        }
        if let Some(stats) = self.dataset.finished(shard)? {
            self.finished.finished_shard(&stats);
            return Ok(rows.skip(size as usize)? > 0);
        }
        self.feed_rows(shard, rows, submit)
    }

    fn feed_rows(
        &mut self,
        shard: u32,
        rows: &mut dyn Rows,
        submit: &mut dyn FnMut(Task) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let size = self.dataset.shard_size;
        let mut next = rows.next_row()?;
        if next.is_none() {
            return Ok(false);
        }
        let writer = ShardWriter::create(self.dataset, shard, rows.extra(), rows.captioned())?;
        self.opened.send(()).map_err(|_| Error::Interrupted)?;
        self.send(Event::Open(Box::new(writer)))?;
        let mut count = 0;
        while let Some(mut row) = next {
            if self.run.stopped() {
                return Err(Error::Interrupted);
            }
            if row.problem.is_none() && row.url.is_empty() {
                row.problem = Some(Problem::read("no URL or file name"));
            }
            let index = count;
            count += 1;
            if let Some(problem) = row.problem.clone() {
                self.send(Event::Done(Box::new(Sample { shard, index, row, outcome: Err(problem) })))?;
            } else {
                submit(Task { shard, index, row })?;
            }
            next = if count < size { rows.next_row()? } else { None };
        }
        self.send(Event::Close { shard, count })?;
        Ok(true)
    }

    fn send(&self, event: Event) -> Result<(), Error> {
        // Fails only if the writer has ended, whose own error gives the cause.
        self.events.send(event).map_err(|_| Error::Interrupted)
    }

    /// Drops the channels, whose receivers wait for that, and returns the counts of the shards that were complete before.
    pub(super) fn close(self) -> Totals {
        self.finished
    }
}
