//! Results as Markdown tables, together with the published results.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::published_results::{CLASSIFICATION, GROUPS, Group, TITLES};
use super::referring;

/// Results of one task, model and protocol: scores in percent per dataset.
struct Measured {
    model: String,
    /// The name of a published protocol, if it is one.
    name: Option<String>,
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
    let expressions: Vec<&Value> = results.iter().filter(|result| result["task"] == "referring").collect();
    let made = |result: &Value| protocol(&result["protocol"]) + &bank(&result["model"]["bank"]);
    referring::table::write(&mut out, &expressions, &made);
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
        if let Some(row) = rows.iter_mut().find(|row| row.model == model && row.protocol == protocol) {
            row.scores.insert(dataset, value);
        } else {
            let name = result["protocol"]["name"].as_str().map(str::to_owned);
            rows.push(Measured { model, name, protocol, scores: [(dataset, value)].into() });
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

/// One table per protocol, so that no column mixes two: first those of published rows that have a column for what was measured, then
/// those that nobody has published rows for.
fn segmentation_table(out: &mut String, measured: &[Measured]) {
    let rows: Vec<(usize, &Measured)> = measured.iter().enumerate().collect();
    for group in &GROUPS {
        let own: Vec<_> =
            rows.iter().filter(|(_, row)| row.name.as_deref() == group.protocol).copied().collect();
        let own = if group.protocol.is_some() { own } else { Vec::new() };
        let shown =
            rows.iter().any(|(_, row)| group.columns.iter().any(|name| row.scores.contains_key(*name)));
        if shown || !own.is_empty() {
            protocol_table(out, Some(group), &own);
        }
    }
    let published =
        |row: &Measured| GROUPS.iter().any(|it| it.protocol.is_some() && it.protocol == row.name.as_deref());
    let mut others: Vec<(usize, &Measured)> = rows.into_iter().filter(|(_, row)| !published(row)).collect();
    while let Some((_, first)) = others.first() {
        let protocol = first.protocol.clone();
        let (own, rest): (Vec<_>, Vec<_>) = others.into_iter().partition(|(_, row)| row.protocol == protocol);
        protocol_table(out, None, &own);
        others = rest;
    }
    notes(out, measured);
}

/// The table of a protocol: published rows, and those that were measured here, with their numbers.
fn protocol_table(out: &mut String, group: Option<&Group>, measured: &[(usize, &Measured)]) {
    let known = |name: &str| TITLES.iter().find(|(of, _)| *of == name).map(|(_, title)| (*title).to_owned());
    // Datasets without published results are the last columns.
    let mut columns: Vec<String> =
        group.iter().flat_map(|group| group.columns).map(|name| (*name).to_owned()).collect();
    let mut more: Vec<&String> = measured.iter().flat_map(|(_, row)| row.scores.keys()).collect();
    more.sort_by_key(|name| TITLES.iter().position(|(of, _)| of == name).unwrap_or(TITLES.len()));
    for name in more {
        if !columns.contains(name) {
            columns.push(name.clone());
        }
    }
    let protocol = match group {
        Some(Group { protocol: Some(name), .. }) => format!("`{name}`"),
        Some(_) => "of its own".to_owned(),
        None => match measured.first().and_then(|(_, row)| row.name.as_ref()) {
            Some(name) => format!("`{name}`"),
            None => "none of the published ones".to_owned(),
        },
    };
    let _ = write!(out, "Protocol: {protocol}\n\n| mIoU % | trained on |");
    for name in &columns {
        out.push_str(&format!(" {} |", known(name).unwrap_or_else(|| name.clone())));
    }
    let _ = write!(out, "\n|---|---|{}\n", "---:|".repeat(columns.len()));
    for row in group.iter().flat_map(|group| group.rows) {
        let _ = write!(out, "| {} [p] | {} |", row.system, row.trained);
        for i in 0..columns.len() {
            cell(out, row.miou.get(i).copied().flatten());
        }
        out.push('\n');
    }
    for (number, row) in measured {
        let _ = write!(out, "| **{}** [{}] | |", row.model, number + 1);
        for name in &columns {
            cell(out, row.scores.get(name).copied());
        }
        out.push('\n');
    }
    match group {
        Some(group) => drop(writeln!(out, "\n[p] {}.\n", group.source)),
        None => out.push('\n'),
    }
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
        assert_eq!(rows, ["| **simzss step 7** [1] | | 90.0 | 25.0 |", "| **simzss step 7** [2] | | 80.0 |"]);
        assert!(table.contains("| OVDiff [p] |  | 81.7 | 33.7 | – | – | 14.9 |"), "{table}");
        assert!(table.contains("[2] measured here: templates simple."), "{table}");
    }

    /// Every table has the rows of one protocol.
    #[test]
    fn no_column_mixes_two_protocols() {
        let named = |dataset: &str, miou: f64, name: &str| {
            let mut result = result(dataset, miou, "imagenet");
            result["protocol"]["name"] = json!(name);
            result
        };
        let table = markdown(&[
            named("ade150", 0.2, "tcl"),
            named("voc20", 0.8, "tcl"),
            named("ade150", 0.3, "tips"),
            named("context59", 0.4, "talk2dino"),
            result("ade150", 0.1, "simple"),
        ]);
        let tables: Vec<&str> = table.split("Protocol: ").skip(1).collect();
        let of = |start: &str| *tables.iter().find(|table| table.starts_with(start)).unwrap();
        let own = |table: &str| -> Vec<String> {
            table.lines().filter(|line| line.starts_with("| **")).map(str::to_owned).collect()
        };
        assert_eq!(own(of("`tcl`")), ["| **simzss step 7** [1] | | 80.0 | – | – | – | 20.0 |"]);
        assert!(of("`tcl`").contains("SimZSS [p]") && !of("`tcl`").contains("TIPSv2"));
        assert_eq!(own(of("`tips`")), ["| **simzss step 7** [2] | | 30.0 |"]);
        assert!(of("`tips`").contains("| TIPSv2 [p] | L/14 | 24.7 |"));
        assert_eq!(own(of("`talk2dino`")), ["| **simzss step 7** [3] | | – | 40.0 | – | – |"]);
        assert_eq!(own(of("none of the published ones")), ["| **simzss step 7** [4] | | 10.0 |"]);
        // Published rows without measured ones beside them, because ADE20K was measured.
        assert!(of("`dinotxt`").contains("24.7") && own(of("`dinotxt`")).is_empty());
        for table in tables {
            let columns = table.lines().filter(|l| l.starts_with('|')).map(|l| l.matches('|').count());
            assert_eq!(columns.collect::<std::collections::BTreeSet<_>>().len(), 1, "{table}");
        }
    }

    #[test]
    fn published_rows_have_a_score_per_column() {
        for group in &GROUPS {
            for row in group.rows {
                assert_eq!(row.miou.len(), group.columns.len(), "{}", row.system);
            }
            for name in group.columns {
                assert!(TITLES.iter().any(|(known, _)| known == name), "{name}");
            }
            if let Some(name) = group.protocol {
                let protocol = super::super::protocol::PROTOCOLS.iter().find(|it| it.name == name).unwrap();
                assert!(group.columns.iter().all(|column| protocol.datasets.contains(column)), "{name}");
            }
        }
    }
}
