//! The names of the part-of-speech taggers.

use std::fmt;

/// The available part-of-speech taggers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TaggerKind {
    /// Transformation rules learned from data (Brill 1995); the model is embedded.
    Brill,
    /// Averaged perceptron (Collins 2002); the model is embedded.
    #[default]
    Perceptron,
    /// The rules and the dictionary of LanguageTool through the crate `nlprule`. Its data is not embedded;
    /// `tools/nlprule-data.sh` downloads it. If the crate panics, the words it was given (at most 500 bytes of a
    /// caption) have no mentions.
    Nlprule,
}

impl TaggerKind {
    /// All kinds, in the order of [`TaggerKind::names`].
    pub const ALL: [Self; 3] = [Self::Brill, Self::Perceptron, Self::Nlprule];

    /// The names of all kinds: "brill, perceptron, nlprule".
    pub fn names() -> String {
        Self::ALL.map(|kind| kind.to_string()).join(", ")
    }
}

impl fmt::Display for TaggerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Brill => "brill",
            Self::Perceptron => "perceptron",
            Self::Nlprule => "nlprule",
        })
    }
}
