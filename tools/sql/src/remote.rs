//! Files at addresses (`s3://bucket/set/00000.parquet`) for the engine, which has another version of the crate
//! `object_store` than our `storage`: a store for reading that asks that for ranges, so that only the needed bytes are
//! transferred.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use anyhow::Result;
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::object_store::path::Path as ObjectPath;
use datafusion::object_store::{
    self, Attributes, CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, coalesce_ranges,
};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use storage::{Location, Source};

/// The address of this store in the engine.
pub(crate) const URL: &str = "remote://files";

/// The name of this store in the library's errors, and how they begin.
const STORE: &str = "remote";
#[cfg_attr(not(feature = "distributed"), allow(dead_code))]
pub(crate) const FAILED: &str = "Generic remote error: ";

/// Bytes at the end of a file that are read when it is opened: they nearly always contain its whole footer.
pub(crate) const END: usize = 64 << 10;

/// Ranges with less between them are read as one. A request costs about as much time as this many bytes.
const GAP: u64 = 64 << 10;

/// Number of files that are opened at the same time.
const AT_ONCE: usize = 16;

/// Number of files that stay open where they are opened by their names.
const STAY: usize = 128;

/// An open file and its end.
#[derive(Debug)]
pub(crate) struct OpenFile {
    source: Source,
    end: Bytes,
}

impl OpenFile {
    pub(crate) fn open(path: &Location) -> Result<Self> {
        let source = Source::open(path)?;
        let length = source.len().min(END as u64);
        let end = source.read(source.len() - length, length)?;
        Ok(Self { source, end })
    }

    /// Size, bytes.
    pub(crate) fn len(&self) -> u64 {
        self.source.len()
    }

    /// The end of the file; all of it if `whole`.
    pub(crate) fn end(&self, whole: bool) -> Result<Bytes> {
        if !whole || self.end.len() as u64 == self.len() {
            return Ok(self.end.clone());
        }
        Ok(self.source.read(0, self.len())?)
    }

    /// The bytes at the end that were read when it was opened.
    #[cfg_attr(not(feature = "distributed"), allow(dead_code))]
    pub(crate) fn last(&self) -> &[u8] {
        &self.end
    }

    /// The footer.
    pub(crate) fn footer(&self) -> Result<ParquetMetaData> {
        let read = |end: &Bytes| -> Result<ParquetMetaData> {
            let mut reader = ParquetMetaDataReader::new();
            reader.try_parse_sized(end, self.len())?;
            Ok(reader.finish()?)
        };
        read(&self.end).or_else(|_| read(&self.end(true)?))
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes, storage::Error> {
        let start = self.len() - self.end.len() as u64;
        if range.start >= start && range.end <= self.len() {
            return Ok(self.end.slice((range.start - start) as usize..(range.end - start) as usize));
        }
        self.source.read(range.start, range.end - range.start)
    }
}

/// Opens a file by the name that the engine has for it.
type Opener = fn(&ObjectPath) -> Result<OpenFile>;

/// The open files by the names that the engine has for them.
#[derive(Debug, Default)]
pub(crate) struct Files {
    open: Mutex<HashMap<ObjectPath, Arc<OpenFile>>>,
    /// For files that are not open; without it, they are not found.
    opener: Option<Opener>,
}

/// The files of this process.
pub(crate) fn files() -> &'static Arc<Files> {
    static FILES: OnceLock<Arc<Files>> = OnceLock::new();
    FILES.get_or_init(Arc::default)
}

/// The engine's name for a file.
pub(crate) fn name(path: &Location) -> ObjectPath {
    ObjectPath::from(path.to_string())
}

impl Files {
    /// Files that are opened when they are read.
    #[cfg_attr(not(feature = "distributed"), allow(dead_code))]
    pub(crate) fn opened_by(opener: Opener) -> Self {
        Self { open: Mutex::default(), opener: Some(opener) }
    }

    /// Opens a file, unless it is open.
    pub(crate) fn open(&self, path: &Location) -> Result<Arc<OpenFile>> {
        let name = name(path);
        if let Some(file) = self.get(&name) {
            return Ok(file);
        }
        let file = Arc::new(OpenFile::open(path)?);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::clone(&file));
        Ok(file)
    }

    fn get(&self, name: &ObjectPath) -> Option<Arc<OpenFile>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// An open file, or one that is opened now.
    async fn file(&self, name: &ObjectPath) -> object_store::Result<Arc<OpenFile>> {
        if let Some(file) = self.get(name) {
            return Ok(file);
        }
        let opener = self.opener.ok_or_else(|| not_found(name))?;
        let wanted = name.clone();
        let opened = Arc::new(blocking(move || opener(&wanted)).await?);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= STAY {
            open.clear();
        }
        open.insert(name.clone(), Arc::clone(&opened));
        Ok(opened)
    }

    async fn range(&self, name: &ObjectPath, range: Range<u64>) -> object_store::Result<Bytes> {
        let file = self.file(name).await?;
        blocking(move || Ok(file.read(range)?)).await
    }
}

/// Calls what blocks from a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> object_store::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| failed(error.into()))?.map_err(|error| failed(format!("{error:#}").into()))
}

fn failed(source: Box<dyn std::error::Error + Send + Sync>) -> object_store::Error {
    object_store::Error::Generic { store: STORE, source }
}

fn not_found(name: &ObjectPath) -> object_store::Error {
    object_store::Error::NotFound { path: name.to_string(), source: "it was not opened".into() }
}

fn only_read<T>() -> object_store::Result<T> {
    Err(object_store::Error::NotSupported { source: "this store is for reading known files".into() })
}

impl Display for Files {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(URL)
    }
}

#[async_trait]
impl ObjectStore for Files {
    async fn get_opts(&self, location: &ObjectPath, options: GetOptions) -> object_store::Result<GetResult> {
        let file = self.file(location).await?;
        let range = match &options.range {
            Some(range) => range.as_range(file.len()).map_err(|error| failed(error.into()))?,
            None => 0..file.len(),
        };
        let mut meta = PartitionedFile::new("", file.len()).object_meta;
        meta.location = location.clone();
        let bytes = if options.head { Bytes::new() } else { self.range(location, range.clone()).await? };
        let payload = GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed());
        Ok(GetResult { payload, meta, range, attributes: Attributes::new() })
    }

    async fn get_ranges(
        &self,
        location: &ObjectPath,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        coalesce_ranges(ranges, |range| self.range(location, range), GAP).await
    }

    async fn put_opts(
        &self,
        _: &ObjectPath,
        _: PutPayload,
        _: PutOptions,
    ) -> object_store::Result<PutResult> {
        only_read()
    }

    async fn put_multipart_opts(
        &self,
        _: &ObjectPath,
        _: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        only_read()
    }

    fn delete_stream(
        &self,
        _: BoxStream<'static, object_store::Result<ObjectPath>>,
    ) -> BoxStream<'static, object_store::Result<ObjectPath>> {
        stream::iter([only_read()]).boxed()
    }

    fn list(&self, _: Option<&ObjectPath>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        stream::iter([only_read()]).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&ObjectPath>) -> object_store::Result<ListResult> {
        only_read()
    }

    async fn copy_opts(&self, _: &ObjectPath, _: &ObjectPath, _: CopyOptions) -> object_store::Result<()> {
        only_read()
    }
}

/// Does `work` for every item, on several threads; results are in the order of the items. Returns the first error.
pub(crate) fn for_each<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<R>)>> = Mutex::new(Vec::with_capacity(items.len()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(number) else { break };
                    let result = work(item);
                    let failed = result.is_err();
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
                    if failed {
                        next.store(items.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}
