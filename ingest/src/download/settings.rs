//! What a user may choose of the network side, and which addresses it may contact.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Limits and behaviour of the network side.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Maximum number of requests at a time, over all hosts.
    pub in_flight: usize,
    /// Maximum number of requests at a time to one host.
    pub per_host: usize,
    /// Connect, first-byte and read timeout.
    pub timeout: Duration,
    /// Maximum duration of one attempt, including redirects and the response.
    pub deadline: Duration,
    /// Minimum transfer rate of a response in bytes per second, checked once `timeout` has passed.
    pub min_speed: u64,
    /// Maximum size of a response, in bytes.
    pub max_bytes: u64,
    /// Maximum number of attempts after the first.
    pub retries: u32,
    /// Wait before the first retry: exponential backoff with jitter.
    pub backoff: Duration,
    /// Maximum `Retry-After` to wait for.
    pub max_retry_after: Duration,
    /// Maximum number of redirects to follow.
    pub max_redirects: usize,
    /// Name of the crawler in the user agent, for which directives of `X-Robots-Tag` can be given.
    pub user_agent_token: Option<String>,
    /// The opt-outs that are obeyed, of [`OPT_OUTS`](super::OPT_OUTS).
    pub opt_outs: Vec<String>,
    /// Whether `robots.txt` is read and obeyed.
    pub robots_txt: bool,
    /// Addresses that are allowed although they are not public.
    pub allow_private: Allowed,
    /// PEM file of CA certificates to trust in addition to the system's.
    pub ca_certificates: Option<PathBuf>,
    /// Proxy for all requests.
    pub proxy: Option<String>,
}

impl Settings {
    /// The User-Agent header: the program's own name, never that of a browser.
    pub fn user_agent(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let token =
            self.user_agent_token.as_ref().map_or(String::new(), |token| format!(" (compatible; {token})"));
        format!("simzss-ingest/{version}{token}")
    }
}

/// Exceptions to the rule that only public addresses are contacted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// All addresses.
    pub everything: bool,
    /// Hosts by name or address, spelled as in the URLs.
    pub hosts: Vec<String>,
}

impl Allowed {
    pub(super) fn host(&self, name: &str) -> bool {
        self.everything || self.hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
    }

    pub(super) fn address(&self, address: IpAddr) -> bool {
        self.host(&address.to_string())
    }
}
