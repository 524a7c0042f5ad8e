//! `--metrics ADDRESS`: an HTTP endpoint for Prometheus while the run lasts.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::pipeline::watch::Watch;

/// Time for a client to send its request, and to take the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of a request. Its content is ignored; only its end matters.
const MAX_REQUEST_BYTES: usize = 16 << 10;
/// Maximum number of clients at a time; others are refused. (Prometheus asks every few seconds.)
const MAX_CLIENTS: usize = 64;

/// Answers every request to `address` with the counters of `watch`, until the process ends.
pub(crate) fn serve(address: SocketAddr, watch: Arc<Watch>) -> Result<SocketAddr, Error> {
    let failed = |error: std::io::Error| {
        Error::Usage(format!(
            "--metrics {address}: {error}; choose an address and a free port of this machine"
        ))
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let serve = move || {
        let places = Arc::new(());
        for stream in listener.incoming().flatten() {
            let (place, watch) = (Arc::clone(&places), Arc::clone(&watch));
            if Arc::strong_count(&place) > MAX_CLIENTS + 1 {
                continue;
            }
            // One that sends its request slowly must not block the others.
            let answer = move || {
                let _ = answer(stream, &watch);
                drop(place);
            };
            let _ = thread::Builder::new().name("metrics".to_owned()).spawn(answer);
        }
    };
    thread::Builder::new().name("metrics".to_owned()).spawn(serve).map_err(failed)?;
    Ok(bound)
}

fn answer(mut stream: TcpStream, watch: &Watch) -> io::Result<()> {
    let until = Instant::now() + CLIENT_TIMEOUT;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    let has_ended = |request: &[u8]| request.windows(4).any(|bytes| bytes == b"\r\n\r\n");
    while !has_ended(&request) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || request.len() > MAX_REQUEST_BYTES {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 => break,
            length => request.extend(&piece[..length]),
        }
    }
    let page = watch.prometheus();
    let length = page.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{page}"
    )
}
