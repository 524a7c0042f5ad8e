//! Groups the members of a tar into samples.

use std::io::{self, Read};

use storage::Location;

use super::BLOCK;
use crate::Error;

/// A member of a sample, while its archive is read.
pub(super) struct FoundMember<'a, 'data> {
    pub(super) name: &'a str,
    pub(super) key: &'a str,
    /// Whether it is the first member of its sample.
    pub(super) first: bool,
    /// In lower case.
    pub(super) extension: &'a str,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) data: &'a mut (dyn Read + 'data),
}

/// Calls `each` for every member that belongs to a sample, in tar order. Returns where the last member ends, with its padding.
pub(super) fn members<R: Read, E: From<Error>>(
    entries: io::Result<::tar::Entries<'_, R>>,
    length: Option<u64>,
    shard: &Location,
    mut each: impl FnMut(FoundMember<'_, '_>) -> Result<(), E>,
) -> Result<u64, E> {
    let damaged = |after: &str, e: io::Error| {
        let place = if after.is_empty() { "at its start".to_owned() } else { format!("after {after}") };
        Error::own_or(|e| Error::archive(shard, format!("it is damaged {place}: {e}")))(e)
    };
    let (mut previous, mut last_end) = (String::new(), 0);
    let mut current: Option<String> = None;
    let mut extensions: Vec<String> = Vec::new();
    for entry in entries.map_err(|e| damaged(&previous, e))? {
        let mut entry = entry.map_err(|e| damaged(&previous, e))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if is_sparse(&mut entry).map_err(|e| damaged(&previous, e))? {
            let problem = format!(
                "{name} is stored as a sparse file (tar -S), which is not supported; write the tar without -S"
            );
            return Err(Error::archive(shard, problem).into());
        }
        let (offset, size) = (entry.raw_file_position(), entry.size());
        let end = offset.checked_add(size);
        if end.is_none_or(|end| length.is_some_and(|length| end > length)) {
            return Err(Error::archive(shard, format!("it is truncated inside {name}")).into());
        }
        last_end = end.unwrap_or_default().next_multiple_of(BLOCK);
        let kind = entry.header().entry_type();
        // Old archives mark folders by a trailing slash only.
        let regular = (kind.is_file() || kind.is_contiguous()) && !name.ends_with('/');
        if let Some((key, extension)) = (regular && !is_metadata(&name)).then(|| split(&name)).flatten() {
            let extension = extension.to_lowercase();
            let first = current.as_deref() != Some(key);
            if first {
                extensions.clear();
                current = Some(key.to_owned());
            } else if extensions.contains(&extension) {
                let problem = format!("sample {key} has two members with the extension {extension}");
                return Err(Error::archive(shard, problem).into());
            }
            let (extension, data) = (extension.as_str(), &mut entry as &mut dyn Read);
            each(FoundMember { name: &name, key, first, extension, offset, length: size, data })?;
            extensions.push(extension.to_owned());
        }
        previous = name;
    }
    Ok(last_end)
}

/// Whether a member's data are stored without its zeros: in the format of GNU tar, or in one of its three PAX formats.
fn is_sparse<R: Read>(entry: &mut ::tar::Entry<'_, R>) -> io::Result<bool> {
    if entry.header().entry_type().is_gnu_sparse() {
        return Ok(true);
    }
    let Some(extensions) = entry.pax_extensions()? else { return Ok(false) };
    for extension in extensions {
        if extension?.key_bytes().starts_with(b"GNU.sparse.") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Splits a member's name into key and extension.
fn split(name: &str) -> Option<(&str, &str)> {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name[base..].find('.').filter(|&dot| dot > 0)? + base;
    Some((&name[..dot], &name[dot + 1..]))
}

/// `__name__`, and everything inside a folder with such a name.
fn is_metadata(name: &str) -> bool {
    let first = name.split('/').next().unwrap_or(name);
    first.len() >= 4 && first.starts_with("__") && first.ends_with("__")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_at_the_first_dot_of_the_base_name() {
        for (name, expected) in [
            ("000.jpg", Some(("000", "jpg"))),
            ("a/b.seg.PNG", Some(("a/b", "seg.PNG"))),
            ("a.b/c.d.e", Some(("a.b/c", "d.e"))),
            ("./000.txt", Some(("./000", "txt"))),
            (".hidden", None),
            ("a.b/.hidden", None),
            ("nodot", None),
            ("a.b/nodot", None),
            ("x.", Some(("x", ""))),
        ] {
            assert_eq!(split(name), expected, "{name}");
        }
        assert!(is_metadata("__index__/a.json") && is_metadata("____/x.y"));
        assert!(!is_metadata("__a__.json") && !is_metadata("a/__b__/c.d"));
    }
}
