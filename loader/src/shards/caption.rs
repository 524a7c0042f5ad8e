//! The captions of a sample as they are stored, and which of them is used: a function of the seed, the epoch and the sample only.

use std::borrow::Cow;

use concepts::sidecar::CaptionCheck;

use crate::error::SampleError;
use crate::order::SampleId;
use crate::order::permutation::Draws;

/// Extension of the member that is a caption.
pub const CAPTION_EXTENSION: &str = "txt";

/// Extension of the member with fields.
pub(crate) const FIELDS_EXTENSION: &str = "json";

/// Separates the draws of captions from the keys of the order and from the draws of the augmentation.
const CAPTION: u64 = 4;

/// Where captions come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "lowercase")]
pub enum CaptionSource {
    /// The sample's `.txt` member, as a whole, as is usual with WebDataset. If the shard has a table with image
    /// positions, its column `caption` is used, which has the same text. There is one caption per sample and nothing to
    /// choose.
    #[default]
    Text,
    /// A field of the sample's `.json` member: a text, or a list of texts. The member's position in the tar is found by
    /// a pass over the headers, even if the shard has a table.
    Json {
        /// Name of the field.
        key: String,
        /// Which text of a list is used.
        choice: CaptionChoice,
    },
}

/// Which of a sample's captions is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptionChoice {
    /// The first one.
    #[default]
    First,
    /// A random one, drawn from (seed, epoch, sample).
    Random,
}

impl CaptionSource {
    /// Extension of the member that contains the captions.
    pub(crate) fn extension(&self) -> &'static str {
        match self {
            Self::Text => CAPTION_EXTENSION,
            Self::Json { .. } => FIELDS_EXTENSION,
        }
    }

    /// The field of the `.json` members that contains the captions; `None` if they are the `.txt` members.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Text => None,
            Self::Json { key, .. } => Some(key),
        }
    }
}

/// All captions of a sample as they are stored.
#[derive(Debug, Clone, Copy)]
pub enum StoredCaptions<'a> {
    /// The bytes of its `.txt` member; `None` without one.
    Text(Option<&'a [u8]>),
    /// The texts in a field of its `.json` member.
    Field(&'a [String]),
    /// There are none in the field, for this reason.
    Unreadable(&'a SampleError),
}

impl<'a> StoredCaptions<'a> {
    /// By which a sidecar knows them.
    pub fn check(&self) -> CaptionCheck {
        match self {
            Self::Text(raw) => CaptionCheck::of(raw.unwrap_or_default()),
            Self::Field(texts) => CaptionCheck::of_all(texts),
            Self::Unreadable(_) => CaptionCheck::of_all::<&str>(&[]),
        }
    }

    /// The texts; U+FFFD replaces what is not UTF-8. A sample without a `.txt` member has one empty text.
    pub fn texts(&self) -> Vec<Cow<'a, str>> {
        match self {
            Self::Text(raw) => vec![String::from_utf8_lossy(raw.unwrap_or_default())],
            Self::Field(texts) => texts.iter().map(|text| Cow::Borrowed(text.as_str())).collect(),
            Self::Unreadable(_) => Vec::new(),
        }
    }
}

/// The captions in a field of a sample's `.json` member, whose bytes these are: a text, or a list of texts.
///
/// # Errors
/// Why there are none, as part of a sentence.
pub fn field_captions(json: &[u8], field: &str) -> Result<Vec<String>, SampleError> {
    use serde_json::Value;
    let none = SampleError::Json;
    let mut value: Value =
        crate::json::parse(json).map_err(|e| none(format!("its JSON cannot be read: {e}")))?;
    let texts = match value.get_mut(field).map(Value::take) {
        Some(Value::String(text)) => return Ok(vec![text]),
        Some(Value::Array(texts)) => texts,
        Some(_) => return Err(none(format!("`{field}` in its JSON is neither a text nor a list of texts"))),
        None => return Err(none(format!("its JSON has no field `{field}`"))),
    };
    let text = |value| if let Value::String(text) = value { Some(text) } else { None };
    let texts: Option<Vec<String>> = texts.into_iter().map(text).collect();
    texts.ok_or_else(|| none(format!("`{field}` in its JSON is a list with an element that is not a text")))
}

/// The caption of a sample that is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawCaption {
    pub(crate) text: String,
    /// Its number among the captions of the sample.
    pub(crate) number: u32,
    /// By which a sidecar knows all captions of the sample.
    pub(crate) check: CaptionCheck,
}

impl RawCaption {
    /// The only caption of a sample.
    pub(crate) fn only(text: String) -> Self {
        let check = CaptionCheck::of(text.as_bytes());
        Self { text, number: 0, check }
    }
}

/// Chooses among the captions in a field of a sample's `.json` member, whose bytes these are.
///
/// # Errors
/// Why there is none, as part of a sentence.
pub(crate) fn from_json(
    bytes: &[u8],
    key: &str,
    choice: CaptionChoice,
    (seed, epoch, sample): (u64, u64, SampleId),
) -> Result<RawCaption, SampleError> {
    let mut texts = field_captions(bytes, key)?;
    let chosen = match choice {
        CaptionChoice::First => 0,
        CaptionChoice::Random if texts.is_empty() => 0,
        CaptionChoice::Random => {
            let parts = [seed, epoch, CAPTION, sample.shard.into(), sample.sample.into()];
            Draws::new(&parts).below(texts.len() as u64)
        }
    };
    if texts.is_empty() {
        return Err(SampleError::Json(format!("`{key}` in its JSON is an empty list")));
    }
    let check = CaptionCheck::of_all(&texts);
    Ok(RawCaption { text: texts.swap_remove(chosen as usize), number: chosen as u32, check })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: SampleId = SampleId { shard: 1, sample: 2 };

    #[test]
    fn captions_are_found_in_json() {
        let first = |json: &str| from_json(json.as_bytes(), "c", CaptionChoice::First, (0, 0, ID));
        assert_eq!(first(r#"{"c": "one"}"#).unwrap().text, "one");
        assert_eq!(first(r#"{"c": ["one", "two"]}"#).unwrap().text, "one");
        for (json, part) in [
            (r#"{"c": []}"#, "an empty list"),
            (r#"{"c": 3}"#, "neither"),
            (r#"{"c": ["one", 2]}"#, "not a text"),
            (r#"{"d": "one"}"#, "has no field `c`"),
            ("not JSON", "cannot be read"),
        ] {
            assert!(first(json).unwrap_err().to_string().contains(part), "{json}");
        }
    }

    #[test]
    fn random_captions_depend_on_seed_epoch_and_sample_and_are_uniform() {
        let json = br#"{"c": ["0", "1", "2", "3"]}"#;
        let at = |seed, epoch, sample| {
            let id = SampleId { shard: 0, sample };
            let caption = from_json(json, "c", CaptionChoice::Random, (seed, epoch, id)).unwrap();
            assert_eq!(caption.text, caption.number.to_string());
            caption.text
        };
        let row = |seed, epoch| (0..400).map(|sample| at(seed, epoch, sample)).collect::<Vec<_>>();
        assert_eq!(row(1, 2), row(1, 2));
        assert!(row(1, 2) != row(2, 2) && row(1, 2) != row(1, 3));
        for text in ["0", "1", "2", "3"] {
            let count = row(5, 6).iter().filter(|chosen| *chosen == text).count();
            // 100 expected, with a standard deviation of 8.7.
            assert!((56..145).contains(&count), "{text} comes {count} times");
        }
    }
}
