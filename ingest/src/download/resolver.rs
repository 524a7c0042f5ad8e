//! Host names to addresses, remembered inside the program. Every answer passes [`is_public`] before a connection is
//! made, so a name cannot lead where an address may not.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::OnceCell;

use super::Allowed;
use super::address::is_public;
use super::failure::Failure;

/// An answer is asked for again after this; the system's interface does not tell the record's own time.
const REMEMBERED: Duration = Duration::from_secs(600);
/// A failure is remembered for less: a name server may only be overloaded.
const FAILURE_REMEMBERED: Duration = Duration::from_secs(30);
/// Names remembered at most (about 100 bytes each).
const MOST_NAMES: usize = 200_000;

type Answer = Result<Arc<[IpAddr]>, Failure>;

struct Entry {
    asked: Instant,
    /// Tasks that ask for the same name wait for one answer.
    answer: OnceCell<Answer>,
}

impl Entry {
    fn is_fresh(&self) -> bool {
        let lasts = match self.answer.get() {
            Some(Err(_)) => FAILURE_REMEMBERED,
            _ => REMEMBERED,
        };
        self.asked.elapsed() < lasts
    }
}

/// A caching resolver that knows which addresses are allowed.
pub(super) struct Resolver {
    allowed: Arc<Allowed>,
    names: Arc<Mutex<HashMap<String, Arc<Entry>>>>,
}

impl Resolver {
    pub(super) fn new(allowed: Arc<Allowed>) -> Self {
        Self { allowed, names: Arc::default() }
    }

    fn entry(&self, name: &str) -> Arc<Entry> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = names.get(name).filter(|entry| entry.is_fresh()) {
            return Arc::clone(entry);
        }
        if names.len() >= MOST_NAMES {
            names.retain(|_, entry| entry.is_fresh());
            if names.len() >= MOST_NAMES {
                names.clear();
            }
        }
        let entry = Arc::new(Entry { asked: Instant::now(), answer: OnceCell::new() });
        names.insert(name.to_owned(), Arc::clone(&entry));
        entry
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let entry = self.entry(name.as_str());
        let allowed = Arc::clone(&self.allowed);
        Box::pin(async move {
            let name = name.as_str();
            let addresses = entry.answer.get_or_init(|| look_up(name)).await.clone()?;
            let usable: Vec<SocketAddr> = addresses
                .iter()
                .filter(|&&address| is_public(address) || allowed.host(name))
                .map(|&address| SocketAddr::new(address, 0))
                .collect();
            if usable.is_empty() {
                return Err(Failure::NotPublic.into());
            }
            let addresses: Addrs = Box::new(usable.into_iter());
            Ok(addresses)
        })
    }
}

async fn look_up(name: &str) -> Answer {
    match tokio::net::lookup_host((name, 0)).await {
        Ok(found) => {
            let addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            if addresses.is_empty() { Err(Failure::NameNotFound) } else { Ok(addresses.into()) }
        }
        // The standard library keeps getaddrinfo's code only in the text.
        Err(error) if error.to_string().contains("Temporary failure") => Err(Failure::LookUpFailed),
        Err(_) => Err(Failure::NameNotFound),
    }
}
