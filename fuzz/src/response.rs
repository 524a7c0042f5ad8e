//! Any bytes as what an image server answers to a request, from the status line on.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ingest::download::response::{Answer, read};
use ingest::download::{Allowed, Failure, OPT_OUTS, Settings};
use ingest::request::Request;
use reqwest::{Body, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::runtime::{Builder, Runtime};
use url::Url;

/// Maximum size of an image here: small, so that inputs reach it.
const MAX_BYTES: u64 = 256;

static RUNTIME: LazyLock<Runtime> =
    // It has no threads to start.
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

/// Runs the target on an input.
pub fn run(bytes: &[u8]) {
    let settings = Settings {
        in_flight: 1,
        per_host: 1,
        timeout: Duration::from_secs(10),
        deadline: Duration::from_secs(10),
        min_speed: 0,
        max_bytes: MAX_BYTES,
        retries: 0,
        backoff: Duration::ZERO,
        max_retry_after: Duration::ZERO,
        max_redirects: 0,
        user_agent_token: Some("fuzzer".to_owned()),
        opt_outs: OPT_OUTS.map(str::to_owned).to_vec(),
        robots_txt: false,
        allow_private: Allowed::default(),
        ca_certificates: None,
        proxy: None,
    };
    let url = Url::parse("http://a.example/b/c.jpg?d=e").expect("a URL");
    let received = AtomicU64::new(0);
    let mut request = Request::default();
    let answer = RUNTIME.block_on(answer(bytes, &url, &settings, &received, &mut request));
    let Some(answer) = answer else { return };
    let texts = [&request.final_url, &request.etag, &request.last_modified, &request.opt_outs];
    assert!(texts.into_iter().flatten().all(|text| text.len() <= 3 * 1024));
    let redirected = matches!(answer, Ok(Answer::Redirect(_)));
    assert_eq!(request.final_url.as_deref(), (!redirected).then_some(url.as_str()));
    match answer {
        Ok(Answer::Complete(body)) => {
            assert!(!body.is_empty() && body.len() as u64 <= MAX_BYTES);
            assert!(body.len() <= bytes.len(), "a body is part of the response");
        }
        Ok(Answer::Redirect(next)) => {
            assert!(matches!(next.scheme(), "http" | "https") && next.has_host(), "{next}");
        }
        Err(failure) => {
            assert!(!failure.to_string().is_empty());
            if let Failure::Http { status, .. } = failure {
                assert!(!(200..300).contains(&status));
            }
        }
    }
    assert!(received.load(Ordering::Relaxed) <= MAX_BYTES);
}

/// The answer of a server that sends these bytes and closes the connection; `None` if they do not begin with a head.
async fn answer(
    bytes: &[u8],
    url: &Url,
    settings: &Settings,
    received: &AtomicU64,
    taught: &mut Request,
) -> Option<Result<Answer, Failure>> {
    let (ours, mut theirs) = duplex(1 << 16);
    // The parser of reqwest's client, with the client's settings.
    let (mut client, connection) = http1::Builder::new()
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .ignore_invalid_headers_in_responses(true)
        .handshake(TokioIo::new(ours))
        .await
        .ok()?;
    let request =
        hyper::Request::get(url.as_str()).header("host", "a.example").body(Body::from(Bytes::new()));
    let request = request.expect("a request");
    let server = async move {
        // A client that is answered before it asks closes the connection.
        let mut request = [0; 1024];
        if theirs.read(&mut request).await.is_ok() {
            let _ = theirs.write_all(bytes).await;
        }
    };
    let exchange = async move {
        let response = client.send_request(request).await.ok()?;
        let response = Response::from(response.map(Body::wrap));
        Some(read(response, url, settings, received, taught).await)
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ = async { tokio::join!(connection, server) } => exchange.await,
    }
}
