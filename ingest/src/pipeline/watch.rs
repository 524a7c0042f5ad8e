//! The counters of a run, for the progress line and for Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::messages::counted;
use crate::pipeline::Totals;

/// Maximum number of hosts named in the progress line.
const MAX_NAMES: usize = 3;

/// The counters of one run, updated by its threads.
pub(crate) struct Watch {
    started: Instant,
    totals: Mutex<Totals>,
    /// Counters of the network side; zero if the images are local.
    pub(crate) network: Arc<Network>,
}

/// Counts of the network side.
#[derive(Default)]
pub(crate) struct Network {
    /// Bytes of responses received, including responses that then failed.
    pub(crate) received: AtomicU64,
    /// Attempts: requests with the redirects that they led to.
    pub(crate) attempts: AtomicU64,
    /// Attempts after the first of a sample.
    pub(crate) retries: AtomicU64,
    /// Requests in flight.
    pub(crate) in_flight: AtomicI64,
    /// Seconds spent on failed attempts, by cause.
    spent: Mutex<BTreeMap<String, f64>>,
    /// Hosts whose circuit is open: they get no requests at present.
    open_circuits: Mutex<BTreeSet<String>>,
}

impl Network {
    /// Adds the duration of a failed attempt.
    pub(crate) fn spend(&self, cause: &str, time: Duration) {
        *lock(&self.spent).entry(cause.to_owned()).or_default() += time.as_secs_f64();
    }

    /// The circuit of a host has opened.
    pub(crate) fn circuit_opened(&self, host: &str) {
        lock(&self.open_circuits).insert(host.to_owned());
    }

    /// The circuit of a host has closed.
    pub(crate) fn circuit_closed(&self, host: &str) {
        lock(&self.open_circuits).remove(host);
    }

    /// Causes with the seconds spent on them, longest first.
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

    /// The counts, for updating or reading.
    pub(crate) fn totals(&self) -> MutexGuard<'_, Totals> {
        lock(&self.totals)
    }

    /// For the progress line: fraction of successes, download rate, most frequent and slowest cause of failure, skipped
    /// hosts.
    pub(crate) fn message(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        let mut message = self.totals().message();
        let received = self.network.received.load(Ordering::Relaxed);
        if received > 0 {
            message.push_str(&format!(", {:.1} MB/s received", received as f64 / 1e6 / seconds));
        }
        if let Some((cause, spent)) = self.network.slowest().first().filter(|(_, spent)| *spent >= 1.0) {
            message.push_str(&format!(", slowest failure: {cause} ({spent:.0} s in total)"));
        }
        let open_circuits = lock(&self.network.open_circuits);
        if !open_circuits.is_empty() {
            let names = open_circuits.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>().join(", ");
            let hosts = counted(open_circuits.len() as u64, "host");
            let more = if open_circuits.len() > MAX_NAMES { ", .." } else { "" };
            message.push_str(&format!(", {hosts} skipped after repeated failures ({names}{more})"));
        }
        message
    }

    /// The counters in Prometheus' text format.
    pub(crate) fn prometheus(&self) -> String {
        let totals = self.totals();
        let mut page = Page::default();
        page.metric("ingest_samples_total", "counter", "Samples by status.");
        for (status, count) in [
            ("success", totals.stats.successes),
            ("failed_to_read", totals.stats.failed_to_read),
            ("failed_to_download", totals.stats.failed_to_download),
            ("failed_to_resize", totals.stats.failed_to_resize),
            ("removed", totals.stats.removed),
        ] {
            page.value(&[("status", status)], count as f64);
        }
        page.metric("ingest_failures_total", "counter", "Failed samples by cause.");
        for (cause, count) in totals.causes() {
            page.value(&[("cause", cause)], count as f64);
        }
        page.metric("ingest_shards_total", "counter", "Shards written by this process.");
        page.value(&[], totals.shards as f64);
        page.metric("ingest_written_bytes_total", "counter", "Bytes of the images written.");
        page.value(&[], totals.bytes as f64);
        drop(totals);
        let network = &self.network;
        page.metric("ingest_received_bytes_total", "counter", "Bytes of responses received.");
        page.value(&[], network.received.load(Ordering::Relaxed) as f64);
        page.metric("ingest_attempts_total", "counter", "Download attempts, retries included.");
        page.value(&[], network.attempts.load(Ordering::Relaxed) as f64);
        page.metric("ingest_retries_total", "counter", "Attempts after the first of a sample.");
        page.value(&[], network.retries.load(Ordering::Relaxed) as f64);
        page.metric("ingest_in_flight", "gauge", "Requests in flight.");
        page.value(&[], network.in_flight.load(Ordering::Relaxed) as f64);
        page.metric(
            "ingest_failed_attempt_seconds_total",
            "counter",
            "Seconds spent on failed attempts, by cause.",
        );
        for (cause, seconds) in network.slowest() {
            page.value(&[("cause", &cause)], seconds);
        }
        page.metric(
            "ingest_hosts_in_trouble",
            "gauge",
            "Hosts that get no requests after repeated failures (circuit open).",
        );
        page.value(&[], lock(&network.open_circuits).len() as f64);
        page.metric("ingest_running_seconds", "gauge", "Seconds since the start of the run.");
        page.value(&[], self.started.elapsed().as_secs_f64());
        page.text
    }
}

/// Text in Prometheus' exposition format 0.0.4.
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
    fn the_progress_line_names_the_slowest_failure_and_skipped_hosts() {
        let network = Arc::new(Network::default());
        let watch = Watch::new(Arc::clone(&network));
        assert!(!watch.message().contains("slowest"));
        network.spend("timed out: no response", Duration::from_secs(7));
        network.spend("connection refused", Duration::from_secs(2));
        for host in ["a.example", "b.example", "a.example"] {
            network.circuit_opened(host);
        }
        let message = watch.message();
        assert!(message.contains("slowest failure: timed out: no response (7 s in total)"), "{message}");
        assert!(
            message.contains("2 hosts skipped after repeated failures (a.example, b.example)"),
            "{message}"
        );
        network.circuit_closed("a.example");
        assert!(watch.message().contains("1 host skipped after repeated failures (b.example)"));
    }

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.metric("m", "gauge", "Help.");
        page.value(&[("cause", "a \"b\" \\ c\nd")], 1.5);
        assert_eq!(page.text, "# HELP m Help.\n# TYPE m gauge\nm{cause=\"a \\\"b\\\" \\\\ c\\nd\"} 1.5\n");
    }
}
