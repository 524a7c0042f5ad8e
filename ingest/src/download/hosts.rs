//! Limits per host: the number of requests at a time, pauses that the host asks for, and a circuit breaker that stops
//! requests to a host that does not answer. Rows beyond these limits are set aside, so that they do not hold the places of
//! other hosts' rows.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use super::ROWS_PER_REQUEST;
use super::failure::Failure;
use crate::pipeline::watch::Network;
use crate::shard::spool::{Place, Spool};

/// Number of consecutive failures to reach a host that opens its circuit: no more requests are sent to it.
const FAILURES_TO_OPEN: u32 = 20;
/// Number of pauses in a row, without any other answer between them, after which the circuit opens too.
const FRUITLESS_PAUSES: u32 = 3;
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
    /// Rows that may be started at a time, including those that wait for another attempt.
    rows_left: Arc<Semaphore>,
    rows: usize,
    state: Mutex<HostState>,
}

/// A row that waits for its host, on the disk.
pub(super) struct Aside {
    pub(super) spool: Arc<Spool>,
    pub(super) place: Place,
    pub(super) shard: u32,
    pub(super) index: u32,
    /// Number of earlier attempts.
    pub(super) attempt: u32,
    /// URLs of the redirects so far; the last is the next to ask for. Empty before the first.
    pub(super) urls: Vec<Url>,
}

#[derive(Default)]
struct HostState {
    has_answered: bool,
    /// Consecutive failures, timeouts weighted.
    failures: u32,
    /// The host asked for no requests before this (`Retry-After`).
    pause: Option<Instant>,
    /// Pauses since the last answer that was no request for a pause.
    fruitless_pauses: u32,
    /// The circuit is open until this.
    open_until: Option<Instant>,
    /// Rows that wait, and whether a task starts them.
    aside: VecDeque<Aside>,
    is_starting: bool,
}

impl HostState {
    /// Whether the host is paused or its circuit is open.
    fn is_blocked(&self, now: Instant) -> bool {
        self.is_open(now) || self.paused_until(now).is_some()
    }

    fn is_open(&self, now: Instant) -> bool {
        self.open_until.is_some_and(|until| until > now)
    }

    /// The end of the pause; None if there is none. An open circuit needs no pause: it fails at once.
    fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.pause.filter(|until| *until > now && !self.is_open(now))
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
            rows_left: Arc::new(Semaphore::new(self.connections * ROWS_PER_REQUEST)),
            rows: self.connections * ROWS_PER_REQUEST,
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

    /// Whether other rows than the caller's need this host.
    pub(super) fn is_shared(&self) -> bool {
        self.rows - self.rows_left.available_permits() > 1 || !self.lock().aside.is_empty()
    }

    /// A permit to start a row; None if it has to be set aside, because the host is paused or has too many rows.
    pub(super) fn start(&self) -> Option<OwnedSemaphorePermit> {
        let state = self.lock();
        if state.paused_until(Instant::now()).is_some() || !state.aside.is_empty() {
            return None;
        }
        self.additional()
    }

    /// A permit for a started row that was redirected here; None if the host has too many rows.
    pub(super) fn additional(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.rows_left).try_acquire_owned().ok()
    }

    /// Sets a row aside. Returns whether the caller has to start a task that starts such rows.
    pub(super) fn set_aside(&self, row: Aside) -> bool {
        let mut state = self.lock();
        state.aside.push_back(row);
        !std::mem::replace(&mut state.is_starting, true)
    }

    /// Waits until a row that was set aside may be started; the permit for it.
    pub(super) async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            // The semaphore is never closed.
            let permit = Arc::clone(&self.rows_left).acquire_owned().await.ok();
            let Some(until) = self.lock().paused_until(Instant::now()) else { return permit };
            drop(permit);
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// The first row that was set aside; None at their end, when the task that starts them ends too.
    pub(super) fn next_aside(&self) -> Option<Aside> {
        let mut state = self.lock();
        let next = state.aside.pop_front();
        state.is_starting = next.is_some();
        next
    }

    /// Waits for a permit to send a request; None if the host is paused.
    pub(super) async fn enter(&self) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        if self.accepts_requests()? {
            // The semaphore is never closed.
            let permit = Arc::clone(&self.connections_left).acquire_owned().await.ok();
            if self.accepts_requests()? {
                return Ok(permit);
            }
        }
        Ok(None)
    }

    /// False if the host is paused; an error if its circuit is open.
    fn accepts_requests(&self) -> Result<bool, Failure> {
        let (state, now) = (self.lock(), Instant::now());
        if state.is_open(now) { Err(Failure::HostFailing) } else { Ok(state.paused_until(now).is_none()) }
    }

    /// Sends no more requests to the host for this time. If it asks for that again and again and gives no other answer,
    /// its circuit opens.
    pub(super) fn pause(&self, wait: Duration) {
        let now = Instant::now();
        let mut state = self.lock();
        // Requests that were under way at the same time ask for one pause.
        if state.paused_until(now).is_none() && !wait.is_zero() {
            state.fruitless_pauses += 1;
        }
        state.pause = state.pause.max(Some(now + wait));
        if state.fruitless_pauses > FRUITLESS_PAUSES && !state.is_open(now) {
            self.open(&mut state);
        }
    }

    fn open(&self, state: &mut HostState) {
        state.open_until = Some(Instant::now() + OPEN_FOR);
        self.network.circuit_opened(&self.name);
    }

    /// Updates the state with the outcome of an attempt.
    pub(super) fn record(&self, failure: Option<&Failure>) {
        let mut state = self.lock();
        if !failure.is_some_and(Failure::blames_host) {
            state.failures = 0;
            if !matches!(failure, Some(Failure::Http { retry_after: Some(_), .. })) {
                state.fruitless_pauses = 0;
            }
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
            self.open(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::watch::Watch;

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
        let _first = host.start().unwrap();
        assert!(!host.is_shared());
        let _second = host.start().unwrap();
        assert!(host.is_shared());
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

    #[test]
    fn a_host_that_only_asks_for_pauses_is_given_up_and_one_that_also_answers_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let limited = Failure::Http { status: 429, retry_after: Some(Duration::from_mins(1)) };
        let hosts = Hosts::new(2, Arc::default());
        for (name, answers) in [("limits", false), ("answers", true)] {
            let host = hosts.get(name);
            for round in 0..=FRUITLESS_PAUSES {
                assert!(runtime.block_on(host.enter()).unwrap().is_some(), "{name}, round {round}");
                // Two requests under way ask for one pause.
                for _ in 0..2 {
                    host.record(Some(&limited));
                    host.pause(Duration::from_mins(1));
                }
                if round < FRUITLESS_PAUSES {
                    assert!(runtime.block_on(host.enter()).unwrap().is_none(), "{name} is paused");
                }
                // The pause ends.
                host.lock().pause = None;
                if answers {
                    host.record(Some(&Failure::Http { status: 404, retry_after: None }));
                }
            }
            assert_eq!(runtime.block_on(host.enter()).is_ok(), answers, "{name}");
        }
    }

    #[test]
    fn rows_of_a_paused_host_are_set_aside_in_their_order() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::create(folder.path()).unwrap());
        let host = Hosts::new(1, Arc::default()).get("h");
        let first = host.start().unwrap();
        host.pause(Duration::from_millis(50));
        assert!(host.start().is_none());
        let aside = |index| Aside {
            spool: Arc::clone(&spool),
            place: spool.put_row(&crate::rows::Row::default()).unwrap(),
            shard: 0,
            index,
            attempt: 0,
            urls: Vec::new(),
        };
        assert!(host.set_aside(aside(0)), "the caller starts them");
        assert!(!host.set_aside(aside(1)), "that happens already");
        drop(first);
        let _permit = runtime.block_on(host.wait()).unwrap();
        assert!(host.lock().paused_until(Instant::now()).is_none(), "the pause is over");
        assert!(host.start().is_none(), "others are before it");
        assert_eq!([0, 1].map(|_| host.next_aside().unwrap().index), [0, 1]);
        assert!(host.next_aside().is_none());
        assert!(host.start().is_some());
        assert!(host.set_aside(aside(2)), "the task that started rows has ended");
    }
}
