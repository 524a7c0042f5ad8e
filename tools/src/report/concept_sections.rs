//! The page's sections about concepts, classes and pairs of concepts.

use super::Findings;
use super::chart;
use super::examples::{self, Example};
use super::pairs::{Chosen, SHOWN};
use super::section::{Concepts, MAX_CHARACTERS, Section, TOP, facts};
use super::text::{bdi, clipped, counted, grouped, html as escaped, percent, visible};
use crate::stats::{ClassCoverage, Coverage, RARE};

/// Maximum number of rare classes listed, and of absent ones.
const MAX_CLASSES: usize = 300;
/// Maximum number of characters of a caption shown on each side of a mention.
const AROUND: usize = 70;

pub(super) fn frequency(findings: &Findings<'_>, all: &Concepts<'_>) -> Section {
    let mentions = findings.counts.totals().mentions;
    let first = |count: usize| all.iter().take(count).map(|(_, of)| of.mentions).sum::<u64>();
    let once = all.iter().rev().take_while(|(_, of)| of.mentions == 1).count() as u64;
    let mut seen = 0;
    let half = all.iter().take_while(|(_, of)| {
        let before = seen;
        seen += of.mentions;
        2 * before < mentions
    });
    let mut lines = vec![
        ("concepts with half of all mentions", grouped(half.count() as u64)),
        ("share of mentions, 10 most frequent", percent(first(10), mentions)),
    ];
    if all.len() > 100 {
        lines.push(("share of mentions, 100 most frequent", percent(first(100), mentions)));
    }
    lines.push((
        "concepts mentioned once",
        format!("{} ({})", grouped(once), percent(once, all.len() as u64)),
    ));
    let points: Vec<(&str, u64)> = all.iter().map(|(name, of)| (*name, of.mentions)).collect();
    let body = if all.is_empty() {
        "<p>The captions mention no concept.</p>".to_owned()
    } else {
        format!(
            "<p>Mentions of each concept, most frequent first. Both axes are logarithmic. A nearly straight line is \
             normal for natural language: few frequent concepts and a long tail of rare ones.</p><div class=\"split\"><div>{}</div>{}</div>",
            chart::frequency(&points),
            facts(&lines)
        )
    };
    Section { id: "frequency", title: "Concept frequency", body }
}

pub(super) fn top(findings: &Findings<'_>, all: &Concepts<'_>) -> Section {
    let samples = findings.counts.totals().samples;
    let mut cards = String::new();
    for ((name, of), images) in all.iter().zip(&findings.examples.of) {
        let mut strip: String = images
            .iter()
            .map(|example| {
                let caption = clipped(&example.caption, MAX_CHARACTERS);
                let caption = visible(&caption);
                format!(
                    "<img src=\"{}\" alt=\"{1}\" title=\"{1}\" width=\"72\" height=\"72\">",
                    example.uri,
                    escaped(&caption)
                )
            })
            .collect();
        if !images.is_empty() {
            strip += &"<span class=\"none\"></span>".repeat(examples::IMAGES - images.len());
            strip = format!("<div class=\"images\">{strip}</div>");
        }
        let quote = images.first().map(quote).unwrap_or_default();
        cards += &format!(
            "<li>{strip}<div class=\"about\"><h3>{} <small>{} · {} of samples</small></h3>{}{quote}</div></li>",
            bdi(&clipped(name, MAX_CHARACTERS)),
            counted(of.mentions, "mention", "mentions"),
            percent(of.samples, samples),
            chart::meter(of.samples, samples)
        );
    }
    let mut body = format!("<p>The {} most mentioned concepts, with example images.</p>", all.len().min(TOP));
    body += &format!("<ul class=\"cards\">{cards}</ul>");
    let skipped = findings.examples.skipped;
    if skipped > 0 {
        let images = counted(skipped, "image was", "images were");
        body += &format!("<p class=\"note\">{images} skipped: damaged or too large.</p>");
    }
    if findings.examples.full {
        body += "<p class=\"note\">Some example images were left out to keep this page small.</p>";
    }
    Section { id: "top", title: "Top concepts", body }
}

/// A caption with the mention highlighted, cut to the text around it.
fn quote(example: &Example) -> String {
    let Example { caption, phrase, .. } = example;
    let (Some(before), Some(marked), Some(after)) =
        (caption.get(..phrase.start), caption.get(phrase.clone()), caption.get(phrase.end..))
    else {
        return String::new();
    };
    let skipped = before.chars().count().saturating_sub(AROUND);
    let before: String = before.chars().skip(skipped).collect();
    let start = if skipped > 0 { "…" } else { "" };
    format!(
        "<p class=\"quote\"><bdi>{start}{}<mark>{}</mark>{}</bdi></p>",
        escaped(&before),
        escaped(&clipped(marked, MAX_CHARACTERS)),
        escaped(&clipped(after, AROUND))
    )
}

pub(super) fn classes(coverage: &Coverage) -> Section {
    let (rare, absent) = (coverage.rare().collect::<Vec<_>>(), coverage.absent().collect::<Vec<_>>());
    let total = coverage.classes.len();
    let frequent = total - rare.len() - absent.len();
    let share = |count: usize| percent(count as u64, total as u64);
    let mut body = format!(
        "<p>Of {}, {} ({}) are mentioned. Classes that fewer than 1 in {} samples mention are called rare: there are \
         few samples to learn them from. “Frequent” are the other mentioned classes.</p>",
        counted(total as u64, "class", "classes"),
        grouped((total - absent.len()) as u64),
        share(total - absent.len()),
        grouped(RARE)
    );
    body += &chart::stacked(&[
        ("frequent", frequent as u64),
        ("rare", rare.len() as u64),
        ("absent", absent.len() as u64),
    ]);
    let mut rare = rare;
    rare.sort_by_key(|class| class.samples);
    let list = |classes: &[&ClassCoverage], counted: bool| {
        let chip = |class: &&ClassCoverage| {
            let count =
                if counted { format!(" <small>{}</small>", grouped(class.samples)) } else { String::new() };
            format!("<li>{}{count}</li>", bdi(&clipped(&class.class, MAX_CHARACTERS)))
        };
        let mut chips: String = classes.iter().take(MAX_CLASSES).map(chip).collect();
        if classes.len() > MAX_CLASSES {
            chips += &format!("<li>and {} more</li>", grouped((classes.len() - MAX_CLASSES) as u64));
        }
        format!("<ul class=\"chips\">{chips}</ul>")
    };
    body += "<ul class=\"legend\">";
    for (class, count) in [("frequent", frequent), ("rare", rare.len()), ("absent", absent.len())] {
        let count = format!("{} ({})", grouped(count as u64), share(count));
        body += &format!("<li class=\"key {class}\">{class} {count}</li>");
    }
    body += "</ul>";
    if !rare.is_empty() {
        body += &format!("<h3>Rare, with the number of samples</h3>{}", list(&rare, true));
    }
    if !absent.is_empty() {
        body += &format!("<h3>Absent</h3>{}", list(&absent, false));
    }
    Section { id: "classes", title: "Classes", body }
}

pub(super) fn pairs(findings: &Findings<'_>) -> Section {
    let pairs = &findings.pairs;
    let table = |caption: &str, small: &str, chosen: &[Chosen]| {
        let rows: String = chosen
            .iter()
            .map(|pair| {
                format!(
                    "<tr><th scope=\"row\">{}<span class=\"plus\">+</span>{}</th><td class=\"number\">{}</td>\
                     <td class=\"number\">{}</td></tr>",
                    bdi(&clipped(&pair.a, MAX_CHARACTERS)),
                    bdi(&clipped(&pair.b, MAX_CHARACTERS)),
                    grouped(pair.samples),
                    signed(pair.pmi)
                )
            })
            .collect();
        format!(
            "<table><caption>{caption}<small>{small}</small></caption><thead><tr><th scope=\"col\">concepts</th>\
             <th scope=\"col\" class=\"number\">samples</th><th scope=\"col\" class=\"number\">PMI</th></tr></thead>\
             <tbody>{rows}</tbody></table>"
        )
    };
    let body = if pairs.frequent.is_empty() {
        "<p>No sample mentions two concepts.</p>".to_owned()
    } else {
        let by_pmi = if pairs.highest_pmi.is_empty() {
            format!(
                "<p class=\"note\">No pair is in {} or more samples. PMI is not reliable for fewer.</p>",
                pairs.min_samples
            )
        } else {
            table(
                "Highest PMI",
                &format!("pairs in at least {} samples", grouped(pairs.min_samples)),
                &pairs.highest_pmi,
            )
        };
        format!(
            "<p>Concepts mentioned in the same sample: the first {SHOWN} of {}. PMI (pointwise mutual information) \
             compares this with chance: a PMI of 3 means 2³ = 8 times as often as if the two were independent.</p><div class=\"halves\">\
             <div class=\"scroll\">{}</div><div class=\"scroll\">{by_pmi}</div></div>",
            counted(findings.counts.totals().pairs, "pair", "pairs"),
            table("Most frequent", "by number of samples that mention both", &pairs.frequent)
        )
    };
    Section { id: "pairs", title: "Pairs of concepts", body }
}

/// A number with one decimal and a minus sign of the width of a plus sign.
fn signed(number: f64) -> String {
    // A number that rounds to zero has no sign.
    let rounded = (number * 10.0).round() / 10.0 + 0.0;
    format!("{rounded:.1}").replace('-', "−")
}
