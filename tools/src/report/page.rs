//! The page, section by section. Every text that comes from the set goes through [`super::text`].

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::chart::{self, Bin};
use super::examples::Example;
use super::pairs::{Chosen, SHOWN};
use super::survey::{Distribution, OTHER_CAUSES, Sizes};
use super::text::{bdi, bytes, counted, fill, grouped, html as escaped, json as embedded, percent, visible};
use super::{Findings, examples};
use crate::stats::{ClassCoverage, Coverage, RARE};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Concepts shown with pictures.
pub(super) const TOP: usize = 24;
/// Concepts in the table.
pub(super) const ROWS: usize = 5_000;
/// Classes listed by name, of the rare and of the absent.
const CLASSES: usize = 300;
/// Causes of failures listed.
const CAUSES: usize = 20;
/// Characters of a cause, and of a name in the table: the text of a stranger has no other end.
const LONGEST: usize = 160;
/// Characters of a caption kept on each side of a mention.
const AROUND: usize = 70;
/// Bars of a histogram.
const BARS: usize = 40;

/// A heading's anchor, its words, and what stands below it.
struct Section {
    id: &'static str,
    title: &'static str,
    body: String,
}

/// The whole page.
pub(super) fn html(findings: &Findings) -> Result<String> {
    let all = findings.counts.concepts();
    let sections: Vec<Section> = [
        Some(frequency(findings, &all)),
        Some(top(findings, &all)),
        findings.coverage.as_ref().map(classes),
        Some(pairs(findings)),
        Some(captions(findings)),
        Some(sizes(findings)),
        Some(failures(findings)),
        Some(table(&all)),
        Some(about(findings)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let contents: String =
        sections.iter().map(|s| format!("<li><a href=\"#{}\">{}</a></li>", s.id, s.title)).collect();
    let bodies: String = sections
        .iter()
        .map(|Section { id, title, body }| {
            format!("<section aria-labelledby=\"{id}\"><h2 id=\"{id}\">{title}</h2>\n{body}</section>\n")
        })
        .collect();
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text.as_bytes())));
    let policy = format!(
        "default-src 'none'; img-src data:; style-src {}; script-src {}; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    let (title, lead, tiles) = (escaped(&findings.name), lead(findings), tiles(findings));
    let data = embedded(&rows(findings, &all));
    let footer = format!(
        "<p>Written by tools {} report. A mention is one noun phrase of a caption; its concept is the last compound \
         noun with the lemma of its head. Programs find the same set described in <code>croissant.json</code>.</p>",
        env!("CARGO_PKG_VERSION")
    );
    let filled = [
        ("policy", policy.as_str()),
        ("title", &title),
        ("style", STYLE),
        ("lead", &lead),
        ("tiles", &tiles),
        ("contents", &contents),
        ("sections", &bodies),
        ("footer", &footer),
        ("data", &data),
        ("script", SCRIPT),
    ];
    fill(TEMPLATE, |name| filled.iter().find(|(key, _)| *key == name).map(|(_, value)| *value))
}

fn lead(findings: &Findings) -> String {
    let totals = findings.counts.totals();
    format!(
        "<b>{}</b> in {} ({}). The captions mention <b>{}</b> {}, {:.1} to a sample.",
        counted(totals.samples, "sample", "samples"),
        counted(totals.shards, "shard", "shards"),
        bytes(findings.survey.bytes),
        counted(totals.concepts, "distinct concept", "distinct concepts"),
        counted(totals.mentions, "time", "times"),
        totals.mentions as f64 / totals.samples.max(1) as f64
    )
}

fn tiles(findings: &Findings) -> String {
    let (totals, survey) = (findings.counts.totals(), &findings.survey);
    let failed = survey.attempts - survey.samples;
    let with =
        |number: u64, whole: u64| format!("{}<small>{}</small>", grouped(number), percent(number, whole));
    [
        ("samples", grouped(totals.samples)),
        ("captions", with(survey.captions, totals.samples)),
        ("shards", grouped(totals.shards)),
        ("size of the shards", bytes(survey.bytes)),
        ("mentions", grouped(totals.mentions)),
        ("distinct concepts", grouped(totals.concepts)),
        ("samples without a mention", with(totals.samples_without_mention, totals.samples)),
        ("failed attempts", with(failed, survey.attempts)),
    ]
    .map(|(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>"))
    .concat()
}

fn facts(of: &[(&str, String)]) -> String {
    let lines: String =
        of.iter().map(|(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>")).collect();
    format!("<dl class=\"facts\">{lines}</dl>")
}

type Concepts<'a> = [(&'a str, &'a concepts::statistics::ConceptCounts)];

fn frequency(findings: &Findings, all: &Concepts<'_>) -> Section {
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

fn top(findings: &Findings, all: &Concepts<'_>) -> Section {
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

fn clipped(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn classes(coverage: &Coverage) -> Section {
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

fn pairs(findings: &Findings) -> Section {
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

fn captions(findings: &Findings) -> Section {
    let words = &findings.survey.words;
    if words.total() == 0 {
        let body = "<p>No sample has a caption.</p>".to_owned();
        return Section { id: "captions", title: "Captions", body };
    }
    // Beyond the last bar is what one caption in two hundred has, so that a page of keywords does not flatten the rest.
    let longest = words.quantile(0.995).max(1);
    let width = longest.div_ceil(BARS);
    let mut bins: Vec<Bin> = (0..longest.div_ceil(width))
        .map(|at| {
            let (from, to) = (at * width + 1, (at + 1) * width + 1);
            let name = if width == 1 { from.to_string() } else { format!("{from}–{}", to - 1) };
            Bin { name, count: words.within(from..to) }
        })
        .collect();
    let last = bins.len() * width;
    let beyond = words.within(last + 1..usize::MAX);
    if beyond > 0 {
        bins.push(Bin { name: format!("{}+", last + 1), count: beyond });
    }
    let at = |share: f64| counted(words.quantile(share) as u64, "word", "words");
    let lines = [
        ("captions", grouped(words.total())),
        ("half have at most", at(0.5)),
        ("nine in ten have at most", at(0.9)),
        ("99 in 100 have at most", at(0.99)),
        ("longest", at(1.0)),
    ];
    let body = format!(
        "<p>Captions by their number of words.</p><div class=\"split\"><div>{}</div>{}</div>",
        chart::histogram(&bins, "words", "captions"),
        facts(&lines)
    );
    Section { id: "captions", title: "Captions", body }
}

/// From the least to the greatest.
fn range(of: &Distribution) -> String {
    match (of.quantile(0.0), of.quantile(1.0)) {
        (least, greatest) if least == greatest => grouped(least as u64),
        (least, greatest) => format!("{}–{}", grouped(least as u64), grouped(greatest as u64)),
    }
}

fn sizes(findings: &Findings) -> Section {
    let survey = &findings.survey;
    let shown = if survey.original.total() > 0 { &survey.original } else { &survey.stored };
    let body = if shown.total() == 0 {
        "<p>The size of no picture is known.</p>".to_owned()
    } else {
        let of = |sizes: &Sizes| match sizes.only() {
            Some((width, height)) => format!("all {width} × {height}"),
            None => format!("{} × {}", range(&sizes.shorter), range(&sizes.longer)),
        };
        let square = shown.total() - shown.landscape - shown.portrait;
        let side = |share: f64| format!("{} px", grouped(shown.shorter.quantile(share) as u64));
        let mut lines = vec![
            ("shorter × longer side, in the shards", of(&survey.stored)),
            ("half have a shorter side of at most", side(0.5)),
            ("one in ten, of at most", side(0.1)),
            ("wider than high", percent(shown.landscape, shown.total())),
            ("higher than wide", percent(shown.portrait, shown.total())),
            ("square", percent(square, shown.total())),
        ];
        if survey.original.total() > 0 {
            lines.insert(1, ("before resizing", of(&survey.original)));
        } else {
            lines.retain(|(name, _)| *name != "before resizing");
        }
        let which =
            if survey.original.total() > 0 { "before they were resized" } else { "as they are stored" };
        format!(
            "<p>Pictures by width and height, {which}. Both axes are logarithmic, stronger colour is more; on the dashed line \
             are squares.</p><div class=\"even\"><div>{}</div>{}</div>",
            chart::sizes(shown),
            facts(&lines)
        )
    };
    Section { id: "sizes", title: "Picture sizes", body }
}

fn failures(findings: &Findings) -> Section {
    let survey = &findings.survey;
    let failed = survey.attempts - survey.samples;
    let mut causes: Vec<(&str, u64)> =
        survey.failures.iter().map(|(cause, count)| (cause.as_str(), *count)).collect();
    // What stands for many comes last.
    causes.sort_by_key(|(cause, count)| (*cause == OTHER_CAUSES, std::cmp::Reverse(*count)));
    let body = if failed == 0 {
        format!("<p>None of {} failed.</p>", counted(survey.attempts, "attempt", "attempts"))
    } else {
        let rest: u64 = causes.iter().skip(CAUSES).map(|(_, count)| count).sum();
        let kinds = causes.len().saturating_sub(CAUSES) as u64;
        let mut rows = String::new();
        let mut row = |cause: &str, count: u64| {
            rows += &format!(
                "<tr><th scope=\"row\">{cause}</th><td class=\"number\">{}</td><td class=\"number\">{}</td>\
                 <td class=\"length optional\">{}</td></tr>",
                grouped(count),
                percent(count, survey.attempts),
                chart::meter(count, survey.attempts)
            );
        };
        for (cause, count) in causes.iter().take(CAUSES) {
            row(&bdi(&clipped(cause, LONGEST)), *count);
        }
        if rest > 0 {
            row(&counted(kinds, "other cause", "other causes"), rest);
        }
        format!(
            "<p>{} of {} did not become samples.</p><div class=\"scroll\"><table><thead><tr><th scope=\"col\">cause</th>\
             <th scope=\"col\" class=\"number\">attempts</th><th scope=\"col\" class=\"number\">share</th>\
             <td class=\"optional\"></td></tr></thead><tbody>{rows}</tbody></table></div>",
            grouped(failed),
            counted(survey.attempts, "attempt", "attempts")
        )
    };
    Section { id: "failures", title: "Failures", body }
}

fn table(all: &Concepts<'_>) -> Section {
    let heads: String = [
        ("rank", "rank", "number", "ascending"),
        ("concept", "concept", "", "none"),
        ("mentions", "mentions", "number", "none"),
        ("samples", "samples", "number optional", "none"),
        ("share", "share", "number", "none"),
        ("shards", "shards", "number optional", "none"),
        ("companion", "most often with", "optional", "none"),
    ]
    .map(|(key, name, class, sort)| {
        format!(
            "<th scope=\"col\" class=\"{class}\" data-order=\"{key}\" aria-sort=\"{sort}\">\
             <button type=\"button\">{name}</button></th>"
        )
    })
    .concat();
    let bound = if all.len() > ROWS {
        format!(
            "The {} most mentioned of {} concepts; the other {}, each mentioned {} or less, are in the table that \
             <code>tools stats</code> writes.",
            grouped(ROWS as u64),
            grouped(all.len() as u64),
            grouped((all.len() - ROWS) as u64),
            counted(all[ROWS].1.mentions, "time", "times")
        )
    } else {
        "Every concept of the set.".to_owned()
    };
    let body = format!(
        "<p>{bound} Share is that of samples that mention the concept.</p>\
         <noscript><p>Searching and sorting this table needs JavaScript.</p></noscript>\
         <div class=\"tools\"><div><label for=\"search\">Search concepts</label>\
         <input type=\"search\" id=\"search\" autocomplete=\"off\" spellcheck=\"false\"></div>\
         <output id=\"status\" for=\"search\"></output></div>\
         <div class=\"scroll\" id=\"concepts\"><table><thead><tr>{heads}</tr></thead><tbody></tbody></table></div>\
         <button type=\"button\" id=\"more\" hidden>Show more</button>"
    );
    Section { id: "all", title: "All concepts", body }
}

/// What the script shows in the table.
fn rows(findings: &Findings, all: &Concepts<'_>) -> serde_json::Value {
    let rows: Vec<_> = all
        .iter()
        .zip(&findings.pairs.companions)
        .map(|((name, of), companion)| {
            let name = visible(&clipped(name, LONGEST));
            let (other, both) = companion.as_ref().map_or(("", 0), |(other, both)| (other.as_str(), *both));
            json!([name, of.mentions, of.samples, of.shards, visible(&clipped(other, LONGEST)), both])
        })
        .collect();
    json!({"samples": findings.counts.totals().samples, "rows": rows})
}

fn about(findings: &Findings) -> Section {
    let survey = &findings.survey;
    let shards = if survey.shards == 1 {
        format!("<code>{}</code>", escaped(&findings.first_shard))
    } else {
        format!(
            "<code>{}</code> to <code>{}</code>",
            escaped(&findings.first_shard),
            escaped(&findings.last_shard)
        )
    };
    let mut lines = vec![("shards", shards)];
    for ((tagger, hash, grammar), count) in &survey.taggers {
        let part = if survey.taggers.len() > 1 {
            format!(" ({})", counted(*count, "shard", "shards"))
        } else {
            String::new()
        };
        lines.push(("tagger", format!("{}, grammar {grammar}{part}", escaped(tagger))));
        lines.push(("its data, SHA-256", format!("<code>{}</code>", escaped(&clipped(hash, 16)))));
    }
    if let Some(coverage) = &findings.coverage {
        lines.push(("classes matched", coverage.matching.to_string()));
    }
    let mut body = facts(&lines);
    if survey.taggers.len() > 1 {
        body = format!(
            "<p>The shards were not all tagged alike: their counts may differ for that reason alone.</p>{body}"
        );
    }
    Section { id: "about", title: "Tagging", body }
}
