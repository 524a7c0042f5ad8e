//! One remote file.

pub(crate) mod hub;
pub(crate) mod version;

use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam::channel::RecvTimeoutError;
use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, RetryConfig,
    UpdateVersion, WriteMultipart,
};
use url::{Position, Url};

use self::version::Version;
use crate::connect::Connector;
use crate::location::Address;
use crate::process::process;
use crate::{Error, Location, SILENCE};

/// Maximum pause between tries.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Bytes per part of a multipart upload; object stores require at least 5 MiB.
const PART: usize = 8 << 20;
/// Maximum number of parts that are uploaded at the same time.
const PARTS_AT_ONCE: usize = 4;

/// How long uploads may still take after the program was asked to stop ([`crate::stop_when_interrupted`]), and other
/// requests, among them the one that aborts an upload.
const STOP_AFTER: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(3)];
/// How often this is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub(crate) struct Remote {
    pub(crate) address: Address,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) key: Key,
    /// Its place on the Hugging Face Hub, if it is there.
    pub(crate) hub: Option<Box<hub::Place>>,
}

impl Remote {
    pub(crate) fn new(address: &Address) -> Result<Self, Error> {
        if address.scheme() == "hf" {
            return hub::open(address);
        }
        let input = |problem: String| Error::input(&Location::Remote(address.clone()), problem);
        let url = Url::parse(address.as_str()).map_err(|e| input(format!("not a valid URL: {e}")))?;
        if url.query().is_some() {
            let problem = "URLs with a query (`?..`) are not supported, because the URLs of the files next to the shard \
                           cannot be derived from them";
            return Err(input(problem.to_owned()));
        }
        let key = Key::from_url_path(url.path()).map_err(|e| input(format!("not a valid URL: {e}")))?;
        let store = store(address.scheme(), &url[..Position::BeforePath])
            .map_err(|e| input(address.hide_credentials(text_of(&e))))?;
        Ok(Self { address: address.clone(), store, key, hub: None })
    }

    /// For errors.
    pub(crate) fn location(&self) -> Location {
        Location::Remote(self.address.clone())
    }

    /// A file or folder in this folder.
    pub(crate) fn entry(&self, name: &str) -> Location {
        Location::Remote(self.address.join(name))
    }

    /// What the file is now.
    pub(crate) fn version(&self) -> Result<Version, Error> {
        let hub = self.hub.is_some();
        let about = self.wait("read", move |store, key| async move {
            match store.head(&key).await {
                // The servers that the hub redirects to may accept requests for the contents only.
                Err(object_store::Error::PermissionDenied { .. }) if hub => {
                    let first = GetOptions { range: Some((0..1).into()), ..GetOptions::default() };
                    Ok(store.get_opts(&key, first).await?.meta)
                }
                about => about,
            }
        })?;
        Ok(Version::new(about))
    }

    pub(crate) fn read_all(&self) -> Result<Bytes, Error> {
        self.wait("read", |store, key| async move { store.get(&key).await?.bytes().await })
    }

    /// Reads a range of this version.
    ///
    /// # Errors
    /// Also if the file has another version now ([`Error::Changed`]).
    pub(crate) fn read(&self, version: &Version, range: Range<u64>) -> Result<Bytes, Error> {
        let wanted = range.end - range.start;
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        let bytes =
            self.wait("read", move |store, key| read_version(store, key, version.clone(), range.clone()))?;
        let problem =
            "was replaced while it was read; run the command again (a training: with --resume)".to_owned();
        let bytes = bytes.ok_or_else(|| Error::Changed { path: self.location(), problem })?;
        if bytes.len() as u64 == wanted {
            Ok(bytes)
        } else {
            Err(Error::truncated(&self.location(), "it became shorter while it was being read"))
        }
    }

    /// Files and folders in this folder; `true` for folders.
    pub(crate) fn entries(&self) -> Result<Vec<(Location, bool)>, Error> {
        if let Some(place) = &self.hub {
            return hub::list(self, place, false);
        }
        let listed = self
            .wait("list", |store, key| async move { store.list_with_delimiter(Some(&key)).await })
            .map_err(|error| self.without_folders(error))?;
        let files = listed.objects.iter().map(|object| (object.location.filename(), false));
        let folders = listed.common_prefixes.iter().map(|folder| (folder.filename(), true));
        Ok(files.chain(folders).filter_map(|(name, is)| Some((self.entry(name?), is))).collect())
    }

    /// Whether the store can begin a list at any name.
    pub(crate) fn lists_from_a_name(&self) -> bool {
        self.hub.is_none() && ["s3", "s3a", "gs"].contains(&self.address.scheme())
    }

    /// The files in this folder whose names come after `after` and not after `to`.
    pub(crate) fn list_part(&self, after: Option<&str>, to: Option<&str>) -> Result<Vec<Location>, Error> {
        let listed: Vec<ObjectMeta> = self.wait("list", |store, folder| {
            let at = |name: &str| folder.clone().join(name);
            let (after, to) = (after.map(at), to.map(at));
            async move {
                let list = match &after {
                    Some(after) => store.list_with_offset(Some(&folder), after),
                    None => store.list(Some(&folder)),
                };
                let until = |object: &ObjectMeta| to.as_ref().is_none_or(|to| object.location <= *to);
                list.try_take_while(|object| std::future::ready(Ok(until(object)))).try_collect().await
            }
        })?;
        // What is in folders inside is listed too.
        let name = |object: &ObjectMeta| {
            let mut parts = object.location.prefix_match(&self.key)?;
            let name = parts.next()?.as_ref().to_owned();
            parts.next().is_none().then_some(name)
        };
        Ok(listed.iter().filter_map(name).map(|name| self.entry(&name)).collect())
    }

    /// All files below this folder.
    pub(crate) fn list_all(&self) -> Result<Vec<Location>, Error> {
        if let Some(place) = &self.hub {
            let all = hub::list(self, place, true)?;
            return Ok(all.into_iter().filter(|(_, is_folder)| !is_folder).map(|(path, _)| path).collect());
        }
        let listed: Vec<ObjectMeta> = self
            .wait("list", |store, key| async move { store.list(Some(&key)).try_collect().await })
            .map_err(|error| self.without_folders(error))?;
        let inside = |object: &ObjectMeta| {
            let parts: Vec<_> = object.location.prefix_match(&self.key)?.collect();
            (!parts.is_empty()).then(|| parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/"))
        };
        Ok(listed.iter().filter_map(inside).map(|path| self.entry(&path)).collect())
    }

    /// The error of a server that cannot list folders says what to do.
    fn without_folders(&self, error: Error) -> Error {
        match error {
            Error::Io { source, .. } if self.address.is_http() && source.kind() == io::ErrorKind::Other => {
                Error::Input {
                    input: self.location(),
                    problem: format!(
                        "this server cannot list the files of a folder; give their addresses, for example {}: {source}",
                        self.entry("{00000..00009}.tar")
                    ),
                }
            }
            error => error,
        }
    }

    /// Files on the hub can be read only.
    fn refuse_to_write(&self) -> Result<(), Error> {
        match self.hub {
            None => Ok(()),
            Some(_) => Err(Error::Input {
                input: self.location(),
                problem: "hf:// can be read only; write to a folder and upload that with `hf upload`"
                    .to_owned(),
            }),
        }
    }

    pub(crate) fn write(&self, bytes: Bytes) -> Result<(), Error> {
        self.refuse_to_write()?;
        self.wait("write", move |store, key| {
            let bytes = bytes.clone();
            async move { store.put(&key, bytes.into()).await }
        })?;
        Ok(())
    }

    /// Writes the object if it still has this version, or if it does not exist; `None` if that is not the case.
    pub(crate) fn write_if(
        &self,
        bytes: Bytes,
        version: Option<UpdateVersion>,
    ) -> Result<Option<UpdateVersion>, Error> {
        self.refuse_to_write()?;
        let mode = version.map_or(PutMode::Create, PutMode::Update);
        self.wait("write", move |store, key| {
            let (bytes, mode) = (bytes.clone(), mode.clone());
            async move {
                match store.put_opts(&key, bytes.into(), mode.into()).await {
                    Ok(written) => Ok(Some(written.into())),
                    Err(
                        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. },
                    ) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        })
    }

    pub(crate) fn read_version(&self) -> Result<(Bytes, UpdateVersion), Error> {
        self.wait("read", |store, key| async move {
            let found = store.get(&key).await?;
            let version =
                UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
            Ok((found.bytes().await?, version))
        })
    }

    pub(crate) fn upload(&self, file: &Path) -> Result<(), Error> {
        self.refuse_to_write()?;
        let length = std::fs::metadata(file).map_err(Error::read(file))?.len();
        // Plain http has no multipart upload.
        if length <= PART as u64 || self.address.is_http() {
            return self.write(std::fs::read(file).map_err(Error::read(file))?.into());
        }
        let file = file.to_owned();
        self.wait("write", move |store, key| {
            let file = file.clone();
            async move {
                let mut upload = WriteMultipart::new_with_chunk_size(store.put_multipart(&key).await?, PART);
                let sent = tokio::select! {
                    sent = send_parts(&mut upload, &file) => sent,
                    () = stopping() => Err(io_failed(io::ErrorKind::Interrupted.into())),
                };
                match sent {
                    // This too aborts the upload on an error.
                    Ok(()) => upload.finish().await,
                    // The parts of an upload that was neither completed nor aborted stay in the store and cost money.
                    Err(error) => {
                        let _ = upload.abort().await;
                        Err(error)
                    }
                }
            }
        })?;
        Ok(())
    }

    pub(crate) fn remove(&self) -> Result<(), Error> {
        self.refuse_to_write()?;
        match self.wait("remove", |store, key| async move { store.delete(&key).await }) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Runs a request on the runtime and retries it as long as that may help. The store itself also retries what fails
    /// before the first byte, and, if the server sends entity tags, transfers that break off later.
    pub(crate) fn wait<T, F>(
        &self,
        doing: &'static str,
        request: impl Fn(Arc<dyn ObjectStore>, Key) -> F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        let started = Instant::now();
        let mut pause = Duration::from_millis(200);
        loop {
            let (sender, receiver) = crossbeam::channel::bounded(1);
            let request = request(Arc::clone(&self.store), self.key.clone());
            process()
                .runtime()
                .map_err(|e| Error::io(self.location(), doing)(io::Error::other(e.to_string())))?
                .spawn(async move {
                    // The receiver waits below.
                    let _ = sender.send(request.await);
                });
            let result = loop {
                match receiver.recv_timeout(POLL_INTERVAL) {
                    Ok(result) => break result,
                    Err(RecvTimeoutError::Timeout) if process().is_stopping(STOP_AFTER[1]) => {
                        return Err(self.stopped(doing));
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(self.failed(doing, io::ErrorKind::Other, "the transfer ended"));
                    }
                }
            };
            match result {
                Ok(value) => return Ok(value),
                Err(e) if is_final(&e) || started.elapsed() + pause > process().retry_for() => {
                    return Err(self.failed(doing, kind(&e), &explain(&e, started.elapsed(), &self.address)));
                }
                Err(_) => {
                    let until = Instant::now() + pause;
                    while Instant::now() < until {
                        if process().is_stopping(STOP_AFTER[1]) {
                            return Err(self.stopped(doing));
                        }
                        std::thread::sleep(POLL_INTERVAL);
                    }
                }
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    fn stopped(&self, doing: &'static str) -> Error {
        self.failed(doing, io::ErrorKind::Interrupted, "the program was asked to stop")
    }

    fn failed(&self, doing: &'static str, kind: io::ErrorKind, text: &str) -> Error {
        Error::io(self.location(), doing)(io::Error::new(kind, text.to_owned()))
    }
}

/// The bytes of a range; `None` if the file has another version.
async fn read_version(
    store: Arc<dyn ObjectStore>,
    key: Key,
    version: Version,
    range: Range<u64>,
) -> object_store::Result<Option<Bytes>> {
    let error = match store.get_opts(&key, version.request(range)).await {
        Ok(found) if version.differs(&found.meta) => return Ok(None),
        Ok(found) => match found.bytes().await {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(error) => error,
        },
        Err(error) => error,
    };
    let replaced = version::is_refused(&error)
        || version::lacks_range(&error) && store.head(&key).await.is_ok_and(|now| version.differs(&now));
    if replaced { Ok(None) } else { Err(error) }
}

/// Sends the bytes of a file as parts, of which the last one may still be under way at the end.
async fn send_parts(upload: &mut WriteMultipart, file: &Path) -> object_store::Result<()> {
    let mut from = File::open(file).map_err(io_failed)?;
    let mut part = vec![0; PART];
    loop {
        // Blocking is fine: the runtime's threads do nothing else, and a local disk is much faster than the network.
        let read = from.read(&mut part).map_err(io_failed)?;
        if read == 0 {
            return upload.wait_for_capacity(0).await;
        }
        upload.wait_for_capacity(PARTS_AT_ONCE).await?;
        upload.write(&part[..read]);
    }
}

fn io_failed(error: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "upload", source: Box::new(error) }
}

/// Returns when uploads are to end.
async fn stopping() {
    while !process().is_stopping(STOP_AFTER[0]) {
        tokio::time::sleep(POLL_INTERVAL).await;
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
        || has_no_conditions(error)
}

/// Whether the store has no conditional writes, or gives its objects no versions.
fn has_no_conditions(error: &object_store::Error) -> bool {
    use object_store::Error::{NotImplemented, NotSupported};
    let text = text_of(error);
    matches!(error, NotImplemented { .. } | NotSupported { .. })
        || text.contains("status code: 501 ")
        || text.contains("required for conditional")
}

/// HTTP statuses 400 to 499, which a retry does not change. The store has no error variant for most of them.
fn refused(error: &object_store::Error) -> bool {
    let text = text_of(error);
    // Not final: 408 (request timeout) and 429 (too many requests).
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
        _ if has_no_conditions(error) => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    }
}

fn explain(error: &object_store::Error, tried: Duration, address: &Address) -> String {
    let text_of = |error| address.hide_credentials(text_of(error));
    match error {
        object_store::Error::NotFound { .. } => "no such file".to_owned(),
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            let variable = match address.scheme() {
                "hf" => " (HF_TOKEN)",
                "http" | "https" => " (LOADER_HTTP_TOKENS, or HF_TOKEN for the Hugging Face Hub)",
                _ => "",
            };
            let text = text_of(error);
            format!("the server denies access; check the credentials in the environment{variable}: {text}")
        }
        object_store::Error::NotSupported { .. } => {
            format!("the server does not support range requests: {}", text_of(error))
        }
        _ if is_final(error) => text_of(error),
        _ => format!("no success after retrying for {:.0} s: {}", tried.as_secs_f64(), text_of(error)),
    }
}

/// An error and its causes on one line.
pub(crate) fn text_of(error: &object_store::Error) -> String {
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

/// The object store of the addresses that begin with `root`. They share one store and its connections.
pub(crate) fn store(scheme: &str, root: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut stores = process().stores();
    if let Some(store) = stores.get(root) {
        return Ok(Arc::clone(store));
    }
    // Fails only if a provider is installed already, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A large range from a slow server may take long; only silence is limited. A user who gives an http endpoint wants
    // http.
    let client = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(Duration::from_secs(10))
        .with_read_timeout(SILENCE)
        .with_allow_http(true);
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(200), max_backoff: MAX_PAUSE, base: 2.0 };
    let retry = RetryConfig { backoff, max_retries: usize::MAX, retry_timeout: process().retry_for() };
    let store: Arc<dyn ObjectStore> = match scheme {
        "s3" | "s3a" => Arc::new(
            AmazonS3Builder::from_env()
                .with_url(root)
                .with_client_options(client)
                .with_retry(retry)
                .with_http_connector(Connector)
                .build()?,
        ),
        "gs" => Arc::new(
            GoogleCloudStorageBuilder::from_env()
                .with_url(root)
                .with_client_options(client)
                .with_retry(retry)
                .with_http_connector(Connector)
                .build()?,
        ),
        "http" | "https" => Arc::new(
            HttpBuilder::new()
                .with_url(root)
                .with_client_options(client)
                .with_retry(retry)
                .with_http_connector(Connector)
                .build()?,
        ),
        _ => Arc::new(
            MicrosoftAzureBuilder::from_env()
                .with_url(root)
                .with_client_options(client)
                .with_retry(retry)
                .with_http_connector(Connector)
                .build()?,
        ),
    };
    stores.insert(root.to_owned(), Arc::clone(&store));
    Ok(store)
}
