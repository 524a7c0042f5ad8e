//! Rules as text: `NN -> VBZ if the previous tag is NNS and the next word is "the"`.

use super::template::Look;
use super::{Brill, EDGE, Rule};
use crate::tagger::features::MARK_CLASS;
use crate::tagger::{Form, RARE, Tag};

impl Brill {
    /// Every rule as a line of text, in the order in which they are applied.
    pub(crate) fn rules(&self) -> impl Iterator<Item = String> {
        self.rules.iter().map(|rule| self.describe(rule))
    }

    fn describe(&self, rule: &Rule) -> String {
        let conditions: Vec<_> = rule.conditions().map(|(look, value)| self.condition(look, value)).collect();
        format!("{} -> {} if {}", rule.from, rule.to, conditions.join(" and "))
    }

    fn condition(&self, look: Look, value: u32) -> String {
        let subject = match look {
            Look::Nothing => return "always".to_owned(),
            Look::Tag3Before => "the third tag before",
            Look::Tag2Before => "the second tag before",
            Look::TagBefore => "the previous tag",
            Look::TagAfter => "the next tag",
            Look::Tag2After => "the second tag after",
            Look::Tag3After => "the third tag after",
            Look::Word2Before => "the second word before",
            Look::WordBefore | Look::ClassBefore => "the previous word",
            Look::Word | Look::Class => "the word",
            Look::WordAfter | Look::ClassAfter => "the next word",
            Look::Word2After | Look::Class2After => "the second word after",
            Look::Suffix1 | Look::Suffix2 | Look::Suffix3 | Look::Suffix4 => {
                let bytes = value.to_be_bytes();
                let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
                return format!("the word ends in {:?}", String::from_utf8_lossy(&bytes[start..]));
            }
        };
        let predicate = match look {
            _ if look.is_class() => self.class(value),
            _ if look.is_word() && value == Form::EDGE.word => "is the edge of the text".to_owned(),
            _ if look.is_word() => {
                format!("is {:?}", self.words.get(&value).map_or("a word of another model", String::as_str))
            }
            _ if value == u32::from(EDGE.0) => "is the edge of the text".to_owned(),
            _ => format!("is {}", Tag(value as u8)),
        };
        format!("{subject} {predicate}")
    }

    /// What a word of this class is.
    fn class(&self, class: u32) -> String {
        if class == u32::from(Form::EDGE.entry.class) {
            return "is the edge of the text".to_owned();
        }
        if class >= u32::from(MARK_CLASS) {
            return format!("is a mark, {}", Tag((class & 0xff) as u8));
        }
        let Some(number) = class.checked_sub(1) else { return "is unknown".to_owned() };
        let set = self.vocabulary.classes.get(number as usize).copied().unwrap_or_default();
        let tags = (0..Tag::COUNT as u8).filter(|tag| set >> tag & 1 == 1);
        let tags = tags.map(|tag| Tag(tag).name()).collect::<Vec<_>>().join(" or ");
        if set & RARE == 0 { format!("can be {tags}") } else { format!("is rare and was {tags}") }
    }
}
