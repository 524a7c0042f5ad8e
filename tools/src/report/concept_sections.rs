//! The page's sections on what the captions speak of: concepts, classes, pairs.

use super::Findings;
use super::chart;
use super::examples::{self, Example};
use super::page::{Concepts, LONGEST, Section, TOP, clipped, facts};
use super::pairs::{Chosen, SHOWN};
use super::text::{bdi, counted, grouped, html as escaped, percent, visible};
use crate::stats::{ClassCoverage, Coverage, RARE};

/// Classes listed by name, of the rare and of the absent.
const CLASSES: usize = 300;
/// Characters of a caption kept on each side of a mention.
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
        ("concepts that make half of the mentions", grouped(half.count() as u64)),
        ("share of the 10 most frequent", percent(first(10), mentions)),
    ];
    if all.len() > 100 {
        lines.push(("share of the 100 most frequent", percent(first(100), mentions)));
    }
    lines.push(("mentioned once", format!("{} ({})", grouped(once), percent(once, all.len() as u64))));
    let points: Vec<(&str, u64)> = all.iter().map(|(name, of)| (*name, of.mentions)).collect();
    let body = if all.is_empty() {
        "<p>The captions mention nothing.</p>".to_owned()
    } else {
        format!(
            "<p>How often each concept is mentioned, most frequent first. Both axes are logarithmic: a straight line \
             is the long tail that natural language has.</p><div class=\"split\"><div>{}</div>{}</div>",
            chart::frequency(&points),
            facts(&lines)
        )
    };
    Section { id: "frequency", title: "Frequency", body }
}

pub(super) fn top(findings: &Findings<'_>, all: &Concepts<'_>) -> Section {
    let samples = findings.counts.totals().samples;
    let mut cards = String::new();
    for ((name, of), pictures) in all.iter().zip(&findings.examples.of) {
        let mut strip: String = pictures
            .iter()
            .map(|example| {
                let caption = visible(&clipped(&example.caption, LONGEST));
                format!(
                    "<img src=\"{}\" alt=\"{1}\" title=\"{1}\" width=\"72\" height=\"72\">",
                    example.uri,
                    escaped(&caption)
                )
            })
            .collect();
        if !pictures.is_empty() {
            strip += &"<span class=\"none\"></span>".repeat(examples::PICTURES - pictures.len());
            strip = format!("<div class=\"pictures\">{strip}</div>");
        }
        let quote = pictures.first().map(quote).unwrap_or_default();
        cards += &format!(
            "<li>{strip}<div class=\"about\"><h3>{} <small>{} · {} of samples</small></h3>{}{quote}</div></li>",
            bdi(&clipped(name, LONGEST)),
            counted(of.mentions, "mention", "mentions"),
            percent(of.samples, samples),
            chart::meter(of.samples, samples)
        );
    }
    let mut body =
        format!("<p>The {} most mentioned, with samples that mention them.</p>", all.len().min(TOP));
    body += &format!("<ul class=\"cards\">{cards}</ul>");
    let skipped = findings.examples.skipped;
    if skipped > 0 {
        let pictures = counted(skipped, "picture was", "pictures were");
        body += &format!("<p class=\"note\">{pictures} skipped: damaged, or too large to open.</p>");
    }
    if findings.examples.full {
        body += "<p class=\"note\">Some pictures were left out to keep this page small.</p>";
    }
    Section { id: "top", title: "Top concepts", body }
}

/// A caption with its mention marked, cut to what stands around it.
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
        escaped(&clipped(marked, LONGEST)),
        escaped(&clipped(after, AROUND))
    )
}

pub(super) fn classes(coverage: &Coverage) -> Section {
    let (rare, absent) = (coverage.rare().collect::<Vec<_>>(), coverage.absent().collect::<Vec<_>>());
    let total = coverage.classes.len();
    let fine = total - rare.len() - absent.len();
    let share = |count: usize| percent(count as u64, total as u64);
    let mut body = format!(
        "<p>Of {} to be recognised, {} ({}) are mentioned at all. Rare are those that fewer than one sample in {} \
         mentions: there is little to learn them from.</p>",
        counted(total as u64, "class", "classes"),
        grouped((total - absent.len()) as u64),
        share(total - absent.len()),
        grouped(RARE)
    );
    body += &chart::stacked(&[
        ("covered", fine as u64),
        ("rare", rare.len() as u64),
        ("absent", absent.len() as u64),
    ]);
    let mut rare = rare;
    rare.sort_by_key(|class| class.samples);
    let list = |classes: &[&ClassCoverage], counted: bool| {
        let chip = |class: &&ClassCoverage| {
            let count =
                if counted { format!(" <small>{}</small>", grouped(class.samples)) } else { String::new() };
            format!("<li>{}{count}</li>", bdi(&clipped(&class.class, LONGEST)))
        };
        let mut chips: String = classes.iter().take(CLASSES).map(chip).collect();
        if classes.len() > CLASSES {
            chips += &format!("<li>and {} more</li>", grouped((classes.len() - CLASSES) as u64));
        }
        format!("<ul class=\"chips\">{chips}</ul>")
    };
    body += "<ul class=\"legend\">";
    for (class, count) in [("covered", fine), ("rare", rare.len()), ("absent", absent.len())] {
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
                    bdi(&clipped(&pair.a, LONGEST)),
                    bdi(&clipped(&pair.b, LONGEST)),
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
        let telling = if pairs.telling.is_empty() {
            format!(
                "<p class=\"note\">No pair shares {} samples, which PMI needs to mean something.</p>",
                pairs.least
            )
        } else {
            table(
                "Most telling",
                &format!("by PMI, among pairs in at least {} samples", grouped(pairs.least)),
                &pairs.telling,
            )
        };
        format!(
            "<p>Concepts mentioned in the same sample: the first {SHOWN} of {}. PMI (pointwise mutual information) is \
             how much more often than by chance: at 3, 2³ = 8 times as often.</p><div class=\"halves\">\
             <div class=\"scroll\">{}</div><div class=\"scroll\">{telling}</div></div>",
            counted(findings.counts.totals().pairs, "pair", "pairs"),
            table("Most frequent", "by samples that mention both", &pairs.frequent)
        )
    };
    Section { id: "pairs", title: "Pairs", body }
}

/// One decimal, with a minus as long as a plus.
fn signed(number: f64) -> String {
    // What rounds to zero has no sign.
    let rounded = (number * 10.0).round() / 10.0 + 0.0;
    format!("{rounded:.1}").replace('-', "−")
}
