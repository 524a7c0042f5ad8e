//! The section `[data]`: keys of the trainer next to the options of the loader.

use std::fmt;
use std::path::PathBuf;

use serde::de::value::{MapAccessDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// The training shards, and how batches are made of them.
#[derive(Debug, Clone, Default, Serialize, PartialEq)]
pub struct DataSettings {
    /// Required. Training shards: folders, tar files, brace lists such as `coco/{00000..00295}.tar`, or addresses such as
    /// `s3://bucket/coco/{00000..00295}.tar`.
    pub shards: Vec<PathBuf>,
    /// Mix several datasets: one weight per entry of `shards`; each entry then fills its share of every batch. Empty = all
    /// entries are one dataset.
    pub weights: Vec<f64>,
    /// Folder that `trainer cache` wrote: features of the frozen vision tower for these shards, used instead of the images.
    /// Needs `crop = "centre"` and `flip = 0`.
    pub features: Option<PathBuf>,
    /// How the loader makes batches.
    #[serde(flatten)]
    pub loading: loader::Options,
}

/// Reads the keys of the trainer, and leaves all others to the loader's options, which reject unknown ones. Serde's own `flatten`
/// would accept unknown keys, and would lose in which line of a file a wrong value is.
impl<'de> Deserialize<'de> for DataSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Section;

        impl<'de> Visitor<'de> for Section {
            type Value = DataSettings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a section of settings")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DataSettings, A::Error> {
                let mut read = DataSettings::default();
                let others = Others { map, read: &mut read };
                read.loading = Deserialize::deserialize(MapAccessDeserializer::new(others))?;
                Ok(read)
            }
        }

        deserializer.deserialize_map(Section)
    }
}

/// The keys of the trainer.
const OWN: [&str; 3] = ["shards", "weights", "features"];

/// The entries of a section without those of the trainer, whose values it reads itself.
struct Others<'a, A> {
    map: A,
    read: &'a mut DataSettings,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Others<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let mut seed = seed;
        loop {
            let Some(key) = self.map.next_key_seed(OwnOr(seed))? else { return Ok(None) };
            seed = match key {
                Key::Other(key) => return Ok(Some(key)),
                Key::Own(name, unused) => {
                    match name {
                        "shards" => self.read.shards = self.map.next_value()?,
                        "weights" => self.read.weights = self.map.next_value()?,
                        _ => self.read.features = self.map.next_value()?,
                    }
                    unused
                }
            };
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// A key, read as one of the loader's options unless it is the trainer's own.
struct OwnOr<S>(S);

enum Key<S, K> {
    /// The trainer's own, and what would have read another.
    Own(&'static str, S),
    Other(K),
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for OwnOr<S> {
    type Value = Key<S, S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let name = String::deserialize(deserializer)?;
        if let Some(own) = OWN.into_iter().find(|own| *own == name) {
            return Ok(Key::Own(own, self.0));
        }
        let key: StringDeserializer<D::Error> = name.into_deserializer();
        self.0.deserialize(key).map(Key::Other).map_err(|unknown| {
            // Its list of the keys that are expected has those of the loader only.
            D::Error::custom(format!("{}, `{}`", unknown.to_string().trim_end(), OWN.join("`, `")))
        })
    }
}
