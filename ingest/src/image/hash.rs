//! Hashes of the original image files.

use concepts::checksums::hexadecimal;
use md5::Md5;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};

/// The kind of hash in the tables, in a column of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hash {
    /// 128 bits; used by older lists.
    Md5,
    /// 256 bits.
    Sha256,
    /// 512 bits.
    Sha512,
    /// No column.
    None,
}

impl Hash {
    /// Name of the column; None if hashes are not computed.
    pub fn column(self) -> Option<&'static str> {
        match self {
            Self::Md5 => Some("md5"),
            Self::Sha256 => Some("sha256"),
            Self::Sha512 => Some("sha512"),
            Self::None => None,
        }
    }

    /// The kind of hash in a column of this name.
    pub(crate) fn named(column: &str) -> Option<Self> {
        [Self::Md5, Self::Sha256, Self::Sha512].into_iter().find(|kind| kind.column() == Some(column))
    }

    /// The hash in lower-case hexadecimal.
    pub(crate) fn of(self, bytes: &[u8]) -> Option<String> {
        match self {
            Self::Md5 => Some(hexadecimal(&Md5::digest(bytes))),
            Self::Sha256 => Some(hexadecimal(&Sha256::digest(bytes))),
            Self::Sha512 => Some(hexadecimal(&Sha512::digest(bytes))),
            Self::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_match_the_examples_of_the_standards() {
        // RFC 1321, appendix A.5; FIPS 180-2, appendices B.1 and C.1 (of the latter the first and last words).
        assert_eq!(Hash::Md5.of(b"abc").unwrap(), "900150983cd24fb0d6963f7d28e17f72");
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Hash::Sha256.of(b"abc").unwrap(), sha256);
        let sha512 = Hash::Sha512.of(b"abc").unwrap();
        assert!(sha512.starts_with("ddaf35a193617aba") && sha512.ends_with("2a9ac94fa54ca49f"));
        assert_eq!(Hash::None.of(b"abc"), None);
    }
}
