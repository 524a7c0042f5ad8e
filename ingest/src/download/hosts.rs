//! Manners towards each host: few connections at a time, a pause when it asks for one, and no more attempts for a
//! while at a host where nothing answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failure::Failure;
use crate::watch::Network;

/// So many failures to reach a host in a row, without a success between them, and it is left alone.
const FAILURES: u32 = 20;
/// One that ran out of time counts as so many: it held up a request all that while.
const TIMED_OUT: u32 = 4;
/// Requests at a time to a host that has never answered. Silent hosts would else take all there are.
const UNKNOWN: usize = 4;
/// For so long; then one attempt decides again.
const LEFT_ALONE: Duration = Duration::from_mins(1);
/// Beyond so many hosts those that are idle and not left alone are forgotten. A list of the web has millions.
const MOST_HOSTS: usize = 100_000;

/// The state of all hosts.
pub(super) struct Hosts {
    connections: usize,
    book: Mutex<Book>,
    network: Arc<Network>,
}

#[derive(Default)]
struct Book {
    hosts: HashMap<String, Arc<Host>>,
    /// Number of hosts at which some are forgotten next. It doubles where none can be, so that looking costs little.
    full: usize,
}

/// The state of one host.
pub(super) struct Host {
    name: String,
    network: Arc<Network>,
    slots: Arc<Semaphore>,
    /// Slots to come with its first answer.
    withheld: usize,
    mood: Mutex<Mood>,
}

#[derive(Default)]
struct Mood {
    /// Whether it has ever answered.
    known: bool,
    failures: u32,
    /// It asked not to be asked before this (`Retry-After`).
    pause: Option<Instant>,
    /// Nothing is tried before this.
    closed: Option<Instant>,
}

impl Mood {
    /// Whether a pause or being left alone lasts.
    fn is_waiting(&self, now: Instant) -> bool {
        self.pause.max(self.closed).is_some_and(|until| until > now)
    }
}

impl Hosts {
    /// At most `connections` requests to a host at a time.
    pub(super) fn new(connections: usize, network: Arc<Network>) -> Self {
        Self { connections, book: Mutex::new(Book { hosts: HashMap::new(), full: MOST_HOSTS }), network }
    }

    pub(super) fn get(&self, name: &str) -> Arc<Host> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = book.hosts.get(name) {
            return Arc::clone(host);
        }
        if book.hosts.len() >= book.full {
            let now = Instant::now();
            book.hosts.retain(|name, host| {
                let kept = Arc::strong_count(host) > 1 || host.lock().is_waiting(now);
                if !kept {
                    self.network.well(name);
                }
                kept
            });
            book.full = MOST_HOSTS.max(2 * book.hosts.len());
        }
        let host = Arc::new(Host {
            name: name.to_owned(),
            network: Arc::clone(&self.network),
            slots: Arc::new(Semaphore::new(self.connections.min(UNKNOWN))),
            withheld: self.connections.saturating_sub(UNKNOWN),
            mood: Mutex::default(),
        });
        book.hosts.insert(name.to_owned(), Arc::clone(&host));
        host
    }
}

impl Host {
    fn lock(&self) -> std::sync::MutexGuard<'_, Mood> {
        self.mood.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether others than the caller wait for it or are served by it.
    pub(super) fn is_shared(self: &Arc<Self>) -> bool {
        // One is in the book, one in the caller's hands.
        Arc::strong_count(self) > 2
    }

    /// Waits for a connection slot and for the end of a pause.
    pub(super) async fn enter(&self) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        // The semaphore is never closed.
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        loop {
            let (closed, pause) = {
                let mood = self.lock();
                (mood.closed, mood.pause)
            };
            let now = Instant::now();
            if closed.is_some_and(|until| until > now) {
                return Err(Failure::HostFailing);
            }
            match pause.filter(|until| *until > now) {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => return Ok(slot),
            }
        }
    }

    /// Nothing more is sent to the host for so long.
    pub(super) fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut mood = self.lock();
        mood.pause = Some(mood.pause.map_or(until, |before| before.max(until)));
    }

    /// Learns from the end of an attempt.
    pub(super) fn learn(&self, failure: Option<&Failure>) {
        let mut mood = self.lock();
        if !failure.is_some_and(Failure::blames_host) {
            mood.failures = 0;
            if !std::mem::replace(&mut mood.known, true) {
                self.slots.add_permits(self.withheld);
            }
            if mood.closed.take().is_some() {
                self.network.well(&self.name);
            }
            return;
        }
        mood.failures += if failure.is_some_and(Failure::is_timeout) { TIMED_OUT } else { 1 };
        if mood.failures >= FAILURES {
            mood.closed = Some(Instant::now() + LEFT_ALONE);
            self.network.trouble(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Watch;

    #[test]
    fn of_millions_of_hosts_most_are_forgotten_but_not_those_that_wait() {
        let network: Arc<Network> = Arc::default();
        let hosts = Hosts::new(1, Arc::clone(&network));
        for _ in 0..FAILURES {
            hosts.get("dead").learn(Some(&Failure::Refused));
            hosts.get("dead a minute ago").learn(Some(&Failure::Refused));
        }
        hosts.get("dead a minute ago").lock().closed = Some(Instant::now());
        for number in 0..4 * MOST_HOSTS {
            hosts.get(&number.to_string()).learn(Some(&Failure::NameNotFound));
        }
        assert!(hosts.book.lock().unwrap().hosts.len() <= MOST_HOSTS);
        assert!(hosts.get("dead").lock().closed.is_some());
        let message = Watch::new(network).message();
        assert!(message.contains(", 1 hosts in trouble (dead)"), "{message}");
    }

    #[test]
    fn silent_hosts_take_few_requests_and_are_left_alone_sooner() {
        let hosts = Hosts::new(16, Arc::default());
        let host = hosts.get("silent");
        assert!(!host.is_shared());
        assert!(hosts.get("silent").is_shared());
        assert_eq!(host.slots.available_permits(), UNKNOWN);
        for _ in 0..FAILURES / TIMED_OUT {
            assert!(host.lock().closed.is_none());
            host.learn(Some(&Failure::ResponseTimeout));
        }
        assert!(host.lock().closed.is_some());
        for _ in 0..2 {
            host.learn(None);
        }
        assert_eq!(host.slots.available_permits(), 16, "once it answers it is a host like any other");
    }

    #[test]
    fn a_host_that_never_answers_is_left_alone_until_something_does() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let hosts = Hosts::new(2, Arc::default());
        let host = hosts.get("h");
        for _ in 0..FAILURES - 1 {
            host.learn(Some(&Failure::Refused));
        }
        assert!(runtime.block_on(host.enter()).is_ok());
        host.learn(Some(&Failure::Http { status: 404, retry_after: None }));
        host.learn(Some(&Failure::Refused));
        assert!(runtime.block_on(host.enter()).is_ok(), "an answer, even a 404, clears it");
        for _ in 0..FAILURES {
            host.learn(Some(&Failure::Refused));
        }
        assert_eq!(runtime.block_on(host.enter()).unwrap_err(), Failure::HostFailing);
        assert!(runtime.block_on(hosts.get("other").enter()).is_ok());
    }
}
