//! Access to files on local disks, on http(s) servers, in object stores (`s3://`, `gs://`, `az://`) and on the Hugging
//! Face Hub (`hf://datasets/OWNER/NAME/PATH`).
//!
//! A [`Location`] is either: `s3://bucket/shards/00000.tar` can be given wherever `shards/00000.tar` can. All functions take
//! what can be turned into one: a path, a text, or a location. Credentials and endpoints come from the environment variables of the providers' own tools:
//! `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME` and so on. The hub's
//! are `HF_TOKEN` and `HF_ENDPOINT`; `LOADER_HTTP_TOKENS` has bearer tokens for other https servers, as `HOST=TOKEN`,
//! separated by commas. A token is sent to its host alone, also after a redirect.
//!
//! # Retries
//! Refused and dropped connections, timeouts, and the HTTP statuses 429 and 500 or higher are retried with growing
//! pauses, for [`RETRY_FOR`]. A server that sends nothing for [`SILENCE`] counts as dropped; a slow server does not. A
//! transfer that breaks off starts again at its first byte. A missing file or denied access is an error at once. A
//! range of bytes is returned in full or is an error. So is a file that is replaced between two reads, as far as the
//! server's entity tags, dates and lengths show it. When a server fails for more than two seconds, a message says so
//! ([`report_to`]), while the requests are repeated.
//!
//! # Complete or not at all
//! Everything that is written appears under its name when it is complete: on a local disk as [`disk::files`] does it, in a
//! store as one object. [`NewFolder`] does the same for a folder.
//!
//! # The process
//! Connections, the runtime, tokens and copies are kept once for the process, behind the functions of this crate; the module
//! `process` says why.
//!
//! All functions block. They can be called from any thread except the worker threads of an asynchronous runtime; a
//! runtime's blocking threads are fine.

mod cache;
mod connect;
mod copies;
mod error;
mod files;
mod folder;
mod interruption;
mod location;
mod process;
mod remote;
mod source;
mod token;

use std::time::Duration;

pub use self::cache::{Cache, PathWriter};
pub use self::copies::{download, forget_copies, local_copy};
pub use self::error::{Error, is_missing, is_unsupported};
pub use self::files::{
    Version, exists, length, read, read_text, read_version, remove, replace, upload, write, write_if,
    write_new,
};
pub use self::folder::{NewFolder, create_folder, entries, existing, is_folder, list, list_all, list_near};
pub use self::interruption::{Interrupted, interrupt, interrupted, signal};
pub use self::location::{Address, Location};
pub use self::process::{report_to, stop_when_interrupted};
pub use self::source::{Reader, Source};
pub use self::token::authorization;

/// How long a failing remote request is retried. The environment variable `LOADER_RETRY_SECONDS` overrides it.
pub const RETRY_FOR: Duration = Duration::from_mins(3);

/// How long a remote server may send nothing before the connection counts as dropped.
pub const SILENCE: Duration = Duration::from_secs(30);
