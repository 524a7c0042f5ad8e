//! The file with the library's English data. It is not embedded because its licence, the LGPL, differs from this
//! project's.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use disk::files::io_message;

use super::failed;
use crate::Error;
use crate::checksums::sha256;

/// SHA-256 of the data of nlprule 0.6.4; also in `tools/nlprule-data.sh`.
pub(super) const SHA256: &str = "e2b51e506aede495268ee05dee0b97956e768107f5bb5891585144a5ff2fd773";

/// Environment variable with the path of the file.
const VARIABLE: &str = "NLPRULE_DATA";
/// Where the file is without the variable: below the current folder, or below one of the folders above the running
/// program.
const PLACE: &str = ".nlprule/en_tokenizer.bin";
/// Downloads the file.
const COMMAND: &str = "tools/nlprule-data.sh";

/// Path of the file.
pub(super) fn locate() -> Result<PathBuf, Error> {
    let program = env::current_exe().unwrap_or_default();
    locate_from(env::var_os(VARIABLE), Path::new(""), &program)
}

fn locate_from(variable: Option<OsString>, current: &Path, program: &Path) -> Result<PathBuf, Error> {
    if let Some(path) = variable.filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let folders = [current].into_iter().chain(program.ancestors().skip(1));
    let mut files = folders.map(|folder| folder.join(PLACE));
    files.find(|file| file.is_file()).ok_or_else(|| {
        failed(format!(
            "its data is missing: {PLACE} is not in the current folder and not in a folder above {}; run \
             {COMMAND}, or set {VARIABLE} to the path of the file",
            program.display()
        ))
    })
}

/// Reads the file and checks that it is the expected one.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = fs::read(path).map_err(|error| {
        let problem = io_message(path.display(), "read", &error);
        failed(format!("{problem}; run {COMMAND} to download the data to {PLACE}"))
    })?;
    let hash = sha256(&bytes);
    if hash == SHA256 {
        Ok(bytes)
    } else {
        Err(failed(format!(
            "{} is not the expected data file: its SHA-256 is {hash}, not {SHA256}; run {COMMAND} to download the file",
            path.display()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_searched_by_variable_then_in_the_current_folder_then_above_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let (current, program) =
            (folder.path().join("here"), folder.path().join("checkout/target/release/ingest"));
        let locate = |variable: Option<&str>| locate_from(variable.map(OsString::from), &current, &program);
        let missing = locate(None).unwrap_err().to_string();
        assert!(
            missing.contains(COMMAND) && missing.contains("ingest") && !missing.contains('\n'),
            "{missing}"
        );

        let put = |place: PathBuf| {
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(&place, "").unwrap();
            place
        };
        let above = put(folder.path().join("checkout").join(PLACE));
        assert_eq!(locate(None).unwrap(), above);
        let here = put(current.join(PLACE));
        assert_eq!(locate(None).unwrap(), here);
        assert_eq!(locate(Some("")).unwrap(), here);
        assert_eq!(locate(Some("/data/file")).unwrap(), Path::new("/data/file"));
    }

    #[test]
    fn an_unexpected_file_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("en_tokenizer.bin");
        assert!(read(&path).unwrap_err().to_string().contains("en_tokenizer.bin"));
        fs::write(&path, "something else").unwrap();
        let refused = read(&path).unwrap_err().to_string();
        // sha256sum of "something else", from coreutils.
        let hash = "f41f3fa625ff120ddca7ef456bf66371ecea23c129f4e4c32367101edb516cf8";
        assert!(refused.contains("en_tokenizer.bin") && refused.contains(hash), "{refused}");
    }
}
