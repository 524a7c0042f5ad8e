//! A folder of pictures, each with its caption in a `.txt` of the same name beside it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Extra, Row, Rows, text};
use crate::error::Error;
use crate::sample::Problem;

/// Extensions of the pictures that are looked for.
const PICTURES: [&str; 8] = ["jpg", "jpeg", "png", "webp", "gif", "avif", "heic", "heif"];

pub(super) struct PairRows {
    folder: PathBuf,
    /// Paths relative to the folder, in sorted order.
    pictures: std::vec::IntoIter<PathBuf>,
    total: u64,
}

impl PairRows {
    pub(super) fn open(folder: &Path) -> Result<Self, Error> {
        let mut pictures = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(inside) = folders.pop() {
            let path = folder.join(&inside);
            for entry in fs::read_dir(&path).map_err(Error::file("read", &path))? {
                let entry = entry.map_err(Error::file("read", &path))?;
                let relative = inside.join(entry.file_name());
                // A link to a folder is not followed: it may lead back up.
                if entry.file_type().map_err(Error::file("read", &path))?.is_dir() {
                    folders.push(relative);
                } else if is_picture(&relative) {
                    pictures.push(relative);
                }
            }
        }
        if pictures.is_empty() {
            return Err(Error::input(
                folder,
                "no pictures (jpg, png, webp, gif) and no table in this folder",
            ));
        }
        pictures.sort();
        let total = pictures.len() as u64;
        Ok(Self { folder: folder.to_owned(), pictures: pictures.into_iter(), total })
    }
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    PICTURES.contains(&extension.as_str())
}

impl Rows for PairRows {
    fn extra(&self) -> &[Extra] {
        &[]
    }

    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        let Some(picture) = self.pictures.next() else { return Ok(None) };
        let beside = self.folder.join(&picture).with_extension("txt");
        let (caption, problem) = match fs::read(&beside) {
            Ok(bytes) => {
                let (caption, valid) = text(bytes.trim_ascii());
                (Some(caption), (!valid).then(|| Problem::read("caption is not UTF-8")))
            }
            Err(_) => (None, Some(Problem::read("no caption file (.txt) beside the picture"))),
        };
        let Some(url) = picture.to_str() else {
            let url = picture.to_string_lossy().into_owned();
            let problem = Some(Problem::read("file name is not UTF-8"));
            return Ok(Some(Row { url, caption, problem, ..Row::default() }));
        };
        Ok(Some(Row { url: url.to_owned(), caption, problem, ..Row::default() }))
    }

    fn total(&self) -> Option<u64> {
        Some(self.total)
    }
}
