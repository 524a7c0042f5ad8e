//! Which columns of an input hold the URL (or file), the caption and the additional columns.

use storage::Location;

use super::{Extra, Kind};
use crate::error::Error;

/// Where the images are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// At URLs.
    Web,
    /// In a folder.
    Local,
    /// Nowhere: only the captions are needed.
    Nowhere,
}

/// The columns that the command line asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Decides which column names are tried by default.
    pub place: Where,
    /// Column of URLs or files; None tries the usual names.
    pub url: Option<String>,
    /// Column of captions; None tries the usual names.
    pub caption: Option<String>,
    /// Whether the dataset is to have no captions.
    pub no_captions: bool,
    /// Additional columns, copied into the output.
    pub extra: Vec<String>,
    /// Column of the expected hashes of the image files.
    pub hash: Option<String>,
    /// Column of boxes to blur, one of `extra`.
    pub boxes: Option<String>,
    /// Splits of Karpathy's file to read; all if empty.
    pub splits: Vec<String>,
}

/// Output columns, whose names additional columns must not have.
pub const RESERVED: [&str; 22] = [
    "key",
    "caption",
    "url",
    "width",
    "height",
    "original_width",
    "original_height",
    "status",
    "error_message",
    "exif",
    "md5",
    "sha256",
    "sha512",
    "offset",
    "length",
    "final_url",
    "fetched",
    "etag",
    "last_modified",
    "opt_outs",
    "url_sha256",
    "caption_sha256",
];

/// Positions of the columns in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// None when no images are needed.
    pub(super) url: Option<usize>,
    pub(super) caption: Option<usize>,
    pub(super) extra: Vec<usize>,
}

impl Wanted {
    fn usual_urls(&self) -> &'static [&'static str] {
        match self.place {
            // The last is SBU's.
            Where::Web => &["url", "image_url", "image_urls"],
            Where::Nowhere => &[],
            Where::Local => &["file", "file_name", "filename", "image", "image_path", "filepath", "path"],
        }
    }

    fn extra_option(&self) -> &'static str {
        match self.place {
            Where::Nowhere => "--key-col",
            _ => "--save-additional-columns",
        }
    }

    /// The last is WIT's: the text below the image on the page.
    const USUAL_CAPTIONS: &'static [&'static str] =
        &["caption", "captions", "text", "caption_reference_description"];

    /// Finds the columns among `names`: an exact match first, then one that ignores case.
    pub(super) fn find(&self, path: &Location, names: &[String]) -> Result<Found, Error> {
        let url = |what, option| {
            Self::column(path, names, self.url.as_deref(), self.usual_urls(), what, option).map(Some)
        };
        let url = match self.place {
            Where::Web => url("URLs", "--url-col")?,
            Where::Local => url("files", "--file-col")?,
            Where::Nowhere => None,
        };
        let caption = if self.no_captions {
            None
        } else {
            let given = self.caption.as_deref();
            let option = match self.place {
                Where::Nowhere => "--caption-col",
                _ => "--caption-col (or --no-captions)",
            };
            Some(Self::column(path, names, given, Self::USUAL_CAPTIONS, "captions", option)?)
        };
        let extra = self
            .extra
            .iter()
            .map(|name| Self::column(path, names, Some(name), &[], "", self.extra_option()))
            .collect::<Result<_, _>>()?;
        Ok(Found { url, caption, extra })
    }

    fn column(
        path: &Location,
        names: &[String],
        given: Option<&str>,
        usual: &[&str],
        what: &str,
        option: &str,
    ) -> Result<usize, Error> {
        let candidates = given.as_ref().map_or(usual, std::slice::from_ref);
        let exact = |wanted: &&str| names.iter().position(|name| name == wanted);
        let any_case = |wanted: &&str| names.iter().position(|name| name.eq_ignore_ascii_case(wanted));
        let found = candidates.iter().find_map(exact).or_else(|| candidates.iter().find_map(any_case));
        found.ok_or_else(|| Error::Column {
            path: path.to_owned(),
            wanted: given.map_or(format!("column of {what}"), |name| format!("column {name:?}")),
            columns: names.to_vec(),
            fix: format!("choose one of them with {option}"),
        })
    }

    /// The additional columns of untyped inputs.
    pub(super) fn extra_text(&self) -> Vec<Extra> {
        self.extra.iter().map(|name| Extra { name: name.clone(), kind: Kind::Text }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            place: Where::Web,
            url: None,
            caption: None,
            no_captions: false,
            extra: Vec::new(),
            hash: None,
            boxes: None,
            splits: Vec::new(),
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn the_usual_names_are_found_in_any_case() {
        let found = wanted().find(&"x.parquet".into(), &names(&["SAMPLE_ID", "URL", "TEXT"])).unwrap();
        assert_eq!(found, Found { url: Some(1), caption: Some(2), extra: vec![] });
    }

    #[test]
    fn the_error_for_a_missing_column_lists_the_existing_columns() {
        let mut wanted = wanted();
        wanted.caption = Some("alt".to_owned());
        let error = wanted.find(&"x.csv".into(), &names(&["url", "title"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "x.csv has no column \"alt\"; its columns are url, title: \
             choose one of them with --caption-col (or --no-captions)"
        );
    }
}
