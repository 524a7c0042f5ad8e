//! Chooses one of a sample's captions: a function of the seed, the epoch and the sample only.

use crate::error::SampleError;
use crate::order::SampleId;
use crate::order::permutation::Draws;

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
            Self::Text => crate::shards::CAPTION_EXTENSION,
            Self::Json { .. } => "json",
        }
    }
}

/// Reads the caption from the bytes of a sample's `.json` member.
///
/// # Errors
/// Why there is none, as part of a sentence.
pub(crate) fn from_json(
    bytes: &[u8],
    key: &str,
    choice: CaptionChoice,
    (seed, epoch, sample): (u64, u64, SampleId),
) -> Result<String, SampleError> {
    let none = SampleError::Json;
    let value: serde_json::Value =
        crate::json::parse(bytes).map_err(|e| none(format!("its JSON cannot be read: {e}")))?;
    let texts = match value.get(key) {
        Some(serde_json::Value::String(text)) => return Ok(text.clone()),
        Some(serde_json::Value::Array(texts)) => texts,
        Some(_) => return Err(none(format!("`{key}` in its JSON is neither a text nor a list of texts"))),
        None => return Err(none(format!("its JSON has no field `{key}`"))),
    };
    let texts: Option<Vec<&str>> = texts.iter().map(serde_json::Value::as_str).collect();
    let texts = texts
        .ok_or_else(|| none(format!("`{key}` in its JSON is a list with an element that is not a text")))?;
    let chosen = match choice {
        CaptionChoice::First => 0,
        CaptionChoice::Random if texts.is_empty() => 0,
        CaptionChoice::Random => {
            let parts = [seed, epoch, CAPTION, sample.shard.into(), sample.sample.into()];
            Draws::new(&parts).below(texts.len() as u64)
        }
    };
    let text =
        texts.get(chosen as usize).ok_or_else(|| none(format!("`{key}` in its JSON is an empty list")))?;
    Ok((*text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: SampleId = SampleId { shard: 1, sample: 2 };

    #[test]
    fn captions_are_found_in_json() {
        let first = |json: &str| from_json(json.as_bytes(), "c", CaptionChoice::First, (0, 0, ID));
        assert_eq!(first(r#"{"c": "one"}"#).unwrap(), "one");
        assert_eq!(first(r#"{"c": ["one", "two"]}"#).unwrap(), "one");
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
            from_json(json, "c", CaptionChoice::Random, (seed, epoch, id)).unwrap()
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
