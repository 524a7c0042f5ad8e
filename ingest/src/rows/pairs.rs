//! A folder of images, each with its caption in a `.txt` file of the same name in the same folder.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use concepts::foreign_files::{is_apple_double, without_byte_order_mark};
use loader::source;

use super::{Extra, Row, Rows, text};
use crate::error::Error;
use crate::sample::Problem;

/// Extensions of the images that are looked for.
const EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "webp", "gif", "avif", "heic", "heif"];

pub(super) struct PairRows {
    folder: PathBuf,
    /// Paths relative to the folder, in sorted order.
    images: std::vec::IntoIter<PathBuf>,
    total: u64,
    captioned: bool,
}

impl PairRows {
    /// Lists the images. `captioned`: whether their captions are read.
    pub(super) fn open(folder: &Path, captioned: bool) -> Result<Self, Error> {
        let mut images = Vec::new();
        if source::is_remote(folder) {
            for path in source::list_all(folder)? {
                let relative = path.strip_prefix(folder).unwrap_or(&path);
                if !relative.iter().any(|part| is_apple_double(Path::new(part))) && is_image(relative) {
                    images.push(relative.to_owned());
                }
            }
        }
        let mut folders = if source::is_remote(folder) { Vec::new() } else { vec![PathBuf::new()] };
        while let Some(inside) = folders.pop() {
            let path = folder.join(&inside);
            for entry in fs::read_dir(&path).map_err(Error::file("read", &path))? {
                let entry = entry.map_err(Error::file("read", &path))?;
                let relative = inside.join(entry.file_name());
                if is_apple_double(&relative) {
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
        if images.is_empty() {
            return Err(Error::input(
                folder,
                "no images (jpg, png, webp, gif) in this folder; for a folder of tables give --images",
            ));
        }
        images.sort();
        let total = images.len() as u64;
        Ok(Self { folder: folder.to_owned(), images: images.into_iter(), total, captioned })
    }

    /// The caption of an image, or why it has none.
    fn caption(&self, image: &Path) -> (Option<String>, Option<Problem>) {
        let path = self.folder.join(image).with_extension("txt");
        let read = if source::is_remote(&path) {
            match source::read(&path) {
                Ok(bytes) => Ok(bytes.to_vec()),
                Err(error) if source::is_missing(&error) => Err(ErrorKind::NotFound.into()),
                Err(error) => Err(io::Error::other(error)),
            }
        } else {
            fs::read(path)
        };
        match read {
            Ok(bytes) => {
                let (caption, valid) = text(without_byte_order_mark(&bytes).trim_ascii());
                (Some(caption), (!valid).then(|| Problem::read("caption is not UTF-8")))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                (None, Some(Problem::read("no caption file (.txt with the same name)")))
            }
            Err(_) => (None, Some(Problem::read("caption file cannot be read"))),
        }
    }
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    EXTENSIONS.contains(&extension.as_str())
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
