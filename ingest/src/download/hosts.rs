//! Limits per host: the number of requests at a time, pauses that the host asks for, and a circuit breaker that stops
//! requests to a host that does not answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failure::Failure;
use crate::watch::Network;

/// Number of consecutive failures to reach a host that opens its circuit: no more requests are sent to it.
const FAILURES_TO_OPEN: u32 = 20;
/// A timeout counts as this many failures, because it occupied a request for its whole duration.
const TIMEOUT_WEIGHT: u32 = 4;
/// Maximum number of requests at a time to a host that has not answered yet. Without it, hosts that never answer would
/// occupy all requests.
const CONNECTIONS_BEFORE_ANSWER: usize = 4;
/// How long a circuit stays open; the next attempt then decides whether it opens again.
const OPEN_FOR: Duration = Duration::from_mins(1);
/// With more hosts, those that are idle and not blocked are evicted. A list from the web has millions of hosts.
const MAX_HOSTS: usize = 100_000;

/// The state of all hosts.
pub(super) struct Hosts {
    connections: usize,
    registry: Mutex<Registry>,
    network: Arc<Network>,
}

#[derive(Default)]
struct Registry {
    hosts: HashMap<String, Arc<Host>>,
    /// Number of hosts at which the next eviction happens. It doubles if few can be evicted, so that evictions stay rare.
    sweep_at: usize,
}

/// The state of one host.
pub(super) struct Host {
    name: String,
    network: Arc<Network>,
    connections_left: Arc<Semaphore>,
    /// Permits that are added when the host answers for the first time.
    reserve: usize,
    state: Mutex<HostState>,
}

#[derive(Default)]
struct HostState {
    has_answered: bool,
    /// Consecutive failures, timeouts weighted.
    failures: u32,
    /// The host asked for no requests before this (`Retry-After`).
    pause: Option<Instant>,
    /// The circuit is open until this.
    open_until: Option<Instant>,
}

impl HostState {
    /// Whether the host is paused or its circuit is open.
    fn is_blocked(&self, now: Instant) -> bool {
        self.pause.max(self.open_until).is_some_and(|until| until > now)
    }
}

impl Hosts {
    /// `connections`: maximum number of requests at a time to one host.
    pub(super) fn new(connections: usize, network: Arc<Network>) -> Self {
        Self {
            connections,
            registry: Mutex::new(Registry { hosts: HashMap::new(), sweep_at: MAX_HOSTS }),
            network,
        }
    }

    pub(super) fn get(&self, name: &str) -> Arc<Host> {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = registry.hosts.get(name) {
            return Arc::clone(host);
        }
        if registry.hosts.len() >= registry.sweep_at {
            let now = Instant::now();
            registry.hosts.retain(|name, host| {
                let kept = Arc::strong_count(host) > 1 || host.lock().is_blocked(now);
                if !kept {
                    self.network.circuit_closed(name);
                }
                kept
            });
            registry.sweep_at = MAX_HOSTS.max(2 * registry.hosts.len());
        }
        let host = Arc::new(Host {
            name: name.to_owned(),
            network: Arc::clone(&self.network),
            connections_left: Arc::new(Semaphore::new(self.connections.min(CONNECTIONS_BEFORE_ANSWER))),
            reserve: self.connections.saturating_sub(CONNECTIONS_BEFORE_ANSWER),
            state: Mutex::default(),
        });
        registry.hosts.insert(name.to_owned(), Arc::clone(&host));
        host
    }
}

impl Host {
    fn lock(&self) -> std::sync::MutexGuard<'_, HostState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether other tasks than the caller use this host.
    pub(super) fn is_shared(self: &Arc<Self>) -> bool {
        // One reference is in the registry, one is the caller's.
        Arc::strong_count(self) > 2
    }

    /// Waits for a permit to send a request, and for the end of a pause.
    pub(super) async fn enter(&self) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.connections_left).acquire_owned().await.ok();
        loop {
            let (open_until, pause) = {
                let state = self.lock();
                (state.open_until, state.pause)
            };
            let now = Instant::now();
            if open_until.is_some_and(|until| until > now) {
                return Err(Failure::HostFailing);
            }
            match pause.filter(|until| *until > now) {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => return Ok(permit),
            }
        }
    }

    /// Sends no more requests to the host for this time.
    pub(super) fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut state = self.lock();
        state.pause = Some(state.pause.map_or(until, |before| before.max(until)));
    }

    /// Updates the state with the outcome of an attempt.
    pub(super) fn record(&self, failure: Option<&Failure>) {
        let mut state = self.lock();
        if !failure.is_some_and(Failure::blames_host) {
            state.failures = 0;
            if !std::mem::replace(&mut state.has_answered, true) {
                self.connections_left.add_permits(self.reserve);
            }
            if state.open_until.take().is_some() {
                self.network.circuit_closed(&self.name);
            }
            return;
        }
        state.failures += if failure.is_some_and(Failure::is_timeout) { TIMEOUT_WEIGHT } else { 1 };
        if state.failures >= FAILURES_TO_OPEN {
            state.open_until = Some(Instant::now() + OPEN_FOR);
            self.network.circuit_opened(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Watch;

    #[test]
    fn idle_hosts_are_evicted_and_blocked_hosts_are_kept() {
        let network: Arc<Network> = Arc::default();
        let hosts = Hosts::new(1, Arc::clone(&network));
        for _ in 0..FAILURES_TO_OPEN {
            hosts.get("dead").record(Some(&Failure::Refused));
            hosts.get("dead a minute ago").record(Some(&Failure::Refused));
        }
        hosts.get("dead a minute ago").lock().open_until = Some(Instant::now());
        for number in 0..4 * MAX_HOSTS {
            hosts.get(&number.to_string()).record(Some(&Failure::NameNotFound));
        }
        assert!(hosts.registry.lock().unwrap().hosts.len() <= MAX_HOSTS);
        assert!(hosts.get("dead").lock().open_until.is_some());
        let message = Watch::new(network).message();
        assert!(message.contains(", 1 host skipped after repeated failures (dead)"), "{message}");
    }

    #[test]
    fn hosts_without_an_answer_get_few_requests_and_their_circuit_opens_sooner() {
        let hosts = Hosts::new(16, Arc::default());
        let host = hosts.get("silent");
        assert!(!host.is_shared());
        assert!(hosts.get("silent").is_shared());
        assert_eq!(host.connections_left.available_permits(), CONNECTIONS_BEFORE_ANSWER);
        for _ in 0..FAILURES_TO_OPEN / TIMEOUT_WEIGHT {
            assert!(host.lock().open_until.is_none());
            host.record(Some(&Failure::ResponseTimeout));
        }
        assert!(host.lock().open_until.is_some());
        for _ in 0..2 {
            host.record(None);
        }
        assert_eq!(
            host.connections_left.available_permits(),
            16,
            "a host that has answered gets all its permits"
        );
    }

    #[test]
    fn the_circuit_of_a_failing_host_opens_and_any_answer_resets_the_count() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let hosts = Hosts::new(2, Arc::default());
        let host = hosts.get("h");
        for _ in 0..FAILURES_TO_OPEN - 1 {
            host.record(Some(&Failure::Refused));
        }
        assert!(runtime.block_on(host.enter()).is_ok());
        host.record(Some(&Failure::Http { status: 404, retry_after: None }));
        host.record(Some(&Failure::Refused));
        assert!(runtime.block_on(host.enter()).is_ok(), "an answer, even a 404, resets the count");
        for _ in 0..FAILURES_TO_OPEN {
            host.record(Some(&Failure::Refused));
        }
        assert_eq!(runtime.block_on(host.enter()).unwrap_err(), Failure::HostFailing);
        assert!(runtime.block_on(hosts.get("other").enter()).is_ok());
    }
}
