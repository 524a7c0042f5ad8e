//! Objects in colours that do not follow from their classes (`--colours`), so that a colour tells two objects of a class apart.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::paint::{Rgb, shade_of};

/// The names of the colours.
pub(crate) const COLOURS: [&str; 8] = ["red", "yellow", "green", "blue", "purple", "pink", "white", "black"];

/// Hue, saturation and value of each.
const HSV: [(f32, f32, f32); 8] = [
    (0.995, 0.88, 0.84),
    (0.140, 0.90, 0.96),
    (0.360, 0.80, 0.58),
    (0.620, 0.82, 0.82),
    (0.770, 0.66, 0.56),
    (0.930, 0.46, 0.97),
    (0.150, 0.03, 0.97),
    (0.640, 0.12, 0.13),
];

/// Words for classes that name the colour of their objects, and so are not true of all with `--colours`.
pub(crate) const WORDS: [&str; 11] = [
    "yellow",
    "black and white",
    "orange",
    "green",
    "red",
    "purple",
    "turquoise",
    "colorful",
    "pink",
    "chocolate",
    "blue",
];

/// A random colour.
pub(super) fn choose(rng: &mut ChaCha8Rng) -> usize {
    rng.random_range(0..COLOURS.len())
}

/// A shade of a colour.
pub(super) fn shade(colour: usize, rng: &mut ChaCha8Rng) -> Rgb {
    let (hue, saturation, value) = HSV[colour];
    shade_of(rng, hue, saturation, value)
}

#[cfg(test)]
mod tests {
    use super::super::classes::{CLASSES, GROUNDS};
    use super::*;

    #[test]
    fn no_word_that_is_left_names_a_colour() {
        for class in &CLASSES[GROUNDS..] {
            for word in class.words.iter().filter(|word| !WORDS.contains(word)) {
                assert!(!word.split(' ').any(|part| COLOURS.contains(&part)), "{word}");
            }
        }
        for word in WORDS {
            assert!(
                CLASSES[GROUNDS..].iter().any(|class| class.words.contains(&word)),
                "{word} describes no object"
            );
        }
    }
}
