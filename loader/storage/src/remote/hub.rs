//! Repositories on the Hugging Face Hub: `hf://datasets/OWNER/NAME/PATH` and, of models, `hf://OWNER/NAME/PATH`. A
//! revision (branch, tag or commit) follows the name: `hf://datasets/OWNER/NAME@REVISION/PATH`; the default is `main`.
//!
//! The revision is looked up once per process, so that all files that a process reads are of the same commit. Files can
//! be read only.

use std::time::Duration;

use object_store::path::Path as Key;
use reqwest::header::{AUTHORIZATION, LINK};
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use url::Url;

use super::{Remote, store};
use crate::connect::watched;
use crate::location::Address;
use crate::process::process;
use crate::{Error, Location, SILENCE, token};

/// A place in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// `datasets/` for a dataset, nothing for a model.
    kind: &'static str,
    /// `OWNER/NAME`.
    repository: String,
    /// A branch, tag or commit.
    revision: String,
    /// The file or folder in it.
    path: String,
}

/// An entry of the hub's list of files.
#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(rename = "type")]
    kind: String,
    path: String,
}

impl Place {
    /// The place of an address; or what is wrong with the address.
    fn parse(address: &str) -> Result<Self, String> {
        let wrong = || {
            "an address on the Hugging Face Hub is hf://datasets/OWNER/NAME/PATH, or hf://OWNER/NAME/PATH for a model; \
             a revision follows the name: NAME@REVISION"
                .to_owned()
        };
        let rest = address.strip_prefix("hf://").ok_or_else(wrong)?;
        let (kind, rest) = match rest.strip_prefix("datasets/") {
            Some(rest) => ("datasets/", rest),
            None => ("", rest.strip_prefix("models/").unwrap_or(rest)),
        };
        let mut parts = rest.split('/').filter(|part| !part.is_empty());
        let (Some(owner), Some(name)) = (parts.next(), parts.next()) else { return Err(wrong()) };
        let (name, revision) = match name.split_once('@') {
            // The hub's own branches have slashes in their names: refs/convert/parquet, refs/pr/3.
            Some((name, "refs")) => match (parts.next(), parts.next()) {
                (Some(of), Some(which)) => (name, format!("refs/{of}/{which}")),
                _ => return Err(wrong()),
            },
            // Other slashes are written %2F.
            Some((name, revision)) => (name, revision.replace("%2F", "/").replace("%2f", "/")),
            None => (name, "main".to_owned()),
        };
        if owner.contains('@') || name.is_empty() || revision.is_empty() {
            return Err(wrong());
        }
        let path = parts.collect::<Vec<_>>().join("/");
        Ok(Self { kind, repository: format!("{owner}/{name}"), revision, path })
    }

    /// An address of the hub's interface: `api/datasets/OWNER/NAME/WHAT/REVISION`, and the path.
    fn api(&self, what: &str, revision: &str) -> Result<Url, String> {
        let kind = if self.kind.is_empty() { "models/" } else { self.kind };
        let base = format!("{}/api/{kind}{}/{what}", token::hub(), self.repository);
        let mut url = Url::parse(&base).map_err(|error| format!("HF_ENDPOINT: {error}"))?;
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.push(revision);
        }
        Ok(url)
    }
}

/// Opens an address.
pub(crate) fn open(address: &Address) -> Result<Remote, Error> {
    let input = |problem: String| Error::input(&Location::Remote(address.clone()), problem);
    let mut place = Place::parse(address.as_str()).map_err(input)?;
    let hub = token::hub();
    let mut remote = Remote {
        address: address.clone(),
        store: store("https", &hub).map_err(|error| input(error.to_string()))?,
        key: Key::default(),
        hub: None,
    };
    place.revision = commit(&remote, &place)?;
    let key = format!("{}{}/resolve/{}/{}", place.kind, place.repository, place.revision, place.path);
    remote.key = Key::parse(&key).map_err(|error| input(error.to_string()))?;
    remote.hub = Some(Box::new(place));
    Ok(remote)
}

/// The commit of a revision.
fn commit(remote: &Remote, place: &Place) -> Result<String, Error> {
    let is_commit = place.revision.len() == 40 && place.revision.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_commit {
        return Ok(place.revision.clone());
    }
    // Held while the hub is asked, so that the threads of a process do not find different commits.
    let mut commits = process().commits();
    let name = format!("{}{}@{}", place.kind, place.repository, place.revision);
    if let Some(commit) = commits.get(&name) {
        return Ok(commit.clone());
    }
    #[derive(Deserialize)]
    struct Revision {
        sha: String,
    }
    let input = |problem: String| Error::input(&remote.location(), problem);
    let url = place.api("revision", &place.revision).map_err(input)?;
    let found: Revision = remote.wait("read", move |_, _| {
        let url = url.clone();
        async move {
            let (page, _) = get(url).await?;
            parse(&page)
        }
    })?;
    commits.insert(name, found.sha.clone());
    Ok(found.sha)
}

/// Files and folders below a folder: directly in it, or with `all` in its subfolders too.
pub(crate) fn list(remote: &Remote, place: &Place, all: bool) -> Result<Vec<(Location, bool)>, Error> {
    let input = |problem: String| Error::input(&remote.location(), problem);
    let mut url = place.api("tree", &place.revision).map_err(input)?;
    if let Ok(mut parts) = url.path_segments_mut() {
        parts.extend(place.path.split('/').filter(|part| !part.is_empty()));
    }
    if all {
        url.query_pairs_mut().append_pair("recursive", "true");
    }
    let mut found = Vec::new();
    let mut next = Some(url);
    while let Some(url) = next {
        let (page, more): (Vec<Listed>, Option<Url>) = remote.wait("read", move |_, _| {
            let url = url.clone();
            async move {
                let (page, next) = get(url).await?;
                Ok((parse(&page)?, next))
            }
        })?;
        for entry in page {
            let inside = entry.path.strip_prefix(&place.path).unwrap_or(&entry.path).trim_start_matches('/');
            found.push((remote.entry(inside), entry.kind == "directory"));
        }
        next = more;
    }
    Ok(found)
}

/// Reads a page of the hub's interface; returns it, and the address of the next page if there is one.
async fn get(url: Url) -> object_store::Result<(Vec<u8>, Option<Url>)> {
    let failed = |error: reqwest::Error| object_store::Error::Generic {
        store: "hub",
        source: Box::new(error.without_url()),
    };
    let client = Client::builder().connect_timeout(Duration::from_secs(10)).read_timeout(SILENCE).build();
    let mut request = client.map_err(failed)?.get(url.clone());
    if let Some(value) = token::authorization(url.as_str()) {
        request = request.header(AUTHORIZATION, value);
    }
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let response = watched(&host, request.send(), Response::status).await.map_err(failed)?;
    let status = response.status();
    if !status.is_success() {
        return Err(refusal(&url, status));
    }
    let next = next_page(&response, &url);
    Ok((response.bytes().await.map_err(failed)?.to_vec(), next))
}

fn refusal(url: &Url, status: StatusCode) -> object_store::Error {
    let path = url.path().to_owned();
    // The hub answers 401 also for a repository that does not exist, unless a token shows that it is known who asks.
    let source = format!("status code: {status} from the Hugging Face Hub").into();
    match status {
        StatusCode::NOT_FOUND => object_store::Error::NotFound { path, source },
        StatusCode::UNAUTHORIZED => object_store::Error::Unauthenticated { path, source },
        StatusCode::FORBIDDEN => object_store::Error::PermissionDenied { path, source },
        _ => object_store::Error::Generic { store: "hub", source },
    }
}

/// The address in `Link: <ADDRESS>; rel="next"`, if it is on the same host.
fn next_page(response: &Response, url: &Url) -> Option<Url> {
    let links = response.headers().get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    let next = links.flat_map(|value| value.split(',')).find(|link| link.contains("rel=\"next\""))?;
    let address = next.split_once('<')?.1.split_once('>')?.0;
    url.join(address).ok().filter(|next| next.origin() == url.origin())
}

fn parse<T: for<'a> Deserialize<'a>>(page: &[u8]) -> object_store::Result<T> {
    serde_json::from_slice(page)
        .map_err(|error| object_store::Error::Generic { store: "hub", source: Box::new(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_repository_a_revision_and_a_path() {
        let place = |kind, repository: &str, revision: &str, path: &str| {
            Ok(Place { kind, repository: repository.into(), revision: revision.into(), path: path.into() })
        };
        for (address, expected) in [
            ("hf://datasets/laion/set/a/00000.tar", place("datasets/", "laion/set", "main", "a/00000.tar")),
            ("hf://datasets/laion/set", place("datasets/", "laion/set", "main", "")),
            ("hf://datasets/laion/set@v1/x", place("datasets/", "laion/set", "v1", "x")),
            ("hf://datasets/laion/set@a%2Fb/x", place("datasets/", "laion/set", "a/b", "x")),
            (
                "hf://datasets/laion/set@refs/convert/parquet/x/0.parquet",
                place("datasets/", "laion/set", "refs/convert/parquet", "x/0.parquet"),
            ),
            (
                "hf://facebook/tower/model.safetensors",
                place("", "facebook/tower", "main", "model.safetensors"),
            ),
        ] {
            assert_eq!(Place::parse(address), expected, "{address}");
        }
        for wrong in ["hf://datasets/laion", "hf://", "hf://a", "hf://datasets/a/b@/x", "hf://a/b@refs/pr"] {
            assert!(Place::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_revision_is_one_part_of_an_address() {
        let place = Place::parse("hf://datasets/a/b@refs/pr/3/x").unwrap();
        let url = place.api("revision", &place.revision).unwrap();
        assert!(url.path().ends_with("/api/datasets/a/b/revision/refs%2Fpr%2F3"), "{url}");
    }
}
