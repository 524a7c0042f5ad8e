//! Names of colours: nouns in "a man in black", adjectives in "a black shirt".

use super::{Place, Role, Tag};
use crate::grammar::colours::{is_basic, is_material};

impl Place<'_> {
    /// Makes a colour and the one joined to it adjectives if they describe the noun after them: "pink & blue owls", "gold and
    /// silver earrings". In "in silver and red socks" they may stand for two things.
    pub(super) fn join_colours(&mut self) {
        let at = self.at;
        let (first, second) = (self.own(), self.word(at + 2));
        let same_kind = is_basic(first) && is_basic(second) || is_material(first) && is_material(second);
        let stands_alone = self.tag_before() == Some(Tag::IN) || self.word_before() == "wearing";
        let describes =
            matches!(self.role(at + 3), Role::Noun | Role::Adjective) || self.tag(at + 3) == Some(Tag::VBN);
        if same_kind && !stands_alone && describes {
            self.tags[at] = Tag::JJ;
            self.tags[at + 2] = Tag::JJ;
        }
    }

    /// Makes colours nouns if they stand after a preposition or "wearing", and not before the noun that they describe: "in
    /// black", "wearing dark red and white", "wearing all red".
    pub(super) fn name_colours(&mut self) {
        let is_colour = |place: &Self, at: usize| is_basic(place.word(at));
        let mut first = self.first_adjective(self.at);
        // "in lavender and white"
        if first >= 3
            && matches!(self.tags[first - 1], Tag::CC | Tag::COMMA)
            && self.tags[first - 2].is_noun()
        {
            first -= 2;
        }
        // "the light blue"
        if first < self.at
            && matches!(self.word(first.wrapping_sub(1)), "a" | "an" | "the")
            && self.ends_phrase()
        {
            self.set(Tag::NN);
            return;
        }
        let all = first >= 2 && self.word(first - 1) == "all";
        let before = first.wrapping_sub(if all { 2 } else { 1 });
        if self.tag(before) != Some(Tag::IN) && self.word(before) != "wearing" {
            return;
        }
        // "black , white , and red"
        let mut end = self.at + 1;
        loop {
            let joints =
                self.tags[end..].iter().take_while(|tag| matches!(**tag, Tag::CC | Tag::COMMA)).count();
            if joints == 0 || !is_colour(self, end + joints) {
                break;
            }
            end += joints + 1;
        }
        let next = self.role(end + 1);
        let stand_alone = match self.role(end) {
            Role::Noun | Role::Adjective | Role::Number => false,
            Role::Participle => !matches!(next, Role::Noun | Role::Adjective),
            // "in black and a hat", "one in black and one in red", not "in black and striped trousers"
            Role::Joint if self.tags[end] == Tag::CC => {
                matches!(next, Role::Determiner | Role::Number | Role::Outside)
            }
            _ => true,
        };
        if !stand_alone {
            return;
        }
        for at in self.at..end {
            if is_colour(self, at) {
                self.tags[at] = Tag::NN;
            }
        }
        if all {
            self.tags[first - 1] = Tag::DT;
        }
    }
}
