//! Where a file or folder is.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The schemes of remote addresses. Anything else before `://` is an unusual folder name.
const SCHEMES: [&str; 11] = ["http", "https", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "hf"];

/// A file or folder as a user names it: a path on a local disk, or the address of a remote file, which starts with `http://`,
/// `https://`, `s3://`, `gs://`, `az://`, `hf://` or another scheme of these stores.
///
/// ```
/// # use storage::Location;
/// let shard = Location::from("s3://bucket/shards/00000.tar");
/// assert!(shard.is_remote());
/// assert_eq!(shard.with_file_name("00000.parquet").to_string(), "s3://bucket/shards/00000.parquet");
/// assert_eq!(Location::from("shards/00000.tar").local(), Some("shards/00000.tar".as_ref()));
/// // Name and password are sent to the server, and never shown.
/// assert_eq!(Location::from("https://me:secret@example.org/a").to_string(), "https://example.org/a");
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Location {
    /// A path on a local disk.
    Local(PathBuf),
    /// The address of a remote file or folder.
    Remote(Address),
}

/// The address of a remote file or folder, `SCHEME://..`; made by [`Location`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address(String);

/// Folder by folder, as paths are ordered, so that the same files have the same order everywhere.
impl Ord for Address {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.split('/').cmp(other.0.split('/'))
    }
}

impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Address {
    /// The address, if the text starts with a known scheme, in upper or lower case.
    fn new(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = SCHEMES.iter().find(|known| known.eq_ignore_ascii_case(scheme))?;
        Some(Self(format!("{scheme}://{rest}")))
    }

    /// What stands before `://`.
    pub fn scheme(&self) -> &str {
        self.0.split_once("://").map_or("", |(scheme, _)| scheme)
    }

    /// Whether this is a web server, rather than an object store or the hub.
    pub(crate) fn is_http(&self) -> bool {
        ["http", "https"].contains(&self.scheme())
    }

    /// The text as it was given, with the password if it has one.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the host or bucket, without slashes at its ends.
    fn key(&self) -> &str {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        rest.split_once('/').map_or("", |(_, inside)| inside.trim_matches('/'))
    }

    /// The name and password before the host. (`abfss://CONTAINER@ACCOUNT/..` has a part of the address there.)
    fn credentials(&self) -> Option<&str> {
        let rest = &self.0[self.scheme().len() + "://".len()..];
        let host = rest.split('/').next().unwrap_or_default();
        host.rsplit_once('@').map(|(user, _)| user).filter(|user| self.is_http() || user.contains(':'))
    }

    /// A message of a library, which may repeat the address, without name and password.
    pub(crate) fn hide_credentials(&self, mut message: String) -> String {
        let Some(given) = self.credentials() else { return message };
        message = message.replace(&format!("{given}@"), "");
        // As libraries write them.
        if let Ok(url) = url::Url::parse(&self.0) {
            let password = url.password().map_or(String::new(), |password| format!(":{password}"));
            message = message.replace(&format!("{}{password}@", url.username()), "");
        }
        message
    }

    pub(crate) fn join(&self, inside: &str) -> Self {
        let (folder, inside) = (without_slashes(&self.0), inside.trim_start_matches('/'));
        let slash = if folder.ends_with('/') { "" } else { "/" };
        Self(if inside.is_empty() { folder.to_owned() } else { format!("{folder}{slash}{inside}") })
    }

    fn parent(&self) -> Option<Self> {
        let (folder, _) = without_slashes(&self.0).rsplit_once('/').filter(|_| !self.key().is_empty())?;
        Some(Self(without_slashes(&format!("{folder}/")).to_owned()))
    }
}

/// An address without the slashes at its end, but with those after its scheme.
fn without_slashes(address: &str) -> &str {
    let trimmed = address.trim_end_matches('/');
    if trimmed.ends_with(':') { &address[..(trimmed.len() + 2).min(address.len())] } else { trimmed }
}

impl Location {
    /// Whether it is remote, so that reading it takes requests.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Remote(_))
    }

    /// The path, if it is on a local disk.
    pub fn local(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Remote(_) => None,
        }
    }

    /// Whether a local file or folder exists; for remote ones, which take a request, see [`exists`](crate::exists).
    pub fn is_local_entry(&self) -> bool {
        self.local().is_some_and(Path::exists)
    }

    /// Whether it is a local folder; for remote ones see [`is_folder`](crate::is_folder).
    pub fn is_local_folder(&self) -> bool {
        self.local().is_some_and(Path::is_dir)
    }

    /// Whether it is a local file.
    pub fn is_local_file(&self) -> bool {
        self.local().is_some_and(Path::is_file)
    }

    /// A file or folder inside this folder. As with [`Path::join`], an absolute local path replaces a local one.
    #[must_use]
    pub fn join(&self, inside: impl AsRef<Path>) -> Self {
        match self {
            Self::Local(path) => Self::Local(path.join(inside)),
            Self::Remote(address) => Self::Remote(address.join(&inside.as_ref().to_string_lossy())),
        }
    }

    /// The folder that it is in; `None` of a root, a bucket or a host. The folder of a plain local file name is the empty
    /// path.
    pub fn parent(&self) -> Option<Self> {
        match self {
            Self::Local(path) => path.parent().map(Self::from),
            Self::Remote(address) => address.parent().map(Self::Remote),
        }
    }

    /// The last part of the path, with U+FFFD for what is not UTF-8; empty of a root, a bucket or a host.
    pub fn file_name(&self) -> Cow<'_, str> {
        match self {
            Self::Local(path) => path.file_name().unwrap_or_default().to_string_lossy(),
            Self::Remote(address) => address.key().rsplit('/').next().unwrap_or_default().into(),
        }
    }

    /// The part of the file name after its last dot; `None` without a dot, or if the dot is its first character.
    pub fn extension(&self) -> Option<&str> {
        let name = match self {
            Self::Local(path) => path.as_path(),
            Self::Remote(address) => Path::new(address.key()),
        };
        name.extension()?.to_str()
    }

    /// The file of another name in the same folder.
    #[must_use]
    pub fn with_file_name(&self, name: impl AsRef<OsStr>) -> Self {
        match self {
            Self::Local(path) => Self::Local(path.with_file_name(name)),
            Self::Remote(address) => {
                let folder = address.parent();
                Self::Remote(folder.as_ref().unwrap_or(address).join(&name.as_ref().to_string_lossy()))
            }
        }
    }

    /// The path relative to a folder that this is in, or is; `None` elsewhere.
    pub fn relative_to(&self, folder: &Self) -> Option<PathBuf> {
        match (self, folder) {
            (Self::Local(path), Self::Local(folder)) => path.strip_prefix(folder).ok().map(Path::to_owned),
            (Self::Remote(file), Self::Remote(folder)) => {
                let [file, folder] = [file, folder].map(|address| address.0.trim_end_matches('/'));
                let inside = file.strip_prefix(folder)?;
                (inside.is_empty() || inside.starts_with('/')).then(|| inside.trim_start_matches('/').into())
            }
            _ => None,
        }
    }

    /// The text that it was made of, with the password if it has one; `None` if it is not UTF-8.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Local(path) => path.to_str(),
            Self::Remote(address) => Some(&address.0),
        }
    }

    /// As a path to name it by, for code that takes the bytes of a file together with its path, for messages. A remote file
    /// cannot be opened by it.
    pub fn as_name(&self) -> PathBuf {
        match self {
            Self::Local(path) => path.clone(),
            Self::Remote(address) => address.to_string().into(),
        }
    }

    /// For messages, as [`Path::display`]: without the name and password of a web address.
    pub fn display(&self) -> impl fmt::Display + '_ {
        self
    }
}

/// Without name and password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.scheme().len() + "://".len();
        let hidden = self.credentials().map_or(0, |credentials| credentials.len() + 1);
        write!(f, "{}{}", &self.0[..start], &self.0[start + hidden..])
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Remote(address) => address.fmt(f),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.fmt(f),
            Self::Remote(address) => address.fmt(f),
        }
    }
}

/// The empty path.
impl Default for Location {
    fn default() -> Self {
        Self::Local(PathBuf::new())
    }
}

impl From<OsString> for Location {
    fn from(text: OsString) -> Self {
        match text.to_str().and_then(Address::new) {
            Some(address) => Self::Remote(address),
            None => Self::Local(text.into()),
        }
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        path.into_os_string().into()
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Self {
        path.as_os_str().to_owned().into()
    }
}

impl From<&PathBuf> for Location {
    fn from(path: &PathBuf) -> Self {
        path.as_path().into()
    }
}

impl From<&str> for Location {
    fn from(text: &str) -> Self {
        Path::new(text).into()
    }
}

impl From<&&str> for Location {
    fn from(text: &&str) -> Self {
        (*text).into()
    }
}

impl From<String> for Location {
    fn from(text: String) -> Self {
        PathBuf::from(text).into()
    }
}

impl From<&String> for Location {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<&Self> for Location {
    fn from(location: &Self) -> Self {
        location.clone()
    }
}

/// As it was given. A path that holds an address is of use for making a location again only.
impl From<Location> for PathBuf {
    fn from(location: Location) -> Self {
        match location {
            Location::Local(path) => path,
            Location::Remote(address) => address.0.into(),
        }
    }
}

/// Never fails: what is not the address of a store is a path.
impl FromStr for Location {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.into())
    }
}

/// As it was given. A password is a part of it, so it must not be shown.
impl Serialize for Location {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Local(path) => path.serialize(serializer),
            Self::Remote(address) => address.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Location {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        PathBuf::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_scheme_makes_an_address() {
        for remote in ["s3://b/x", "https://h/x", "abfss://c@a.dfs.core.windows.net/x", "hf://datasets/a/b"] {
            assert!(Location::from(remote).is_remote(), "{remote}");
        }
        assert_eq!(Location::from("S3://B/X"), Location::from("s3://B/X"));
        for local in ["", "x", "/s3/b", "s3:/b/x", "ftp://h/x", "./https://h/x"] {
            assert_eq!(Location::from(local).local(), Some(Path::new(local)), "{local}");
        }
    }

    #[test]
    fn parts_of_paths_and_addresses() {
        for (text, parent, name, extension) in [
            ("a/b.tar", Some("a"), "b.tar", Some("tar")),
            ("b", Some(""), "b", None),
            ("/", None, "", None),
            ("s3://bucket/a/b.tar.zst", Some("s3://bucket/a"), "b.tar.zst", Some("zst")),
            ("s3://bucket/a/", Some("s3://bucket"), "a", None),
            ("s3://bucket", None, "", None),
            ("s3://bucket/", None, "", None),
            ("s3://", None, "", None),
            ("s3:///a", Some("s3://"), "a", None),
            ("https://example.org/x.y", Some("https://example.org"), "x.y", Some("y")),
        ] {
            let location = Location::from(text);
            assert_eq!(location.parent(), parent.map(Location::from), "{text}");
            assert_eq!((&*location.file_name(), location.extension()), (name, extension), "{text}");
        }
    }

    #[test]
    fn names_are_joined_replaced_and_taken_off_again() {
        for folder in ["a", "s3://bucket/a", "s3://bucket", "s3://bucket/a/"] {
            let folder = Location::from(folder);
            let file = folder.join("b/c.tar");
            assert_eq!(file.relative_to(&folder), Some("b/c.tar".into()), "{folder}");
            assert_eq!(file.with_file_name("d"), folder.join("b/d"), "{folder}");
            assert_eq!(file.parent(), Some(folder.join("b")), "{folder}");
        }
        assert_eq!(Location::from("s3://b/a/").relative_to(&Location::from("s3://b/a")), Some("".into()));
        assert_eq!(Location::from("s3://b/ax").relative_to(&Location::from("s3://b/a")), None);
        assert_eq!(Location::from("s3://b/a").join("/etc"), Location::from("s3://b/a/etc"));
        assert_eq!(Location::from("s3://").join("b"), Location::from("s3://b"));
    }

    #[test]
    fn passwords_are_kept_and_not_shown() {
        let location = Location::from("http://me:p@ss@host:80/a@b");
        assert_eq!(format!("{location} {location:?}"), "http://host:80/a@b \"http://host:80/a@b\"");
        let json = serde_json::to_string(&location).unwrap();
        assert_eq!(serde_json::from_str::<Location>(&json).unwrap(), location);
        assert!(json.contains("p@ss"));
        assert_eq!(Location::from("s3://key:secret@b/x").to_string(), "s3://b/x");
        let Location::Remote(address) = &location else { panic!("{location}") };
        for library in
            ["GET http://me:p@ss@host:80/a: status 403", "GET http://me:p%40ss@host:80/a: status 403"]
        {
            let message = address.hide_credentials(library.to_owned());
            assert!(message.starts_with("GET http://host:80/a"), "{message}");
        }
        let container = "abfss://container@account.dfs.core.windows.net/a";
        assert_eq!(Location::from(container).to_string(), container);
    }

    #[test]
    fn the_order_is_that_of_paths() {
        let names = ["a/1", "a/b/1", "a-b/1", "a.b", "a0/1"];
        let sorted = |folder: &str| {
            let mut all: Vec<Location> = names.iter().map(|name| Location::from(folder).join(name)).collect();
            all.sort();
            all.iter()
                .map(|location| location.relative_to(&folder.into()).unwrap_or_default())
                .collect::<Vec<_>>()
        };
        assert_eq!(sorted("s3://bucket"), sorted("/folder"));
    }
}
