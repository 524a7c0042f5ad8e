//! The page's sections about captions, images and failures.

use super::Findings;
use super::chart::{self, Bin};
use super::distributions::{Distribution, Sizes};
use super::section::{MAX_CHARACTERS, Section, facts};
use super::survey::OTHER_CAUSES;
use super::text::{bdi, clipped, counted, grouped, percent};

/// Maximum number of causes of failures listed.
const MAX_CAUSES: usize = 20;
/// Maximum number of bars of a histogram.
const MAX_BARS: usize = 40;

pub(super) fn captions(findings: &Findings<'_>) -> Section {
    let words = &findings.survey.words;
    if words.total() == 0 {
        let body = "<p>No sample has a caption.</p>".to_owned();
        return Section { id: "captions", title: "Captions", body };
    }
    // One caption in 200 is longer than the bars show: a caption that is a page of keywords would squeeze the others.
    // These are counted in the last bar.
    let longest = words.quantile(0.995).max(1);
    let width = longest.div_ceil(MAX_BARS);
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
        ("90% have at most", at(0.9)),
        ("99% have at most", at(0.99)),
        ("longest", at(1.0)),
    ];
    let body = format!(
        "<p>Number of captions by number of words.</p><div class=\"split\"><div>{}</div>{}</div>",
        chart::histogram(&bins, "words", "captions"),
        facts(&lines)
    );
    Section { id: "captions", title: "Captions", body }
}

/// The minimum and the maximum, as text.
fn range(of: &Distribution) -> String {
    match (of.quantile(0.0), of.quantile(1.0)) {
        (minimum, maximum) if minimum == maximum => grouped(minimum as u64),
        (minimum, maximum) => format!("{}–{}", grouped(minimum as u64), grouped(maximum as u64)),
    }
}

pub(super) fn sizes(findings: &Findings<'_>) -> Section {
    let survey = &findings.survey;
    let shown = if survey.original.total() > 0 { &survey.original } else { &survey.stored };
    let body = if shown.total() == 0 {
        "<p>The sizes of the images are not known.</p>".to_owned()
    } else {
        let of = |sizes: &Sizes| match sizes.only() {
            Some((width, height)) => format!("all {} × {}", width.min(height), width.max(height)),
            None => format!("{} × {}", range(&sizes.shorter), range(&sizes.longer)),
        };
        let square = shown.total() - shown.landscape - shown.portrait;
        let side = |share: f64| format!("{} px", grouped(shown.shorter.quantile(share) as u64));
        let mut lines = vec![
            ("in the shards, shorter × longer side, px", of(&survey.stored)),
            ("half have a shorter side of at most", side(0.5)),
            ("10% have a shorter side of at most", side(0.1)),
            ("wider than tall", percent(shown.landscape, shown.total())),
            ("taller than wide", percent(shown.portrait, shown.total())),
            ("square", percent(square, shown.total())),
        ];
        if survey.original.total() > 0 {
            lines.insert(1, ("before resizing, shorter × longer side, px", of(&survey.original)));
        }
        let which = if survey.original.total() > 0 { "before resizing" } else { "as stored in the shards" };
        format!(
            "<p>Number of images by width and height, {which}. Both axes are logarithmic. A stronger colour means more \
             images; square images are on the dashed line.</p><div class=\"even\"><div>{}</div>{}</div>",
            chart::sizes(shown),
            facts(&lines)
        )
    };
    Section { id: "sizes", title: "Image sizes", body }
}

pub(super) fn failures(findings: &Findings<'_>) -> Section {
    let survey = &findings.survey;
    let failed = survey.attempts - survey.samples;
    let mut causes: Vec<(&str, u64)> =
        survey.failures.iter().map(|(cause, count)| (cause.as_str(), *count)).collect();
    // The entry that sums up many causes comes last.
    causes.sort_by_key(|(cause, count)| (*cause == OTHER_CAUSES, std::cmp::Reverse(*count)));
    let body = if failed == 0 {
        format!("<p>No failures in {}.</p>", counted(survey.attempts, "attempt", "attempts"))
    } else {
        let rest: u64 = causes.iter().skip(MAX_CAUSES).map(|(_, count)| count).sum();
        let kinds = causes.len().saturating_sub(MAX_CAUSES) as u64;
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
        for (cause, count) in causes.iter().take(MAX_CAUSES) {
            row(&bdi(&clipped(cause, MAX_CHARACTERS)), *count);
        }
        if rest > 0 {
            row(&counted(kinds, "other cause", "other causes"), rest);
        }
        format!(
            "<p>{} of {} failed and gave no sample.</p><div class=\"scroll\"><table><thead><tr><th scope=\"col\">cause</th>\
             <th scope=\"col\" class=\"number\">attempts</th><th scope=\"col\" class=\"number\">share</th>\
             <td class=\"optional\"></td></tr></thead><tbody>{rows}</tbody></table></div>",
            grouped(failed),
            counted(survey.attempts, "attempt", "attempts")
        )
    };
    Section { id: "failures", title: "Failures", body }
}
