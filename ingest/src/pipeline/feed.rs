//! The rows of the inputs, in order: which shard each belongs to, which shards are made here and now.

use crossbeam::channel::Sender;

use super::{Event, Inputs, Run, Task};
use crate::error::Error;
use crate::rows::Rows;
use crate::sample::{Problem, Sample};
use crate::set::Set;
use crate::shard::ShardWriter;
use crate::stats::Totals;

/// Hands out the rows of the inputs, shard by shard.
pub(super) struct Feeder<'a> {
    pub(super) set: &'a Set,
    pub(super) run: &'a Run,
    pub(super) events: Sender<Event>,
    /// Full while as many shards as may be are open.
    pub(super) opened: Sender<()>,
    /// Of the shards that an earlier run finished.
    pub(super) finished: Totals,
}

impl Feeder<'_> {
    /// Feeds all rows that are this process's, but those of finished shards.
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

    /// Feeds one shard's rows, or passes over them; false when there are none left.
    fn feed_shard(
        &mut self,
        shard: u32,
        rows: &mut dyn Rows,
        submit: &mut dyn FnMut(Task) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let size = self.set.shard_size;
        if self.run.stopped() {
            return Err(Error::Interrupted);
        }
        if !self.set.part.owns(shard) {
            return Ok(rows.skip(size as usize)? > 0);
        }
        if let Some(stats) = self.set.finished(shard)? {
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
        let size = self.set.shard_size;
        let mut next = rows.next_row()?;
        if next.is_none() {
            return Ok(false);
        }
        let writer = ShardWriter::create(self.set, shard, rows.extra(), rows.captioned())?;
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
        // Fails only when the writer has ended, whose own error then says why.
        self.events.send(event).map_err(|_| Error::Interrupted)
    }

    /// Lets go of the channels, whose other ends wait for that; what was finished before.
    pub(super) fn close(self) -> Totals {
        self.finished
    }
}
