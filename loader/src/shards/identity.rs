//! What distinguishes a shard from others, so that what was computed from it is not used with another one: feature caches, and runs
//! that are resumed. Everything here follows from a shard's index, for which no more is read than loading needs.

use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash64;

/// Hashes (XXH64) of what the index of a shard says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Of the samples' keys, and of the offsets and lengths of their images.
    #[serde(with = "hexadecimal")]
    pub places: u64,
    /// Of the hashes of the original images; `None` if the shard's table has none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hexadecimal::option")]
    pub images: Option<u64>,
    /// Of the captions; `None` if they are not in the table.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hexadecimal::option")]
    pub captions: Option<u64>,
}

impl Identity {
    /// In what the shard `now` differs from this one, as part of a sentence; `None` if in nothing that both know. Captions are
    /// compared only where they count.
    pub fn difference(&self, now: &Self, captions: bool) -> Option<&'static str> {
        let differs = |a: Option<u64>, b: Option<u64>| a.zip(b).is_some_and(|(a, b)| a != b);
        if self.places != now.places {
            Some("other samples")
        } else if differs(self.images, now.images) {
            Some("other images")
        } else if captions && differs(self.captions, now.captions) {
            Some("other captions")
        } else {
            None
        }
    }
}

/// The check of an image: XXH64, with the seed 0, of the bytes of its file in the shard.
pub fn image_check(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}

/// Hashes a series of texts and numbers.
#[derive(Debug, Default)]
pub(crate) struct Digest(XxHash64);

impl Digest {
    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.write(text.as_bytes());
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.0.write(&number.to_le_bytes());
    }

    pub(crate) fn finish(self) -> u64 {
        self.0.finish()
    }
}

/// As 16 hexadecimal digits, because many programs read numbers in JSON as floating-point numbers.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    pub(super) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{number:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16).map_err(de::Error::custom)
    }

    pub(super) mod option {
        use serde::{Deserialize, Deserializer, Serializer, de};

        #[expect(clippy::ref_option, reason = "as serde calls it")]
        pub(in super::super) fn serialize<S: Serializer>(
            number: &Option<u64>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            match number {
                Some(number) => super::serialize(number, to),
                None => to.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<u64>, D::Error> {
            let text = Option::<String>::deserialize(from)?;
            text.map(|text| u64::from_str_radix(&text, 16)).transpose().map_err(de::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_know_is_compared() {
        let shard = Identity { places: 1, images: Some(2), captions: Some(3) };
        assert_eq!(shard.difference(&shard, true), None);
        // Its table was removed.
        assert_eq!(shard.difference(&Identity { places: 1, images: None, captions: None }, true), None);
        assert_eq!(shard.difference(&Identity { places: 4, ..shard }, false), Some("other samples"));
        assert_eq!(shard.difference(&Identity { images: Some(4), ..shard }, false), Some("other images"));
        let recaptioned = Identity { captions: Some(4), ..shard };
        assert_eq!(shard.difference(&recaptioned, true), Some("other captions"));
        assert_eq!(shard.difference(&recaptioned, false), None);
    }

    #[test]
    fn json_has_hexadecimal_digits() {
        let shard = Identity { places: 0x0f, images: None, captions: Some(u64::MAX) };
        let json = serde_json::to_string(&shard).unwrap();
        assert_eq!(json, r#"{"places":"000000000000000f","captions":"ffffffffffffffff"}"#);
        assert_eq!(serde_json::from_str::<Identity>(&json).unwrap(), shard);
    }

    #[test]
    fn neighbouring_texts_do_not_run_together() {
        let of = |texts: [&str; 2]| {
            let mut digest = Digest::default();
            for text in texts {
                digest.text(text);
            }
            digest.finish()
        };
        assert_ne!(of(["ab", "c"]), of(["a", "bc"]));
    }
}
