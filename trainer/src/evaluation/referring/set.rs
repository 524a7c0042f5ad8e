//! Expressions with what they mean in images.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::regions::Target;
use crate::error::{Error, Result};

/// An expression about an image.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Number of its image in [`ReferringSet::images`].
    pub image: usize,
    /// How the data set numbers it: a line or an id, for errors and results.
    pub id: String,
    /// The expression.
    pub text: String,
    /// What it means.
    pub target: Target,
    /// The groups of which scores are given, too.
    pub groups: Vec<String>,
}

/// Images with expressions.
#[derive(Debug)]
pub struct ReferringSet {
    /// Name for `--dataset`.
    pub name: String,
    /// Name in texts.
    pub title: String,
    /// The split; empty for a folder.
    pub split: String,
    /// The file with the expressions.
    pub path: PathBuf,
    /// The images.
    pub images: Vec<PathBuf>,
    /// The expressions, those of an image one after the other.
    pub samples: Vec<Sample>,
    /// Images and masks that do not exist.
    pub missing: Vec<PathBuf>,
}

impl ReferringSet {
    /// With these expressions, sorted by image; looks for the files. The number of an image in a sample is its place in `images`.
    ///
    /// # Errors
    /// There is no expression.
    pub(super) fn new(
        (name, title, split): (&str, &str, &str),
        path: &Path,
        images: Vec<PathBuf>,
        mut samples: Vec<Sample>,
    ) -> Result<Self> {
        if samples.is_empty() {
            return Err(Error::Invalid { path: path.to_owned(), problem: "has no expressions".to_owned() });
        }
        samples.sort_by_key(|sample| sample.image);
        let mut files = images.clone();
        for sample in &samples {
            if let Target::Values { path, .. } = &sample.target {
                files.push(path.clone());
            }
        }
        files.sort();
        files.dedup();
        let found = storage::existing(files.clone())?;
        let missing =
            files.into_iter().zip(found).filter(|(_, exists)| !exists).map(|(file, _)| file).collect();
        Ok(Self {
            name: name.to_owned(),
            title: title.to_owned(),
            split: split.to_owned(),
            path: path.to_owned(),
            images,
            samples,
            missing,
        })
    }

    /// An error with the first missing file if the set is not complete.
    pub fn check_complete(&self) -> Result<()> {
        let Some(first) = self.missing.first() else { return Ok(()) };
        let others = self.missing.len() - 1;
        let problem = format!("is missing, and {others} more files of {}; --check lists them", self.title);
        Err(Error::Invalid { path: first.clone(), problem })
    }

    /// Keeps only the first images.
    pub fn truncate(&mut self, images: usize) {
        self.images.truncate(images.max(1));
        self.samples.retain(|sample| sample.image < self.images.len());
    }

    /// An error about a sample.
    pub fn invalid(&self, sample: &Sample, problem: &str) -> Error {
        let problem = format!("expression {} {:?} {problem}", sample.id, sample.text);
        Error::Invalid { path: self.path.clone(), problem }
    }
}

/// Numbers images in the order in which they are first named.
#[derive(Debug, Default)]
pub(super) struct Images {
    numbers: BTreeMap<PathBuf, usize>,
    pub(super) paths: Vec<PathBuf>,
}

impl Images {
    pub(super) fn number(&mut self, path: PathBuf) -> usize {
        *self.numbers.entry(path).or_insert_with_key(|path| {
            self.paths.push(path.clone());
            self.paths.len() - 1
        })
    }
}
