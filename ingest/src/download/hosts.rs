//! Manners towards each host: few connections at a time, a pause when it asks for one, and no more attempts for a
//! while at a host where nothing answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failure::Failure;

/// So many failures to reach a host in a row, without a success between them, and it is left alone.
const FAILURES: u32 = 20;
/// For so long; then one attempt decides again.
const LEFT_ALONE: Duration = Duration::from_secs(60);
/// Hosts remembered at most; beyond it those that are idle and well are forgotten.
const MOST_HOSTS: usize = 100_000;

/// The state of all hosts.
pub(super) struct Hosts {
    connections: usize,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

/// The state of one host.
pub(super) struct Host {
    slots: Arc<Semaphore>,
    mood: Mutex<Mood>,
}

#[derive(Default)]
struct Mood {
    failures: u32,
    /// It asked not to be asked before this (`Retry-After`).
    pause: Option<Instant>,
    /// Nothing is tried before this.
    closed: Option<Instant>,
}

impl Hosts {
    /// At most `connections` requests to a host at a time.
    pub(super) fn new(connections: usize) -> Self {
        Self { connections, hosts: Mutex::default() }
    }

    pub(super) fn get(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(name) {
            return Arc::clone(host);
        }
        if hosts.len() >= MOST_HOSTS {
            hosts.retain(|_, host| Arc::strong_count(host) > 1 || host.lock().failures > 0);
        }
        let host =
            Arc::new(Host { slots: Arc::new(Semaphore::new(self.connections)), mood: Mutex::default() });
        hosts.insert(name.to_owned(), Arc::clone(&host));
        host
    }
}

impl Host {
    fn lock(&self) -> std::sync::MutexGuard<'_, Mood> {
        self.mood.lock().unwrap_or_else(PoisonError::into_inner)
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
            mood.closed = None;
            return;
        }
        mood.failures += 1;
        if mood.failures >= FAILURES {
            mood.closed = Some(Instant::now() + LEFT_ALONE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_never_answers_is_left_alone_until_something_does() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let hosts = Hosts::new(2);
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
