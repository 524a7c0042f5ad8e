//! Why a picture did not arrive, in words that can be counted, and whether it could arrive later.

use std::error::Error as _;
use std::io;
use std::time::Duration;

/// The end of one attempt that brought no picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The text is no URL, or not of http or https.
    #[error("not an http or https URL")]
    BadUrl,
    /// The host's name has no address.
    #[error("host name not found")]
    NameNotFound,
    /// The name server did not answer, or did not know for now.
    #[error("host name could not be looked up")]
    LookUpFailed,
    /// The address is not of the public internet.
    #[error("address is not public (--allow-private would allow it)")]
    NotPublic,
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// No connection in time.
    #[error("timed out: no connection")]
    ConnectTimeout,
    /// No response headers in time.
    #[error("timed out: no response")]
    ResponseTimeout,
    /// The body took longer than an attempt may.
    #[error("timed out: body incomplete at the deadline")]
    Deadline,
    /// The body came slower than the floor.
    #[error("timed out: body too slow")]
    TooSlow,
    /// The connection broke, or the body ended before its declared length.
    #[error("connection broken")]
    Broken,
    /// The TLS handshake failed.
    #[error("TLS handshake failed")]
    Tls,
    /// The other side does not speak HTTP.
    #[error("not a valid HTTP response")]
    BadResponse,
    /// Any other failure to connect.
    #[error("no connection")]
    NoConnection,
    /// A status other than success.
    #[error("HTTP Error {status}: {}", reason(*status))]
    Http {
        /// The code.
        status: u16,
        /// What a `Retry-After` header asked for.
        retry_after: Option<Duration>,
    },
    /// A redirect leads to where it came from.
    #[error("redirect loop")]
    RedirectLoop,
    /// More redirects than allowed.
    #[error("too many redirects")]
    TooManyRedirects,
    /// A redirect without a usable target.
    #[error("redirect to no http or https URL")]
    BadRedirect,
    /// The body is larger than allowed.
    #[error("larger than --max-bytes")]
    TooLarge,
    /// The response has no bytes.
    #[error("empty response")]
    Empty,
    /// The body is compressed though that was not asked for.
    #[error("unexpected content encoding")]
    Encoded,
    /// The owner does not want it used.
    #[error("Use of image disallowed by X-Robots-Tag directive")]
    OptedOut,
    /// Too many connections to the host failed in a row; it was not asked.
    #[error("host is failing, not asked")]
    HostFailing,
}

impl Failure {
    /// Whether the same request can succeed later: only then is it sent again.
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

    /// Whether a failure of an earlier run, known by its cause alone, could end otherwise in another: the transient
    /// ones, and those of a host that may be back.
    pub(super) fn may_pass(cause: &str) -> bool {
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
        ]
        .iter()
        .any(|failure| failure.to_string() == cause)
    }

    /// Whether the host was waited for in vain.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, Self::ConnectTimeout | Self::ResponseTimeout)
    }

    /// Whether it speaks against the host rather than the one URL.
    pub(super) fn blames_host(&self) -> bool {
        matches!(
            self,
            Self::NameNotFound
                | Self::LookUpFailed
                | Self::Refused
                | Self::ConnectTimeout
                | Self::ResponseTimeout
                | Self::Tls
                | Self::NoConnection
        )
    }

    /// What the HTTP client's error means.
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

    /// What is known of an error, or of one inside it.
    fn within(cause: &(dyn std::error::Error + 'static), connecting: bool) -> Option<Self> {
        if let Some(known) = cause.downcast_ref::<Self>() {
            return Some(known.clone());
        }
        if cause.is::<rustls::Error>() {
            return Some(Self::Tls);
        }
        if let Some(cause) = cause.downcast_ref::<io::Error>() {
            // A TLS or name error travels inside an io::Error, or inside one in one, whose source() skips it.
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
        // hyper's error type is not public to us; what it says of a malformed head is stable.
        let says = cause.to_string();
        if says.contains("invalid HTTP") || says.contains("message head is too large") {
            return Some(Self::BadResponse);
        }
        cause.source().and_then(|cause| Self::within(cause, connecting))
    }
}

/// The standard's words for a status code.
fn reason(status: u16) -> &'static str {
    reqwest::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason()).unwrap_or("Unknown")
}
