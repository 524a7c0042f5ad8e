//! The whole page: its head, the order of its sections, and the table of concepts. [`super::text`] escapes every text
//! that comes from the dataset.

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::section::{Concepts, MAX_CHARACTERS, Section, facts};
use super::text::{
    bytes, clipped, counted, fill, grouped, html as escaped, json as embedded, percent, visible,
};
use super::{Findings, concept_sections, data_sections};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Maximum number of concepts in the table.
pub(super) const ROWS: usize = 5_000;
/// The HTML of the whole page.
pub(super) fn html(findings: &Findings<'_>) -> Result<String> {
    let all = findings.counts.concepts();
    let (counts, coverage) = (&findings.counts, findings.coverage.as_ref());
    let sections: Vec<Section> = [
        findings.selected.as_ref().map(|selected| selected.section(counts, &all, coverage)),
        Some(concept_sections::frequency(findings, &all)),
        (!all.is_empty()).then(|| concept_sections::top(findings, &all)),
        findings.coverage.as_ref().map(concept_sections::classes),
        Some(concept_sections::pairs(findings)),
        Some(data_sections::captions(findings)),
        Some(data_sections::sizes(findings)),
        Some(data_sections::failures(findings)),
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
        "<p>Written by tools {} report. A mention is a noun phrase in a caption, such as “two tiny rubber ducks”. \
         Its concept is the phrase’s last compound noun in the singular, “rubber duck”. \
         <code>croissant.json</code> describes this dataset for programs.</p>",
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

fn lead(findings: &Findings<'_>) -> String {
    let totals = findings.counts.totals();
    format!(
        "<b>{}</b> in {} ({}). The captions mention <b>{}</b> {}, {:.1} times per sample.",
        counted(totals.samples, "sample", "samples"),
        counted(totals.shards, "shard", "shards"),
        bytes(findings.survey.bytes),
        counted(totals.concepts, "distinct concept", "distinct concepts"),
        counted(totals.mentions, "time", "times"),
        totals.mentions as f64 / totals.samples.max(1) as f64
    )
}

fn tiles(findings: &Findings<'_>) -> String {
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
        ("samples without a concept", with(totals.samples_without_mention, totals.samples)),
        ("failed attempts", with(failed, survey.attempts)),
    ]
    .map(|(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>"))
    .concat()
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
            "The {} most mentioned of {} concepts. The other {} are mentioned {} or less each; <code>tools stats</code> \
             writes all concepts to <code>concepts.parquet</code>.",
            grouped(ROWS as u64),
            grouped(all.len() as u64),
            grouped((all.len() - ROWS) as u64),
            counted(all[ROWS].1.mentions, "time", "times")
        )
    } else {
        "All concepts of the dataset.".to_owned()
    };
    let body = format!(
        "<p>{bound} Share: samples that mention the concept, as a part of all samples.</p>\
         <noscript><p>This table needs JavaScript.</p></noscript>\
         <div class=\"tools\"><div><label for=\"search\">Search concepts</label>\
         <input type=\"search\" id=\"search\" autocomplete=\"off\" spellcheck=\"false\"></div>\
         <output id=\"status\" for=\"search\"></output></div>\
         <div class=\"scroll\" id=\"concepts\"><table><thead><tr>{heads}</tr></thead><tbody></tbody></table></div>\
         <button type=\"button\" id=\"more\" hidden>Show more</button>"
    );
    Section { id: "all", title: "All concepts", body }
}

/// The data that the script shows in the table.
fn rows(findings: &Findings<'_>, all: &Concepts<'_>) -> serde_json::Value {
    let rows: Vec<_> = all
        .iter()
        .zip(&findings.pairs.companions)
        .map(|((name, of), companion)| {
            let name = visible(&clipped(name, MAX_CHARACTERS)).into_owned();
            let (other, both) = companion.as_ref().map_or(("", 0), |(other, both)| (other.as_str(), *both));
            json!([name, of.mentions, of.samples, of.shards, visible(&clipped(other, MAX_CHARACTERS)), both])
        })
        .collect();
    json!({"samples": findings.counts.totals().samples, "rows": rows})
}

fn about(findings: &Findings<'_>) -> Section {
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
        lines.push(("tagger data, SHA-256", format!("<code>{}</code>", escaped(&clipped(hash, 16)))));
    }
    if let Some(coverage) = &findings.coverage {
        lines.push(("matching of classes", coverage.list.matching.to_string()));
    }
    let mut body = facts(&lines);
    if survey.taggers.len() > 1 {
        body = format!(
            "<p>Different taggers tagged these shards, so their counts are not fully comparable.</p>{body}"
        );
    }
    Section { id: "about", title: "Tagging", body }
}
