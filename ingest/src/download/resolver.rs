//! A DNS cache. Every address passes [`is_public`] before a connection is made, so that a host name cannot lead to an
//! address that is not allowed (DNS rebinding).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::OnceCell;

use super::address::{is_private_name, is_public};
use super::failure::Failure;
use super::settings::Allowed;

/// How long an answer is cached. (The system's interface does not report the TTL of the record.)
const TTL: Duration = Duration::from_mins(10);
/// Failures are cached for a shorter time, because the name server may only be overloaded.
const FAILURE_TTL: Duration = Duration::from_secs(30);
/// Maximum number of cached names (about 100 bytes each).
const MAX_NAMES: usize = 200_000;

type Answer = Result<Arc<[IpAddr]>, Failure>;

struct Entry {
    asked: Instant,
    /// Tasks that need the same name share one lookup.
    answer: OnceCell<Answer>,
}

impl Entry {
    fn is_fresh(&self) -> bool {
        let lasts = match self.answer.get() {
            Some(Err(_)) => FAILURE_TTL,
            _ => TTL,
        };
        self.asked.elapsed() < lasts
    }
}

/// Looks up the addresses of a name.
type LookUp = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// A caching resolver that returns only allowed addresses.
#[derive(Clone)]
pub(super) struct Resolver {
    look_up: LookUp,
    allowed: Arc<Allowed>,
    /// The host of the proxy, which may have any address because the user chose it. With a proxy it is the only host that
    /// is connected to; the hosts of URLs are only checked, by [`Resolver::check`].
    proxy: Option<String>,
    names: Arc<Mutex<HashMap<String, Arc<Entry>>>>,
}

impl Resolver {
    pub(super) fn new(allowed: Arc<Allowed>, proxy: Option<String>) -> Self {
        Self::asking(allowed, proxy, Arc::new(|name| Box::pin(look_up(name))))
    }

    fn asking(allowed: Arc<Allowed>, proxy: Option<String>, look_up: LookUp) -> Self {
        Self { look_up, allowed, proxy, names: Arc::default() }
    }

    /// Checks the host of a URL that a proxy will fetch. The proxy looks the name up itself, perhaps in a network of its own,
    /// and would then give access to it: so the name must not be one of a private network, and must not have a private
    /// address here. A name that cannot be looked up here is the proxy's: behind a proxy there is often no name server.
    pub(super) async fn check(&self, name: &str) -> Result<(), Failure> {
        if self.allowed.host(name) {
            return Ok(());
        }
        if is_private_name(name) {
            return Err(Failure::NotPublic);
        }
        let entry = self.entry(name);
        let answer = entry.answer.get_or_init(|| (self.look_up)(name.to_owned())).await;
        match answer {
            Ok(addresses) if !addresses.iter().all(|&address| is_public(address)) => Err(Failure::NotPublic),
            _ => Ok(()),
        }
    }

    fn entry(&self, name: &str) -> Arc<Entry> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = names.get(name).filter(|entry| entry.is_fresh()) {
            return Arc::clone(entry);
        }
        if names.len() >= MAX_NAMES {
            names.retain(|_, entry| entry.is_fresh());
            if names.len() >= MAX_NAMES {
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
        let (allowed, look_up) = (Arc::clone(&self.allowed), Arc::clone(&self.look_up));
        let is_proxy = self.proxy.as_deref().is_some_and(|proxy| proxy.eq_ignore_ascii_case(name.as_str()));
        Box::pin(async move {
            let name = name.as_str();
            let addresses = entry.answer.get_or_init(|| look_up(name.to_owned())).await.clone()?;
            let usable: Vec<SocketAddr> = addresses
                .iter()
                .filter(|&&address| is_public(address) || is_proxy || allowed.host(name))
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

async fn look_up(name: String) -> Answer {
    match tokio::net::lookup_host((name, 0)).await {
        Ok(found) => {
            let addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            if addresses.is_empty() { Err(Failure::NameNotFound) } else { Ok(addresses.into()) }
        }
        // The standard library gives the error code of getaddrinfo only as text.
        Err(error) if error.to_string().contains("Temporary failure") => Err(Failure::LookUpFailed),
        Err(_) => Err(Failure::NameNotFound),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A resolver with one public and one private name, and the number of lookups.
    fn resolver(allowed: Allowed) -> (Resolver, Arc<AtomicUsize>) {
        with_proxy(allowed, None)
    }

    fn with_proxy(allowed: Allowed, proxy: Option<&str>) -> (Resolver, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let look_up = move |name: String| {
            count.fetch_add(1, Ordering::Relaxed);
            let answer: Answer = match name.as_str() {
                "public.example" => Ok([IpAddr::from([9, 9, 9, 9]), IpAddr::from([10, 0, 0, 1])].into()),
                "private.example" => Ok([IpAddr::from([192, 168, 0, 1])].into()),
                "good.example" => Ok([IpAddr::from([9, 9, 9, 9])].into()),
                _ => Err(Failure::NameNotFound),
            };
            let answer = async move {
                tokio::task::yield_now().await;
                answer
            };
            Box::pin(answer) as Pin<Box<dyn Future<Output = Answer> + Send>>
        };
        (Resolver::asking(Arc::new(allowed), proxy.map(str::to_owned), Arc::new(look_up)), asked)
    }

    async fn addresses(resolver: &Resolver, name: &str) -> Result<Vec<String>, String> {
        match resolver.resolve(name.parse().unwrap()).await {
            Ok(found) => Ok(found.map(|address| address.ip().to_string()).collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[tokio::test]
    async fn every_name_is_looked_up_once_whether_it_exists_or_not() {
        let (resolver, asked) = resolver(Allowed::default());
        let both = futures_util::future::join_all((0..50).map(|_| addresses(&resolver, "public.example")));
        for found in both.await {
            assert_eq!(found.unwrap(), ["9.9.9.9"], "the private address of a public name is dropped");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        for _ in 0..3 {
            let error = addresses(&resolver, "unknown.example").await.unwrap_err();
            assert_eq!(error, Failure::NameNotFound.to_string());
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_name_with_a_private_address_is_blocked_unless_it_is_allowed() {
        let (strict, _) = resolver(Allowed::default());
        let error = addresses(&strict, "private.example").await.unwrap_err();
        assert_eq!(error, Failure::NotPublic.to_string());
        let hosts = vec!["private.example".to_owned()];
        let (lenient, _) = resolver(Allowed { everything: false, hosts });
        assert_eq!(addresses(&lenient, "private.example").await.unwrap(), ["192.168.0.1"]);
    }

    #[tokio::test]
    async fn a_proxy_may_be_private_but_not_what_is_asked_of_it() {
        let (resolver, _) = with_proxy(Allowed::default(), Some("private.example"));
        assert_eq!(addresses(&resolver, "private.example").await.unwrap(), ["192.168.0.1"]);
        // URLs that name the proxy's own host, this machine, or a host with a private address, also among public ones.
        for blocked in [
            "private.example",
            "public.example",
            "localhost",
            "localhost.",
            "a.localhost",
            "db",
            "x.internal",
        ] {
            assert!(matches!(resolver.check(blocked).await, Err(Failure::NotPublic)), "{blocked}");
        }
        resolver.check("good.example").await.unwrap();
        resolver.check("unknown.example").await.unwrap();
        let hosts = vec!["db".to_owned()];
        let (lenient, _) = with_proxy(Allowed { everything: false, hosts }, None);
        lenient.check("db").await.unwrap();
    }
}
