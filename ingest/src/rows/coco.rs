//! COCO captions files: an object with a list `images` (id, file_name, ..) and a list `annotations` (image_id, caption,
//! ..). One row per caption, in the order of the annotations.

use std::collections::HashMap;
use std::io::Read;

use serde::Deserialize;
use serde_json::{Map, Value};
use storage::Location;

use super::{Extra, Row, Rows, Wanted, Where, document, reader};
use crate::error::Error;
use crate::problem::Problem;

#[derive(Deserialize)]
struct CocoFile {
    images: Vec<Map<String, Value>>,
    annotations: Vec<Map<String, Value>>,
}

pub(super) struct CocoRows {
    /// By image id; ids are compared as JSON text, because some datasets have text ids.
    images: HashMap<String, Map<String, Value>>,
    annotations: std::vec::IntoIter<Map<String, Value>>,
    total: u64,
    url: String,
    extra: Vec<Extra>,
    /// Whether only the captions are needed, not the images.
    captions_only: bool,
}

/// Whether the file is an object with the key "images" or "annotations" near its start (the official files begin with
/// "info").
pub(super) fn is_coco(path: &Location, wanted: &Wanted) -> Result<bool, Error> {
    if wanted.place == Where::Web && wanted.url.is_none() {
        return Ok(false);
    }
    let mut start = Vec::new();
    reader(path)?.take(1 << 16).read_to_end(&mut start).map_err(Error::file("read", path))?;
    let start = String::from_utf8_lossy(&start);
    let start = start.trim_start();
    let keys = ["\"images\"", "\"annotations\""];
    Ok(start.starts_with('{')
        && (keys.iter().any(|key| start.contains(key)) || start.starts_with("{\"info\"")))
}

impl CocoRows {
    pub(super) fn open(path: &Location, wanted: &Wanted) -> Result<Self, Error> {
        let document = document::whole(path)?;
        let file: CocoFile = loader::json::parse(&document)
            .map_err(|error| Error::input(path, format!("not a COCO captions file: {error}")))?;
        drop(document);
        let url = wanted.url.clone().unwrap_or_else(|| "file_name".to_owned());
        let images: HashMap<_, _> = file
            .images
            .into_iter()
            .filter_map(|image| image.get("id").map(ToString::to_string).map(|id| (id, image)))
            .collect();
        if let Some(first) = file.annotations.first()
            && !first.contains_key("caption")
        {
            let problem =
                "its annotations have no \"caption\": use the captions_*.json of COCO, not instances_*.json";
            return Err(Error::input(path, problem));
        }
        let total = file.annotations.len() as u64;
        let annotations = file.annotations.into_iter();
        let captions_only = wanted.place == Where::Nowhere;
        Ok(Self { images, annotations, total, url, extra: wanted.extra_text(), captions_only })
    }
}

impl Rows for CocoRows {
    fn extra(&self) -> &[Extra] {
        &self.extra
    }

    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        let Some(annotation) = self.annotations.next() else { return Ok(None) };
        let image = annotation.get("image_id").and_then(|id| self.images.get(&id.to_string()));
        let mut problem = None;
        let url = image.and_then(|image| image.get(&self.url)).and_then(Value::as_str).map(str::to_owned);
        if url.is_none() && !self.captions_only {
            problem = Some(Problem::read("the annotation's image is not in the file"));
        }
        let caption = annotation.get("caption").and_then(Value::as_str).map(|text| text.trim().to_owned());
        let value = |name: &str| annotation.get(name).or_else(|| image.and_then(|image| image.get(name)));
        let extra =
            self.extra.iter().map(|column| value(&column.name).cloned().unwrap_or_default()).collect();
        Ok(Some(Row { url: url.unwrap_or_default(), caption, extra, problem, ..Row::default() }))
    }

    fn total(&self) -> Option<u64> {
        Some(self.total)
    }
}
