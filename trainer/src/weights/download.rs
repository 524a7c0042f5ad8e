//! One file by its address: resumed where it broke off, held against its hash, there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use loader::program::{self, Progress};
use reqwest::header::{CONTENT_RANGE, ETAG, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::{Client, Response, StatusCode};
use serde::Serialize;

use super::sha256;
use crate::error::{Error, Result, at};

/// A server that says nothing for so long is asked again.
const SILENCE: Duration = Duration::from_secs(30);
/// Tries in a row that bring no byte.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// A file that is there.
#[derive(Debug, Serialize)]
pub struct Downloaded {
    /// Where.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 in hexadecimal, which lies beside it too, in `NAME.sha256`, as `sha256sum --check` reads it.
    pub sha256: String,
    /// Bytes that were there from an earlier try.
    pub resumed_from: u64,
    /// Whether it was there before, with the right hash, so that nothing was fetched.
    pub was_there: bool,
}

/// Fetches `url` to `out`. What has arrived lies in `out` with `.part` at the end until it is whole and its hash is the
/// expected one; the next call goes on from there if the server's file is still the same.
pub fn download(url: &str, out: &Path, expected: Option<&str>) -> Result<Downloaded> {
    if out.exists() {
        return there_already(out, expected);
    }
    let part = beside(out, "part");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&part)
        .map_err(at(&part))?;
    if file.try_lock().is_err() {
        let problem = "another process is fetching it".to_owned();
        return Err(Error::Invalid { path: part, problem });
    }
    let resumed_from = file.metadata().map_err(at(&part))?.len();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(at(&part))?;
    let mut transfer = Transfer { url, part: &part, file: &mut file, progress: None };
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
    file.sync_all().map_err(at(&part))?;
    let found = sha256(&part)?;
    if let Some(expected) = expected.filter(|expected| !expected.eq_ignore_ascii_case(&found)) {
        // Fetching more of it cannot help.
        forget(&part)?;
        let problem = format!(
            "sha256 is {found} and must be {expected}: not the file that was published; it is removed"
        );
        return Err(Error::Invalid { path: PathBuf::from(url), problem });
    }
    fs::rename(&part, out).map_err(at(out))?;
    concepts::files::sync_parent(out).map_err(at(out))?;
    remove_if_there(&beside(&part, "version"))?;
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let sums = beside(out, "sha256");
    concepts::files::write_atomic(&sums, format!("{found}  {name}\n").as_bytes()).map_err(at(&sums))?;
    Ok(Downloaded { path: out.to_owned(), bytes, sha256: found, resumed_from, was_there: false })
}

/// A file that is there is kept if it is the expected one, or the one that lay there after its download.
fn there_already(out: &Path, expected: Option<&str>) -> Result<Downloaded> {
    let found = sha256(out)?;
    let noted = fs::read_to_string(beside(out, "sha256")).unwrap_or_default();
    let expected = expected.or(noted.split_whitespace().next()).unwrap_or_default();
    if !expected.eq_ignore_ascii_case(&found) {
        let problem = format!(
            "is there already and is another file (sha256 {found}); remove it or name another with --out"
        );
        return Err(Error::Invalid { path: out.to_owned(), problem });
    }
    let bytes = fs::metadata(out).map_err(at(out))?.len();
    Ok(Downloaded { path: out.to_owned(), bytes, sha256: found, resumed_from: 0, was_there: true })
}

struct Transfer<'a> {
    url: &'a str,
    part: &'a Path,
    file: &'a mut File,
    progress: Option<Progress>,
}

/// Why a try ended before the file was whole.
enum Failure {
    /// Asking again may help.
    Again(String),
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl Transfer<'_> {
    /// Tries until the file is whole; its length.
    async fn run(&mut self) -> Result<u64> {
        // Fails only when one is installed already, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(SILENCE)
            .read_timeout(SILENCE)
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
                    if barren == TRIES {
                        let have = self.length()?;
                        let rest = if have > 0 {
                            format!("; call again to go on from byte {have}")
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

    /// One request, from where the last one ended.
    async fn attempt(&mut self, client: &Client) -> std::result::Result<(), Failure> {
        let version_file = beside(self.part, "version");
        let version = fs::read_to_string(&version_file).unwrap_or_default();
        let mut start = self.length()?;
        let mut request = client.get(self.url);
        if start > 0 && !version.is_empty() {
            request = request.header(RANGE, format!("bytes={start}-")).header(IF_RANGE, &version);
        }
        let mut response = request.send().await.map_err(|e| Failure::Again(causes(&e)))?;
        let status = response.status();
        let total = match status {
            // The whole file: the first try, a server without ranges, or another version than before.
            StatusCode::OK => {
                start = 0;
                response.content_length()
            }
            StatusCode::PARTIAL_CONTENT => match range(&response) {
                Some((first, total)) if first == start => Some(total),
                _ => {
                    return Err(self
                        .refused("it answers with another part of the file than was asked for")
                        .into());
                }
            },
            // What is there is not the beginning of what the server has now.
            StatusCode::RANGE_NOT_SATISFIABLE => {
                // Unless it is all of it.
                if length_of(&response) == Some(start) {
                    return Ok(());
                }
                self.cut(0)?;
                remove_if_there(&version_file)?;
                return Err(Failure::Again(status.to_string()));
            }
            _ if status.is_server_error() || [408, 429].contains(&status.as_u16()) => {
                return Err(Failure::Again(format!("it answers {status}")));
            }
            _ => return Err(self.refused(&format!("it answers {status}")).into()),
        };
        self.cut(start)?;
        fs::write(&version_file, version_of(&response)).map_err(at(&version_file))?;
        let progress =
            self.progress.get_or_insert_with(|| Progress::new("fetching", "bytes", total.unwrap_or(0)));
        let mut have = start;
        loop {
            if program::interrupted() {
                let problem = format!("interrupted at byte {have}; call again to go on");
                return Err(Error::Invalid { path: PathBuf::from(self.url), problem }.into());
            }
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return Err(Failure::Again(causes(&error))),
            };
            have += chunk.len() as u64;
            if total.is_some_and(|total| have > total) {
                self.cut(0)?;
                return Err(self.refused("it sends more bytes than it says the file has").into());
            }
            self.file.write_all(&chunk).map_err(at(self.part))?;
            progress.advance(chunk.len() as u64, String::new);
        }
        match total {
            Some(total) if have < total => {
                Err(Failure::Again(format!("it stopped at byte {have} of {total}")))
            }
            _ => Ok(()),
        }
    }

    fn length(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(at(self.part))?.len())
    }

    /// Keeps `length` bytes and writes on from there.
    fn cut(&mut self, length: u64) -> Result<()> {
        self.file.set_len(length).map_err(at(self.part))?;
        self.file.seek(SeekFrom::Start(length)).map_err(at(self.part))?;
        Ok(())
    }

    fn refused(&self, problem: &str) -> Error {
        Error::Invalid { path: PathBuf::from(self.url), problem: problem.to_owned() }
    }
}

/// First byte and length of the whole of `Content-Range: bytes first-last/total`.
fn range(response: &Response) -> Option<(u64, u64)> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (span, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((span.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
}

/// Length of the whole of `Content-Range: bytes */total`.
fn length_of(response: &Response) -> Option<u64> {
    response.headers().get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes */")?.parse().ok()
}

/// What tells this version of the file from another: a strong entity tag, or else the date; empty without either, and
/// then nothing is resumed.
fn version_of(response: &Response) -> String {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let tag = header(ETAG).filter(|tag| !tag.starts_with("W/"));
    tag.or(header(LAST_MODIFIED)).unwrap_or_default().to_owned()
}

/// An error and its causes as one line; the address is told already.
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = if text.is_empty() { error.to_string() } else { format!("{text}: {error}") };
        cause = error.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}

/// The path with `.ending` after its name.
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
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}
