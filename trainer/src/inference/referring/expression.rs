//! What an expression says: its subject, and what is followed by rule.

use std::ops::Range;

use concepts::{Extractor, Mention, Word, canonical, split_words};

use super::words::{self, Place, Relation, Side, Size};

/// How many things an expression means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// One.
    One,
    /// This many.
    Count(usize),
    /// All that there are.
    All,
}

/// An expression as it is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    /// Its canonical text.
    pub text: String,
    /// The head phrase in it: the first noun phrase that names a thing, without articles, numbers and words of place and order. `None`
    /// if no noun phrase does.
    pub subject: Option<Range<usize>>,
    /// Singular or plural.
    pub number: Number,
    /// Where in the image.
    pub places: Vec<Place>,
    /// "second from the left".
    pub rank: Option<(usize, Side)>,
    /// Large or small.
    pub size: Option<Size>,
    /// Where it is, seen from another thing.
    pub relation: Option<(Relation, Box<Expression>)>,
}

impl Expression {
    /// Reads an expression.
    pub fn read(extractor: &Extractor, text: &str) -> Self {
        let text = canonical(text);
        Reader::new(extractor, &text).expression()
    }

    /// The text of the head phrase; that of the whole expression if there is none.
    pub fn head(&self) -> &str {
        self.subject.clone().and_then(|span| self.text.get(span)).unwrap_or(&self.text)
    }
}

/// A noun phrase that names a thing: words `first..=last`, of which the last is its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Thing {
    first: usize,
    last: usize,
    plural: bool,
    /// The first word after articles, numbers and words of place and order.
    content: usize,
}

struct Reader<'a> {
    text: &'a str,
    spans: Vec<Word>,
    words: Vec<&'a str>,
    things: Vec<Thing>,
}

impl<'a> Reader<'a> {
    fn new(extractor: &Extractor, text: &'a str) -> Self {
        let mut spans = Vec::new();
        split_words(text, &mut spans);
        let words: Vec<&str> = spans.iter().map(|word| word.of(text)).collect();
        let mentions = extractor.mentions(text);
        let things = mentions.iter().filter_map(|mention| thing(mention, &spans, &words)).collect();
        Self { text, spans, words, things }
    }

    fn expression(&self) -> Expression {
        let relation = self.relation();
        let other = relation.as_ref().map(|(_, _, thing)| *thing);
        let subject = self.things.iter().copied().find(|thing| Some(*thing) != other);
        let free: Vec<usize> = (0..self.words.len())
            .filter(|at| {
                let in_relation = relation.as_ref().is_some_and(|(_, words, _)| words.contains(at));
                let in_other =
                    |thing: &Thing| Some(*thing) != subject && (thing.first..=thing.last).contains(at);
                !in_relation
                    && !self.things.iter().any(in_other)
                    && subject.is_none_or(|subject| *at != subject.last)
            })
            .collect();
        let (places, rank) = self.places(&free);
        Expression {
            text: self.text.to_owned(),
            subject: subject.map(|thing| self.bytes(thing.content, thing.last)),
            number: subject.map_or(Number::One, |thing| self.number(thing)),
            places,
            rank,
            size: free.iter().find_map(|&at| words::size(self.words[at])),
            relation: relation.map(|(relation, _, thing)| (relation, Box::new(self.anchor(thing)))),
        }
    }

    /// The first relation whose words are followed by a thing: its words, and the thing.
    fn relation(&self) -> Option<(Relation, Range<usize>, Thing)> {
        (0..self.words.len()).find_map(|at| {
            let (relation, length) = words::relation(&self.words[at..])?;
            let thing = self.things.iter().find(|thing| thing.first == at + length)?;
            // "right next to", "directly above"
            let from = if at > 0 && words::place(self.words[at - 1]).is_some() { at - 1 } else { at };
            Some((relation, from..at + length, *thing))
        })
    }

    /// The other thing of a relation, as an expression of its own.
    fn anchor(&self, thing: Thing) -> Expression {
        let start = self.spans[thing.first].start as usize;
        let span = self.bytes(thing.content, thing.last);
        Expression {
            text: self.text[self.bytes(thing.first, thing.last)].to_owned(),
            subject: Some(span.start - start..span.end - start),
            number: Number::One,
            places: (thing.first..thing.last).filter_map(|at| words::place(self.words[at])).collect(),
            rank: None,
            size: (thing.first..thing.last).find_map(|at| words::size(self.words[at])),
            relation: None,
        }
    }

    /// The words of place among these, or the rank that they and an ordinal give.
    fn places(&self, free: &[usize]) -> (Vec<Place>, Option<(usize, Side)>) {
        let mut places = Vec::new();
        let (mut ordinal, mut side) = (None, None);
        for &at in free {
            let word = self.words[at];
            if let Some(outermost) = words::outermost(word) {
                (ordinal, side) = (ordinal.or(Some(1)), Some(outermost));
            } else if let Some(place) = words::place(word) {
                if !places.contains(&place) {
                    places.push(place);
                }
            } else if let Some(rank) = words::ordinal(word) {
                ordinal = Some(rank);
            }
        }
        let Some(rank) = ordinal else { return (places, None) };
        let named = places.iter().rev().find_map(|place| match place {
            Place::At(side) => Some(*side),
            Place::Middle | Place::Corner => None,
        });
        let side = side.or(named).unwrap_or(Side::Left);
        places.retain(|place| *place != Place::At(side));
        (places, Some((rank, side)))
    }

    fn number(&self, thing: Thing) -> Number {
        let count = (thing.first..thing.last).find_map(|at| words::number(self.words[at]));
        match count {
            Some(count) => Number::Count(count),
            None if thing.plural => Number::All,
            None => Number::One,
        }
    }

    fn bytes(&self, first: usize, last: usize) -> Range<usize> {
        self.spans[first].start as usize..self.spans[last].end as usize
    }
}

/// The thing that a mention names, if it names one. Words of place after its noun ("the crate left", where "left" is taken for a noun)
/// are no part of it.
fn thing(mention: &Mention, spans: &[Word], words: &[&str]) -> Option<Thing> {
    let at = |byte: usize| spans.iter().position(|word| word.start as usize == byte);
    let first = at(mention.phrase.start)?;
    let tags: Vec<&str> = mention.tags.split(' ').collect();
    let mut length = tags.len();
    while length > 1
        && words::place(words[first + length - 1]).is_some()
        && words[first + length - 2] != "tank"
    {
        length -= 1;
    }
    let last = first + length - 1;
    let tag = tags[length - 1];
    if !(tag.starts_with("NN") || tag == "FW")
        || !words::is_thing(words[last]) && words.get(last.wrapping_sub(1)) != Some(&"tank")
    {
        return None;
    }
    let is_article = |at: usize| {
        let word = words[at];
        matches!(tags[at - first], "DT" | "PDT" | "PRP$" | "WP$" | "CD")
            || words::place(word).is_some()
            || words::outermost(word).is_some()
            || words::ordinal(word).is_some()
            || words::number(word).is_some()
    };
    let content = (first..last).find(|&at| !is_article(at)).unwrap_or(last);
    Some(Thing { first, last, plural: matches!(tag, "NNS" | "NNPS"), content })
}

#[cfg(test)]
mod tests {
    use concepts::TaggerKind;

    use super::*;

    fn read(text: &str) -> Expression {
        Expression::read(&Extractor::new(TaggerKind::default()).unwrap(), text)
    }

    #[test]
    fn the_subject_is_the_first_thing() {
        for (text, subject) in [
            ("the red crate", Some("red crate")),
            ("The red crate on the left", Some("red crate")),
            ("left car", Some("car")),
            ("second dog from the right", Some("dog")),
            ("holding an umbrella", Some("umbrella")),
            ("on the left side of the picture, a man in a hat", Some("man")),
            ("next to the tree, a white horse", Some("white horse")),
            ("the two small dogs", Some("small dogs")),
            ("woman in a tank top", Some("woman")),
            ("left", None),
            ("the left side", None),
            ("upper right corner", None),
        ] {
            let read = read(text);
            let found = read.subject.clone().map(|span| &read.text[span]);
            assert_eq!(found, subject, "{text}");
        }
        assert_eq!(read("left side").head(), "left side");
    }

    #[test]
    fn places_and_ranks() {
        let at = Place::At;
        for (text, places, rank) in [
            ("the crate on the left", vec![at(Side::Left)], None),
            ("the crate at the bottom right", vec![at(Side::Bottom), at(Side::Right)], None),
            ("upper left crate", vec![at(Side::Top), at(Side::Left)], None),
            ("the crate in the middle", vec![Place::Middle], None),
            ("the crate in the corner", vec![Place::Corner], None),
            ("the crate on the right side of the image", vec![at(Side::Right)], None),
            ("the second crate from the left", vec![], Some((2, Side::Left))),
            ("third crate from right", vec![], Some((3, Side::Right))),
            ("the leftmost crate", vec![], Some((1, Side::Left))),
            ("the second crate", vec![], Some((2, Side::Left))),
            ("the bright crate", vec![], None),
        ] {
            let read = read(text);
            assert_eq!((read.places, read.rank), (places, rank), "{text}");
        }
    }

    #[test]
    fn number_and_size() {
        for (text, number, size) in [
            ("the crate", Number::One, None),
            ("the two dogs", Number::Count(2), None),
            ("both dogs", Number::Count(2), None),
            ("all crates", Number::All, None),
            ("the crates", Number::All, None),
            ("the largest crate", Number::One, Some(Size::Big)),
            ("the tiny crate", Number::One, Some(Size::Small)),
        ] {
            let read = read(text);
            assert_eq!((read.number, read.size), (number, size), "{text}");
        }
    }

    #[test]
    fn relations_have_another_thing() {
        for (text, relation, anchor, places) in [
            ("the crate next to the big ball", Relation::Near, "big ball", vec![]),
            ("the crate left of the red ball", Relation::Towards(Side::Left), "red ball", vec![]),
            ("the crate to the right of a ball", Relation::Towards(Side::Right), "ball", vec![]),
            (
                "the crate above the ball on the left",
                Relation::Towards(Side::Top),
                "ball",
                vec![Place::At(Side::Left)],
            ),
            ("the crate right next to the ball", Relation::Near, "ball", vec![]),
        ] {
            let read = read(text);
            let (found, other) = read.relation.clone().unwrap_or_else(|| panic!("{text}: {read:?}"));
            assert_eq!((found, other.head(), read.places), (relation, anchor, places), "{text}");
            assert_eq!(&read.text[read.subject.unwrap()], "crate", "{text}");
        }
        assert_eq!(read("the crate next to the big ball").relation.unwrap().1.size, Some(Size::Big));
        assert_eq!(read("the crate next to the big ball").size, None, "it is the ball that is big");
        assert_eq!(read("the crate left of the picture").relation, None);
    }
}
