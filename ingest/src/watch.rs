//! What is to be seen of a run while it runs: the progress line, and the same figures for Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::stats::Totals;

/// Names shown at most, of hosts and of causes.
const MOST_NAMES: usize = 3;

/// The figures of one run, written by its threads and read by whoever watches.
pub(crate) struct Watch {
    started: Instant,
    totals: Mutex<Totals>,
    /// What the network side has seen; still zero where pictures are local.
    pub(crate) network: Arc<Network>,
}

/// Counts of the network side.
#[derive(Default)]
pub(crate) struct Network {
    /// Bytes of bodies that arrived, also of those that were of no use.
    pub(crate) received: AtomicU64,
    /// Attempts, each of them a request and the redirects it led to.
    pub(crate) attempts: AtomicU64,
    /// Attempts after the first of a sample.
    pub(crate) retries: AtomicU64,
    /// Attempts under way.
    pub(crate) in_flight: AtomicI64,
    /// Seconds that attempts took, by how they failed.
    spent: Mutex<BTreeMap<String, f64>>,
    /// Hosts that are not asked at present, as the hosts' book says.
    troubled: Mutex<BTreeSet<String>>,
}

impl Network {
    /// A failed attempt took this long.
    pub(crate) fn spend(&self, cause: &str, time: Duration) {
        *lock(&self.spent).entry(cause.to_owned()).or_default() += time.as_secs_f64();
    }

    /// A host is left alone from now on.
    pub(crate) fn trouble(&self, host: &str) {
        lock(&self.troubled).insert(host.to_owned());
    }

    /// A host has answered.
    pub(crate) fn well(&self, host: &str) {
        lock(&self.troubled).remove(host);
    }

    /// Causes by the seconds spent on them, the most first.
    fn slowest(&self) -> Vec<(String, f64)> {
        let mut spent: Vec<_> = lock(&self.spent).clone().into_iter().collect();
        spent.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        spent
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    pub(crate) fn new(network: Arc<Network>) -> Arc<Self> {
        Arc::new(Self { started: Instant::now(), totals: Mutex::default(), network })
    }

    /// The counts, to add to or to read.
    pub(crate) fn totals(&self) -> MutexGuard<'_, Totals> {
        lock(&self.totals)
    }

    /// Success share, megabytes a second, the most frequent and the slowest cause of failure, hosts in trouble.
    pub(crate) fn message(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        let mut message = self.totals().message();
        let received = self.network.received.load(Ordering::Relaxed);
        if received > 0 {
            message.push_str(&format!(", {:.1} MB/s in", received as f64 / 1e6 / seconds));
        }
        if let Some((cause, spent)) = self.network.slowest().first().filter(|(_, spent)| *spent >= 1.0) {
            message.push_str(&format!(", slowest: {cause} ({spent:.0} s)"));
        }
        let troubled = lock(&self.network.troubled);
        if !troubled.is_empty() {
            let names = troubled.iter().take(MOST_NAMES).cloned().collect::<Vec<_>>().join(", ");
            message.push_str(&format!(", {} hosts in trouble ({names})", troubled.len()));
        }
        message
    }

    /// The same in Prometheus' text format.
    pub(crate) fn prometheus(&self) -> String {
        let totals = self.totals();
        let mut page = Page::default();
        page.metric("ingest_samples_total", "counter", "Samples by how they ended.");
        for (status, count) in [
            ("success", totals.stats.successes),
            ("failed_to_read", totals.stats.failed_to_read),
            ("failed_to_download", totals.stats.failed_to_download),
            ("failed_to_resize", totals.stats.failed_to_resize),
        ] {
            page.value(&[("status", status)], count as f64);
        }
        page.metric("ingest_failures_total", "counter", "Failed samples by cause.");
        for (cause, count) in totals.causes() {
            page.value(&[("cause", cause)], count as f64);
        }
        page.metric("ingest_shards_total", "counter", "Shards written by this process.");
        page.value(&[], totals.shards as f64);
        page.metric("ingest_written_bytes_total", "counter", "Bytes of the pictures written.");
        page.value(&[], totals.bytes as f64);
        drop(totals);
        let network = &self.network;
        page.metric("ingest_received_bytes_total", "counter", "Bytes of bodies received.");
        page.value(&[], network.received.load(Ordering::Relaxed) as f64);
        page.metric("ingest_attempts_total", "counter", "Attempts to download, retries included.");
        page.value(&[], network.attempts.load(Ordering::Relaxed) as f64);
        page.metric("ingest_retries_total", "counter", "Attempts after the first of a sample.");
        page.value(&[], network.retries.load(Ordering::Relaxed) as f64);
        page.metric("ingest_in_flight", "gauge", "Attempts under way.");
        page.value(&[], network.in_flight.load(Ordering::Relaxed) as f64);
        page.metric("ingest_failed_attempt_seconds_total", "counter", "Time that failed attempts took.");
        for (cause, seconds) in network.slowest() {
            page.value(&[("cause", &cause)], seconds);
        }
        page.metric("ingest_hosts_in_trouble", "gauge", "Hosts that are not asked for now.");
        page.value(&[], lock(&network.troubled).len() as f64);
        page.metric("ingest_running_seconds", "gauge", "Seconds since the start.");
        page.value(&[], self.started.elapsed().as_secs_f64());
        page.text
    }
}

/// Text in the exposition format 0.0.4.
#[derive(Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    fn metric(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        self.text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn value(&mut self, labels: &[(&str, &str)], value: f64) {
        let escape = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.text.push_str(&format!("{}{labels} {value}\n", self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_what_is_slow_and_who_is_in_trouble() {
        let network = Arc::new(Network::default());
        let watch = Watch::new(Arc::clone(&network));
        assert!(!watch.message().contains("slowest"));
        network.spend("timed out: no response", Duration::from_secs(7));
        network.spend("connection refused", Duration::from_secs(2));
        for host in ["a.example", "b.example", "a.example"] {
            network.trouble(host);
        }
        let message = watch.message();
        assert!(message.contains("slowest: timed out: no response (7 s)"), "{message}");
        assert!(message.contains("2 hosts in trouble (a.example, b.example)"), "{message}");
        network.well("a.example");
        assert!(watch.message().contains("1 hosts in trouble (b.example)"));
    }

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.metric("m", "gauge", "Help.");
        page.value(&[("cause", "a \"b\" \\ c\nd")], 1.5);
        assert_eq!(page.text, "# HELP m Help.\n# TYPE m gauge\nm{cause=\"a \\\"b\\\" \\\\ c\\nd\"} 1.5\n");
    }
}
