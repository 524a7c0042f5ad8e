//! The Penn Treebank tags as numbers.

use std::fmt;

/// A part-of-speech tag: an index into [`Tag::NAMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub(crate) u8);

macro_rules! tags {
    ($($ident:ident = $name:literal),* $(,)?) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        #[repr(u8)]
        enum Number { $($ident),* }

        impl Tag {
            /// The names of all tags, by number.
            pub const NAMES: &'static [&'static str] = &[$($name),*];
            $(#[doc = concat!("The tag `", $name, "`.")] pub const $ident: Self = Self(Number::$ident as u8);)*
        }
    };
}

tags! {
    STOP = ".", COMMA = ",", COLON = ":", OPEN_QUOTE = "``", CLOSE_QUOTE = "''", OPEN = "-LRB-", CLOSE = "-RRB-",
    DOLLAR = "$", HASH = "#", SYM = "SYM",
    CC = "CC", CD = "CD", DT = "DT", EX = "EX", FW = "FW", IN = "IN", JJ = "JJ", JJR = "JJR", JJS = "JJS",
    LS = "LS", MD = "MD", NN = "NN", NNS = "NNS", NNP = "NNP", NNPS = "NNPS", PDT = "PDT", POS = "POS",
    PRP = "PRP", PRPS = "PRP$", RB = "RB", RBR = "RBR", RBS = "RBS", RP = "RP", TO = "TO", UH = "UH",
    VB = "VB", VBD = "VBD", VBG = "VBG", VBN = "VBN", VBP = "VBP", VBZ = "VBZ",
    WDT = "WDT", WP = "WP", WPS = "WP$", WRB = "WRB",
}

impl Tag {
    /// Number of tags.
    pub const COUNT: usize = Self::NAMES.len();

    /// Whether it is the tag of a noun. Foreign words are taken for nouns.
    pub(crate) const fn is_noun(self) -> bool {
        matches!(self, Self::NN | Self::NNS | Self::NNP | Self::NNPS | Self::FW)
    }

    /// The Penn Treebank name of the tag.
    pub fn name(self) -> &'static str {
        Self::NAMES.get(self.0 as usize).copied().unwrap_or("NN")
    }

    /// The tag with this name. Other names that corpora use are also accepted.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = match name {
            "(" | "LRB" => "-LRB-",
            ")" | "RRB" => "-RRB-",
            "\"" => "''",
            "HYPH" => ":",
            "ADD" => "NNP",
            "NFP" | "PRN" => "SYM",
            "XX" => "FW",
            "AFX" => "JJ",
            "PP" => "PRP",
            name => name,
        };
        Self::NAMES.iter().position(|known| *known == name).map(|index| Self(index as u8))
    }

    /// The tag of a mark that does not depend on context; `None` for words, and for marks whose tag depends on it.
    pub(crate) fn of_mark(mark: &str) -> Option<Self> {
        if mark.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return None;
        }
        Some(match mark.chars().next()? {
            '.' | '!' | '?' | '…' => Self::STOP,
            ',' => Self::COMMA,
            '-' | ':' | ';' | '–' | '—' | '|' | '•' | '·' => Self::COLON,
            '`' | '“' | '„' | '«' => Self::OPEN_QUOTE,
            '"' | '”' | '»' => Self::CLOSE_QUOTE,
            '(' | '[' | '{' => Self::OPEN,
            ')' | ']' | '}' => Self::CLOSE,
            '$' | '£' | '€' | '¥' => Self::DOLLAR,
            '#' => Self::HASH,
            '&' => Self::CC,
            '\'' | '’' | '‘' => return None,
            c if c.is_alphanumeric() => return None,
            _ => Self::SYM,
        })
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
