//! Downloads one URL, with limits of time, size and requests per host, and says whether another attempt can help.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use reqwest::header::{CONNECTION, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use reqwest::{Certificate, Client, Proxy};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use url::Url;

use super::address::is_public;
use super::failure::Failure;
use super::hosts::{Host, Hosts};
use super::optout::{TRAIN_AI, refusal};
use super::resolver::Resolver;
use super::response::{self, Answer};
use super::robots::{MAX_BYTES, ROBOT, Robots, Rules, Verdict};
use super::settings::{Allowed, Settings};
use crate::error::Error;
use crate::pipeline::watch::Network;
use crate::request::Request;
use crate::rows::public_url;

/// Maximum wait between attempts (unless the host asks for more with `Retry-After`).
const MAX_BACKOFF: Duration = Duration::from_mins(1);
/// How long an idle connection stays open. A list from the web leads to a thousand hosts per second, and each open
/// connection costs a file descriptor and about 20 kB (more with TLS).
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Redirects of a `robots.txt` that are followed (RFC 9309, 2.3.1.2).
const ROBOTS_REDIRECTS: usize = 5;

/// The downloaded bytes, and the in-flight permit they still hold. It is dropped when the image is processed, which bounds
/// the number of responses in memory.
pub(crate) struct Fetched {
    pub(crate) bytes: Vec<u8>,
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// The end of an attempt.
pub(super) enum Attempt {
    Complete(Fetched),
    /// The host that failed is the last one of the redirects.
    Failed(Failure, Arc<Host>),
    /// Nothing was asked of this host, because it is paused or has too many rows. The URLs are those of the redirects so
    /// far, of which the last is the next to ask for.
    Aside(Arc<Host>, Vec<Url>),
}

/// The HTTP client and its limits, shared by all tasks.
pub(crate) struct Fetcher {
    client: Client,
    settings: Settings,
    allowed: Arc<Allowed>,
    /// Checks the host names that a proxy will look up; `None` without a proxy.
    for_proxy: Option<Resolver>,
    hosts: Hosts,
    /// `None` if they are not asked.
    robots: Option<Robots>,
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
            // What browsers and curl accept: a blank before a header's colon, headers that go on in the next line, and lines
            // between the headers that are none.
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .http1_ignore_invalid_headers_in_responses(true)
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
            robots: settings.robots_txt.then(Robots::default),
            allowed,
            for_proxy,
            settings,
            jitter: std::hash::RandomState::new(),
            network,
        })
    }

    /// The opt-outs that are obeyed.
    pub(super) fn opt_outs(&self) -> &[String] {
        &self.settings.opt_outs
    }

    /// Maximum size of an image file, bytes.
    pub(super) fn max_bytes(&self) -> u64 {
        self.settings.max_bytes
    }

    /// The counters of the network side.
    pub(crate) fn network(&self) -> Arc<Network> {
        Arc::clone(&self.network)
    }

    /// The host of a URL.
    pub(super) fn host(&self, url: &Url) -> Arc<Host> {
        self.hosts.get(url.host_str().unwrap_or_default())
    }

    /// The wait before another attempt at `url`, of which there were `attempt` before the one that failed; None if there
    /// is to be none.
    pub(super) fn retry(&self, url: &str, attempt: u32, failure: &Failure) -> Option<Duration> {
        if attempt >= self.settings.retries || !failure.is_transient() {
            return None;
        }
        let wait = self.wait(url, attempt, failure)?;
        self.network.retries.fetch_add(1, Ordering::Relaxed);
        Some(wait)
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

    /// One attempt, including redirects, from the last of these URLs on. `started` is the host for which the row has a
    /// permit. What its last response taught is put into `request`; nothing, if there is none. `known`, if given, is what the last
    /// request for the image taught: then the image is only asked for if it has changed, and [`Failure::Http`] with the status 304 says
    /// that it has not.
    pub(super) async fn attempt(
        &self,
        mut urls: Vec<Url>,
        started: &Arc<Host>,
        request: &mut Request,
        known: Option<&Request>,
    ) -> Attempt {
        *request = Request::default();
        let mut left = self.settings.deadline;
        // Permits for the hosts of redirects.
        let mut additional = Vec::new();
        loop {
            let Some((url, before)) = urls.split_last() else {
                return Attempt::Failed(Failure::BadUrl, Arc::clone(started));
            };
            let (host, first) = (self.host(url), before.is_empty());
            if let Err(failure) = self.check(url).await {
                return Attempt::Failed(failure, host);
            }
            if before.contains(url) {
                return Attempt::Failed(Failure::RedirectLoop, host);
            }
            if before.len() > self.settings.max_redirects {
                return Attempt::Failed(Failure::TooManyRedirects, host);
            }
            let has_permit = |known: &(Arc<Host>, OwnedSemaphorePermit)| Arc::ptr_eq(&known.0, &host);
            if !first && !Arc::ptr_eq(&host, started) && !additional.iter().any(has_permit) {
                let Some(permit) = host.additional() else { return Attempt::Aside(host, urls) };
                additional.push((Arc::clone(&host), permit));
            }
            let _connection = match host.enter().await {
                Ok(Some(permit)) => permit,
                Ok(None) => return Attempt::Aside(host, urls),
                Err(failure) => return Attempt::Failed(failure, host),
            };
            self.network.attempts.fetch_add(first.into(), Ordering::Relaxed);
            // The semaphore is never closed.
            let permit = Arc::clone(&self.in_flight).acquire_owned().await.ok();
            let mut for_training = true;
            if let Some(robots) = &self.robots {
                match robots.verdict(url, self.rules(url)).await {
                    Some(Verdict::Allowed) => {}
                    Some(Verdict::NotForTraining) => for_training = false,
                    Some(Verdict::Disallowed) => {
                        request.add_opt_out("robots.txt");
                        return Attempt::Failed(Failure::Disallowed, host);
                    }
                    None => return Attempt::Failed(Failure::UnknownRules, host),
                }
                if let Some(refusal) = refusal(&[TRAIN_AI], self.opt_outs()).filter(|_| !for_training) {
                    request.add_opt_out(TRAIN_AI);
                    return Attempt::Failed(refusal, host);
                }
            }
            // The deadline starts here: waiting for a permit is not the host's fault.
            let begun = Instant::now();
            self.network.in_flight.fetch_add(1, Ordering::Relaxed);
            let end = match timeout(left, self.exchange(url, host.is_shared(), request, known)).await {
                Ok(end) => end,
                Err(_) => Err(Failure::Deadline),
            };
            self.network.in_flight.fetch_sub(1, Ordering::Relaxed);
            // A redirect teaches nothing.
            if !for_training && !matches!(end, Ok(Answer::Redirect(_))) {
                request.add_opt_out(TRAIN_AI);
            }
            left = left.saturating_sub(begun.elapsed());
            if let Err(failure) = &end {
                self.network.spend(&failure.to_string(), begun.elapsed());
            }
            host.record(end.as_ref().err());
            if let Err(Failure::Http { retry_after: Some(wait), .. }) = &end
                && *wait <= self.settings.max_retry_after
            {
                host.pause(*wait);
            }
            match end {
                Ok(Answer::Complete(bytes)) => return Attempt::Complete(Fetched { bytes, permit }),
                Ok(Answer::Redirect(next)) => urls.push(next),
                Err(failure) => return Attempt::Failed(failure, host),
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
            Some(url::Host::Ipv4(address)) => address.into(),
            Some(url::Host::Ipv6(address)) => address.into(),
            Some(url::Host::Domain(name)) => {
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

    /// The rules of a URL's host in its `robots.txt`; `None` if they cannot be read for now. Every address passes the same checks
    /// as those of images. The caller has a permit to send requests to the host.
    async fn rules(&self, url: &Url) -> Option<Rules> {
        let mut next = url.join("/robots.txt").ok()?;
        let read = async {
            for _ in 0..=ROBOTS_REDIRECTS {
                self.check(&next).await.ok()?;
                let response = timeout(self.settings.timeout * 2, self.client.get(next.clone()).send());
                let mut response = response.await.ok()?.ok()?;
                let status = response.status();
                if let Some(target) = response::redirect(&response, &next) {
                    next = target.ok()?;
                } else if status.is_success() {
                    let mut file = Vec::new();
                    while let Some(chunk) =
                        timeout(self.settings.timeout, response.chunk()).await.ok()?.ok()?
                    {
                        file.extend_from_slice(&chunk);
                        if file.len() >= MAX_BYTES {
                            break;
                        }
                    }
                    let token = self.settings.user_agent_token.as_deref();
                    let robots: Vec<&str> = token.into_iter().chain([ROBOT]).collect();
                    return Some(Rules::parse(&file, &robots));
                } else if status.is_client_error() && status.as_u16() != 429 {
                    return Some(Rules::default());
                } else {
                    return None;
                }
            }
            // Too many redirects: as if there were none.
            Some(Rules::default())
        };
        timeout(self.settings.deadline, read).await.ok()?
    }

    /// One request and its response. The connection is kept open only if other requests to the host are pending (`shared`).
    async fn exchange(
        &self,
        url: &Url,
        shared: bool,
        taught: &mut Request,
        known: Option<&Request>,
    ) -> Result<Answer, Failure> {
        let mut request = self.client.get(url.clone());
        // What another URL said of its image says nothing of this one's.
        let is_final = |known: &&Request| known.final_url.as_deref() == Some(&*public_url(url.as_str()));
        if let Some(Request { etag, last_modified, .. }) = known.filter(is_final) {
            for (name, value) in [(IF_NONE_MATCH, etag), (IF_MODIFIED_SINCE, last_modified)] {
                // Servers send what is no valid header again, too.
                let value = value.as_ref().and_then(|value| HeaderValue::from_str(value).ok());
                request =
                    value.into_iter().fold(request, |request, value| request.header(name.clone(), value));
            }
        }
        if !shared {
            request = request.header(CONNECTION, "close");
        }
        // Connecting has its own timeout, so this one covers connecting and waiting for the headers.
        let response = match timeout(self.settings.timeout * 2, request.send()).await {
            Ok(response) => response.map_err(|error| Failure::of(&error))?,
            Err(_) => return Err(Failure::ResponseTimeout),
        };
        response::read(response, url, &self.settings, &self.network.received, taught).await
    }
}
