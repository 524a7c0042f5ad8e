//! Checksum files as `sha256sum` writes them and `sha256sum -c` reads them: a line per file, with its SHA-256, two spaces and
//! its name.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

use crate::Error;

/// The checksums of some files of a folder, by file name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checksums(BTreeMap<String, String>);

impl Checksums {
    /// Reads the text of a checksum file.
    ///
    /// # Errors
    /// [`Error::Line`]
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut sums = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty()) {
            let sum = line.strip_prefix('\\').unwrap_or(line);
            // An asterisk instead of the second space: read in binary mode, which is the same here.
            let fields = sum.split_once("  ").or_else(|| sum.split_once(" *"));
            let valid = |sum: &str| {
                sum.len() == 64 && sum.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            };
            match fields {
                Some((sum, name)) if valid(sum) && !name.is_empty() => {
                    let name = if line.starts_with('\\') {
                        name.replace("\\n", "\n").replace("\\\\", "\\")
                    } else {
                        name.to_owned()
                    };
                    sums.insert(name, sum.to_owned());
                }
                _ => return Err(Error::Line { number, what: "is not a SHA-256 and a file name".to_owned() }),
            }
        }
        Ok(Self(sums))
    }

    /// The text of the checksum file.
    pub fn text(&self) -> String {
        let line = |(name, sum): (&String, &String)| {
            if name.contains(['\\', '\n']) {
                format!("\\{sum}  {}\n", name.replace('\\', "\\\\").replace('\n', "\\n"))
            } else {
                format!("{sum}  {name}\n")
            }
        };
        self.0.iter().map(line).collect()
    }

    /// Sets the checksum of a file.
    pub fn set(&mut self, name: &str, sha256: String) {
        self.0.insert(name.to_owned(), sha256);
    }

    /// Removes the checksum of a file; returns whether it had one.
    pub fn remove(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// The checksum of a file.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Names and checksums, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, sum)| (name.as_str(), sum.as_str()))
    }

    /// Whether it has no file.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// The same of everything that a reader gives.
pub fn sha256_of(mut from: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(hexadecimal(&hash.finalize())),
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A writer that computes the SHA-256 of what passes through it.
#[derive(Debug)]
pub struct Hashing<W> {
    to: W,
    hash: Sha256,
}

impl<W: Write> Hashing<W> {
    /// Writes to `to`.
    pub fn new(to: W) -> Self {
        Self { to, hash: Sha256::new() }
    }

    /// The writer, and the SHA-256 in hexadecimal of all bytes written.
    pub fn finish(self) -> (W, String) {
        (self.to, hexadecimal(&self.hash.finalize()))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn hashes_match_the_example_of_the_standard() {
        assert_eq!(sha256(b"abc"), ABC);
        assert_eq!(sha256_of(&b"abc"[..]).unwrap(), ABC);
        let mut writer = Hashing::new(Vec::new());
        writer.write_all(b"a").unwrap();
        writer.write_all(b"bc").unwrap();
        assert_eq!(writer.finish(), (b"abc".to_vec(), ABC.to_owned()));
    }

    #[test]
    fn the_text_is_that_of_sha256sum() {
        let mut sums = Checksums::default();
        sums.set("b.parquet", ABC.to_owned());
        sums.set("a.tar", ABC.to_owned());
        assert_eq!(sums.text(), format!("{ABC}  a.tar\n{ABC}  b.parquet\n"));
        assert_eq!(Checksums::parse(&sums.text()).unwrap(), sums);
        assert_eq!(Checksums::parse(&format!("{ABC} *a.tar\n")).unwrap().get("a.tar"), Some(ABC));
        for wrong in ["", " a.tar", "  a.tar"].map(|rest| format!("{}{rest}\n", &ABC[1..])) {
            assert!(Checksums::parse(&wrong).unwrap_err().to_string().starts_with("line 1"), "{wrong}");
        }
        let mut odd = Checksums::default();
        odd.set("a\\b\nc.tar", ABC.to_owned());
        assert_eq!(odd.text(), format!("\\{ABC}  a\\\\b\\nc.tar\n"));
    }

    /// The program itself accepts the text, and finds a change.
    #[test]
    fn sha256sum_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.tar"), "abc").unwrap();
        let mut sums = Checksums::default();
        sums.set("x.tar", sha256(b"abc"));
        std::fs::write(folder.path().join("x.sha256"), sums.text()).unwrap();
        let check = || {
            let mut program = std::process::Command::new("sha256sum");
            program.args(["--strict", "-c", "x.sha256"]).current_dir(folder.path());
            program.output().map(|output| output.status.success())
        };
        let Ok(passed) = check() else {
            println!("skipped: no sha256sum");
            return;
        };
        assert!(passed);
        std::fs::write(folder.path().join("x.tar"), "abd").unwrap();
        assert!(!check().unwrap());
    }
}
