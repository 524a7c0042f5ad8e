//! Manners and bounds of the network side.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ingest::Error;
use ingest::download::{self, Allowed, DIRECTIVES};

#[derive(Args)]
pub(crate) struct Network {
    /// Requests at a time.
    #[arg(long, default_value_t = 256, value_parser = at_least_one)]
    concurrency: usize,
    /// Requests at a time to one host.
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    per_host: usize,
    /// Seconds for a connection, for the response to begin, and for a silence in its body.
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    timeout: Duration,
    /// Seconds for a whole attempt.
    #[arg(long, default_value = "60", value_parser = seconds, value_name = "SECONDS")]
    deadline: Duration,
    /// Bytes a second below which a body is given up, once --timeout has passed.
    #[arg(long, default_value_t = 1024, value_name = "BYTES")]
    min_speed: u64,
    /// Largest body, in bytes.
    #[arg(long, default_value_t = 50_000_000, value_name = "BYTES")]
    max_bytes: u64,
    /// Attempts after the first; only time-outs, broken connections, 408, 425, 429 and 5xx are tried again.
    #[arg(long, default_value_t = 2)]
    retries: u32,
    /// Seconds before the first of them; doubles each time, half of it at random.
    #[arg(long, default_value = "1", value_parser = seconds, value_name = "SECONDS")]
    backoff: Duration,
    /// Longest Retry-After, in seconds, that is waited for.
    #[arg(long, default_value = "60", value_parser = seconds, value_name = "SECONDS")]
    max_retry_after: Duration,
    /// Redirects followed.
    #[arg(long, default_value_t = 10)]
    max_redirects: usize,
    /// Name under which owners of pictures can address this robot; becomes part of the user agent.
    #[arg(long, value_name = "NAME")]
    user_agent_token: Option<String>,
    /// X-Robots-Tag directives to disregard, each spelled out: noai, noimageai, noindex, noimageindex, noml. Without
    /// it all of them are honoured.
    #[arg(long, value_delimiter = ',', value_name = "DIRECTIVES")]
    ignore_opt_out: Vec<String>,
    /// Allows addresses that are not public, as of this machine or network: all of them, or those of these hosts only
    /// (--allow-private=127.0.0.1,mirror.local), as they are written in the URLs: a stranger's name that leads to an
    /// address named here stays refused.
    #[arg(long, num_args = 0.., require_equals = true, value_delimiter = ',', value_name = "HOSTS")]
    allow_private: Option<Vec<String>>,
    /// Certificates of authorities (PEM) to trust besides the system's, as for a mirror of one's own.
    #[arg(long, value_name = "FILE")]
    ca_certificates: Option<PathBuf>,
    /// Proxy for all requests (http://host:port). It looks up the names itself. Proxies named in the environment are not
    /// used.
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
}

impl Network {
    pub(crate) fn settings(&self) -> Result<download::Settings, Error> {
        if let Some(unknown) = self.ignore_opt_out.iter().find(|name| !DIRECTIVES.contains(&name.as_str())) {
            let known = DIRECTIVES.join(", ");
            return Err(Error::Usage(format!("--ignore-opt-out {unknown}: the directives are {known}")));
        }
        let plain =
            |token: &str| token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if let Some(token) = self.user_agent_token.as_ref().filter(|token| token.is_empty() || !plain(token))
        {
            return Err(Error::Usage(format!(
                "--user-agent-token {token:?}: letters, digits, - _ and . only"
            )));
        }
        let honoured = DIRECTIVES.iter().map(|&name| name.to_owned());
        Ok(download::Settings {
            in_flight: self.concurrency,
            per_host: self.per_host,
            timeout: self.timeout,
            deadline: self.deadline,
            min_speed: self.min_speed,
            max_bytes: self.max_bytes,
            retries: self.retries,
            backoff: self.backoff,
            longest_retry_after: self.max_retry_after,
            redirects: self.max_redirects,
            user_agent_token: self.user_agent_token.clone(),
            opt_outs: honoured.filter(|name| !self.ignore_opt_out.contains(name)).collect(),
            allow_private: Allowed {
                everything: self.allow_private.as_ref().is_some_and(Vec::is_empty),
                hosts: self.allow_private.clone().unwrap_or_default(),
            },
            authorities: self.ca_certificates.clone(),
            proxy: self.proxy.clone(),
        })
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| "not a number of 1 or more".to_owned())
}
