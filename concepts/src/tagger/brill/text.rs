//! Converts rules to text: `NN -> VBZ if the previous tag is NNS and the next word is "the"`.

use super::template::Feature;
use super::{Brill, EDGE, Rule};
use crate::tagger::features::MARK_CLASS;
use crate::tagger::{Form, RARE, Tag};

impl Brill {
    /// Every rule as a line of text, in the order in which they are applied.
    pub(crate) fn rules(&self) -> impl Iterator<Item = String> {
        self.rules.iter().map(|rule| self.describe(rule))
    }

    fn describe(&self, rule: &Rule) -> String {
        let conditions: Vec<_> =
            rule.conditions().map(|(feature, value)| self.condition(feature, value)).collect();
        format!("{} -> {} if {}", rule.from, rule.to, conditions.join(" and "))
    }

    fn condition(&self, feature: Feature, value: u32) -> String {
        let subject = match feature {
            Feature::Nothing => return "always".to_owned(),
            Feature::Tag3Before => "the third tag before",
            Feature::Tag2Before => "the second tag before",
            Feature::TagBefore => "the previous tag",
            Feature::TagAfter => "the next tag",
            Feature::Tag2After => "the second tag after",
            Feature::Tag3After => "the third tag after",
            Feature::Word2Before => "the second word before",
            Feature::WordBefore | Feature::ClassBefore => "the previous word",
            Feature::Word | Feature::Class => "the word",
            Feature::WordAfter | Feature::ClassAfter => "the next word",
            Feature::Word2After | Feature::Class2After => "the second word after",
            Feature::Suffix1 | Feature::Suffix2 | Feature::Suffix3 | Feature::Suffix4 => {
                let bytes = value.to_be_bytes();
                let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
                return format!("the word ends in {:?}", String::from_utf8_lossy(&bytes[start..]));
            }
        };
        let predicate = match feature {
            _ if feature.is_class() => self.class(value),
            _ if feature.is_word() && value == Form::EDGE.word => "is the edge of the text".to_owned(),
            _ if feature.is_word() => {
                format!("is {:?}", self.words.get(&value).map_or("a word of another model", String::as_str))
            }
            _ if value == u32::from(EDGE.0) => "is the edge of the text".to_owned(),
            _ => format!("is {}", Tag(value as u8)),
        };
        format!("{subject} {predicate}")
    }

    /// Describes the words of a class.
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
