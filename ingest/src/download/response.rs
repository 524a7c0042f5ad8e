//! What a response means: an image, another address, or a failure. Everything in it is the server's own choice, so nothing that
//! it claims is believed: not its length, not its times, not its encoding.

use std::borrow::Cow;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use loader::DecodeError;
use loader::images::Format;
use reqwest::header::{
    CONTENT_ENCODING, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED, LOCATION, RETRY_AFTER,
    TRANSFER_ENCODING,
};
use reqwest::{Response, Version};
use tokio::time::timeout;
use url::Url;

use super::failure::Failure;
use super::optout::{opt_outs, refusal};
use super::settings::Settings;
use crate::request::Request;
use crate::rows::public_url;

/// Maximum initial capacity of a response's buffer: more than most images need, so that a growing buffer is rarely copied.
/// (The system provides the memory only when it is written to.)
const INITIAL_BUFFER: u64 = 1 << 20;

/// Longer URLs and header values are not kept in the table, bytes.
const MAX_URL: usize = 8192;
const MAX_VALUE: usize = 1024;

/// A response that is no failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The bytes of the image file: at least one, at most [`Settings::max_bytes`].
    Complete(Vec<u8>),
    /// The http or https address that a redirect leads to.
    Redirect(Url),
}

/// Reads the response to a request for `url`. The bytes of its body are added to `received` as they come. What the response says
/// besides, also if it is a failure, replaces `request`; of a redirect nothing is kept.
///
/// # Errors
/// The status is neither success nor a redirect, the owner has opted out, or the body is empty, too large, too slow or broken.
pub async fn read(
    response: Response,
    url: &Url,
    settings: &Settings,
    received: &AtomicU64,
    request: &mut Request,
) -> Result<Answer, Failure> {
    let status = response.status();
    let found = opt_outs(response.headers(), settings.user_agent_token.as_deref());
    *request = taught(response.headers(), url, &found);
    if let Some(next) = redirect(&response, url) {
        let next = next?;
        *request = Request::default();
        return Ok(Answer::Redirect(next));
    }
    if !status.is_success() {
        let retry_after = retry_after(response.headers());
        return Err(Failure::Http { status: status.as_u16(), retry_after });
    }
    if let Some(refusal) = refusal(&found, &settings.opt_outs) {
        return Err(refusal);
    }
    // The request did not allow compression, and compressed responses, which may decompress to gigabytes, are refused. But
    // many servers send this header with an image as it is (`aws-chunked`, `none`, `UTF-8`, even `gzip`).
    let encoded = response.headers().contains_key(CONTENT_ENCODING);
    let bytes = body(response, settings, received).await?;
    if encoded && Format::of(&bytes) == Err(DecodeError::NotAnImage) {
        return Err(Failure::Encoded);
    }
    Ok(Answer::Complete(bytes))
}

/// The http or https address that a response to a request for `url` redirects to; `None` if it is no redirect.
pub(super) fn redirect(response: &Response, url: &Url) -> Option<Result<Url, Failure>> {
    let status = response.status();
    if !status.is_redirection() || status == reqwest::StatusCode::NOT_MODIFIED {
        return None;
    }
    let target = response.headers().get(LOCATION).map(|target| location(target.as_bytes()));
    let next = target.and_then(|target| url.join(&target).ok());
    let usable = next.filter(|next| matches!(next.scheme(), "http" | "https"));
    Some(usable.ok_or(Failure::BadRedirect))
}

/// What a response says besides its body, now.
fn taught(headers: &HeaderMap, url: &Url, opt_outs: &[&str]) -> Request {
    let value = |name: HeaderName| {
        let value = headers.get(name).filter(|value| value.len() <= MAX_VALUE)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Request {
        final_url: Some(public_url(url.as_str()).into_owned()).filter(|url| url.len() <= MAX_URL),
        fetched: i64::try_from(since.as_millis()).ok(),
        etag: value(ETAG),
        last_modified: value(LAST_MODIFIED),
        opt_outs: (!opt_outs.is_empty()).then(|| opt_outs.join(", ")),
    }
}

async fn body(mut response: Response, settings: &Settings, received: &AtomicU64) -> Result<Vec<u8>, Failure> {
    let limit = settings.max_bytes;
    let declared = response.content_length();
    if declared.is_some_and(|length| length > limit) {
        return Err(Failure::TooLarge);
    }
    let ends_with_connection = response.version() < Version::HTTP_2
        && declared.is_none()
        && !response.headers().contains_key(TRANSFER_ENCODING);
    let mut bytes = Vec::with_capacity(declared.unwrap_or(0).min(INITIAL_BUFFER) as usize);
    let started = Instant::now();
    loop {
        // A pause as long as the whole timeout is slower than any minimum rate.
        let chunk = match timeout(settings.timeout, response.chunk()).await {
            Ok(Ok(chunk)) => chunk,
            // Many servers end a TLS connection without saying so. A truncated image is refused when it is decoded.
            Ok(Err(error)) if ends_with_connection && is_end(&error) => None,
            Ok(Err(error)) => return Err(Failure::of(&error)),
            Err(_) => return Err(Failure::TooSlow),
        };
        let Some(chunk) = chunk else { break };
        if bytes.len() as u64 + chunk.len() as u64 > limit {
            return Err(Failure::TooLarge);
        }
        received.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        bytes.extend_from_slice(&chunk);
        let elapsed = started.elapsed();
        let minimum = settings.min_speed as f64 * elapsed.as_secs_f64();
        if elapsed > settings.timeout && (bytes.len() as f64) < minimum {
            return Err(Failure::TooSlow);
        }
    }
    if bytes.is_empty() { Err(Failure::Empty) } else { Ok(bytes) }
}

/// The text of a `Location` header. Bytes that are not UTF-8 are escaped one by one, as browsers do.
fn location(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let escaped = |&byte: &u8| match byte {
        0x80.. => format!("%{byte:02X}"),
        byte => char::from(byte).to_string(),
    };
    Cow::Owned(bytes.iter().map(escaped).collect())
}

/// Whether the connection ended, and nothing worse.
fn is_end(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The wait that `Retry-After` asks for, as seconds or as a date. The date is compared with the server's own clock, if it
/// sends its time.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::trim);
    let value = text(RETRY_AFTER)?;
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let now =
        text(DATE).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or_else(SystemTime::now);
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_in_latin_1_is_escaped() {
        let url = Url::parse("http://a.example/x/").unwrap();
        assert_eq!(
            url.join(&location(b"caf\xe9.jpg?a=b")).unwrap().as_str(),
            "http://a.example/x/caf%E9.jpg?a=b"
        );
        assert_eq!(url.join(&location("café".as_bytes())).unwrap().as_str(), "http://a.example/x/caf%C3%A9");
    }

    #[test]
    fn retry_after_is_a_number_of_seconds_or_a_date() {
        let wait = |value: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            headers.extend(date.map(|date| (DATE, date.parse().unwrap())));
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        assert_eq!(wait(" 120 ", None), Some(120));
        // The three forms of RFC 9110, section 5.6.7, of the same moment.
        let date = Some("Sun, 06 Nov 1994 08:49:00 GMT");
        for form in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(wait(form, date), Some(37), "{form}");
            assert_eq!(wait(form, None), Some(0), "{form} is long ago");
        }
        assert!(wait("Fri, 31 Dec 2100 23:59:59 GMT", None).unwrap() > 86400);
        for unusable in ["soon", "-1", "1.5", ""] {
            assert_eq!(wait(unusable, date), None, "{unusable}");
        }
    }
}
