//! What rules look at, and the combinations of it that rules are made of.

use crate::tagger::{Form, Tag};

/// One thing about a word or the words around it. The value of a look is a number: of a tag; the hash of a
/// word, digits as 0; the lexicon's class of a word, which stands for every tag it was seen with; the last bytes of
/// the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(super) enum Look {
    /// Fills up short templates; its value is always 0.
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

impl Look {
    /// Whether its values are words.
    pub(super) fn is_word(self) -> bool {
        matches!(self, Self::Word2Before | Self::WordBefore | Self::Word | Self::WordAfter | Self::Word2After)
    }

    /// Whether its values are classes.
    pub(super) fn is_class(self) -> bool {
        matches!(self, Self::ClassBefore | Self::Class | Self::ClassAfter | Self::Class2After)
    }
}

/// How many looks there are.
const LOOKS: usize = Look::Suffix4 as usize + 1;
/// Words on either side that looks reach.
pub(crate) const REACH: usize = 3;
/// Looks of a template.
pub(crate) const WIDTH: usize = 3;

/// The looks that a rule asks about.
pub(super) type Template = [Look; WIDTH];

/// The templates. A model names them by number: change the model's version with the list.
pub(super) const TEMPLATES: &[Template] = &{
    // The list is read as a table.
    #[allow(clippy::enum_glob_use)]
    use Look::*;
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

/// The values of all looks at one word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View([u32; LOOKS]);

impl View {
    /// Looks at the word at `at`; [`REACH`] words or [`Form::EDGE`]s stand on either side of it in `forms`, and
    /// as many tags or [`EDGE`]s in `tags`.
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

    /// The values of a template's looks.
    pub(super) fn values(&self, template: Template) -> [u32; WIDTH] {
        template.map(|look| self.0[look as usize])
    }
}
