//! Words that name colours.

/// Whether a word is a basic colour term of English (Berlin and Kay 1969).
pub(super) fn is_basic(word: &str) -> bool {
    matches!(
        word,
        "black"
            | "white"
            | "red"
            | "green"
            | "yellow"
            | "blue"
            | "brown"
            | "purple"
            | "pink"
            | "orange"
            | "gray"
            | "grey"
    )
}

/// Whether a word is the name of a thing, or another adjective, that also names its colour: "black and tan".
pub(super) fn is_material(word: &str) -> bool {
    matches!(
        word,
        "tan"
            | "beige"
            | "cream"
            | "gold"
            | "silver"
            | "bronze"
            | "copper"
            | "ivory"
            | "khaki"
            | "lavender"
            | "maroon"
            | "navy"
            | "rust"
            | "salmon"
            | "teal"
            | "turquoise"
            | "violet"
    )
}

/// Whether a word says which tone of a colour is meant, as in "navy blue" and "neon yellow", or is such a colour itself.
pub(super) fn is_shade(word: &str) -> bool {
    matches!(
        word,
        "beige"
            | "dark"
            | "ice"
            | "khaki"
            | "light"
            | "lime"
            | "maroon"
            | "matt"
            | "matte"
            | "metallic"
            | "mint"
            | "navy"
            | "neon"
            | "royal"
            | "teal"
            | "turquoise"
    )
}
