//! The options of `trainer eval segmentation` for class names of the user, or of the authors of a protocol.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use trainer::evaluation::SegmentationDataset;
use trainer::evaluation::protocol::Protocol;
use trainer::inference::classes::{self, Class};
use trainer::{Error, Result};

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// Use these class names instead of those of the dataset, in the same order, separated by commas; `cat|kitten` is one class with
    /// two names, `name = prompt | prompt` shows one name and uses others in the prompts.
    #[arg(long, value_name = "LIST", conflicts_with = "class_file")]
    classes: Option<String>,
    /// The same from a file with one class per line. With a protocol that needs one: the list of its authors, as they publish it.
    #[arg(long, value_name = "FILE")]
    class_file: Option<PathBuf>,
}

impl NameArgs {
    /// Which names are given, for results.
    pub(super) fn given(&self) -> Option<Value> {
        match (&self.class_file, &self.classes) {
            (Some(path), _) => Some(json!(path)),
            (None, list) => list.as_ref().map(|list| json!(list)),
        }
    }

    /// An error if a protocol has class names that others replace, or needs a list of names.
    pub(super) fn check(&self, protocol: Option<&Protocol>) -> Result<()> {
        let Some(protocol) = protocol else { return Ok(()) };
        let given = [("--classes", self.classes.is_some()), ("--class-file", self.class_file.is_some())];
        let needed = protocol.separator.map(|_| "--class-file");
        if let Some((option, _)) = given.iter().find(|(option, given)| *given && Some(*option) != needed) {
            let problem = format!(
                "replaces the class names that --protocol {} fixes; leave out one of both",
                protocol.name
            );
            return Err(Error::Setting { name: (*option).to_owned(), problem });
        }
        match protocol.separator.filter(|_| self.class_file.is_none()) {
            Some(separator) => Err(Error::Usage(format!(
                "--protocol {} needs --class-file: the list of names of its authors for this dataset (configs/cls_*.txt in their \
                 repository), one class per line with names separated by {separator:?}",
                protocol.name
            ))),
            None => Ok(()),
        }
    }

    /// The classes that are given for a dataset.
    pub(super) fn read(
        &self,
        set: &SegmentationDataset,
        protocol: Option<&Protocol>,
    ) -> Result<Option<Vec<Class>>> {
        let Some(classes) = self.list(protocol.and_then(|protocol| protocol.separator))? else {
            return Ok(None);
        };
        let (found, expected) = (classes.len(), set.classes.len());
        if found != expected {
            let source =
                self.class_file.as_ref().map_or("--classes".to_owned(), |path| path.display().to_string());
            let problem = format!("{source} has {found} classes, but {} has {expected}", set.title);
            return Err(Error::Usage(problem));
        }
        // With a protocol, results show the names of the dataset.
        Ok(Some(if protocol.is_some() { classes::renamed(classes, &set.classes) } else { classes }))
    }

    /// The classes of `--class-file`, whose names of a class may be separated as in the lists of a protocol, or `--classes`.
    fn list(&self, separator: Option<&str>) -> Result<Option<Vec<Class>>> {
        match (&self.class_file, &self.classes) {
            (Some(path), _) => match separator {
                Some(separator) => classes::read_separated(path, separator).map(Some),
                None => classes::read(path).map(Some),
            },
            // The former meaning of this option, which still works.
            (None, Some(list)) if Path::new(list).is_file() || storage::Location::from(list).is_remote() => {
                classes::read(Path::new(list)).map(Some)
            }
            (None, Some(list)) => match classes::checked(classes::parse(&list.replace(',', "\n"))) {
                Ok(classes) => Ok(Some(classes)),
                Err(problem) => Err(Error::Setting { name: "--classes".to_owned(), problem }),
            },
            (None, None) => Ok(None),
        }
    }
}
