//! Words of titles that taggers take for verbs. Nearly every caption that is a sentence has an article or another determiner;
//! these rules are for texts without one.

use super::{Place, Role, Tag};
use crate::grammar::is_among;
use crate::words::Word;

/// Corrects the tags of a text without a determiner, from left to right.
pub(super) fn correct(text: &str, words: &[Word], tags: &mut [Tag]) {
    for at in 0..tags.len() {
        let mut place = Place { text, words, tags, at };
        let tag = match place.tags[at] {
            Tag::VBZ if place.is_plural() => Tag::NNS,
            Tag::VBD if place.describes_next() => Tag::VBN,
            // "action figures rare new"
            Tag::NN | Tag::NNP if at > 0 && place.own() == "new" && place.ends_text() => Tag::JJ,
            _ => continue,
        };
        place.set(tag);
    }
}

impl Place<'_> {
    /// Whether a word in -s is a plural: "maroon bells landscape", "shag area rugs purple", "workshop dates".
    fn is_plural(&self) -> bool {
        let own = self.own();
        matches!(self.before(), Role::Noun | Role::Adjective)
            && (matches!(self.next(), Role::Noun | Role::Adjective | Role::Number) || self.ends_text())
            && own.len() > 3
            && own.ends_with('s')
            && !is_among(VERBS_IN_S, own)
    }

    /// Whether a word in -ed describes the noun after it: "hand tufted light rug", "mirror rounded edge".
    fn describes_next(&self) -> bool {
        let own = self.own();
        matches!(self.next(), Role::Noun | Role::Adjective)
            && own.ends_with("ed")
            && !matches!(own, "named" | "called" | "fed" | "led" | "raised" | "ranked" | "shed")
    }
}

/// Verbs that are at least as frequent as the plurals that look like them.
const VERBS_IN_S: &str = "\
    abounds accepts adds affects agrees allows announces appears applies argues arises arrives asks assumes \
    attends attracts awaits becomes begins believes belongs blocks brings builds buys carries catches \
    celebrates chooses comes competes concludes confirms connects consists contains continues contributes \
    controls creates decides defies defines delivers demonstrates depends depicts describes deserves \
    determines develops directs does dominates draws drives eats emerges emphasizes encourages enjoys enters \
    examines exceeds exists expects explains expresses extends fails falls features feeds feels fetches \
    fills finds fits follows gets gives goes greets grows hangs happens hears helps highlights hits holds \
    hosts hugs hurts illustrates implies improves includes indicates introduces involves joins jumps keeps \
    kicks kneels knocks knows lacks laughs launches lays leads leaves lies likes listens looks loses loves \
    maintains makes manages means meets misses needs observes occurs offers opens operates overlooks owns \
    participates pays performs permits picks plays poses prepares presents produces protects provides pulls \
    pushes puts raises reaches reacts reads receives recognizes reduces refers reflects refuses relaxes \
    remains reminds replaces replies represents requires resembles responds reveals rides rises runs saves \
    says seeks seems sees sells sends serves shares shines shouts shows sings sits sleeps smiles speaks \
    spends stands starts stays steals stops struggles suggests supports tackles takes talks teaches tells \
    thinks throws tops travels tries turns understands unveils uses visits walks wants warms warns watches \
    wears welcomes wins wishes writes";
