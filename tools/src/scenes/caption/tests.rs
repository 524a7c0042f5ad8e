use std::collections::BTreeMap;

use super::super::draw::{Content, draw, stream};
use super::*;

/// Enough scenes for every pattern to occur many times.
const SCENES: u64 = 400;

fn captions(each: impl Fn(&Scene, &Caption)) {
    captions_of(&Content::default(), Style::default(), each);
}

fn captions_of(content: &Content, style: Style, each: impl Fn(&Scene, &Caption)) {
    for index in 0..SCENES {
        let scene = draw(5, index, 56, content);
        let mut rng = stream(5, index, 1);
        for _ in 0..8 {
            each(&scene, &write(&scene, style, &mut rng));
        }
    }
}

fn visible(scene: &Scene) -> BTreeMap<usize, usize> {
    let mut counts: BTreeMap<usize, usize> = scene.grounds.iter().map(|&ground| (ground, 1)).collect();
    for object in &scene.objects {
        *counts.entry(object.class).or_default() += 1;
    }
    counts
}

/// The classes found in the text itself: whole words, longest names first.
fn read(text: &str) -> Vec<usize> {
    let mut text = format!(" {} ", text.to_lowercase().replace(['.', ','], " "));
    let mut found = Vec::new();
    let mut names: Vec<(usize, &str)> = CLASSES.iter().enumerate().map(|(i, c)| (i, c.name)).collect();
    names
        .extend(CLASSES.iter().enumerate().filter(|(_, c)| !c.plural.is_empty()).map(|(i, c)| (i, c.plural)));
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
fn every_mentioned_class_is_in_the_image() {
    captions(|scene, caption| {
        let mut mentioned: Vec<usize> = caption.mentioned.iter().map(|&(class, _)| class).collect();
        mentioned.sort_unstable();
        assert_eq!(read(&caption.text), mentioned, "{}", caption.text);
        let visible = visible(scene);
        for (class, count) in &caption.mentioned {
            let seen = visible.get(class).copied().unwrap_or(0);
            assert!(*count <= seen, "{}: {} of {}", caption.text, seen, CLASSES[*class].name);
            assert!(scene.mask.contains(&(*class as u8)), "{}", caption.text);
        }
    });
}

#[test]
fn at_least_one_visible_class_is_left_out() {
    captions(|scene, caption| {
        let distinct =
            caption.mentioned.iter().map(|&(class, _)| class).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(distinct.len(), caption.mentioned.len(), "mentioned twice: {}", caption.text);
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
            // No doubled words such as "tree tree", no doubled articles such as "the a".
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

#[test]
fn each_class_is_mentioned_at_the_naming_rate() {
    for rate in [0.2, 0.6, 1.0] {
        let counts = std::cell::Cell::new((0.0, 0.0));
        let style = Style { naming_rate: Some(rate), two_names: false };
        captions_of(&Content::default(), style, |scene, caption| {
            let mut mentioned: Vec<usize> = caption.mentioned.iter().map(|&(class, _)| class).collect();
            mentioned.sort_unstable();
            assert_eq!(read(&caption.text), mentioned, "{}", caption.text);
            let classes = visible(scene).len();
            // A caption that would mention nothing mentions one class.
            let expected = classes as f64 * rate + (1.0 - rate).powi(classes as i32);
            let (seen, wanted) = counts.get();
            counts.set((seen + mentioned.len() as f64, wanted + expected));
        });
        let (seen, wanted) = counts.get();
        assert!((seen / wanted - 1.0).abs() < 0.02, "{rate}: {seen} mentions, {wanted} expected");
    }
}

#[test]
fn colours_in_captions_are_those_of_objects() {
    let content = Content { colours: true, ..Content::default() };
    let found = std::cell::Cell::new(0);
    captions_of(&content, Style::default(), |scene, caption| {
        let text = format!(" {}", caption.text.to_lowercase());
        for (object, class) in CLASSES.iter().enumerate() {
            for (colour, word) in COLOURS.iter().enumerate() {
                if !class.plural.is_empty() && text.contains(&format!(" {word} {}", class.name)) {
                    found.set(found.get() + 1);
                    let there = |o: &SceneObject| o.class == object && o.colour == Some(colour);
                    assert!(scene.objects.iter().any(there), "{text}");
                }
            }
        }
    });
    assert!(found.get() > SCENES, "{}", found.get());
}

#[test]
fn half_of_the_mentions_have_the_second_name() {
    let counts = std::cell::RefCell::new([0.0_f64; 2]);
    let style = Style { naming_rate: None, two_names: true };
    captions_of(&Content::default(), style, |_, caption| {
        let text = caption.text.to_lowercase();
        counts.borrow_mut()[0] += f64::from(u8::from(text.contains("mushroom")));
        counts.borrow_mut()[1] += f64::from(u8::from(text.contains("toadstool")));
    });
    let [first, second] = counts.into_inner();
    assert!((first - second).abs() < 5.0 * (first + second).sqrt() && first > 100.0, "{first} and {second}");
}
