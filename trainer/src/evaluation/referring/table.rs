//! Results as a Markdown table.

use std::fmt::Write;

use serde_json::Value;

/// Writes a table per result: a row for all expressions and one for each group. `made` says how a result was made, for a note below.
pub(in crate::evaluation) fn write(out: &mut String, results: &[&Value], made: &dyn Fn(&Value) -> String) {
    for result in results {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let split = match text(&result["split"]) {
            split if split.is_empty() => split,
            split => format!(" ({split})"),
        };
        let control = match text(&result["control"]) {
            control if control.is_empty() => control,
            control => format!(", control {control}"),
        };
        let model = text(&result["model"]["description"]);
        let _ = writeln!(out, "{}{split}: **{model}**{control}\n", text(&result["title"]));
        out.push_str(
            "| expressions | number | oIoU | mIoU | P@0.5 | P@0.7 | P@0.9 | gIoU | cIoU | N-acc | T-acc |\n",
        );
        let _ = writeln!(out, "|---|{}", "---:|".repeat(10));
        row(out, "all", &result["scores"]);
        for (name, scores) in result["scores"]["groups"].as_object().into_iter().flatten() {
            row(out, name, scores);
        }
        let _ = writeln!(out, "\nMeasured here: {}.\n", made(result));
    }
}

fn row(out: &mut String, name: &str, scores: &Value) {
    let _ = write!(out, "| {name} | {} |", scores["expressions"]);
    let precision = &scores["precision"];
    let values = [
        &scores["oiou"],
        &scores["miou"],
        &precision[0],
        &precision[2],
        &precision[4],
        &scores["giou"],
        &scores["ciou"],
        &scores["n_acc"],
        &scores["t_acc"],
    ];
    for value in values {
        match value.as_f64() {
            Some(share) => out.push_str(&format!(" {:.1} |", 100.0 * share)),
            None => out.push_str(" – |"),
        }
    }
    out.push('\n');
}
