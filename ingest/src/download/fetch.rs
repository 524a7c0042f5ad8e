//! Downloads one URL: with limits of time, size and requests per host, and with retries where they can help.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use reqwest::header::{CONNECTION, CONTENT_ENCODING, LOCATION, RETRY_AFTER};
use reqwest::{Certificate, Client, Proxy, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use url::{Host, Url};

use super::address::is_public;
use super::failure::Failure;
use super::hosts::Hosts;
use super::optout::is_opted_out;
use super::resolver::Resolver;
use super::{Allowed, Settings};
use crate::error::Error;
use crate::watch::Network;

/// Maximum wait between attempts (unless the host asks for more with `Retry-After`).
const MAX_BACKOFF: Duration = Duration::from_mins(1);
/// How long an idle connection stays open. A list from the web leads to a thousand hosts per second, and each open
/// connection costs a file descriptor and about 20 kB (more with TLS).
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum initial capacity of a response's buffer: more than most images need, so that a growing buffer is rarely copied.
/// (The system provides the memory only when it is written to.)
const INITIAL_BUFFER: u64 = 1 << 20;

/// The downloaded bytes, and the in-flight permit they still hold. It is dropped when the image is processed, which bounds
/// the number of responses in memory.
pub(crate) struct Fetched {
    pub(crate) bytes: Vec<u8>,
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// The HTTP client and its limits, shared by all tasks.
pub(crate) struct Fetcher {
    client: Client,
    settings: Settings,
    allowed: Arc<Allowed>,
    /// Checks the host names that a proxy will look up; `None` without a proxy.
    for_proxy: Option<Resolver>,
    hosts: Hosts,
    in_flight: Arc<Semaphore>,
    jitter: std::hash::RandomState,
    network: Arc<Network>,
}

impl Fetcher {
    pub(crate) fn new(settings: Settings) -> Result<Self, Error> {
        // Fails only if a provider is installed already, which is then used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let network = Arc::new(Network::default());
        let allowed = Arc::new(settings.allow_private.clone());
        let mut proxy_host = None;
        let mut client = Client::builder()
            .user_agent(settings.user_agent())
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(settings.timeout)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(settings.per_host)
            .referer(false)
            .no_proxy();
        if let Some(proxy) = &settings.proxy {
            let bad = |error: &dyn std::fmt::Display| Error::Usage(format!("--proxy {proxy}: {error}"));
            let url = Url::parse(proxy).map_err(|error| bad(&error))?;
            proxy_host = url.host_str().map(str::to_owned);
            client = client.proxy(Proxy::all(url).map_err(|error| bad(&error))?);
        }
        if let Some(path) = &settings.ca_certificates {
            let pem = std::fs::read(path).map_err(Error::file("read", path))?;
            let certificates = Certificate::from_pem_bundle(&pem)
                .ok()
                .filter(|certificates| !certificates.is_empty())
                .ok_or_else(|| Error::input(path, "has no PEM certificates for --ca-certificates"))?;
            client = client.tls_certs_merge(certificates);
        }
        let resolver = Resolver::new(Arc::clone(&allowed), proxy_host);
        let for_proxy = settings.proxy.is_some().then(|| resolver.clone());
        let client = client
            .dns_resolver(resolver)
            .build()
            .map_err(|error| Error::Client(format!("{:#}", anyhow::Error::from(error))))?;
        Ok(Self {
            client,
            hosts: Hosts::new(settings.per_host, Arc::clone(&network)),
            in_flight: Arc::new(Semaphore::new(settings.in_flight)),
            allowed,
            for_proxy,
            settings,
            jitter: std::hash::RandomState::new(),
            network,
        })
    }

    /// The counters of the network side.
    pub(crate) fn network(&self) -> Arc<Network> {
        Arc::clone(&self.network)
    }

    /// Downloads `url`, with retries after transient failures.
    pub(crate) async fn fetch(&self, url: &str) -> Result<Fetched, Failure> {
        let start = Url::parse(url.trim()).map_err(|_| Failure::BadUrl)?;
        let mut attempt = 0;
        loop {
            let failure = match self.attempt(&start).await {
                Ok(fetched) => return Ok(fetched),
                Err(failure) => failure,
            };
            if attempt >= self.settings.retries || !failure.is_transient() {
                return Err(failure);
            }
            let Some(wait) = self.wait(url, attempt, &failure) else { return Err(failure) };
            tokio::time::sleep(wait).await;
            attempt += 1;
            self.network.retries.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The wait before the next attempt: what the host asks for with `Retry-After`, else exponential backoff with jitter
    /// (between half and the whole wait). None if the host asks for too much.
    fn wait(&self, url: &str, attempt: u32, failure: &Failure) -> Option<Duration> {
        if let Failure::Http { retry_after: Some(wait), .. } = failure {
            return (*wait <= self.settings.max_retry_after).then_some(*wait);
        }
        let full = self.settings.backoff.saturating_mul(1 << attempt.min(16)).min(MAX_BACKOFF);
        let random = (self.jitter.hash_one((url, attempt)) >> 11) as f64 / (1u64 << 53) as f64;
        Some(full.mul_f64(0.5 + 0.5 * random))
    }

    /// One attempt, including redirects.
    async fn attempt(&self, start: &Url) -> Result<Fetched, Failure> {
        let mut url = start.clone();
        let mut seen = HashSet::new();
        let mut left = self.settings.deadline;
        self.network.attempts.fetch_add(1, Ordering::Relaxed);
        loop {
            self.check(&url).await?;
            if !seen.insert(url.clone()) {
                return Err(Failure::RedirectLoop);
            }
            if seen.len() > self.settings.max_redirects + 1 {
                return Err(Failure::TooManyRedirects);
            }
            let host = self.hosts.get(url.host_str().unwrap_or_default());
            let _connection = host.enter().await?;
            // The semaphore is never closed.
            let permit = Arc::clone(&self.in_flight).acquire_owned().await.ok();
            // The deadline starts here: waiting for a permit is not the host's fault.
            let started = Instant::now();
            self.network.in_flight.fetch_add(1, Ordering::Relaxed);
            let end = match timeout(left, self.exchange(&url, host.is_shared())).await {
                Ok(end) => end,
                Err(_) => Err(Failure::Deadline),
            };
            self.network.in_flight.fetch_sub(1, Ordering::Relaxed);
            left = left.saturating_sub(started.elapsed());
            if let Err(failure) = &end {
                self.network.spend(&failure.to_string(), started.elapsed());
            }
            host.record(end.as_ref().err());
            if let Err(Failure::Http { retry_after: Some(wait), .. }) = &end
                && *wait <= self.settings.max_retry_after
            {
                host.pause(*wait);
            }
            match end? {
                Exchange::Complete(bytes) => return Ok(Fetched { bytes, permit }),
                Exchange::Redirect(next) => url = next,
            }
        }
    }

    /// Checks the scheme, and the address if the URL has one instead of a host name. Host names are checked by the resolver, when
    /// it looks them up to connect or, if a proxy will connect, here.
    async fn check(&self, url: &Url) -> Result<(), Failure> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Failure::BadUrl);
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => address.into(),
            Some(Host::Ipv6(address)) => address.into(),
            Some(Host::Domain(name)) => {
                return match &self.for_proxy {
                    Some(resolver) => match timeout(self.settings.timeout, resolver.check(name)).await {
                        Ok(checked) => checked,
                        Err(_) => Err(Failure::LookUpFailed),
                    },
                    None => Ok(()),
                };
            }
            None => return Err(Failure::BadUrl),
        };
        if is_public(address) || self.allowed.address(address) { Ok(()) } else { Err(Failure::NotPublic) }
    }

    /// One request and its response. The connection is kept open only if other requests to the host are pending (`shared`).
    async fn exchange(&self, url: &Url, shared: bool) -> Result<Exchange, Failure> {
        let mut request = self.client.get(url.clone());
        if !shared {
            request = request.header(CONNECTION, "close");
        }
        // Connecting has its own timeout, so this one covers connecting and waiting for the headers.
        let response = match timeout(self.settings.timeout * 2, request.send()).await {
            Ok(response) => response.map_err(|error| Failure::of(&error))?,
            Err(_) => return Err(Failure::ResponseTimeout),
        };
        let status = response.status();
        if status.is_redirection() && status != reqwest::StatusCode::NOT_MODIFIED {
            let target = response
                .headers()
                .get(LOCATION)
                .and_then(|target| std::str::from_utf8(target.as_bytes()).ok());
            let next = target.and_then(|target| url.join(target).ok()).ok_or(Failure::BadRedirect)?;
            let usable = matches!(next.scheme(), "http" | "https");
            return if usable { Ok(Exchange::Redirect(next)) } else { Err(Failure::BadRedirect) };
        }
        if !status.is_success() {
            let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let retry_after =
                retry_after.and_then(|value| value.trim().parse().ok()).map(Duration::from_secs);
            return Err(Failure::Http { status: status.as_u16(), retry_after });
        }
        let robot = self.settings.user_agent_token.as_deref();
        if is_opted_out(response.headers(), &self.settings.opt_outs, robot) {
            return Err(Failure::OptedOut);
        }
        // The request did not allow compression. Refusing it protects against responses that decompress to gigabytes.
        if response.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(Failure::Encoded);
        }
        self.read(response).await.map(Exchange::Complete)
    }

    async fn read(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let limit = self.settings.max_bytes;
        let declared = response.content_length();
        if declared.is_some_and(|length| length > limit) {
            return Err(Failure::TooLarge);
        }
        let mut bytes = Vec::with_capacity(declared.unwrap_or(0).min(INITIAL_BUFFER) as usize);
        let started = Instant::now();
        loop {
            // A pause as long as the whole timeout is slower than any minimum rate.
            let chunk = match timeout(self.settings.timeout, response.chunk()).await {
                Ok(chunk) => chunk.map_err(|error| Failure::of(&error))?,
                Err(_) => return Err(Failure::TooSlow),
            };
            let Some(chunk) = chunk else { break };
            if bytes.len() as u64 + chunk.len() as u64 > limit {
                return Err(Failure::TooLarge);
            }
            self.network.received.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            bytes.extend_from_slice(&chunk);
            let elapsed = started.elapsed();
            let minimum = self.settings.min_speed as f64 * elapsed.as_secs_f64();
            if elapsed > self.settings.timeout && (bytes.len() as f64) < minimum {
                return Err(Failure::TooSlow);
            }
        }
        if bytes.is_empty() { Err(Failure::Empty) } else { Ok(bytes) }
    }
}

enum Exchange {
    /// The bytes of the response.
    Complete(Vec<u8>),
    Redirect(Url),
}
