//! Second names for classes (`--two-names`), as people have several words for one thing.

use super::classes::{CLASSES, Class};

/// Class, second name and its plural.
const SECOND: [(&str, &str, &str); 8] = [
    ("soccer ball", "football", "footballs"),
    ("traffic cone", "pylon", "pylons"),
    ("rubber duck", "toy duck", "toy ducks"),
    ("mushroom", "toadstool", "toadstools"),
    ("umbrella", "parasol", "parasols"),
    ("flower", "blossom", "blossoms"),
    ("donut", "doughnut", "doughnuts"),
    ("crate", "box", "boxes"),
];

/// The second name of a class and its plural, if it has one.
pub(crate) fn second(class: &Class) -> Option<(&'static str, &'static str)> {
    SECOND.iter().find(|(name, ..)| *name == class.name).map(|&(_, name, plural)| (name, plural))
}

/// The lines of second-names.txt: for each class its second name, or its only one.
pub(super) fn lines() -> String {
    CLASSES.iter().map(|class| second(class).map_or(class.name, |(name, _)| name).to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_names_are_new_names_of_classes() {
        for (class, name, plural) in SECOND {
            assert!(CLASSES.iter().any(|one| one.name == class), "{class}");
            assert!(CLASSES.iter().all(|one| one.name != name && one.plural != plural), "{name}");
        }
        assert_eq!(lines().lines().count(), CLASSES.len());
    }
}
