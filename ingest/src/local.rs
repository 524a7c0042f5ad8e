//! `ingest shard`: pictures in a folder to shards.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use crate::error::Error;
use crate::input::Input;
use crate::part::Part;
use crate::pipeline::{self, Plan, Source, Task, Workers};
use crate::sample::Problem;
use crate::set::Set;
use crate::stats::Totals;

/// Rows that wait for each worker: enough that none starves, few enough that Ctrl-C is quick.
const QUEUE: usize = 4;

/// A folder of pictures that rows name by paths relative to it.
pub struct Folder {
    path: PathBuf,
    /// The same, with links resolved.
    canonical: PathBuf,
    max_bytes: u64,
}

impl Folder {
    /// `max_bytes` bounds the size of a picture's file.
    pub fn open(path: &Path, max_bytes: u64) -> Result<Self, Error> {
        let canonical = path.canonicalize().map_err(Error::file("read", path))?;
        if !canonical.is_dir() {
            return Err(Error::input(path, "not a folder"));
        }
        Ok(Self { path: path.to_owned(), canonical, max_bytes })
    }

    /// Makes the shards of `set` from the folder's pictures.
    pub fn shard(&self, input: &Input, set: &Set) -> Result<Totals, Error> {
        let looked = input.look()?;
        set.claim(&json!({ "command": "shard", "from": looked.description }))?;
        let plan = Plan {
            what: "packing",
            total: looked.rows.filter(|_| set.part == Part::ALL).unwrap_or(0),
            shards: None,
            queue: Some(QUEUE * set.threads),
            watch: set.watch(Arc::default())?,
        };
        let totals = pipeline::run(set, &plan, &mut input.open(), &mut |task, workers| {
            self.submit(task, workers);
            Ok(())
        })?;
        totals.refuse_nothing(input.path(), set)
    }

    fn submit(&self, task: Task, workers: &Workers) {
        let source = match self.find(&task.row.url) {
            Ok(path) => Source::File(path, self.max_bytes),
            Err(problem) => Source::Failed(problem),
        };
        workers.submit(task, source);
    }

    /// The file that a row means. A table from elsewhere must not pull other files of this machine into a set, neither
    /// by its paths nor by links that came with the pictures.
    fn find(&self, file: &str) -> Result<PathBuf, Problem> {
        let leaves = || Problem::read("path leaves the image folder");
        let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if !Path::new(file).components().all(inside) {
            return Err(leaves());
        }
        let path = self.path.join(file);
        match path.canonicalize() {
            Ok(real) if real.starts_with(&self.canonical) => Ok(real),
            Ok(_) => Err(leaves()),
            // The reader finds out why, and says so.
            Err(_) => Ok(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn paths_stay_in_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let images = root.path().join("images");
        fs::create_dir_all(images.join("sub")).unwrap();
        fs::write(root.path().join("secret.jpg"), b"x").unwrap();
        fs::write(images.join("sub/a.jpg"), b"x").unwrap();
        std::os::unix::fs::symlink(root.path().join("secret.jpg"), images.join("link.jpg")).unwrap();
        let folder = Folder::open(&images, 1 << 20).unwrap();
        assert!(folder.find("sub/a.jpg").is_ok());
        assert!(folder.find("./sub/a.jpg").is_ok());
        assert!(folder.find("missing.jpg").is_ok(), "reading it says that it is missing");
        for outside in ["../secret.jpg", "sub/../../secret.jpg", "/etc/passwd", "link.jpg"] {
            assert_eq!(folder.find(outside).unwrap_err().cause, "path leaves the image folder", "{outside}");
        }
    }
}
