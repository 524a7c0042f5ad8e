//! Captions: true sentences about a part of a scene.
//!
//! A caption mentions some of the visible classes and leaves out at least one, as people do; with a naming rate it mentions each of them
//! with that probability. Everything it says about them is true: number, colour, position, neighbours, ground. Some of its nouns are
//! not classes (picture, corner, light).

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::classes::{CLASSES, Class};
use super::colours::{self, COLOURS};
use super::draw::{Scene, SceneObject};
use super::names;

/// How captions are written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Style {
    /// The probability that a visible class is mentioned; `None`: one to three objects and perhaps a ground, but never all classes.
    pub(crate) naming_rate: Option<f64>,
    /// Whether classes with a second name are called by it in half of their mentions.
    pub(crate) two_names: bool,
}

/// A caption and the classes that it mentions.
#[derive(Debug, Clone)]
pub(crate) struct Caption {
    pub(crate) text: String,
    /// The classes mentioned, each with the number of objects the caption says there are (1 for a ground).
    pub(crate) mentioned: Vec<(usize, usize)>,
}

/// A part of a sentence, and whether its subject is plural.
struct Phrase {
    text: String,
    plural: bool,
}

/// Writes one caption.
pub(crate) fn write(scene: &Scene, style: Style, rng: &mut ChaCha8Rng) -> Caption {
    let mut groups = groups(&scene.objects);
    groups.shuffle(rng);
    let visible = groups.len() + scene.grounds.len();
    let mut writer = Writer { scene, two_names: style.two_names, rng, mentioned: Vec::new() };
    if let Some(rate) = style.naming_rate {
        let sentence = writer.naming(&groups, rate);
        let mentioned = writer.mentioned;
        return Caption { text: finish(sentence, rng), mentioned };
    }

    // Mentions at most all visible classes but one.
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
    let mentioned = writer.mentioned;
    Caption { text: finish(sentence, rng), mentioned }
}

/// The objects grouped by class, in the order of the classes.
fn groups(objects: &[SceneObject]) -> Vec<Vec<&SceneObject>> {
    let mut groups: Vec<Vec<&SceneObject>> = Vec::new();
    for object in objects {
        match groups.iter_mut().find(|group| group[0].class == object.class) {
            Some(group) => group.push(object),
            None => groups.push(vec![object]),
        }
    }
    groups.sort_by_key(|group| group[0].class);
    groups
}

/// "a" or "an", by the first letter: no word here starts with a silent h or with the sound of "you".
fn indefinite(phrase: &str) -> String {
    let article = if phrase.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {phrase}")
}

/// Adds a capital letter and a full stop to most captions. On the web, many captions have neither.
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
    two_names: bool,
    rng: &'a mut ChaCha8Rng,
    mentioned: Vec<(usize, usize)>,
}

impl Writer<'_> {
    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from.choose(self.rng).copied().unwrap_or_default()
    }

    /// A caption that mentions each visible class with this probability, and at least one.
    fn naming(&mut self, groups: &[Vec<&SceneObject>], rate: f64) -> String {
        let mut named: Vec<Vec<&SceneObject>> =
            groups.iter().filter(|_| self.rng.random_bool(rate)).cloned().collect();
        let mut grounds: Vec<usize> =
            self.scene.grounds.iter().copied().filter(|_| self.rng.random_bool(rate)).collect();
        if named.is_empty() && grounds.is_empty() {
            match groups.get(self.rng.random_range(0..groups.len() + self.scene.grounds.len())) {
                Some(group) => named.push(group.clone()),
                None => grounds.extend(self.scene.grounds.choose(self.rng)),
            }
        }
        let phrase = (!named.is_empty()).then(|| self.of_objects(&named));
        let ground: Vec<String> = grounds.iter().map(|&ground| self.of_ground_class(ground)).collect();
        let ground = ground.join(" and ");
        let phrase = match phrase {
            None => Phrase { plural: grounds.len() > 1, text: ground },
            Some(phrase) if grounds.is_empty() => self.sided(phrase, &named),
            Some(Phrase { text, plural }) => {
                let text = match self.rng.random_range(0..3) {
                    0 => format!("{text} with {ground} in the background"),
                    1 => format!("{text} near {ground}"),
                    _ => format!("{text} with {ground} around"),
                };
                Phrase { text, plural }
            }
        };
        self.framed(phrase)
    }

    /// The name of a class and its plural.
    fn name(&mut self, class: &Class) -> (&'static str, &'static str) {
        match names::second(class) {
            Some(second) if self.two_names && self.rng.random_bool(0.5) => second,
            _ => (class.name, class.plural),
        }
    }

    /// A noun phrase for one or all objects of a class.
    fn of_group(&mut self, group: &[&SceneObject]) -> Phrase {
        let class = &CLASSES[group[0].class];
        let seen = group.len();
        let claimed = if seen > 1 && self.rng.random_bool(0.85) { seen } else { 1 };
        self.mentioned.push((group[0].class, claimed));
        let words = self.described(class, group, claimed);
        let (name, plural) = self.name(class);
        if claimed > 1 {
            let number = match claimed {
                2 => self.pick(&["two", "two", "two", "a pair of", "a couple of"]),
                3 => self.pick(&["three", "three", "several", "some"]),
                4 => self.pick(&["four", "several", "some"]),
                _ => self.pick(&["five", "several", "many"]),
            };
            return Phrase { text: format!("{number} {words}{plural}"), plural: true };
        }
        let single = format!("{words}{name}");
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

    /// Adjectives before a noun, each followed by a space: first the size, then one that is true of the class, or the colour of the first
    /// `claimed` objects if they have one in common.
    fn described(&mut self, class: &Class, group: &[&SceneObject], claimed: usize) -> String {
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
        if let Some(colour) = group[0].colour {
            let common = group[..claimed].iter().all(|object| object.colour == Some(colour));
            let told = common && self.rng.random_bool(0.7);
            let true_ones: Vec<&str> =
                class.words.iter().copied().filter(|word| !colours::WORDS.contains(word)).collect();
            let word = if told { COLOURS[colour] } else { self.pick(&true_ones) };
            if told || (!word.is_empty() && self.rng.random_bool(0.38)) {
                words += word;
                words.push(' ');
            }
        } else if self.rng.random_bool(0.38) {
            words += self.pick(class.words);
            words.push(' ');
        }
        words
    }

    /// A noun phrase for a ground.
    fn of_ground_class(&mut self, ground: usize) -> String {
        let class = &CLASSES[ground];
        self.mentioned.push((ground, 1));
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

    /// A sentence about a ground, without objects.
    fn of_ground(&mut self) -> String {
        let ground = self.scene.grounds.choose(self.rng).copied().unwrap_or_default();
        let class = &CLASSES[ground];
        self.mentioned.push((ground, 1));
        let adjective =
            if self.rng.random_bool(0.6) { self.pick(class.words).to_owned() + " " } else { String::new() };
        let noun = format!("{adjective}{}", class.name);
        let one = if class.name == "brick wall" { indefinite(&noun) } else { noun };
        let piece = self.pick(class.pieces);
        match self.rng.random_range(0..5) {
            0 => format!("{one} {}", self.pick(self.scene.light)),
            1 => format!("a photo of {one}"),
            2 => format!("{piece} {one}"),
            3 => format!("there is {piece} {one} with a few things around"),
            _ => format!("a picture with {piece} {one}"),
        }
    }

    /// One to three groups joined to a noun phrase, sometimes with the spatial relation of two of them.
    fn of_objects(&mut self, groups: &[Vec<&SceneObject>]) -> Phrase {
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

    /// A relation that is true for all objects of one group and all of the other, or "and".
    fn relation(&mut self, one: &[&SceneObject], two: &[&SceneObject]) -> &'static str {
        let all = |holds: &dyn Fn(&SceneObject, &SceneObject) -> bool| {
            one.iter().all(|a| two.iter().all(|b| holds(a, b)))
        };
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

    /// `phrase` with the ground that the objects are on, or with another visible ground.
    fn placed(&mut self, phrase: Phrase, groups: &[Vec<&SceneObject>]) -> Phrase {
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

    /// `phrase`, sometimes with the objects' position in the image or with the light.
    fn sided(&mut self, phrase: Phrase, groups: &[Vec<&SceneObject>]) -> Phrase {
        let Phrase { mut text, plural } = phrase;
        if self.rng.random_bool(0.30) {
            let all =
                |holds: &dyn Fn(&SceneObject) -> bool| groups.iter().flatten().all(|object| holds(object));
            let mut sides = vec![self.pick(self.scene.light)];
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

    /// A sentence with a verb, such as "a fish lies on sand".
    fn clause(&mut self, group: &[&SceneObject]) -> String {
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

    /// A caption from a noun phrase: unchanged, or after words such as "a photo of".
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

/// The ground under all of these objects, if it is the same.
fn common_ground<'a>(mut objects: impl Iterator<Item = &'a SceneObject>) -> Option<usize> {
    let first = objects.next()?.ground;
    objects.all(|object| object.ground == first).then_some(first)
}

#[cfg(test)]
mod tests;
