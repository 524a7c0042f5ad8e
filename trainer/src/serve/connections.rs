//! The connections of the server. No client can hold so many, or for so long, that there are none left for others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Maximum memory for the head of a request, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// Pause after a connection could not be accepted, usually because the process has too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Limits of the connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Maximum number of connections; one client can have half of them. Each is an open file, of which a process can usually
    /// have 1,024.
    pub(super) connections: u64,
    /// Maximum time until the head of a request is complete. An idle connection is closed after the same time.
    pub(super) head: Duration,
    /// Maximum duration of a connection. The request that it has then is still answered.
    pub(super) whole: Duration,
    /// Maximum duration of that last request.
    pub(super) last: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            head: Duration::from_secs(15),
            whole: Duration::from_mins(10),
            last: Duration::from_mins(5),
        }
    }
}

/// The client of a connection, as an extension of its requests: an IPv4 address or an IPv6 network of 64 bits, which is what
/// one household gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Client(IpAddr);

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// Something of which there is a limited amount, and of which one client can have at most half.
#[derive(Debug)]
pub(super) struct Supply {
    total: u64,
    taken: Mutex<HashMap<Client, u64>>,
}

impl Supply {
    pub(super) fn new(total: u64) -> Arc<Self> {
        Arc::new(Self { total, taken: Mutex::default() })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Client, u64>> {
        // A thread that panicked has left no partial change.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client's part of a [`Supply`], which it gives back when it is dropped.
#[derive(Debug)]
pub(super) struct Allocation {
    supply: Arc<Supply>,
    client: Client,
    amount: u64,
}

impl Allocation {
    pub(super) fn nothing(supply: &Arc<Supply>, client: Client) -> Self {
        Self { supply: Arc::clone(supply), client, amount: 0 }
    }

    /// Takes more; `false` if there is not enough, or the client would have too much.
    pub(super) fn take(&mut self, amount: u64) -> bool {
        let mut taken = self.supply.taken();
        let all: u64 = taken.values().sum();
        let own = taken.get(&self.client).copied().unwrap_or(0);
        if all + amount > self.supply.total || own + amount > self.supply.total / 2 {
            return false;
        }
        taken.insert(self.client, own + amount);
        self.amount += amount;
        true
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let mut taken = self.supply.taken();
        if let Some(own) = taken.get_mut(&self.client) {
            *own -= self.amount;
            if *own == 0 {
                taken.remove(&self.client);
            }
        }
    }
}

/// Answers the requests of all connections until `stop` is ready, and then those that have begun.
pub(super) async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: impl Future) {
    let places = Supply::new(limits.connections);
    let (stopping, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let client = Client::from(peer.ip());
                    let mut place = Allocation::nothing(&places, client);
                    // Otherwise the connection is closed.
                    if place.take(1) {
                        let router = router.clone().layer(Extension(client));
                        let stopped = stopped.clone();
                        connections.spawn(async move {
                            answer(stream, router, limits, stopped).await;
                            drop(place);
                        });
                    }
                }
                Err(_) => sleep(PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
            _ = &mut stop => break,
        }
    }
    drop((listener, stopping));
    while connections.join_next().await.is_some() {}
}

/// Answers the requests of one connection, until it is closed, it took too long, or the server stops.
async fn answer(stream: TcpStream, router: Router, limits: Limits, mut stopped: watch::Receiver<()>) {
    let connection = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        // Ready when the sender is dropped.
        _ = stopped.changed() => {}
        () = sleep(limits.whole) => {}
    }
    connection.as_mut().graceful_shutdown();
    // An error is the client's: it has closed the connection or broken the protocol.
    let _ = timeout(limits.last, connection).await;
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};

    use axum::routing::get;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_client_gets_half_of_a_supply_and_gives_it_back() {
        let client = |address: &str| Client::from(address.parse::<IpAddr>().unwrap());
        let supply = Supply::new(10);
        let (a, b, c) = (client("10.0.0.1"), client("10.0.0.2"), client("2001:db8::1"));
        let mut of_a = Allocation::nothing(&supply, a);
        assert!(of_a.take(2) && of_a.take(3) && !of_a.take(1), "half is 5");
        assert!(!Allocation::nothing(&supply, a).take(1), "however many requests it has");
        let mut of_b = Allocation::nothing(&supply, b);
        assert!(of_b.take(4));
        assert!(!Allocation::nothing(&supply, c).take(2), "only 1 is left");
        drop(of_a);
        assert!(Allocation::nothing(&supply, c).take(5));
        assert_eq!(supply.taken().len(), 1, "clients that have nothing are forgotten");

        assert_eq!(client("::ffff:10.0.0.1"), a);
        assert_eq!(client("2001:db8::2"), c);
        assert_ne!(client("2001:db8:0:1::1"), c);
    }

    /// A server; it stops when the sender is dropped.
    fn start(
        connections: u64,
        head: Duration,
    ) -> (SocketAddr, oneshot::Sender<()>, std::thread::JoinHandle<()>) {
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let limits =
            Limits { connections, head, whole: Duration::from_mins(5), last: Duration::from_secs(5) };
        let router = Router::new().route("/", get(|| async { "hello" }));
        let thread = std::thread::spawn(move || runtime.block_on(serve(listener, router, limits, stopped)));
        (address, stop, thread)
    }

    /// What the server sends before it closes the connection.
    fn rest(mut stream: TcpStream) -> String {
        let mut text = Vec::new();
        // A connection that is closed while data are on their way is reset.
        let _ = stream.read_to_end(&mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn slow_and_idle_connections_are_closed() {
        let (address, stop, thread) = start(512, Duration::from_millis(300));
        let connect = |text: &str| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            stream
        };
        let (silent, half) = (connect(""), connect("GET / HTTP/1.1\r\nHost: a\r\nX-More"));
        let idle = connect("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        // A byte now and then does not keep the connection open either.
        let dripping = connect("GET / HTTP/1.1\r\n");
        let mut writer = dripping.try_clone().unwrap();
        let drips = std::thread::spawn(move || {
            while writer.write_all(b"X: y\r\n").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        assert!(!rest(silent).contains("200 OK"));
        assert!(!rest(half).contains("200 OK"));
        assert!(rest(idle).ends_with("hello"), "answered, then closed");
        assert!(!rest(dripping).contains("200 OK"));
        drips.join().unwrap();
        drop(stop);
        thread.join().unwrap();
    }

    #[test]
    fn one_client_cannot_have_all_connections() {
        let (address, stop, thread) = start(4, Duration::from_mins(5));
        let ask = |stream: &mut TcpStream| {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).is_ok_and(|()| answer == *b"HTTP/1.1 200")
        };
        let mut two: Vec<_> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert!(two.iter_mut().all(ask), "half of four");
        assert!(!ask(&mut TcpStream::connect(address).unwrap()), "one more is closed");
        drop(two);
        // The places are free again as soon as the server has noticed.
        while !ask(&mut TcpStream::connect(address).unwrap()) {
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(stop);
        thread.join().unwrap();
    }
}
