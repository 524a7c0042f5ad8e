//! What the sections of the page have in common.

/// Number of concepts shown with example images.
pub(super) const TOP: usize = 24;
/// Maximum length of a text from the dataset (concept, class, cause of a failure), characters: it could be any length.
pub(super) const MAX_CHARACTERS: usize = 160;

/// A section: the anchor of its heading, the heading, and the HTML below it.
pub(super) struct Section {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) body: String,
}

/// All concepts with their counts, most mentioned first.
pub(super) type Concepts<'a> = [(&'a str, &'a concepts::statistics::ConceptCounts)];

/// A list of names and values. The values are HTML.
pub(super) fn facts(of: &[(&str, String)]) -> String {
    let lines: String =
        of.iter().map(|(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>")).collect();
    format!("<dl class=\"facts\">{lines}</dl>")
}
