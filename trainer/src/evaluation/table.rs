//! Results as Markdown tables, together with the published results.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::published_results::{CLASSIFICATION, COLUMNS, PROTOCOL, ROWS};

/// Results of one task, model and protocol: scores in percent per dataset.
struct Measured {
    model: String,
    protocol: String,
    scores: BTreeMap<String, f64>,
}

/// The tables for results of `trainer eval`.
pub fn markdown(results: &[Value]) -> String {
    let mut out = String::new();
    let of = |task: &str, score: &str| gather(results, task, score);
    let segmentation = of("segmentation", "miou");
    if !segmentation.is_empty() {
        segmentation_table(&mut out, &segmentation);
    }
    let classification = of("classification", "top1");
    if !classification.is_empty() {
        classification_table(&mut out, &classification);
    }
    let retrieval = results.iter().filter(|result| result["task"] == "retrieval").collect::<Vec<_>>();
    if !retrieval.is_empty() {
        retrieval_table(&mut out, &retrieval);
    }
    out.trim_end().to_owned() + "\n"
}

fn gather(results: &[Value], task: &str, score: &str) -> Vec<Measured> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut rows: Vec<Measured> = Vec::new();
    for result in results.iter().filter(|result| result["task"] == task) {
        let model = text(&result["model"]["description"]);
        let protocol = protocol(&result["protocol"]) + &bank(&result["model"]["bank"]);
        let dataset = text(&result["dataset"]);
        let dataset = if dataset == "folder" { text(&result["title"]) } else { dataset };
        let value = 100.0 * result["scores"][score].as_f64().unwrap_or(f64::NAN);
        match rows.iter_mut().find(|row| row.model == model && row.protocol == protocol) {
            Some(row) => {
                row.scores.insert(dataset, value);
            }
            None => rows.push(Measured { model, protocol, scores: [(dataset, value)].into() }),
        }
    }
    rows
}

/// The parts of a protocol that a reader needs to interpret a score.
fn protocol(protocol: &Value) -> String {
    let parts = protocol.as_object().into_iter().flatten();
    // How the background is predicted follows from the name of the dataset.
    let parts = parts.filter(|(name, value)| !value.is_null() && *name != "background");
    parts.map(|(name, value)| format!("{name} {}", plain(value))).collect::<Vec<_>>().join(", ")
}

/// The concept vocabulary of the training: if it contains the class names of the evaluation, readers must know it.
fn bank(bank: &Value) -> String {
    let Some(concepts) = bank["concepts"].as_u64() else { return String::new() };
    match bank["names"].as_str() {
        Some(names) => format!("; trained on the {concepts} concepts of {names}"),
        None => format!(
            "; trained on the {concepts} concepts that are mentioned {} times or more",
            plain(&bank["min_mentions"])
        ),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(map) => {
            map.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

fn segmentation_table(out: &mut String, measured: &[Measured]) {
    // Datasets without published results are the last columns.
    let mut columns: Vec<(String, String)> =
        COLUMNS.iter().map(|(name, title)| ((*name).to_owned(), (*title).to_owned())).collect();
    for name in measured.iter().flat_map(|row| row.scores.keys()) {
        if !columns.iter().any(|(known, _)| known == name) {
            columns.push((name.clone(), name.clone()));
        }
    }
    let _ = write!(out, "| mIoU % | trained on |");
    for (_, title) in &columns {
        out.push_str(&format!(" {title} |"));
    }
    let _ = write!(out, "\n|---|---|{}\n", "---:|".repeat(columns.len()));
    for row in ROWS {
        let _ = write!(out, "| {} [p] | {} |", row.system, row.trained);
        for i in 0..columns.len() {
            cell(out, row.miou.get(i).copied().flatten());
        }
        out.push('\n');
    }
    for (number, row) in measured.iter().enumerate() {
        let _ = write!(out, "| **{}** [{}] | |", row.model, number + 1);
        for (name, _) in &columns {
            cell(out, row.scores.get(name).copied());
        }
        out.push('\n');
    }
    let _ = writeln!(out, "\n[p] {PROTOCOL}.");
    notes(out, measured);
}

fn classification_table(out: &mut String, measured: &[Measured]) {
    let _ = writeln!(
        out,
        "| top-1 % | trained on | ImageNet | mean over datasets | datasets |\n|---|---|---:|---:|---:|"
    );
    for row in CLASSIFICATION {
        let _ = write!(out, "| {} [p] | {} |", row.system, row.trained);
        cell(out, Some(row.imagenet));
        cell(out, Some(row.mean));
        out.push_str(" |\n");
    }
    for (number, row) in measured.iter().enumerate() {
        let _ = write!(out, "| **{}** [{}] | |", row.model, number + 1);
        cell(out, row.scores.iter().find(|(name, _)| name.contains("imagenet1k")).map(|(_, score)| *score));
        cell(out, Some(row.scores.values().sum::<f64>() / row.scores.len() as f64));
        let _ = writeln!(out, " {} |", row.scores.len());
    }
    let _ = writeln!(
        out,
        "\n[p] as published in the SimZSS paper (ICLR 2025); its mean is over its own selection of datasets."
    );
    notes(out, measured);
}

fn retrieval_table(out: &mut String, results: &[&Value]) {
    let head = ["R@1", "R@5", "R@10"].map(|k| format!("image to text {k} | text to image {k} |")).join(" ");
    let _ = writeln!(out, "| recall % | dataset | {head}\n|---|---|{}", "---:|".repeat(6));
    for result in results {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let _ =
            write!(out, "| **{}** | {} |", text(&result["model"]["description"]), text(&result["dataset"]));
        for k in ["r1", "r5", "r10"] {
            for way in ["image_to_text", "text_to_image"] {
                cell(out, result["scores"][way][k].as_f64().map(|share| 100.0 * share));
            }
        }
        out.push('\n');
    }
    out.push('\n');
}

fn cell(out: &mut String, value: Option<f64>) {
    match value {
        Some(value) => out.push_str(&format!(" {value:.1} |")),
        None => out.push_str(" – |"),
    }
}

fn notes(out: &mut String, measured: &[Measured]) {
    for (number, row) in measured.iter().enumerate() {
        let _ = writeln!(out, "\n[{}] measured here: {}.", number + 1, row.protocol);
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result(dataset: &str, miou: f64, templates: &str) -> Value {
        json!({ "task": "segmentation", "dataset": dataset, "model": { "description": "simzss step 7" },
                "protocol": { "templates": templates, "pamr": null }, "scores": { "miou": miou } })
    }

    #[test]
    fn sets_of_one_model_and_protocol_share_a_row() {
        let results = [
            result("voc20", 0.9, "imagenet"),
            result("camvid11", 0.25, "imagenet"),
            result("voc20", 0.8, "simple"),
        ];
        let table = markdown(&results);
        let rows: Vec<&str> = table.lines().filter(|line| line.contains("simzss step 7")).collect();
        assert_eq!(
            rows,
            [
                "| **simzss step 7** [1] | | 90.0 | – | – | – | – | 25.0 |",
                "| **simzss step 7** [2] | | 80.0 | – | – | – | – | – |",
            ]
        );
        assert!(table.contains("| OVDiff [p] |  | 81.7 | 33.7 | – | – | 14.9 | – |"), "{table}");
        assert!(table.contains("[2] measured here: templates simple."), "{table}");
        let columns = table.lines().filter(|l| l.starts_with('|')).map(|l| l.matches('|').count());
        assert!(columns.collect::<std::collections::BTreeSet<_>>().len() == 1, "{table}");
    }
}
