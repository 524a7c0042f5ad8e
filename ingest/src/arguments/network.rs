//! Options of the network: limits, retries, opt-outs, allowed addresses.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use ingest::Error;
use ingest::deny::Deny;
use ingest::download::{self, Allowed, OPT_OUTS};
use program::location;
use storage::Location;

#[derive(Args)]
pub(crate) struct Network {
    /// Maximum number of requests at a time.
    #[arg(long, default_value_t = 256, value_parser = at_least_one)]
    concurrency: usize,
    /// Maximum number of requests at a time to one host.
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    per_host: usize,
    /// Connect, first-byte and read timeout, in seconds each.
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    timeout: Duration,
    /// Maximum duration of one attempt, redirects included, in seconds.
    #[arg(long, default_value = "60", value_parser = seconds, value_name = "SECONDS")]
    deadline: Duration,
    /// Minimum transfer rate of a response, in bytes per second, checked after --timeout seconds.
    #[arg(long, default_value_t = 1024, value_name = "BYTES")]
    min_speed: u64,
    /// Maximum size of a response, in bytes.
    #[arg(long, default_value_t = 50_000_000, value_name = "BYTES")]
    max_bytes: u64,
    /// Maximum number of attempts after the first. Only timeouts, temporary DNS failures, broken connections and HTTP 408,
    /// 425, 429, 500, 502-504 and 520-524 are retried.
    #[arg(long, default_value_t = 2)]
    retries: u32,
    /// Wait before the first retry, in seconds: exponential backoff with jitter, at most 60 seconds.
    #[arg(long, default_value = "1", value_parser = seconds, value_name = "SECONDS")]
    backoff: Duration,
    /// Maximum Retry-After to wait for, in seconds. A sample whose host asks for more fails.
    #[arg(long, default_value = "60", value_parser = seconds, value_name = "SECONDS")]
    max_retry_after: Duration,
    /// Maximum number of redirects to follow.
    #[arg(long, default_value_t = 10)]
    max_redirects: usize,
    /// Name of your crawler, added to the User-Agent header. X-Robots-Tag directives for this name are obeyed.
    #[arg(long, value_name = "NAME")]
    user_agent_token: Option<String>,
    /// Opt-outs to ignore, as a list: of X-Robots-Tag noai, noimageai, noindex, noimageindex and noml, of TDMRep tdm-reservation, of
    /// Content-Usage (AIPREF) train-ai. The table has all that were seen, ignored or not [default: obey all]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    ignore_opt_out: Vec<String>,
    /// Read each host's robots.txt once, and do not ask for what it disallows for simzss-ingest, or for --user-agent-token, nor
    /// for what it says must not be used for training (Content-Usage of AIPREF). If it cannot be read for now, nothing is asked of the
    /// host.
    #[arg(long)]
    robots_txt: bool,
    /// Allow addresses that are not public, such as localhost and private networks: all of them, or with a list only these
    /// hosts, as the URLs spell them (--allow-private=127.0.0.1,mirror.local). Other host names that resolve to private
    /// addresses stay blocked (DNS rebinding).
    #[arg(long, num_args = 0.., require_equals = true, value_delimiter = ',', value_name = "HOSTS")]
    allow_private: Option<Vec<String>>,
    /// PEM file of CA certificates to trust in addition to the system's, for example of your own mirror.
    #[arg(long, value_name = "FILE")]
    ca_certificates: Option<PathBuf>,
    /// Proxy for all requests (http://host:port). It looks the host names up; those with a private address on this machine, or
    /// with a name of a private network, are blocked as without a proxy. With --allow-private only the proxy looks names up.
    /// HTTP_PROXY and similar environment variables are ignored.
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
}

#[derive(Args)]
pub(crate) struct Denied {
    /// List of what must not be taken: a URL, or the SHA-256 of a URL or of an image file, per line; or a table (parquet, csv,
    /// tsv, json, jsonl) with the columns url, url_sha256 or sha256. Rows of such URLs, and of URLs that lead to such a URL or
    /// image, get the status `removed` and are stored without URL and caption.
    #[arg(long, value_name = "FILE", value_parser = location(), value_hint = ValueHint::AnyPath)]
    deny: Option<Location>,
}

impl Denied {
    pub(crate) fn read(&self) -> Result<Option<Deny>, Error> {
        self.deny.as_ref().map(Deny::read).transpose()
    }
}

impl Network {
    pub(crate) fn settings(&self) -> Result<download::Settings, Error> {
        if let Some(unknown) = self.ignore_opt_out.iter().find(|name| !OPT_OUTS.contains(&name.as_str())) {
            let known = OPT_OUTS.join(", ");
            return Err(Error::Usage(format!(
                "--ignore-opt-out {unknown}: unknown opt-out; known are {known}"
            )));
        }
        let plain =
            |token: &str| token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if let Some(token) = self.user_agent_token.as_ref().filter(|token| token.is_empty() || !plain(token))
        {
            return Err(Error::Usage(format!(
                "--user-agent-token {token:?}: use letters, digits, \"-\", \"_\" and \".\" only"
            )));
        }
        let obeyed = OPT_OUTS.iter().map(|&name| name.to_owned());
        Ok(download::Settings {
            in_flight: self.concurrency,
            per_host: self.per_host,
            timeout: self.timeout,
            deadline: self.deadline,
            min_speed: self.min_speed,
            max_bytes: self.max_bytes,
            retries: self.retries,
            backoff: self.backoff,
            max_retry_after: self.max_retry_after,
            max_redirects: self.max_redirects,
            user_agent_token: self.user_agent_token.clone(),
            opt_outs: obeyed.filter(|name| !self.ignore_opt_out.contains(name)).collect(),
            robots_txt: self.robots_txt,
            allow_private: Allowed {
                everything: self.allow_private.as_ref().is_some_and(Vec::is_empty),
                hosts: self.allow_private.clone().unwrap_or_default(),
            },
            ca_certificates: self.ca_certificates.clone(),
            proxy: self.proxy.clone(),
        })
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| "not a whole number of 1 or more".to_owned())
}
