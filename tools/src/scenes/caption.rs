//! Sentences about a scene: true, and never about all of it.
//!
//! A caption names some of the visible classes and leaves at least one out, as people do. Everything it says of them
//! holds in the picture: number, side, neighbour, ground. Some words are not classes at all (picture, corner, light).

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::classes::{CLASSES, Class};
use super::draw::{Scene, Thing};

/// A caption with its ground truth.
#[derive(Debug, Clone)]
pub(crate) struct Caption {
    pub(crate) text: String,
    /// Each class named, with how many of it the caption claims (1 for a ground).
    pub(crate) named: Vec<(usize, usize)>,
}

/// A phrase in the making.
struct Phrase {
    text: String,
    plural: bool,
}

/// Writes one caption.
pub(crate) fn write(scene: &Scene, rng: &mut ChaCha8Rng) -> Caption {
    let mut groups = groups(&scene.things);
    groups.shuffle(rng);
    let visible = groups.len() + scene.grounds.len();
    let mut writer = Writer { scene, rng, named: Vec::new() };

    // At most all but one of the visible classes.
    let budget = visible - 1;
    let objects = match writer.rng.random_range(0..100) {
        0..7 => 0,
        7..50 => 1,
        50..86 => 2,
        _ => 3,
    };
    let objects = objects.min(groups.len()).min(budget);
    let with_ground = objects == 0 || (objects < budget && writer.rng.random_bool(0.6));
    let groups = &groups[..objects];

    let sentence = match (objects, with_ground) {
        (0, _) => writer.of_ground(),
        (1, true) if writer.rng.random_bool(0.35) => writer.clause(&groups[0]),
        _ => {
            let phrase = writer.of_objects(groups);
            let phrase =
                if with_ground { writer.placed(phrase, groups) } else { writer.sided(phrase, groups) };
            writer.framed(phrase)
        }
    };
    let named = writer.named;
    Caption { text: finish(sentence, rng), named }
}

/// Objects of one class, in the order of classes.
fn groups(things: &[Thing]) -> Vec<Vec<&Thing>> {
    let mut groups: Vec<Vec<&Thing>> = Vec::new();
    for thing in things {
        match groups.iter_mut().find(|group| group[0].class == thing.class) {
            Some(group) => group.push(thing),
            None => groups.push(vec![thing]),
        }
    }
    groups.sort_by_key(|group| group[0].class);
    groups
}

/// "a" or "an", by the first letter: the vocabulary has no silent h and no "yoo".
fn indefinite(phrase: &str) -> String {
    let article = if phrase.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {phrase}")
}

/// Capital letter and full stop, for most; the web leaves them out.
fn finish(sentence: String, rng: &mut ChaCha8Rng) -> String {
    let mut letters = sentence.chars();
    let capital = match letters.next() {
        Some(first) if rng.random_bool(0.85) => first.to_uppercase().chain(letters).collect(),
        _ => sentence,
    };
    if rng.random_bool(0.65) { capital + "." } else { capital }
}

struct Writer<'a> {
    scene: &'a Scene,
    rng: &'a mut ChaCha8Rng,
    named: Vec<(usize, usize)>,
}

impl Writer<'_> {
    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from.choose(self.rng).copied().unwrap_or_default()
    }

    /// Noun phrase for one, some or all objects of a class.
    fn of_group(&mut self, group: &[&Thing]) -> Phrase {
        let class = &CLASSES[group[0].class];
        let seen = group.len();
        let claimed = if seen > 1 && self.rng.random_bool(0.85) { seen } else { 1 };
        self.named.push((group[0].class, claimed));
        let words = self.described(class, group);
        if claimed > 1 {
            let number = match claimed {
                2 => self.pick(&["two", "two", "two", "a pair of", "a couple of"]),
                3 => self.pick(&["three", "three", "several", "some"]),
                4 => self.pick(&["four", "several", "some"]),
                _ => self.pick(&["five", "several", "many"]),
            };
            return Phrase { text: format!("{number} {words}{}", class.plural), plural: true };
        }
        let single = format!("{words}{}", class.name);
        let text = if class.owned && self.rng.random_bool(0.06) {
            let owner = self.pick(&["a child's", "somebody's", "a girl's", "a boy's", "my sister's"]);
            format!("{owner} {single}")
        } else if seen == 1 && self.rng.random_bool(0.08) {
            format!("the {single}")
        } else {
            indefinite(&single)
        };
        Phrase { text, plural: false }
    }

    /// Adjectives in front of a noun, each followed by a space: size, then what is true of the class.
    fn described(&mut self, class: &Class, group: &[&Thing]) -> String {
        let mut words = String::new();
        let (smallest, largest) =
            group.iter().fold((f32::MAX, 0.0_f32), |(s, l), t| (s.min(t.radius), l.max(t.radius)));
        if self.rng.random_bool(0.3) {
            if largest < 0.15 {
                words += self.pick(&["small ", "little ", "tiny "]);
            } else if smallest > 0.19 {
                words += self.pick(&["big ", "large "]);
            } else if self.rng.random_bool(0.4) {
                words += "nice ";
            }
        }
        if self.rng.random_bool(0.38) {
            words += self.pick(class.words);
            words.push(' ');
        }
        words
    }

    /// Noun phrase for a ground.
    fn of_ground_class(&mut self, ground: usize) -> String {
        let class = &CLASSES[ground];
        self.named.push((ground, 1));
        let counted = class.name == "brick wall";
        let adjective =
            if self.rng.random_bool(0.35) { self.pick(class.words).to_owned() + " " } else { String::new() };
        let noun = format!("{adjective}{}", class.name);
        match (counted, self.rng.random_range(0..10)) {
            (true, 0..6) => indefinite(&noun),
            (false, 0..4) => noun,
            (false, 4) => format!("some {noun}"),
            _ => format!("the {noun}"),
        }
    }

    /// A sentence about a ground and nothing on it.
    fn of_ground(&mut self) -> String {
        let ground = self.scene.grounds.choose(self.rng).copied().unwrap_or_default();
        let class = &CLASSES[ground];
        self.named.push((ground, 1));
        let adjective =
            if self.rng.random_bool(0.6) { self.pick(class.words).to_owned() + " " } else { String::new() };
        let noun = format!("{adjective}{}", class.name);
        let one = if class.name == "brick wall" { indefinite(&noun) } else { noun };
        let piece = self.pick(class.pieces);
        match self.rng.random_range(0..5) {
            0 => format!("{one} {}", self.pick(self.scene.mood)),
            1 => format!("a photo of {one}"),
            2 => format!("{piece} {one}"),
            3 => format!("there is {piece} {one} with a few things around"),
            _ => format!("a picture with {piece} {one}"),
        }
    }

    /// One to three groups joined, with how two of them lie to each other when there is something to say.
    fn of_objects(&mut self, groups: &[Vec<&Thing>]) -> Phrase {
        let phrases: Vec<Phrase> = groups.iter().map(|group| self.of_group(group)).collect();
        let text = match phrases.as_slice() {
            [one] => return Phrase { text: one.text.clone(), plural: one.plural },
            [one, two] => {
                let relation = self.relation(&groups[0], &groups[1]);
                if relation != "and" {
                    return Phrase {
                        text: format!("{} {relation} {}", one.text, two.text),
                        plural: one.plural,
                    };
                }
                format!("{} and {}", one.text, two.text)
            }
            [most @ .., last] => {
                let list = most.iter().map(|phrase| phrase.text.as_str()).collect::<Vec<_>>().join(", ");
                let comma = if self.rng.random_bool(0.5) { "," } else { "" };
                format!("{list}{comma} and {}", last.text)
            }
            [] => String::new(),
        };
        Phrase { text, plural: true }
    }

    /// A true relation of all of one group to all of another, or "and".
    fn relation(&mut self, one: &[&Thing], two: &[&Thing]) -> &'static str {
        let all =
            |holds: &dyn Fn(&Thing, &Thing) -> bool| one.iter().all(|a| two.iter().all(|b| holds(a, b)));
        let mut true_ones = vec!["and", "and"];
        if all(&|a, b| (a.x - b.x).hypot(a.y - b.y) < 1.5 * (a.radius + b.radius)) {
            true_ones.extend(["next to", "near", "beside"]);
        }
        if all(&|a, b| b.x - a.x > 0.2 && (a.y - b.y).abs() < 0.3) {
            true_ones.push("to the left of");
        }
        if all(&|a, b| a.x - b.x > 0.2 && (a.y - b.y).abs() < 0.3) {
            true_ones.push("to the right of");
        }
        if all(&|a, b| b.y - a.y > 0.2 && (a.x - b.x).abs() < 0.3) {
            true_ones.push("above");
        }
        if all(&|a, b| a.y - b.y > 0.2 && (a.x - b.x).abs() < 0.3) {
            true_ones.push("below");
        }
        self.pick(&true_ones)
    }

    /// `phrase` with the ground it lies on, or with another one that can be seen.
    fn placed(&mut self, phrase: Phrase, groups: &[Vec<&Thing>]) -> Phrase {
        let Phrase { text, plural } = phrase;
        let under = common_ground(groups.iter().flatten().copied());
        let text = if let Some(ground) = under.filter(|ground| self.scene.grounds.contains(ground)) {
            let place = self.pick(CLASSES[ground].places);
            let lying = self.pick(&["", "", "", "lying ", "left "]);
            let noun = self.of_ground_class(ground);
            match self.rng.random_range(0..8) {
                0 => return Phrase { text: format!("{noun} with {text}"), plural: false },
                1..3 => format!("{text} {lying}{}", place.replace("{}", &noun)),
                _ => format!("{text} {}", place.replace("{}", &noun)),
            }
        } else {
            let ground = self.scene.grounds.choose(self.rng).copied().unwrap_or_default();
            let noun = self.of_ground_class(ground);
            match self.rng.random_range(0..3) {
                0 => format!("{text} with {noun} in the background"),
                1 => format!("{text} near {noun}"),
                _ => format!("{text} and {noun}"),
            }
        };
        Phrase { text, plural }
    }

    /// `phrase` with the side of the picture it is on, or the light it stands in, or as it is.
    fn sided(&mut self, phrase: Phrase, groups: &[Vec<&Thing>]) -> Phrase {
        let Phrase { mut text, plural } = phrase;
        if self.rng.random_bool(0.30) {
            let all = |holds: &dyn Fn(&Thing) -> bool| groups.iter().flatten().all(|thing| holds(thing));
            let mut sides = vec![self.pick(self.scene.mood)];
            for (holds, words) in [
                (all(&|t| t.x < 0.36), &["on the left", "on the left side"]),
                (all(&|t| t.x > 0.64), &["on the right", "on the right side"]),
                (all(&|t| t.y < 0.36), &["at the top", "in the upper part of the picture"]),
                (all(&|t| t.y > 0.64), &["at the bottom", "in the lower part of the picture"]),
                (
                    all(&|t| t.x.min(1.0 - t.x).max(t.y.min(1.0 - t.y)) < 0.3),
                    &["in a corner", "in the corner"],
                ),
                (
                    all(&|t| (t.x - 0.5).hypot(t.y - 0.5) < 0.16),
                    &["in the middle", "in the center of the image"],
                ),
            ] {
                if holds {
                    sides.extend(words);
                }
            }
            text = format!("{text} {}", self.pick(&sides));
        }
        Phrase { text, plural }
    }

    /// A sentence with a verb: who does what on which ground.
    fn clause(&mut self, group: &[&Thing]) -> String {
        let subject = self.of_group(group);
        let ground =
            common_ground(group.iter().copied()).filter(|ground| self.scene.grounds.contains(ground));
        let Some(ground) = ground else {
            let ground = self.scene.grounds.choose(self.rng).copied().unwrap_or_default();
            let noun = self.of_ground_class(ground);
            let verb = if subject.plural { "are" } else { "is" };
            return format!("{} {verb} near {noun}", subject.text);
        };
        let (one, many) = [("sits", "sit"), ("lies", "lie"), ("rests", "rest"), ("is", "are")]
            .choose(self.rng)
            .copied()
            .unwrap_or(("is", "are"));
        let place = self.pick(CLASSES[ground].places);
        let noun = self.of_ground_class(ground);
        format!("{} {} {}", subject.text, if subject.plural { many } else { one }, place.replace("{}", &noun))
    }

    /// A noun phrase made a caption: as it is, or as what a picture shows.
    fn framed(&mut self, phrase: Phrase) -> String {
        let Phrase { text, plural } = phrase;
        let be = if plural { "are" } else { "is" };
        match self.rng.random_range(0..18) {
            0..6 => text,
            6..8 => format!("a photo of {text}"),
            8 => format!("a picture of {text}"),
            9 => format!("an image with {text}"),
            10 => format!("a close-up of {text}"),
            11 => format!("a snapshot of {text}"),
            12..14 => format!("there {be} {text}"),
            14 => format!("we can see {text}"),
            15 => format!("this picture shows {text}"),
            16 => format!("here {be} {text}"),
            _ => format!("I took a photo of {text}"),
        }
    }
}

/// The ground under all of these, if it is one.
fn common_ground<'a>(mut things: impl Iterator<Item = &'a Thing>) -> Option<usize> {
    let first = things.next()?.ground;
    things.all(|thing| thing.ground == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::draw::{draw, stream};
    use super::*;

    /// Scenes and captions enough to meet every pattern many times.
    const SCENES: u64 = 400;

    fn captions(each: impl Fn(&Scene, &Caption)) {
        for index in 0..SCENES {
            let scene = draw(5, index, 56);
            let mut rng = stream(5, index, 1);
            for _ in 0..8 {
                each(&scene, &write(&scene, &mut rng));
            }
        }
    }

    fn visible(scene: &Scene) -> BTreeMap<usize, usize> {
        let mut counts: BTreeMap<usize, usize> = scene.grounds.iter().map(|&ground| (ground, 1)).collect();
        for thing in &scene.things {
            *counts.entry(thing.class).or_default() += 1;
        }
        counts
    }

    /// Classes found by reading the text, without the writer's ground truth: whole words, longest names first.
    fn read(text: &str) -> Vec<usize> {
        let mut text = format!(" {} ", text.to_lowercase().replace(['.', ','], " "));
        let mut found = Vec::new();
        let mut names: Vec<(usize, &str)> = CLASSES.iter().enumerate().map(|(i, c)| (i, c.name)).collect();
        names.extend(
            CLASSES.iter().enumerate().filter(|(_, c)| !c.plural.is_empty()).map(|(i, c)| (i, c.plural)),
        );
        names.sort_by_key(|(_, name)| std::cmp::Reverse(name.len()));
        for (class, name) in names {
            let word = format!(" {name} ");
            while let Some(at) = text.find(&word) {
                text.replace_range(at + 1..at + word.len() - 1, "");
                found.push(class);
            }
        }
        found.sort_unstable();
        found
    }

    #[test]
    fn every_noun_of_a_class_is_in_the_picture() {
        captions(|scene, caption| {
            let mut told: Vec<usize> = caption.named.iter().map(|&(class, _)| class).collect();
            told.sort_unstable();
            assert_eq!(read(&caption.text), told, "{}", caption.text);
            let visible = visible(scene);
            for (class, count) in &caption.named {
                let seen = visible.get(class).copied().unwrap_or(0);
                assert!(*count <= seen, "{}: {} of {}", caption.text, seen, CLASSES[*class].name);
                assert!(scene.mask.contains(&(*class as u8)), "{}", caption.text);
            }
        });
    }

    #[test]
    fn something_visible_is_always_left_out() {
        captions(|scene, caption| {
            let distinct =
                caption.named.iter().map(|&(class, _)| class).collect::<std::collections::BTreeSet<_>>();
            assert_eq!(distinct.len(), caption.named.len(), "named twice: {}", caption.text);
            assert!(distinct.len() < visible(scene).len(), "{}", caption.text);
            assert!(!distinct.is_empty(), "{}", caption.text);
        });
    }

    #[test]
    fn captions_are_english() {
        captions(|_, caption| {
            let text = caption.text.to_lowercase();
            assert!(!text.contains("  ") && !text.contains(" ,") && text.trim() == text, "{text:?}");
            let words: Vec<&str> = text.trim_end_matches('.').split(' ').collect();
            for pair in words.windows(2) {
                let vowel = pair[1].starts_with(['a', 'e', 'i', 'o', 'u']);
                match pair[0] {
                    "a" => assert!(!vowel, "{text}"),
                    "an" => assert!(vowel, "{text}"),
                    _ => {}
                }
                // "tree tree", "the a" and the like.
                assert_ne!(pair[0], pair[1], "{text}");
                let articles = ["a", "an", "the", "some"];
                assert!(!(articles.contains(&pair[0]) && articles.contains(&pair[1])), "{text}");
            }
        });
    }

    #[test]
    fn captions_vary() {
        let texts = std::cell::RefCell::new(Vec::new());
        captions(|_, caption| texts.borrow_mut().push(caption.text.clone()));
        let texts = texts.into_inner();
        let distinct = texts.iter().collect::<std::collections::BTreeSet<_>>().len();
        assert!(distinct as f64 > 0.9 * texts.len() as f64, "{distinct} of {}", texts.len());
        for pattern in
            ["Two ", "'s ", "A photo of", "We can see", " to the left of ", "There are", "There is", " an "]
        {
            assert!(texts.iter().any(|text| text.contains(pattern)), "no {pattern:?}");
        }
    }
}
