//! The features that rules look at, and the combinations of features (templates) that rules are made of.

use crate::tagger::{Form, Tag};

/// A feature of a word or of the words around it. Its value is a number: the number of a tag; the hash of a word, with
/// digits replaced by 0; the lexicon's class of a word, which stands for all tags that it was seen with; or the last
/// bytes of the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(super) enum Feature {
    /// Fills short templates; its value is always 0.
    Nothing,
    Tag3Before,
    Tag2Before,
    TagBefore,
    TagAfter,
    Tag2After,
    Tag3After,
    Word2Before,
    WordBefore,
    Word,
    WordAfter,
    Word2After,
    ClassBefore,
    Class,
    ClassAfter,
    Class2After,
    Suffix1,
    Suffix2,
    Suffix3,
    Suffix4,
}

impl Feature {
    /// Whether its values are words.
    pub(super) fn is_word(self) -> bool {
        matches!(self, Self::Word2Before | Self::WordBefore | Self::Word | Self::WordAfter | Self::Word2After)
    }

    /// Whether its values are classes.
    pub(super) fn is_class(self) -> bool {
        matches!(self, Self::ClassBefore | Self::Class | Self::ClassAfter | Self::Class2After)
    }
}

/// Number of features.
const FEATURES: usize = Feature::Suffix4 as usize + 1;
/// Number of words on either side that features reach.
pub(crate) const REACH: usize = 3;
/// Number of features per template.
pub(crate) const WIDTH: usize = 3;

/// The features of a rule.
pub(super) type Template = [Feature; WIDTH];

/// The templates. Models refer to them by number: when this list changes, change the version of the model format, too.
pub(super) const TEMPLATES: &[Template] = &{
    // The list is easier to read as a table.
    #[allow(clippy::enum_glob_use)]
    use Feature::*;
    [
        // Tags.
        [TagBefore, Nothing, Nothing],
        [TagAfter, Nothing, Nothing],
        [Tag2Before, Nothing, Nothing],
        [Tag2After, Nothing, Nothing],
        [TagBefore, TagAfter, Nothing],
        [TagBefore, Tag2Before, Nothing],
        [TagAfter, Tag2After, Nothing],
        [TagBefore, Tag2After, Nothing],
        [Tag2Before, TagAfter, Nothing],
        [TagBefore, Tag2Before, TagAfter],
        [TagBefore, TagAfter, Tag2After],
        [TagBefore, Tag2Before, Tag3Before],
        [TagAfter, Tag2After, Tag3After],
        // Words.
        [Word, Nothing, Nothing],
        [Word, TagBefore, Nothing],
        [Word, TagAfter, Nothing],
        [Word, TagBefore, TagAfter],
        [Word, Tag2Before, Nothing],
        [Word, Tag2After, Nothing],
        [Word, TagBefore, Tag2Before],
        [Word, TagAfter, Tag2After],
        [Word, WordBefore, Nothing],
        [Word, WordAfter, Nothing],
        [Word, Word2Before, Nothing],
        [Word, Word2After, Nothing],
        [WordBefore, Nothing, Nothing],
        [WordAfter, Nothing, Nothing],
        [WordBefore, TagAfter, Nothing],
        [WordAfter, TagBefore, Nothing],
        [WordBefore, WordAfter, Nothing],
        // Classes.
        [Class, TagBefore, Nothing],
        [Class, TagAfter, Nothing],
        [Class, TagBefore, TagAfter],
        [Class, TagBefore, Tag2Before],
        [Class, TagAfter, Tag2After],
        [Class, ClassBefore, Nothing],
        [Class, ClassAfter, Nothing],
        [Class, ClassAfter, TagBefore],
        [Class, ClassAfter, Class2After],
        [Class, WordBefore, Nothing],
        [Class, WordAfter, Nothing],
        [Class, WordBefore, TagAfter],
        [Class, WordAfter, TagBefore],
        [ClassAfter, TagBefore, Nothing],
        // Suffixes.
        [Suffix2, Class, Nothing],
        [Suffix3, Class, Nothing],
        [Suffix4, Class, Nothing],
        [Suffix1, TagBefore, TagAfter],
        [Suffix2, TagBefore, Nothing],
        [Suffix3, TagBefore, Nothing],
        [Suffix2, TagAfter, Nothing],
        [Suffix3, TagAfter, Nothing],
        [Suffix2, TagBefore, TagAfter],
        [Suffix3, TagBefore, TagAfter],
        [Suffix2, Class, TagBefore],
        [Suffix2, Class, TagAfter],
    ]
};

/// The values of all features at one word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View([u32; FEATURES]);

impl View {
    /// Computes the features at `at`. `forms` must have [`REACH`] words or [`Form::EDGE`]s on either side of it, and
    /// `tags` as many tags or [`EDGE`](super::EDGE)s.
    pub(crate) fn of(forms: &[Form], tags: &[Tag], at: usize) -> Option<Self> {
        let around = at.checked_sub(REACH)?..at + REACH + 1;
        let forms: &[Form; 2 * REACH + 1] = forms.get(around.clone())?.try_into().ok()?;
        let tags: &[Tag; 2 * REACH + 1] = tags.get(around)?.try_into().ok()?;
        let suffix = forms[3].suffix;
        Some(Self([
            0,
            u32::from(tags[0].0),
            u32::from(tags[1].0),
            u32::from(tags[2].0),
            u32::from(tags[4].0),
            u32::from(tags[5].0),
            u32::from(tags[6].0),
            forms[1].word,
            forms[2].word,
            forms[3].word,
            forms[4].word,
            forms[5].word,
            u32::from(forms[2].entry.class),
            u32::from(forms[3].entry.class),
            u32::from(forms[4].entry.class),
            u32::from(forms[5].entry.class),
            suffix & 0xff,
            suffix & 0xffff,
            suffix & 0xff_ffff,
            suffix,
        ]))
    }

    /// The values of a template's features.
    pub(super) fn values(&self, template: Template) -> [u32; WIDTH] {
        template.map(|feature| self.0[feature as usize])
    }
}
