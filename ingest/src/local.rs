//! `ingest shard`: images in a folder to shards.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use storage::Location;

use crate::dataset::Dataset;
use crate::dataset::Part;
use crate::error::Error;
use crate::pipeline::Totals;
use crate::pipeline::{self, Plan, Resources, Source, Task, Work, Workers};
use crate::problem::Problem;
use crate::rows::Input;

/// Queued rows per worker: enough that no worker waits, few enough that Ctrl-C takes effect quickly.
const QUEUE: usize = 4;

/// A folder of images, on disk or in a store. Rows give paths relative to it.
pub struct Folder {
    folder: Location,
    /// The path of a local folder with symbolic links resolved.
    canonical: Option<PathBuf>,
    max_bytes: u64,
}

impl Folder {
    /// `max_bytes` is the maximum size of an image file.
    pub fn open(folder: &Location, max_bytes: u64) -> Result<Self, Error> {
        let mut canonical = None;
        if let Location::Local(path) = folder {
            let path = path.canonicalize().map_err(Error::file("read", folder))?;
            if !path.is_dir() {
                return Err(Error::input(folder, "not a folder"));
            }
            canonical = Some(path);
        }
        Ok(Self { folder: folder.clone(), canonical, max_bytes })
    }

    /// Makes the shards of `dataset` from the folder's images.
    pub fn shard(&self, input: &Input, dataset: &Dataset, resources: &Resources) -> Result<Totals, Error> {
        let inspected = input.inspect()?;
        dataset.claim(&json!({ "command": "shard", "from": inspected.description }))?;
        let plan = Plan {
            what: "packing",
            total: inspected.rows.filter(|_| dataset.part == Part::ALL).unwrap_or(0),
            threads: resources.threads,
            queue: Some(QUEUE * resources.threads),
            watch: resources.watch(Arc::default())?,
            deny: None,
            idle: &|| false,
        };
        let totals = pipeline::run(dataset, &plan, Work::Inputs(&|| input.open()), &mut |task, workers| {
            self.submit(task, workers);
            Ok(())
        })?;
        totals.require_rows(&input.path(), dataset)
    }

    fn submit(&self, task: Task, workers: &Workers) {
        let source = match self.find(&task.row.url) {
            Ok(path) => Source::File(path, self.max_bytes),
            Err(problem) => Source::Failed(problem),
        };
        workers.submit(task, source);
    }

    /// The file that a row refers to, by a path relative to the image folder or by its full path. A table from elsewhere
    /// must not be able to copy other files of this machine into a dataset, neither by its paths nor by symbolic links in
    /// the image folder.
    fn find(&self, file: &str) -> Result<Location, Problem> {
        let outside = || Problem::read("path is outside the image folder");
        let path = Path::new(file);
        let relative = match &self.canonical {
            Some(canonical) if path.is_absolute() => {
                let inside = Location::from(file).relative_to(&self.folder);
                inside.or_else(|| Some(path.strip_prefix(canonical).ok()?.to_owned())).ok_or_else(outside)?
            }
            None if path.is_absolute() => return Err(outside()),
            _ => path.to_owned(),
        };
        let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if !relative.components().all(inside) {
            return Err(outside());
        }
        let place = self.folder.join(relative);
        let (Location::Local(path), Some(canonical)) = (&place, &self.canonical) else { return Ok(place) };
        match path.canonicalize() {
            Ok(real) if real.starts_with(canonical) => Ok(real.into()),
            Ok(_) => Err(outside()),
            // Reading the file will fail and give the cause.
            Err(_) => Ok(place),
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
        let folder = Folder::open(&images.as_path().into(), 1 << 20).unwrap();
        assert!(folder.find("sub/a.jpg").is_ok());
        assert!(folder.find("./sub/a.jpg").is_ok());
        assert!(folder.find("missing.jpg").is_ok(), "reading it reports that it is missing");
        let full = |path: &str| images.join(path).to_str().unwrap().to_owned();
        assert!(folder.find(&full("sub/a.jpg")).is_ok(), "a full path inside the folder");
        for outside in [
            full("../secret.jpg").as_str(),
            full("link.jpg").as_str(),
            "../secret.jpg",
            "sub/../../secret.jpg",
            "/etc/passwd",
            "link.jpg",
        ] {
            assert_eq!(
                folder.find(outside).unwrap_err().cause,
                "path is outside the image folder",
                "{outside}"
            );
        }
    }
}
