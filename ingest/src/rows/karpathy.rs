//! Karpathy's split files for COCO and Flickr30k (`dataset_coco.json`, `dataset_flickr30k.json`): an object with a list `images`,
//! each with its file, its split (train, restval, val or test) and its `sentences`. One row per sentence.

use serde::Deserialize;
use serde_json::{Map, Value};
use storage::Location;

use super::{Extra, ImageRows, Row, Rows, Wanted, document};
use crate::error::Error;

#[derive(Deserialize)]
struct KarpathyFile {
    images: Vec<Image>,
}

#[derive(Deserialize)]
struct Image {
    #[serde(default)]
    sentences: Vec<Sentence>,
    /// `filename`, `filepath`, `split`, `cocoid` and others.
    #[serde(flatten)]
    fields: Map<String, Value>,
}

#[derive(Deserialize)]
struct Sentence {
    /// The caption as it was written; `tokens` are without punctuation.
    raw: String,
}

pub(super) struct KarpathyRows {
    rows: std::iter::Flatten<std::vec::IntoIter<ImageRows>>,
    total: u64,
    extra: Vec<Extra>,
}

/// The error for `--split` with another kind of input.
pub(super) fn no_splits(path: &Location) -> Error {
    Error::Usage(format!(
        "{}: --split is for Karpathy's file, a .json with a list \"images\"",
        path.display()
    ))
}

impl KarpathyRows {
    pub(super) fn open(path: &Location, wanted: &Wanted) -> Result<Self, Error> {
        let file: KarpathyFile = loader::json::parse(&document::whole(path)?)
            .map_err(|error| Error::input(path, format!("not Karpathy's file of splits: {error}")))?;
        if file.images.iter().all(|image| image.sentences.is_empty()) {
            let problem = "its images have no \"sentences\", and there is no list \"annotations\": it is neither a COCO captions \
                           file nor Karpathy's";
            return Err(Error::input(path, problem));
        }
        let text = |image: &Image, key: &str| {
            image.fields.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let mut known: Vec<String> = file.images.iter().map(|image| text(image, "split")).collect();
        known.sort();
        known.dedup();
        if let Some(missing) = wanted.splits.iter().find(|split| !known.contains(split)) {
            let known = known.join(", ");
            return Err(Error::Usage(format!(
                "{} has no split {missing}; its splits are {known}",
                path.display()
            )));
        }
        let extra = wanted.extra_text();
        let name = wanted.url.as_deref().unwrap_or("filename");
        let (mut rows, mut total) = (Vec::new(), 0);
        for mut image in file.images {
            if !wanted.splits.is_empty() && !wanted.splits.contains(&text(&image, "split")) {
                continue;
            }
            // Of COCO the folder, `val2014`; Flickr30k has none.
            let (folder, file) = (text(&image, "filepath"), text(&image, name));
            let file = if folder.is_empty() || file.is_empty() { file } else { format!("{folder}/{file}") };
            let sentences = std::mem::take(&mut image.sentences);
            let captions =
                sentences.into_iter().map(|sentence| Some(sentence.raw.trim().to_owned())).collect();
            let extra = extra
                .iter()
                .map(|column| image.fields.get(&column.name).cloned().unwrap_or_default())
                .collect();
            let image = ImageRows::new(Row { url: file, extra, ..Row::default() }, captions);
            total += image.len() as u64;
            rows.push(image);
        }
        Ok(Self { total, rows: rows.into_iter().flatten(), extra })
    }
}

impl Rows for KarpathyRows {
    fn extra(&self) -> &[Extra] {
        &self.extra
    }

    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        Ok(self.rows.next())
    }

    fn total(&self) -> Option<u64> {
        Some(self.total)
    }
}
