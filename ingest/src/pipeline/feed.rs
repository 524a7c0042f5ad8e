//! Reads the rows of the inputs in order, assigns them to shards, and claims the shards that no other process makes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};

use super::{Event, POLL_INTERVAL, Run, Task, Work};
use crate::dataset::Dataset;
use crate::dataset::ShardStats;
use crate::dataset::claim::{Claim, Claims};
use crate::dataset::publish;
use crate::deny::Deny;
use crate::error::Error;
use crate::messages::counted;
use crate::pipeline::Totals;
use crate::problem::{DENIED, Problem};
use crate::request::Request;
use crate::rows::{Row, Rows};
use crate::sample::Sample;
use crate::shard::ShardWriter;

/// Number of shards filled at a time: more than one, so that a slow image at the end of a shard does not block the rest.
const OPEN_SHARDS: usize = 4;
/// The same while nearly all rows of the open shards wait for slow hosts, or for hosts that asked for it. Each open shard takes disk space.
const MOST_OPEN_SHARDS: usize = 32;
/// How long that must last before another shard is opened.
const IDLE_FOR: Duration = Duration::from_secs(1);
/// Maximum number of shards that are taken over from other processes at a time.
const TAKEN_OVER: usize = 4;
/// How often this process looks whether others have finished their shards, in a folder and in an object store.
const LOOK_EVERY: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// Submits the rows of the inputs, shard by shard.
pub(super) struct Feeder<'a> {
    dataset: &'a Dataset,
    run: &'a Run,
    events: Sender<Event>,
    /// Number of open shards, and one message for each that was finished since.
    open: usize,
    closed: Receiver<()>,
    /// See [`Plan::idle`](super::Plan::idle).
    idle: &'a dyn Fn() -> bool,
    /// What must not be taken.
    deny: Option<&'a Deny>,
    /// Counts of the shards that this run did not make.
    finished: Totals,
    claims: Claims,
    /// Shards that other processes have claimed, and their statistics if they are to be made again.
    others: BTreeMap<u32, Option<ShardStats>>,
    /// Shards that were theirs and are to be made by this process now; None on the first pass over the inputs.
    taken_over: Option<BTreeMap<u32, Claim>>,
}

impl<'a> Feeder<'a> {
    pub(super) fn new(
        dataset: &'a Dataset,
        run: &'a Run,
        events: Sender<Event>,
        closed: Receiver<()>,
        idle: &'a dyn Fn() -> bool,
        deny: Option<&'a Deny>,
    ) -> Self {
        Self {
            dataset,
            run,
            events,
            open: 0,
            closed,
            idle,
            deny,
            finished: Totals::default(),
            claims: Claims::new(&dataset.folder),
            others: BTreeMap::new(),
            taken_over: None,
        }
    }

    /// Submits all rows of this job, except those of complete shards and of shards that other processes make. Returns
    /// when those are complete too. If their processes end before that, makes them.
    pub(super) fn feed(
        &mut self,
        mut work: Work<'_>,
        submit: &mut dyn FnMut(Task) -> Result<(), Error>,
    ) -> Result<(), Error> {
        loop {
            match &mut work {
                Work::Inputs(open) => {
                    let mut shard = 0;
                    for rows in open() {
                        let mut rows = rows?;
                        while self.feed_next(shard, rows.as_mut(), submit)? {
                            shard += 1;
                        }
                    }
                }
                Work::Again(shards, open) => {
                    for (shard, before) in *shards {
                        self.wait_for_place()?;
                        if let Some(claim) = self.claim(*shard, Some(before))? {
                            let mut rows = open(*shard)?;
                            if let Some(first) = rows.next_row()? {
                                self.feed_rows(*shard, claim, first, rows.as_mut(), submit)?;
                            }
                        }
                    }
                }
            }
            if self.others.is_empty() {
                return Ok(());
            }
            let taken = self.wait_for_others()?;
            if taken.is_empty() {
                return Ok(());
            }
            self.taken_over = Some(taken);
        }
    }

    /// Submits or skips the rows of the next shard; false if no rows are left.
    fn feed_next(
        &mut self,
        shard: u32,
        rows: &mut dyn Rows,
        submit: &mut dyn FnMut(Task) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let size = self.dataset.shard_size as usize;
        if !self.dataset.part.owns(shard) || self.is_left_out(shard) {
            return Ok(rows.skip(size)? > 0);
        }
        if let Some(stats) = self.done(shard, None)? {
            self.finished.finished_shard(&stats);
            return Ok(rows.skip(size)? > 0);
        }
        // Only shards that have rows are claimed.
        let Some(first) = rows.next_row()? else { return Ok(false) };
        // Others may make the shard as long as there is no place for it here.
        self.wait_for_place()?;
        match self.claim(shard, None)? {
            Some(claim) => self.feed_rows(shard, claim, first, rows, submit)?,
            None => _ = rows.skip(size - 1)?,
        }
        Ok(true)
    }

    /// Whether this is a later pass, for other shards.
    fn is_left_out(&self, shard: u32) -> bool {
        self.taken_over.as_ref().is_some_and(|taken| !taken.contains_key(&shard))
    }

    /// The statistics of a shard with which there is nothing to do; `before` are those of a shard to make again.
    fn done(&self, shard: u32, before: Option<&ShardStats>) -> Result<Option<ShardStats>, Error> {
        Ok(self.dataset.finished(shard)?.filter(|stats| Some(stats) != before))
    }

    /// Claims a shard; None if another process makes it or has made it, or if it is not the turn of this shard.
    fn claim(&mut self, shard: u32, before: Option<&ShardStats>) -> Result<Option<Claim>, Error> {
        if self.run.stopped() {
            return Err(Error::interrupted());
        }
        if let Some(taken) = &mut self.taken_over {
            return Ok(taken.remove(&shard));
        }
        let name = Dataset::name(shard);
        let Some(claim) = self.claims.take(&name)? else {
            self.others.insert(shard, before.cloned());
            return Ok(None);
        };
        // A process that held the claim before may have been killed while it renamed the shard's files, or have finished.
        publish::recover_shard(&self.dataset.folder, &name)?;
        if let Some(stats) = self.done(shard, before)? {
            self.finished.finished_shard(&stats);
            return Ok(None);
        }
        Ok(Some(claim))
    }

    /// Waits until every shard of other processes is complete, or some lost their processes: then returns claims of
    /// those.
    fn wait_for_others(&mut self) -> Result<BTreeMap<u32, Claim>, Error> {
        let shards = counted(self.others.len() as u64, "shard");
        eprintln!("waiting for {shards} that other processes are making");
        let every = LOOK_EVERY[usize::from(self.dataset.folder.is_remote())];
        let mut taken = BTreeMap::new();
        loop {
            for (shard, before) in std::mem::take(&mut self.others) {
                // On the first pass `claim` claims; what others still hold, it puts back.
                self.taken_over = None;
                if taken.len() == TAKEN_OVER {
                    self.others.insert(shard, before);
                } else if let Some(claim) = self.claim(shard, before.as_ref())? {
                    taken.insert(shard, claim);
                }
            }
            if self.others.is_empty() || !taken.is_empty() {
                return Ok(taken);
            }
            let until = Instant::now() + every;
            while Instant::now() < until {
                if self.run.stopped() {
                    return Err(Error::interrupted());
                }
                std::thread::sleep(POLL_INTERVAL);
            }
        }
    }

    /// Waits until another shard may be opened.
    fn wait_for_place(&mut self) -> Result<(), Error> {
        self.open -= self.closed.try_iter().count();
        let mut idle_since = None;
        while self.open >= OPEN_SHARDS {
            if self.run.stopped() {
                return Err(Error::interrupted());
            }
            match self.closed.recv_timeout(POLL_INTERVAL) {
                Ok(()) => self.open -= 1,
                // The writer has ended, and its own error gives the cause.
                Err(RecvTimeoutError::Disconnected) => return Err(Error::interrupted()),
                Err(RecvTimeoutError::Timeout) if !(self.idle)() => idle_since = None,
                Err(RecvTimeoutError::Timeout) => {
                    let idle_for = idle_since.get_or_insert_with(Instant::now).elapsed();
                    if idle_for > IDLE_FOR && self.open < MOST_OPEN_SHARDS {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn feed_rows(
        &mut self,
        shard: u32,
        claim: Claim,
        first: Row,
        rows: &mut dyn Rows,
        submit: &mut dyn FnMut(Task) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let size = self.dataset.shard_size;
        let writer = ShardWriter::create(self.dataset, shard, claim, rows.extra(), rows.captioned())?;
        let spool = writer.spool();
        self.open += 1;
        self.send(Event::Open(Box::new(writer)))?;
        let mut next = Some(first);
        let mut count = 0;
        while let Some(mut row) = next {
            if self.run.stopped() {
                return Err(Error::interrupted());
            }
            if row.problem.is_none() && row.url.is_empty() && row.removed.is_none() {
                row.problem = Some(Problem::read("no URL or file name"));
            }
            let index = count;
            count += 1;
            if let Some(mut problem) = row.problem.clone() {
                if self.deny.is_some_and(|deny| deny.has_url(&row.url)) {
                    (row, problem) = (row.without_texts(), Problem::removed(DENIED));
                }
                let (request, outcome) = (Request::default(), Err(problem));
                let sample = Sample { shard, index, row, request, language: None, outcome };
                self.send(Event::Done(Box::new(sample)))?;
            } else {
                let request = Request::default();
                submit(Task { shard, index, row, request, spool: Arc::clone(&spool) })?;
            }
            next = if count < size { rows.next_row()? } else { None };
        }
        self.send(Event::Close { shard, count })
    }

    fn send(&self, event: Event) -> Result<(), Error> {
        // Fails only if the writer has ended, whose own error gives the cause.
        self.events.send(event).map_err(|_| Error::interrupted())
    }

    /// Drops the channels, whose receivers wait for that, and returns the counts of the shards that this run did not make.
    pub(super) fn close(self) -> Totals {
        self.finished
    }
}
