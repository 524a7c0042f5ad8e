//! Why a download failed, as one of a fixed set of texts that can be counted, and whether it may succeed later.

use std::error::Error as _;
use std::io;
use std::time::Duration;

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The text is not a URL, or its scheme is neither http nor https.
    #[error("not an http or https URL")]
    BadUrl,
    /// A `data:` URL that cannot be decoded.
    #[error("not a valid data URL")]
    BadDataUrl,
    /// The host's name has no address.
    #[error("host name not found")]
    NameNotFound,
    /// The name server did not answer, or reported a temporary failure.
    #[error("DNS lookup failed")]
    LookUpFailed,
    /// The address does not belong to the public internet.
    #[error("address is not public (allow it with --allow-private)")]
    NotPublic,
    /// No server listens at the address.
    #[error("connection refused")]
    Refused,
    /// No connection in time.
    #[error("timed out: no connection")]
    ConnectTimeout,
    /// No response headers in time.
    #[error("timed out: no response")]
    ResponseTimeout,
    /// The response was not complete when the attempt had to end.
    #[error("timed out: response incomplete at --deadline")]
    Deadline,
    /// The response was slower than the minimum transfer rate, or stopped.
    #[error("timed out: response slower than --min-speed")]
    TooSlow,
    /// The connection broke, or the response ended before its declared length.
    #[error("connection broken")]
    Broken,
    /// The TLS handshake failed.
    #[error("TLS handshake failed")]
    Tls,
    /// The server did not answer in HTTP.
    #[error("not a valid HTTP response")]
    BadResponse,
    /// Any other failure to connect.
    #[error("connection failed")]
    NoConnection,
    /// A status other than success.
    #[error("HTTP Error {status}: {}", reason(*status))]
    Http {
        /// The status code.
        status: u16,
        /// The wait that a `Retry-After` header asks for.
        retry_after: Option<Duration>,
    },
    /// A redirect leads back to an earlier URL.
    #[error("redirect loop")]
    RedirectLoop,
    /// More redirects than allowed.
    #[error("too many redirects")]
    TooManyRedirects,
    /// A redirect without a usable target.
    #[error("redirect target is not an http or https URL")]
    BadRedirect,
    /// The response is larger than allowed.
    #[error("larger than --max-bytes")]
    TooLarge,
    /// The response has no bytes.
    #[error("empty response")]
    Empty,
    /// The response is compressed although the request did not allow it.
    #[error("unexpected content encoding")]
    Encoded,
    /// The owner does not want it used. (The text is img2dataset's.)
    #[error("Use of image disallowed by X-Robots-Tag directive")]
    OptedOut,
    /// Its owner reserves the rights to text and data mining (TDMRep).
    #[error("Use of image disallowed by tdm-reservation header")]
    Reserved,
    /// Its owner does not want AI to be trained with it (AIPREF).
    #[error("Use of image disallowed by Content-Usage")]
    NotForTraining,
    /// The host does not want it to be asked for.
    #[error("URL disallowed by robots.txt")]
    Disallowed,
    /// The host's robots.txt cannot be read, which forbids everything (RFC 9309, 2.3.1.4).
    #[error("robots.txt cannot be read")]
    UnknownRules,
    /// Too many attempts at the host failed in a row (circuit open), so no request was sent.
    #[error("host skipped after repeated failures")]
    HostFailing,
}

/// Causes as earlier versions wrote them into tables, whose samples can still be retried.
const EARLIER_TEXTS: [&str; 5] = [
    "host name could not be looked up",
    "timed out: body incomplete at the deadline",
    "timed out: body too slow",
    "no connection",
    "host is failing, not asked",
];

impl Failure {
    /// Whether the same request may succeed later: only then is it retried during a run.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::LookUpFailed
            | Self::ConnectTimeout
            | Self::ResponseTimeout
            | Self::Deadline
            | Self::TooSlow
            | Self::Broken
            | Self::NoConnection => true,
            Self::Http { status, .. } => {
                matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504 | 520..=524)
            }
            _ => false,
        }
    }

    /// Whether `ingest retry` tries a sample with this cause again by default: transient failures, and failures of a host
    /// that may be back.
    pub(super) fn is_worth_retrying(cause: &str) -> bool {
        if EARLIER_TEXTS.contains(&cause) {
            return true;
        }
        if let Some(status) = cause.strip_prefix("HTTP Error ").and_then(|rest| rest.get(..3)?.parse().ok()) {
            return Self::Http { status, retry_after: None }.is_transient();
        }
        [
            Self::LookUpFailed,
            Self::NameNotFound,
            Self::Refused,
            Self::ConnectTimeout,
            Self::ResponseTimeout,
            Self::Deadline,
            Self::TooSlow,
            Self::Broken,
            Self::NoConnection,
            Self::Tls,
            Self::HostFailing,
            Self::UnknownRules,
        ]
        .iter()
        .any(|failure| failure.to_string() == cause)
    }

    /// Whether the host did not respond in time.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, Self::ConnectTimeout | Self::ResponseTimeout | Self::Deadline | Self::TooSlow)
    }

    /// Whether the host rather than the single URL is the cause.
    pub(super) fn blames_host(&self) -> bool {
        matches!(
            self,
            Self::NameNotFound
                | Self::LookUpFailed
                | Self::Refused
                | Self::ConnectTimeout
                | Self::ResponseTimeout
                | Self::Deadline
                | Self::TooSlow
                | Self::Tls
                | Self::NoConnection
        )
    }

    /// Classifies an error of the HTTP client.
    pub(super) fn of(error: &reqwest::Error) -> Self {
        if let Some(known) = error.source().and_then(|cause| Self::within(cause, error.is_connect())) {
            return known;
        }
        if error.is_timeout() {
            if error.is_connect() { Self::ConnectTimeout } else { Self::ResponseTimeout }
        } else if error.is_connect() {
            Self::NoConnection
        } else if error.is_builder() {
            Self::BadUrl
        } else {
            Self::Broken
        }
    }

    /// Classifies an error by itself or by its sources; None if none of them is known.
    fn within(cause: &(dyn std::error::Error + 'static), connecting: bool) -> Option<Self> {
        if let Some(known) = cause.downcast_ref::<Self>() {
            return Some(known.clone());
        }
        if cause.is::<rustls::Error>() {
            return Some(Self::Tls);
        }
        if let Some(cause) = cause.downcast_ref::<io::Error>() {
            // TLS and DNS errors are wrapped in an io::Error (or in two), whose source() skips them.
            if let Some(known) = cause.get_ref().and_then(|inner| Self::within(inner, connecting)) {
                return Some(known);
            }
            match cause.kind() {
                io::ErrorKind::ConnectionRefused => return Some(Self::Refused),
                io::ErrorKind::TimedOut if connecting => return Some(Self::ConnectTimeout),
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof => return Some(Self::Broken),
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
                    return Some(Self::NoConnection);
                }
                _ => {}
            }
        }
        // hyper's error type is not accessible here; its text for malformed response headers is stable.
        let text = cause.to_string();
        if text.contains("invalid HTTP") || text.contains("message head is too large") {
            return Some(Self::BadResponse);
        }
        cause.source().and_then(|cause| Self::within(cause, connecting))
    }
}

/// The standard reason phrase of a status code.
fn reason(status: u16) -> &'static str {
    reqwest::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason()).unwrap_or("Unknown")
}
