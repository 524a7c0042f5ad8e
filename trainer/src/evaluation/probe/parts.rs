//! The folder of a probe. Work is done in parts of some images, each of which leaves a file: an interrupted probe continues with those that
//! are missing, and several processes share them.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::distributed::Group;
use crate::error::{Error, Result, reading, writing};

/// What all files of the folder were made from.
const SOURCE: &str = "source.json";

/// The parts of a probe.
#[derive(Debug)]
pub struct Parts<'a> {
    folder: &'a Path,
    /// Images per part.
    size: usize,
    group: &'a Group,
}

impl<'a> Parts<'a> {
    /// In a folder, which is made if it does not exist. `source`: all that the result depends on, with names for people.
    ///
    /// # Errors
    /// The folder has files of a probe of something else.
    pub fn open(folder: &'a Path, source: &Value, size: usize, group: &'a Group) -> Result<Self> {
        let path = folder.join(SOURCE);
        let parts = Self { folder, size: size.max(1), group };
        let text = serde_json::to_vec_pretty(source).map_err(|e| writing(&path)(e.into()))?;
        if group.is_first() && !path.exists() {
            fs::create_dir_all(folder).map_err(writing(folder))?;
            disk::files::write_atomic(&path, &text).map_err(writing(&path))?;
        }
        parts.wait()?;
        let invalid = |problem: String| Error::Invalid { path: path.clone(), problem };
        let parse = |text: &[u8]| -> Result<Value> {
            serde_json::from_slice(text)
                .map_err(|e| invalid(format!("is damaged: {e}; choose another --out, or remove the folder")))
        };
        // By way of text, in which numbers may lose a bit.
        let (source, found) = (parse(&text)?, parse(&fs::read(&path).map_err(reading(&path))?)?);
        let mut keys = source.as_object().into_iter().flat_map(|source| source.keys());
        match keys.find(|&key| found[key] != source[key]) {
            None => Ok(parts),
            Some(key) => Err(invalid(format!(
                "was made with the {key} {}, but now it is {}; choose another --out, or remove the folder",
                found[key], source[key]
            ))),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder
    }

    /// Whether this is the process that does what only one can.
    pub fn is_first(&self) -> bool {
        self.group.is_first()
    }

    /// Waits until all processes are here.
    pub fn wait(&self) -> Result<()> {
        self.group.gather_numbers(&[]).map(drop)
    }

    /// All parts of `count` images: the images, and the file NAME-NNNNN.EXTENSION.
    pub fn all(&self, name: &str, extension: &str, count: usize) -> Vec<(Range<usize>, PathBuf)> {
        let starts = (0..count).step_by(self.size).enumerate();
        let file = |number: usize| self.folder.join(format!("{name}-{number:05}.{extension}"));
        starts.map(|(number, start)| (start..(start + self.size).min(count), file(number))).collect()
    }

    /// Those of them that this process has to make.
    pub fn to_do(&self, name: &str, extension: &str, count: usize) -> Vec<(Range<usize>, PathBuf)> {
        let own = self.all(name, extension, count).into_iter().skip(self.group.rank());
        own.step_by(self.group.world()).filter(|(_, path)| !path.exists()).collect()
    }
}
