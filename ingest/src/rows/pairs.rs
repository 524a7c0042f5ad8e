//! A folder of images, each with its caption in a `.txt` file of the same name in the same folder.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use disk::foreign_files::{is_hidden_entry, read_regular, without_byte_order_mark};
use loader::images::{EXTENSIONS, UNREAD_EXTENSIONS};
use storage::Location;

use super::{Extra, Row, Rows, text};
use crate::error::Error;
use crate::problem::Problem;

/// Maximum size of a caption file, bytes. No caption of an image is longer.
const MAX_CAPTION_BYTES: u64 = 1 << 20;

pub(super) struct PairRows {
    folder: Location,
    /// The path of a local folder with symbolic links resolved.
    canonical: PathBuf,
    /// Paths relative to the folder, in sorted order.
    images: std::vec::IntoIter<PathBuf>,
    total: u64,
    captioned: bool,
}

impl PairRows {
    /// Lists the images. `captioned`: whether their captions are read.
    pub(super) fn open(folder: &Location, captioned: bool) -> Result<Self, Error> {
        let (mut images, canonical) = match folder {
            Location::Local(path) => (list(path)?, path.canonicalize().map_err(Error::file("read", path))?),
            Location::Remote(_) => (list_remote(folder)?, PathBuf::new()),
        };
        if images.is_empty() {
            return Err(Error::input(
                folder,
                "no images (jpg, png, webp, gif, bmp, tiff) in this folder; for a folder of tables give --images",
            ));
        }
        images.sort();
        let total = images.len() as u64;
        Ok(Self { folder: folder.clone(), canonical, images: images.into_iter(), total, captioned })
    }

    /// The caption of an image, or why it has none.
    fn caption(&self, image: &Path) -> (Option<String>, Option<Problem>) {
        let file = self.folder.join(image.with_extension("txt"));
        let read = match &file {
            Location::Local(path) => self.read_inside(path),
            Location::Remote(_) => read_remote(&file),
        };
        match read {
            Ok(bytes) => {
                let (caption, valid) = text(without_byte_order_mark(&bytes).trim_ascii());
                (Some(caption), (!valid).then(|| Problem::read("caption is not UTF-8")))
            }
            Err(cause) => (None, Some(Problem::read(cause))),
        }
    }

    /// Reads a local caption file, or says why not. A link must not be able to copy another file of this machine into the dataset.
    fn read_inside(&self, path: &Path) -> Result<Vec<u8>, &'static str> {
        let cause = |error: io::Error| match error.kind() {
            ErrorKind::NotFound => NO_CAPTION,
            ErrorKind::InvalidInput => "caption file is not a regular file",
            ErrorKind::FileTooLarge => LARGE_CAPTION,
            _ => UNREADABLE_CAPTION,
        };
        let real = path.canonicalize().map_err(cause)?;
        if !real.starts_with(&self.canonical) {
            return Err("caption file is a link out of the image folder");
        }
        read_regular(&real, MAX_CAPTION_BYTES).map_err(cause)
    }
}

/// The images in a folder and its subfolders, relative to it. What is hidden is left out.
fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut images = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(inside) = folders.pop() {
        let path = folder.join(&inside);
        for entry in fs::read_dir(&path).map_err(Error::file("read", &path))? {
            let entry = entry.map_err(Error::file("read", &path))?;
            let relative = inside.join(entry.file_name());
            if is_hidden_entry(&relative) {
                continue;
            }
            // Symbolic links to folders are not followed, because they may form a cycle.
            if entry.file_type().map_err(Error::file("read", &path))?.is_dir() {
                folders.push(relative);
            } else if is_image(&relative) {
                images.push(relative);
            }
        }
    }
    Ok(images)
}

/// The same in a store.
fn list_remote(folder: &Location) -> Result<Vec<PathBuf>, Error> {
    let files = storage::list_all(folder)?;
    let relative = files.iter().filter_map(|file| file.relative_to(folder));
    let shown = |path: &PathBuf| !path.iter().any(|part| is_hidden_entry(Path::new(part)));
    Ok(relative.filter(|path| shown(path) && is_image(path)).collect())
}

const NO_CAPTION: &str = "no caption file (.txt with the same name)";
const LARGE_CAPTION: &str = "caption file is larger than 1 MiB";
const UNREADABLE_CAPTION: &str = "caption file cannot be read";

/// The same at an address.
fn read_remote(file: &Location) -> Result<Vec<u8>, &'static str> {
    let cause = |error: storage::Error| {
        if storage::is_missing(&error) { NO_CAPTION } else { UNREADABLE_CAPTION }
    };
    let file = storage::Source::open(file).map_err(cause)?;
    if file.len() > MAX_CAPTION_BYTES {
        return Err(LARGE_CAPTION);
    }
    Ok(file.read(0, file.len()).map_err(cause)?.to_vec())
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    EXTENSIONS.contains(&extension.as_str()) || UNREAD_EXTENSIONS.contains(&extension.as_str())
}

impl Rows for PairRows {
    fn extra(&self) -> &[Extra] {
        &[]
    }

    fn captioned(&self) -> bool {
        self.captioned
    }

    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        let Some(image) = self.images.next() else { return Ok(None) };
        let (caption, problem) = if self.captioned { self.caption(&image) } else { (None, None) };
        let Some(url) = image.to_str() else {
            let url = image.to_string_lossy().into_owned();
            let problem = Some(Problem::read("file name is not UTF-8"));
            return Ok(Some(Row { url, caption, problem, ..Row::default() }));
        };
        Ok(Some(Row { url: url.to_owned(), caption, problem, ..Row::default() }))
    }

    fn total(&self) -> Option<u64> {
        Some(self.total)
    }
}
