//! `--deny`: URLs and images that a download must not take.

use std::collections::HashSet;

use sha2::{Digest, Sha256};
use storage::Location;

use crate::error::Error;
use crate::lists;
use crate::rows::{Row, public_url};

/// Columns of tables that are read; each has texts or hashes.
const COLUMNS: [&str; 3] = ["url", "url_sha256", "sha256"];

/// What must not be taken, as SHA-256: of URLs, as they are stored without user names and passwords, and of image files.
#[derive(Debug, Default)]
pub struct Deny(HashSet<[u8; 32]>);

impl Deny {
    /// Reads a list: one URL, or SHA-256 of a URL or of an image file, per line; or a table with the columns `url`, `url_sha256` or
    /// `sha256`.
    ///
    /// # Errors
    /// The list cannot be read, or is a table without any of these columns.
    pub fn read(path: &Location) -> Result<Self, Error> {
        let mut deny = Self::default();
        if lists::is_plain(path)? {
            lists::visit(path, "url", &[], |row| {
                deny.add(&row);
                Ok(())
            })?;
            return Ok(deny);
        }
        let mut missing = Vec::new();
        for column in COLUMNS {
            let read = lists::visit(path, column, &[], |row| {
                deny.add(&row);
                Ok(())
            });
            match read {
                Err(error) if lists::lacks_column(&error) => missing.push(error),
                read => read?,
            }
        }
        if missing.len() == COLUMNS.len() {
            return Err(Error::input(
                path,
                format!(
                    "none of the columns {}: name them so, or give one text per line",
                    COLUMNS.join(", ")
                ),
            ));
        }
        Ok(deny)
    }

    fn add(&mut self, row: &Row) {
        let text = row.url.trim();
        if !text.is_empty() {
            let of_text = || Sha256::digest(public_url(text).as_bytes()).into();
            self.0.insert(digest_of(text).unwrap_or_else(of_text));
        }
    }

    /// Whether it has no entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the URL is on the list.
    pub(crate) fn has_url(&self, url: &str) -> bool {
        !self.is_empty()
            && self.0.contains(&<[u8; 32]>::from(Sha256::digest(public_url(url.trim()).as_bytes())))
    }

    /// Whether the SHA-256 of an image file, hexadecimal, is on the list.
    pub(crate) fn has_hash(&self, sha256: &str) -> bool {
        digest_of(sha256).is_some_and(|digest| self.0.contains(&digest))
    }

    /// Whether the image file is on the list.
    pub(crate) fn has_image(&self, bytes: &[u8]) -> bool {
        !self.is_empty() && self.0.contains(&<[u8; 32]>::from(Sha256::digest(bytes)))
    }
}

/// The bytes of 64 hexadecimal digits.
pub(crate) fn digest_of(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_64_hexadecimal_digits() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest_of(abc), Some(Sha256::digest(b"abc").into()));
        assert_eq!(digest_of(&abc.to_uppercase()), digest_of(abc));
        assert_eq!(digest_of(&abc[1..]), None);
        assert_eq!(digest_of(&format!("g{}", &abc[1..])), None);
        assert_eq!(digest_of(&format!("é{}", &abc[2..])), None);
    }

    #[test]
    fn urls_are_compared_without_password_and_images_by_their_bytes() {
        let mut deny = Deny::default();
        for text in [
            "https://me:secret@a.example/1.jpg",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ] {
            deny.add(&Row { url: text.to_owned(), ..Row::default() });
        }
        assert!(deny.has_url("https://a.example/1.jpg") && deny.has_url(" https://you@a.example/1.jpg"));
        assert!(!deny.has_url("https://a.example/2.jpg"));
        // It does not say of what the hash is.
        assert!(deny.has_image(b"abc") && deny.has_url("abc"));
        assert!(!deny.has_image(b"abcd"));
    }
}
