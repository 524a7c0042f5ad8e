//! Charts as SVG, drawn when the page is written. Their colours come from the page's style sheet.

use super::distributions::{CELLS, Sizes, cell_start};
use super::text::{clipped, grouped, html};

/// Widths of a chart for a large screen and for a phone, so that the text has the same size on both.
const WIDE: f64 = 760.0;
const NARROW: f64 = 340.0;

/// Space for the labels of the axes.
const LEFT: f64 = 46.0;
const BOTTOM: f64 = 40.0;
const TOP: f64 = 14.0;
const RIGHT: f64 = 14.0;

/// Width of a letter of a label next to a point; an upper estimate.
const LETTER: f64 = 8.5;

/// One chart in both widths; the style sheet shows one of them. `title` describes the chart for screen readers. `draw`
/// gets the available width and returns the width and height that it used, and the SVG elements.
fn both(title: &str, draw: impl Fn(f64) -> (f64, f64, String)) -> String {
    [("wide", WIDE), ("narrow", NARROW)]
        .map(|(class, width)| {
            let (width, height, body) = draw(width);
            format!(
                "<svg class=\"chart {class}\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" \
                 aria-label=\"{}\">{body}</svg>",
                html(title)
            )
        })
        .concat()
}

fn label(x: f64, y: f64, class: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", html(text))
}

fn line(class: &str, from: (f64, f64), to: (f64, f64)) -> String {
    let ((x1, y1), (x2, y2)) = (from, to);
    format!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>")
}

/// A number shortened to fit next to an axis: 1000 as "1k".
fn short(number: f64) -> String {
    match number {
        n if n >= 1e9 => format!("{}G", n / 1e9),
        n if n >= 1e6 => format!("{}M", n / 1e6),
        n if n >= 1e3 => format!("{}k", n / 1e3),
        n => format!("{n}"),
    }
}

/// Mentions by rank, on two logarithmic axes. `concepts` are in order, most mentioned first.
pub(super) fn frequency(concepts: &[(&str, u64)]) -> String {
    let (Some((_, most)), ranks) = (concepts.first(), concepts.len()) else { return String::new() };
    let (across, up) = ((ranks as f64).log10().max(1.0), (*most as f64).log10().ceil().max(1.0));
    let title = format!(
        "Number of mentions by rank of the concept, logarithmic axes: from {} at rank 1 to {} at rank {}",
        grouped(*most),
        grouped(concepts[ranks - 1].1),
        grouped(ranks as u64)
    );
    both(&title, |width| {
        let height = if width > 500.0 { 340.0 } else { 280.0 };
        let x = |rank: f64| LEFT + rank.log10() / across * (width - LEFT - RIGHT);
        let y = |mentions: f64| height - BOTTOM - mentions.log10() / up * (height - BOTTOM - TOP);
        let mut body = String::new();
        for decade in 0..=up as i32 {
            let value = 10_f64.powi(decade);
            body += &line("grid", (LEFT, y(value)), (width - RIGHT, y(value)));
            body += &label(LEFT - 8.0, y(value) + 4.0, "tick end", &short(value));
        }
        for decade in 0..=across as i32 {
            let value = 10_f64.powi(decade);
            body += &line("grid", (x(value), TOP), (x(value), height - BOTTOM));
            body += &label(x(value), height - BOTTOM + 17.0, "tick middle", &short(value));
        }
        body += &label((LEFT + width - RIGHT) / 2.0, height - 6.0, "name middle", "rank");
        body += &label(LEFT + 6.0, TOP + 12.0, "name", "mentions");
        // One point per pixel or two is enough; more cannot be seen.
        let steps = 300.0;
        let mut points = Vec::new();
        let mut last = 0;
        for step in 0..=steps as usize {
            let rank = ((ranks as f64).powf(step as f64 / steps).round() as usize).clamp(1, ranks);
            if rank > last {
                points.push((x(rank as f64), y(concepts[rank - 1].1 as f64)));
                last = rank;
            }
        }
        let path: String = points.iter().map(|(x, y)| format!("{x:.1},{y:.1} ")).collect();
        let (from, to) = (points[0].0, points[points.len() - 1].0);
        let floor = height - BOTTOM;
        body +=
            &format!("<polygon class=\"area\" points=\"{from:.1},{floor:.1} {path}{to:.1},{floor:.1}\"/>");
        body += &format!("<polyline class=\"curve\" points=\"{}\"/>", path.trim_end());
        for decade in 0..=across as i32 {
            let rank = 10_usize.pow(decade as u32);
            let Some((name, mentions)) = concepts.get(rank - 1) else { break };
            let (px, py) = (x(rank as f64), y(*mentions as f64));
            body += &format!("<circle class=\"dot\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3.5\"/>");
            // To the right of the dot, as the curve falls; at the right edge, where there is no space, to the left.
            let name = clipped(name, 18);
            let end = px + 8.0 + LETTER * name.chars().count() as f64;
            let (at, class) = if end > width { (width - 2.0, "note end") } else { (px + 8.0, "note") };
            body += &label(at, py - 8.0, class, &name);
        }
        (width, height, body)
    })
}

/// One bar of a histogram.
pub(super) struct Bin {
    /// The label below it.
    pub(super) name: String,
    pub(super) count: u64,
}

/// Vertical bars. `across` is the name of the horizontal axis, `unit` of what is counted.
pub(super) fn histogram(bins: &[Bin], across: &str, unit: &str) -> String {
    let most = bins.iter().map(|bin| bin.count).max().unwrap_or(0);
    if most == 0 {
        return String::new();
    }
    let Some(peak) = bins.iter().find(|bin| bin.count == most) else { return String::new() };
    let title = format!(
        "Histogram of {across}: the highest bar is {} {unit} with {} {across}",
        grouped(most),
        peak.name
    );
    let step = step(most as f64 / 4.0);
    let ceiling = (most as f64 / step).ceil() * step;
    both(&title, |width| {
        let height = if width > 500.0 { 260.0 } else { 220.0 };
        let y = |count: f64| height - BOTTOM - count / ceiling * (height - BOTTOM - TOP);
        let mut body = String::new();
        let mut value = 0.0;
        while value <= ceiling {
            body += &line("grid", (LEFT, y(value)), (width - RIGHT, y(value)));
            body += &label(LEFT - 8.0, y(value) + 4.0, "tick end", &short(value));
            value += step;
        }
        let slot = (width - LEFT - RIGHT) / bins.len() as f64;
        // Labels that would overlap are left out.
        let every = (34.0 / slot).ceil() as usize;
        for (at, bin) in bins.iter().enumerate() {
            let (left, top) = (LEFT + at as f64 * slot, y(bin.count as f64));
            let gap = (slot * 0.14).min(3.0);
            body += &format!(
                "<rect class=\"bar\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}: {} {unit}</title></rect>",
                left + gap / 2.0,
                slot - gap,
                height - BOTTOM - top,
                html(&bin.name),
                grouped(bin.count)
            );
            if at % every == 0 && (at + every <= bins.len() || at + 1 == bins.len()) || at + 1 == bins.len() {
                body += &label(left + slot / 2.0, height - BOTTOM + 17.0, "tick middle", &bin.name);
            }
        }
        body += &label((LEFT + width - RIGHT) / 2.0, height - 6.0, "name middle", across);
        (width, height, body)
    })
}

/// The smallest of 1, 2 or 5 times a power of ten that is at least this large; at least 1, as counts are integers.
fn step(at_least: f64) -> f64 {
    let power = 10_f64.powf(at_least.max(1.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|times| times * power)
        .into_iter()
        .find(|step| *step >= at_least)
        .unwrap_or(power)
}

/// Number of images by width and height, on logarithmic axes. A stronger colour means more images.
pub(super) fn sizes(sizes: &Sizes) -> String {
    let used: Vec<(usize, usize)> = (0..CELLS)
        .flat_map(|row| (0..CELLS).map(move |column| (column, row)))
        .filter(|&(column, row)| sizes.at(column, row) > 0)
        .collect();
    let Some(&first) = used.first() else { return String::new() };
    let (mut low, mut high) = (first.0.min(first.1), first.0.max(first.1));
    for &(column, row) in &used {
        (low, high) = (low.min(column).min(row), high.max(column).max(row));
    }
    let (low, high) = (low.saturating_sub(2), (high + 3).min(CELLS));
    let most = used.iter().map(|&(column, row)| sizes.at(column, row)).max().unwrap_or(1);
    let title = format!(
        "Images by width and height; half have a shorter side of at most {} pixels",
        sizes.shorter.quantile(0.5)
    );
    both(&title, |width| {
        let side = (width - LEFT - RIGHT).min(320.0);
        let height = side + TOP + BOTTOM;
        let cell = side / (high - low) as f64;
        let x = |column: usize| LEFT + (column - low) as f64 * cell;
        let y = |row: usize| TOP + side - (row + 1 - low) as f64 * cell;
        let mut body = String::new();
        for at in (low..=high).filter(|at| at.is_multiple_of(4)) {
            let name = format!("{:.0}", cell_start(at));
            let (px, py) = (x(at), y(at) + cell);
            body += &line("grid", (px, TOP), (px, TOP + side));
            body += &line("grid", (LEFT, py), (LEFT + side, py));
            body += &label(px, TOP + side + 17.0, "tick middle", &name);
            body += &label(LEFT - 8.0, py + 4.0, "tick end", &name);
        }
        body += &line("diagonal", (LEFT, TOP + side), (LEFT + side, TOP));
        for &(column, row) in &used {
            let count = sizes.at(column, row);
            let shade = 0.18 + 0.82 * (count as f64).ln_1p() / (most as f64).ln_1p();
            body += &format!(
                "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill-opacity=\"{shade:.2}\"><title>width {:.0}–{:.0}, height {:.0}–{:.0}: {}</title></rect>",
                x(column) + 0.4,
                y(row) + 0.4,
                cell - 0.8,
                cell - 0.8,
                cell_start(column),
                cell_start(column + 1),
                cell_start(row),
                cell_start(row + 1),
                grouped(count)
            );
        }
        body += &label(LEFT + side / 2.0, height - 6.0, "name middle", "width, pixels");
        body += &label(LEFT + 6.0, TOP + 12.0, "name", "height");
        (LEFT + side + RIGHT, height, body)
    })
}

/// A bar that shows a part of a whole, for use next to its number.
pub(super) fn meter(part: u64, whole: u64) -> String {
    let share = 100.0 * part as f64 / whole.max(1) as f64;
    format!(
        "<svg class=\"meter\" viewBox=\"0 0 100 6\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <rect class=\"rest\" width=\"100\" height=\"6\"/><rect class=\"part\" width=\"{share:.2}\" height=\"6\"/></svg>"
    )
}

/// The parts of a whole in one bar. Each part has a class of the style sheet and a count.
pub(super) fn stacked(parts: &[(&str, u64)]) -> String {
    let whole: u64 = parts.iter().map(|(_, count)| count).sum();
    let mut body = String::new();
    let mut left = 0.0;
    for (class, count) in parts {
        let width = 100.0 * *count as f64 / whole.max(1) as f64;
        body += &format!("<rect class=\"{class}\" x=\"{left:.2}\" width=\"{width:.2}\" height=\"6\"/>");
        left += width;
    }
    format!(
        "<svg class=\"stacked\" viewBox=\"0 0 100 6\" preserveAspectRatio=\"none\" aria-hidden=\"true\">{body}</svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_numbers() {
        for (at_least, wanted) in [(0.25, 1.0), (1.0, 1.0), (1.2, 2.0), (30.0, 50.0), (51.0, 100.0)] {
            assert_eq!(step(at_least), wanted, "{at_least}");
        }
    }

    #[test]
    fn the_curve_spans_all_ranks_and_counts() {
        // Two decades on each axis: rank 1 with 100 mentions is the upper left corner, rank 100 with 1 the lower right.
        let concepts: Vec<(&str, u64)> = (1..=100).map(|rank| ("c", 100 / rank)).collect();
        let svg = frequency(&concepts);
        let curve = svg.split("class=\"curve\" points=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(curve.starts_with(&format!("{LEFT:.1},{TOP:.1} ")), "{curve}");
        assert!(curve.ends_with(&format!("{:.1},{:.1}", WIDE - RIGHT, 340.0 - BOTTOM)), "{curve}");
        assert_eq!(frequency(&[]), "");
        // One concept, mentioned once, also gives a chart.
        assert!(!frequency(&[("a", 1)]).contains("NaN"));
    }
}
