//! The layout for one's own expressions: `expressions.jsonl`, one JSON object a line, with paths relative to its folder:
//!
//! ```text
//! {"image": "images/000000.jpg", "mask": "instances/000000.png", "values": [3], "expression": "the red crate", "kind": "name"}
//! ```
//!
//! The expression means the pixels of `mask` (one channel of up to 8 bits) that have one of `values`. Without values it means nothing in
//! the image, and `mask` may be null. `kind` may be left out.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::regions::Target;
use super::set::{Images, ReferringSet, Sample};
use crate::error::{Error, Result};

/// The file with the expressions.
const FILE: &str = "expressions.jsonl";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    image: PathBuf,
    mask: Option<PathBuf>,
    values: Vec<u8>,
    expression: String,
    kind: Option<String>,
}

/// Opens a folder, or the file of expressions itself.
pub(super) fn open(folder: &Path) -> Result<ReferringSet> {
    let is_file = folder.extension().is_some_and(|extension| extension == "jsonl");
    let path = if is_file { folder.to_owned() } else { folder.join(FILE) };
    let root = path.parent().unwrap_or(Path::new(""));
    let text = storage::read_text(&path)?;
    let (mut images, mut samples) = (Images::default(), Vec::new());
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let invalid = |problem: String| Error::Invalid {
            path: path.clone(),
            problem: format!("line {}: {problem}", number + 1),
        };
        let line: Line =
            serde_json::from_str(line).map_err(|e| invalid(format!("is not an expression: {e}")))?;
        if line.expression.trim().is_empty() {
            return Err(invalid("has an empty expression".to_owned()));
        }
        let target = match (line.mask, line.values) {
            (_, values) if values.is_empty() => Target::nothing(),
            (Some(mask), values) => Target::Values { path: root.join(mask), values },
            (None, _) => return Err(invalid("has values but no mask".to_owned())),
        };
        samples.push(Sample {
            image: images.number(root.join(line.image)),
            id: (number + 1).to_string(),
            text: line.expression,
            target,
            groups: line.kind.into_iter().collect(),
        });
    }
    let title = root.file_name().unwrap_or(root.as_os_str()).to_string_lossy().into_owned();
    ReferringSet::new(("folder", &title, ""), &path, images.paths, samples)
}
