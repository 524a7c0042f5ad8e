//! `--metrics ADDRESS`: an HTTP endpoint for Prometheus while the run lasts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::error::Error;
use crate::watch::Watch;

/// Read and write timeout for a client.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of a request. Its content is ignored; only its end matters.
const MAX_REQUEST_BYTES: u64 = 16 << 10;

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
        // One request at a time is enough: Prometheus asks every few seconds.
        for stream in listener.incoming().flatten() {
            let _ = answer(stream, &watch);
        }
    };
    thread::Builder::new().name("metrics".to_owned()).spawn(serve).map_err(failed)?;
    Ok(bound)
}

fn answer(mut stream: TcpStream, watch: &Watch) -> std::io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut request = BufReader::new(stream.try_clone()?.take(MAX_REQUEST_BYTES));
    let mut line = String::new();
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    let page = watch.prometheus();
    let length = page.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{page}"
    )
}
