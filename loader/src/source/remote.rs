//! One file behind a network address.

use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig, WriteMultipart};
use tokio::runtime::Runtime;
use url::{Position, Url};

use super::{RETRY_FOR, SILENCE, scheme};
use crate::Error;

/// Pauses between tries grow to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A part of an upload; stores ask for at least 5 MiB.
const PART: usize = 8 << 20;
/// Parts of an upload on their way at a time.
const PARTS_AT_ONCE: usize = 4;

#[derive(Debug, Clone)]
pub(super) struct Remote {
    /// Its name, for errors.
    name: PathBuf,
    store: Arc<dyn ObjectStore>,
    key: Key,
}

impl Remote {
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        let input = |problem: String| Error::Input { input: path.to_owned(), problem };
        let text = path.to_str().ok_or_else(|| input("an address that is not UTF-8".to_owned()))?;
        let url = Url::parse(text).map_err(|e| input(format!("not an address: {e}")))?;
        if url.query().is_some() {
            return Err(input("an address with a query (`?..`): nothing can be found beside it".to_owned()));
        }
        let key = Key::from_url_path(url.path()).map_err(|e| input(format!("not an address: {e}")))?;
        let store = store(path, &url).map_err(|e| input(text_of(&e)))?;
        Ok(Self { name: path.to_owned(), store, key })
    }

    pub(super) fn length(&self) -> Result<u64, Error> {
        Ok(self.about()?.0)
    }

    /// Length, and what changes when the file is written again.
    pub(super) fn about(&self) -> Result<(u64, String), Error> {
        let about = self.wait(|store, key| async move { store.head(&key).await })?;
        Ok((about.size, format!("{} {} {:?}", about.size, about.last_modified, about.e_tag)))
    }

    pub(super) fn read_all(&self) -> Result<Bytes, Error> {
        self.wait(|store, key| async move { store.get(&key).await?.bytes().await })
    }

    pub(super) fn read(&self, range: Range<u64>) -> Result<Bytes, Error> {
        let wanted = range.end - range.start;
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        let bytes = self.wait(move |store, key| {
            let range = range.clone();
            async move { store.get_range(&key, range).await }
        })?;
        if bytes.len() as u64 == wanted {
            Ok(bytes)
        } else {
            Err(Error::archive(&self.name, "became shorter while it was read"))
        }
    }

    pub(super) fn list(&self) -> Result<Vec<PathBuf>, Error> {
        let listed = self.wait(|store, key| async move { store.list_with_delimiter(Some(&key)).await })?;
        let mut files: Vec<_> = listed
            .objects
            .iter()
            .filter_map(|object| object.location.filename())
            .map(|name| self.name.join(name))
            .collect();
        files.sort();
        Ok(files)
    }

    pub(super) fn write(&self, bytes: Bytes) -> Result<(), Error> {
        self.wait(move |store, key| {
            let bytes = bytes.clone();
            async move { store.put(&key, bytes.into()).await }
        })?;
        Ok(())
    }

    pub(super) fn upload(&self, file: &Path) -> Result<(), Error> {
        let length = std::fs::metadata(file).map_err(Error::io(file))?.len();
        // Plain http knows no parts.
        if length <= PART as u64 || scheme(&self.name).is_some_and(|scheme| scheme.starts_with("http")) {
            return self.write(std::fs::read(file).map_err(Error::io(file))?.into());
        }
        let file = file.to_owned();
        self.wait(move |store, key| {
            let file = file.clone();
            async move {
                let failed =
                    |e: io::Error| object_store::Error::Generic { store: "upload", source: Box::new(e) };
                let mut from = File::open(&file).map_err(failed)?;
                let mut upload = WriteMultipart::new_with_chunk_size(store.put_multipart(&key).await?, PART);
                let mut part = vec![0; PART];
                loop {
                    // The runtime has threads for this alone, and a local disk is quick beside the network.
                    let read = from.read(&mut part).map_err(failed)?;
                    if read == 0 {
                        break;
                    }
                    upload.wait_for_capacity(PARTS_AT_ONCE).await?;
                    upload.write(&part[..read]);
                }
                upload.finish().await
            }
        })?;
        Ok(())
    }

    pub(super) fn remove(&self) -> Result<(), Error> {
        match self.wait(|store, key| async move { store.delete(&key).await }) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Runs a request on the runtime, again and again while that may help: the store itself tries again what fails
    /// before the first byte, and what breaks off later where the server gives entity tags.
    fn wait<T, F>(&self, request: impl Fn(Arc<dyn ObjectStore>, Key) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        let started = Instant::now();
        let mut pause = Duration::from_millis(200);
        loop {
            let (sender, receiver) = crossbeam::channel::bounded(1);
            let request = request(Arc::clone(&self.store), self.key.clone());
            runtime().map_err(|e| Error::io(&self.name)(io::Error::other(e)))?.spawn(async move {
                // The receiver waits below.
                let _ = sender.send(request.await);
            });
            let result =
                receiver.recv().map_err(|_| self.failed(io::ErrorKind::Other, "the transfer ended"))?;
            match result {
                Ok(value) => return Ok(value),
                Err(e) if is_final(&e) || started.elapsed() + pause > retry_for() => {
                    return Err(self.failed(kind(&e), &explain(&e, started.elapsed())));
                }
                Err(_) => std::thread::sleep(pause),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn failed(&self, kind: io::ErrorKind, text: &str) -> Error {
        Error::io(&self.name)(io::Error::new(kind, text.to_owned()))
    }
}

fn is_final(error: &object_store::Error) -> bool {
    use object_store::Error::{
        AlreadyExists, InvalidPath, NotFound, NotImplemented, NotModified, NotSupported, PermissionDenied,
        Precondition, Unauthenticated, UnknownConfigurationKey,
    };
    matches!(
        error,
        NotFound { .. }
            | InvalidPath { .. }
            | NotSupported { .. }
            | AlreadyExists { .. }
            | Precondition { .. }
            | NotModified { .. }
            | NotImplemented { .. }
            | PermissionDenied { .. }
            | Unauthenticated { .. }
            | UnknownConfigurationKey { .. }
    ) || refused(error)
}

/// Answers of 400 to 499, which asking again does not change; the store has no variant for most of them.
fn refused(error: &object_store::Error) -> bool {
    let text = text_of(error);
    // Too many requests, and a request that took too long to arrive.
    (400..500)
        .filter(|code| ![408, 429].contains(code))
        .any(|code| text.contains(&format!("status code: {code} ")))
}

fn kind(error: &object_store::Error) -> io::ErrorKind {
    match error {
        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        _ => io::ErrorKind::Other,
    }
}

fn explain(error: &object_store::Error, tried: Duration) -> String {
    match error {
        object_store::Error::NotFound { .. } => "there is no such file".to_owned(),
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            format!("the server refuses access; check the credentials in the environment: {}", text_of(error))
        }
        object_store::Error::NotSupported { .. } => {
            format!("the server does not serve parts of files (range requests): {}", text_of(error))
        }
        _ if is_final(error) => text_of(error),
        _ => format!("tried for {:.0} s without success: {}", tried.as_secs_f64(), text_of(error)),
    }
}

/// An error and its causes, as one line.
fn text_of(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn retry_for() -> Duration {
    static SECONDS: OnceLock<Duration> = OnceLock::new();
    *SECONDS.get_or_init(|| {
        let seconds = std::env::var("LOADER_RETRY_SECONDS").ok().and_then(|text| text.parse().ok());
        seconds.map_or(RETRY_FOR, Duration::from_secs)
    })
}

/// The store of an address: one for all addresses that share a scheme and a host (or bucket), and with it its
/// connections.
fn store(path: &Path, url: &Url) -> object_store::Result<Arc<dyn ObjectStore>> {
    static STORES: OnceLock<Mutex<HashMap<String, Arc<dyn ObjectStore>>>> = OnceLock::new();
    let mut stores = STORES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let root = &url[..Position::BeforePath];
    if let Some(store) = stores.get(root) {
        return Ok(Arc::clone(store));
    }
    // Fails only when one is installed already, which then serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A large range from a slow server may take long; silence may not. Who names an http endpoint wants http.
    let client = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(Duration::from_secs(10))
        .with_read_timeout(SILENCE)
        .with_allow_http(true);
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(200), max_backoff: LONGEST_PAUSE, base: 2.0 };
    let retry = RetryConfig { backoff, max_retries: usize::MAX, retry_timeout: retry_for() };
    let store: Arc<dyn ObjectStore> = match scheme(path) {
        Some("s3" | "s3a") => Arc::new(
            AmazonS3Builder::from_env()
                .with_url(root)
                .with_client_options(client)
                .with_retry(retry)
                .build()?,
        ),
        Some("gs") => Arc::new(
            GoogleCloudStorageBuilder::from_env()
                .with_url(root)
                .with_client_options(client)
                .with_retry(retry)
                .build()?,
        ),
        Some("http" | "https") => {
            Arc::new(HttpBuilder::new().with_url(root).with_client_options(client).with_retry(retry).build()?)
        }
        _ => Arc::new(
            MicrosoftAzureBuilder::from_env()
                .with_url(root)
                .with_client_options(client)
                .with_retry(retry)
                .build()?,
        ),
    };
    stores.insert(root.to_owned(), Arc::clone(&store));
    Ok(store)
}

/// Threads that wait for the network.
const NETWORK_THREADS: usize = 2;

fn runtime() -> Result<&'static Runtime, String> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(NETWORK_THREADS)
                .thread_name("loader-network")
                .enable_all()
                .build()
                .map_err(|e| e.to_string())
        })
        .as_ref()
        .map_err(Clone::clone)
}
