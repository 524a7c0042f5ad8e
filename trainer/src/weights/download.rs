//! Downloads a file: resumes after interruptions, checks the hash, and gives the file its final name when it is complete.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_RANGE, ETAG, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::{Client, Response, StatusCode};
use serde::Serialize;

use super::sha256;
use crate::error::{Error, Result, reading, writing};
use crate::observer::{Observer, Progress};

/// Connect and read timeout; after it, the request is repeated.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of consecutive attempts without a new byte.
const ATTEMPTS: u32 = 6;
/// Pause after the first failed attempt; it doubles after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// A downloaded file.
#[derive(Debug, Serialize)]
pub struct Downloaded {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal; also stored next to it in `NAME.sha256`, in the format of `sha256sum --check`.
    pub sha256: String,
    /// Bytes that an earlier call had downloaded already.
    pub resumed_from: u64,
    /// Whether the file existed already, with the expected hash, so that nothing was downloaded.
    pub was_there: bool,
}

/// Downloads `url` to `out`. Until the file is complete and its hash is checked, it is called `out` + `.part`; the next call resumes
/// there if the file on the server has not changed.
pub fn download(
    url: &str,
    out: &Path,
    expected: Option<&str>,
    observer: &dyn Observer,
) -> Result<Downloaded> {
    if out.exists() {
        return there_already(out, expected);
    }
    if storage::Location::from(url).is_remote() && !url.starts_with("http") {
        return copy(Path::new(url), out, expected);
    }
    let part = beside(out, "part");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&part)
        .map_err(writing(&part))?;
    if file.try_lock().is_err() {
        let problem = "another process is downloading this file".to_owned();
        return Err(Error::Invalid { path: part, problem });
    }
    let resumed_from = file.metadata().map_err(reading(&part))?.len();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::Failed(format!("cannot start the download: {e}")))?;
    let mut transfer = Transfer { url, part: &part, file: &mut file, observer, progress: None };
    let bytes = match runtime.block_on(transfer.run()) {
        Ok(bytes) => bytes,
        Err(error) => {
            if transfer.length()? == 0 {
                forget(&part)?;
            }
            return Err(error);
        }
    };
    if let Some(progress) = transfer.progress {
        progress.finish("");
    }
    file.sync_all().map_err(writing(&part))?;
    let found = sha256(&part)?;
    if let Some(expected) = expected.filter(|expected| !expected.eq_ignore_ascii_case(&found)) {
        // Resuming cannot help.
        forget(&part)?;
        let problem = format!(
            "the SHA-256 of the downloaded file is {found} instead of {expected}: it is not the published file and was removed"
        );
        return Err(Error::Invalid { path: PathBuf::from(url), problem });
    }
    fs::rename(&part, out).map_err(writing(out))?;
    disk::files::sync_parent(out).map_err(writing(out))?;
    remove_if_there(&beside(&part, "version"))?;
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let sums = beside(out, "sha256");
    disk::files::write_atomic(&sums, format!("{found}  {name}\n").as_bytes()).map_err(writing(&sums))?;
    Ok(Downloaded { path: out.to_owned(), bytes, sha256: found, resumed_from, was_there: false })
}

/// The same from an address in a store or on the hub, without resuming.
fn copy(from: &Path, out: &Path, expected: Option<&str>) -> Result<Downloaded> {
    let part = beside(out, "part");
    storage::download(from, &part)?;
    let found = sha256(&part)?;
    if let Some(expected) = expected.filter(|expected| !expected.eq_ignore_ascii_case(&found)) {
        forget(&part)?;
        let problem = format!(
            "its SHA-256 is {found} instead of {expected}: it is not the expected file and was removed"
        );
        return Err(Error::Invalid { path: from.to_owned(), problem });
    }
    fs::rename(&part, out).map_err(writing(out))?;
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let sums = beside(out, "sha256");
    disk::files::write_atomic(&sums, format!("{found}  {name}\n").as_bytes()).map_err(writing(&sums))?;
    let bytes = fs::metadata(out).map_err(reading(out))?.len();
    Ok(Downloaded { path: out.to_owned(), bytes, sha256: found, resumed_from: 0, was_there: false })
}

/// An existing file is accepted if it has the expected hash, or the hash that was stored after its download.
fn there_already(out: &Path, expected: Option<&str>) -> Result<Downloaded> {
    let found = sha256(out)?;
    let noted = fs::read_to_string(beside(out, "sha256")).unwrap_or_default();
    let expected = expected.or(noted.split_whitespace().next()).unwrap_or_default();
    if !expected.eq_ignore_ascii_case(&found) {
        let problem = format!(
            "exists already and is a different file (SHA-256 {found}); remove it or choose another --out"
        );
        return Err(Error::Invalid { path: out.to_owned(), problem });
    }
    let bytes = fs::metadata(out).map_err(reading(out))?.len();
    Ok(Downloaded { path: out.to_owned(), bytes, sha256: found, resumed_from: 0, was_there: true })
}

struct Transfer<'a> {
    url: &'a str,
    part: &'a Path,
    file: &'a mut File,
    observer: &'a dyn Observer,
    progress: Option<Box<dyn Progress>>,
}

/// Why an attempt ended before the file was complete.
enum Failure {
    /// Another attempt may help.
    Again(String),
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl Transfer<'_> {
    /// Repeats attempts until the file is complete; returns its length.
    async fn run(&mut self) -> Result<u64> {
        // This fails only if a provider is installed already, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(TIMEOUT)
            .read_timeout(TIMEOUT)
            .build()
            .map_err(|e| self.refused(&causes(&e)))?;
        let (mut barren, mut pause) = (0, FIRST_PAUSE);
        loop {
            let before = self.length()?;
            match self.attempt(&client).await {
                Ok(()) => return self.length(),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again(why)) => {
                    if self.length()? > before {
                        (barren, pause) = (0, FIRST_PAUSE);
                    }
                    barren += 1;
                    if barren == ATTEMPTS {
                        let have = self.length()?;
                        let rest = if have > 0 {
                            format!("; run the same command again to resume at byte {have}")
                        } else {
                            String::new()
                        };
                        return Err(self.refused(&format!("{why}{rest}")));
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// One request, from the end of the previous one.
    async fn attempt(&mut self, client: &Client) -> std::result::Result<(), Failure> {
        let version_file = beside(self.part, "version");
        let version = fs::read_to_string(&version_file).unwrap_or_default();
        let mut start = self.length()?;
        let mut request = client.get(self.url);
        // On a redirect to another host, reqwest removes the header.
        if let Some(token) = storage::authorization(self.url) {
            request = request.header(AUTHORIZATION, token);
        }
        if start > 0 && !version.is_empty() {
            request = request.header(RANGE, format!("bytes={start}-")).header(IF_RANGE, &version);
        }
        let mut response = request.send().await.map_err(|e| Failure::Again(causes(&e)))?;
        let status = response.status();
        let total = match status {
            // The whole file: first attempt, server without range requests, or the file on the server has changed.
            StatusCode::OK => {
                start = 0;
                response.content_length()
            }
            StatusCode::PARTIAL_CONTENT => match range(&response) {
                Some((first, total)) if first == start => Some(total),
                _ => {
                    return Err(self
                        .refused("the server sent another part of the file than was requested")
                        .into());
                }
            },
            // The partial file does not belong to the file on the server ..
            StatusCode::RANGE_NOT_SATISFIABLE => {
                // .. unless it is the complete file.
                if length_of(&response) == Some(start) {
                    return Ok(());
                }
                self.cut(0)?;
                remove_if_there(&version_file)?;
                return Err(Failure::Again(status.to_string()));
            }
            _ if status.is_server_error() || [408, 429].contains(&status.as_u16()) => {
                return Err(Failure::Again(format!("the server returned {status}")));
            }
            _ => return Err(self.refused(&format!("the server returned {status}")).into()),
        };
        self.cut(start)?;
        fs::write(&version_file, version_of(&response)).map_err(writing(&version_file))?;
        let begin = || self.observer.progress("downloading", "bytes", total.unwrap_or(0));
        let progress = self.progress.get_or_insert_with(begin);
        let mut have = start;
        loop {
            if self.observer.interrupted() {
                let stopped = format!("{} at byte {have}; run the same command again to resume", self.url);
                return Err(Error::interrupted(stopped).into());
            }
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return Err(Failure::Again(causes(&error))),
            };
            have += chunk.len() as u64;
            if total.is_some_and(|total| have > total) {
                self.cut(0)?;
                return Err(self.refused("the server sent more bytes than the length it gave").into());
            }
            self.file.write_all(&chunk).map_err(writing(self.part))?;
            progress.advance(chunk.len() as u64, &String::new);
        }
        match total {
            Some(total) if have < total => {
                Err(Failure::Again(format!("the connection ended at byte {have} of {total}")))
            }
            _ => Ok(()),
        }
    }

    fn length(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(reading(self.part))?.len())
    }

    /// Truncates the file to `length` bytes and continues to write there.
    fn cut(&mut self, length: u64) -> Result<()> {
        self.file.set_len(length).map_err(writing(self.part))?;
        self.file.seek(SeekFrom::Start(length)).map_err(writing(self.part))?;
        Ok(())
    }

    fn refused(&self, problem: &str) -> Error {
        Error::Invalid { path: PathBuf::from(self.url), problem: problem.to_owned() }
    }
}

/// First byte and total length in `Content-Range: bytes first-last/total`.
fn range(response: &Response) -> Option<(u64, u64)> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (span, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((span.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
}

/// Total length in `Content-Range: bytes */total`.
fn length_of(response: &Response) -> Option<u64> {
    response.headers().get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes */")?.parse().ok()
}

/// Identifies the version of the file: a strong ETag, otherwise the date of last modification. Empty if there is neither; then a
/// download cannot be resumed.
fn version_of(response: &Response) -> String {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let tag = header(ETAG).filter(|tag| !tag.starts_with("W/"));
    tag.or(header(LAST_MODIFIED)).unwrap_or_default().to_owned()
}

/// The causes of an error as one line, without the address.
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = if text.is_empty() { error.to_string() } else { format!("{text}: {error}") };
        cause = error.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}

/// The path with `.ending` added to the file name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{name}.{ending}"))
}

fn forget(part: &Path) -> Result<()> {
    remove_if_there(part)?;
    remove_if_there(&beside(part, "version"))
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(writing(path)(error)),
        _ => Ok(()),
    }
}
