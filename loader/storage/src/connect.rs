//! The HTTP client of all stores: adds the bearer token of a host ([`token`]), and says so when a server cannot be
//! reached, while requests to it are repeated.

use std::future::Future;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use reqwest::StatusCode;
use reqwest::header::AUTHORIZATION;

use crate::process::{Host, process};
use crate::token;

/// How long a server may fail before the user is informed. Most failures are over sooner.
const REPORT_AFTER: Duration = Duration::from_secs(2);
/// How long a request may wait for an answer before the user is informed, if the server has not answered so far.
const SILENT_AFTER: Duration = Duration::from_secs(5);
/// Where cloud machines ask for credentials if the environment has none.
const METADATA_SERVICES: [&str; 3] = ["169.254.169.254", "169.254.170.2", "metadata.google.internal"];

/// Connects as `object_store` does by default.
#[derive(Debug)]
pub(crate) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Client { inner }))
    }
}

#[derive(Debug)]
struct Client {
    inner: HttpClient,
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // On a redirect to another host, reqwest removes the header.
        if !request.headers().contains_key(AUTHORIZATION)
            && let Some(value) = token::authorization(&request.uri().to_string())
        {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let host = request.uri().authority().map_or_else(String::new, |authority| {
            // Without the name and password that an address may contain.
            authority.as_str().rsplit('@').next().unwrap_or_default().to_owned()
        });
        let lists = request.method().as_str() == "PROPFIND";
        let mut response = watched(&host, self.inner.execute(request), |response| {
            let status = response.status();
            // A server without folders; repeating the request would not help.
            if lists && status == StatusCode::NOT_IMPLEMENTED {
                StatusCode::METHOD_NOT_ALLOWED
            } else {
                status
            }
        })
        .await?;
        if lists && response.status() == StatusCode::NOT_IMPLEMENTED {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        }
        Ok(response)
    }
}

/// Waits for the answer to a request, and informs the user when the host fails for some time.
pub(crate) async fn watched<R, E: std::error::Error>(
    host: &str,
    request: impl Future<Output = Result<R, E>>,
    status: impl Fn(&R) -> StatusCode,
) -> Result<R, E> {
    let started = Instant::now();
    let mut request = std::pin::pin!(request);
    let answer = tokio::select! {
        answer = &mut request => answer,
        () = tokio::time::sleep(SILENT_AFTER) => {
            silent(host, started);
            request.await
        }
    };
    match answer.as_ref().map(status) {
        Err(error) => failed(host, started, &cause(error)),
        Ok(status) if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            failed(host, started, &format!("it answers {status}"));
        }
        Ok(_) => answered(host),
    }
    answer
}

fn answered(host: &str) {
    process().hosts().insert(host.to_owned(), Host::Answers);
}

/// A request that was sent at `started` has failed. The first failure after some time is reported.
fn failed(host: &str, started: Instant, reason: &str) {
    let mut hosts = process().hosts();
    let state = hosts.entry(host.to_owned()).or_insert(Host::Answers);
    if let Host::Answers = state {
        *state = Host::Fails { since: started, reported: false };
    }
    if let Host::Fails { since, reported } = state
        && !*reported
        && since.elapsed() >= REPORT_AFTER
    {
        *reported = true;
        report(host, reason);
    }
}

/// No answer so far to a request that was sent at `started`. A server that has answered before may be slow.
fn silent(host: &str, started: Instant) {
    let known = matches!(process().hosts().get(host), Some(Host::Answers));
    if !known {
        failed(host, started, "no answer so far");
    }
}

fn report(host: &str, reason: &str) {
    let most = process().retry_for().as_secs();
    if most == 0 {
        return;
    }
    let most = match most {
        60 => "1 minute".to_owned(),
        _ if most.is_multiple_of(60) => format!("{} minutes", most / 60),
        _ => format!("{most} seconds"),
    };
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let why = if METADATA_SERVICES.contains(&name) {
        ", which is asked because the environment has no credentials for the store"
    } else {
        ""
    };
    process().report(&format!("cannot reach {host}{why}: {reason}; trying for up to {most}"));
}

/// The innermost cause, which is the system's.
fn cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = error.to_string();
        next = error.source();
    }
    text
}
