//! The reference page `docs/settings.md`, made from the comments and defaults of the settings structs.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::Settings;
use crate::method::groups::LrFactors;
use crate::method::unmentioned::{DoubtfulSettings, Siblings};

/// The structs of the sections, and where they are defined.
const STRUCTS: [(&str, &str); 10] = [
    ("Settings", "settings/mod.rs"),
    ("CheckpointSettings", "settings/mod.rs"),
    ("EvaluationSettings", "settings/mod.rs"),
    ("DataSettings", "settings/data.rs"),
    ("BankSettings", "settings/mod.rs"),
    ("VisionSettings", "settings/mod.rs"),
    ("ClipShape", "towers/clip.rs"),
    ("TextSettings", "settings/text.rs"),
    ("ObjectiveSettings", "method/settings.rs"),
    ("OptimizerSettings", "method/optimizer.rs"),
];

/// Structs of sections of sections.
const INNER: [(&str, &str); 3] = [
    ("HeadSettings", "towers/head.rs"),
    ("DoubtfulSettings", "method/unmentioned.rs"),
    ("LrFactors", "method/groups.rs"),
];

const HEAD: &str = "\
# Settings of `trainer train`

<!-- Made from the comments in trainer/src and loader/src/settings.rs. Do not edit: UPDATE=1 cargo test -p simzss-trainer settings_page -->

Settings are TOML. `trainer train --config FILE` reads one or more files; a later file replaces values of earlier ones.
`--set KEY=VALUE` replaces a value on the command line, for example `--set optimizer.lr=1e-3`. The value is TOML; text that is
not TOML is taken as a string, so strings need no quotes. Lists do: `--set data.shards=\"['shards']\"`. An unknown key is an error.
Every key has a default except those marked *required*. A run folder keeps the settings of its run in `settings.toml`.
`trainer bench` reads the same settings.
";

/// One field of a settings struct.
struct Field {
    name: String,
    kind: String,
    text: String,
}

fn crate_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The fields of `pub struct NAME` in a source file: every field has its comment and is on one line.
fn fields(name: &str, file: &str) -> Vec<Field> {
    let source = fs::read_to_string(crate_root().join("src").join(file)).unwrap();
    let start = format!("pub struct {name} {{\n");
    let body = source.split_once(&start).unwrap_or_else(|| panic!("{file} has no struct {name}")).1;
    let mut fields = Vec::new();
    let mut text = Vec::new();
    for line in body.lines().map(str::trim).take_while(|line| *line != "}") {
        if let Some(comment) = line.strip_prefix("///") {
            text.push(comment.trim());
        } else if let Some(field) = line.strip_prefix("pub ") {
            let (name, kind) = field.trim_end_matches(',').split_once(": ").unwrap();
            assert!(!text.is_empty(), "{file}: {name} has no comment");
            if kind == "loader::Options" {
                fields.extend(self::fields("Options", "../../loader/src/settings.rs"));
            } else if let Some((_, file)) = INNER.iter().find(|(name, _)| *name == kind) {
                // A section of a section.
                let inner = self::fields(kind, file).into_iter();
                fields.extend(inner.map(|inner| Field { name: format!("{name}.{}", inner.name), ..inner }));
            } else {
                fields.push(Field { name: name.to_owned(), kind: kind.to_owned(), text: text.join(" ") });
            }
            text.clear();
        }
    }
    fields
}

/// What a Rust type is in TOML.
fn toml_type(kind: &str) -> &'static str {
    match kind.strip_prefix("Option<").and_then(|inner| inner.strip_suffix('>')).unwrap_or(kind) {
        "u64" | "u32" | "i64" | "usize" => "integer",
        "f64" | "f32" => "number",
        "bool" => "true or false",
        "PathBuf" | "Location" => "path",
        "Vec<PathBuf>" => "list of paths",
        "Vec<f64>" => "list of numbers",
        "Vec<String>" => "list of strings",
        "[f32; 2]" => "list of 2 numbers",
        "[f64; 3]" => "list of 3 numbers",
        "CaptionSource" => "string or table",
        "Cache" => "table",
        "String" | "Precision" | "CropKind" | "Decoding" | "concepts::Matching" | "PositionResize"
        | "RopePeriods" | "Embedding" | "CaptionLoss" | "Objective" | "Target" | "Query" | "Tokens"
        | "Scope" | "Siblings" | "Rounding" => "string",
        other => panic!("settings_page: say what {other} is in TOML"),
    }
}

fn default(field: &Field, value: &Value) -> String {
    match value {
        _ if field.text.starts_with("Required") => "*required*".to_owned(),
        Value::Null => "not set".to_owned(),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            format!("`[{}]`", values.join(", "))
        }
        other => format!("`{other}`"),
    }
}

fn table(page: &mut String, fields: &[&Field], section: &Value) {
    page.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
    for field in fields {
        let (name, kind) = (&field.name, toml_type(&field.kind));
        let value = name.split('.').fold(section, |value, key| &value[key]);
        let meaning = field.text.strip_prefix("Required. ").unwrap_or(&field.text).replace('|', "\\|");
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {meaning} |", default(field, value));
    }
}

/// The presets with the first paragraph of their comments.
fn presets(page: &mut String) {
    page.push_str(
        "\n## Presets\n\nReady-made files for `--config`, in [`trainer/presets/`](../trainer/presets). Combine one of each kind: \
         dataset, size, objective.\n\n| file | what it sets |\n|---|---|\n",
    );
    let mut paths: Vec<PathBuf> =
        fs::read_dir(crate_root().join("presets")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let paragraph: Vec<&str> = text
            .lines()
            .map_while(|line| line.strip_prefix("# "))
            .map(str::trim)
            .take_while(|line| !line.is_empty())
            .collect();
        let name = path.file_name().unwrap().to_string_lossy();
        let _ = writeln!(page, "| `{name}` | {} |", paragraph.join(" "));
    }
}

fn page() -> String {
    // By way of text: an f32 keeps its short form.
    let mut defaults: Value =
        serde_json::from_str(&serde_json::to_string(&Settings::default()).unwrap()).unwrap();
    // These are left out where they have their default.
    for (section, key, value) in [
        ("text", "new_projection", json!(false)),
        ("text", "quick_gelu", json!(false)),
        (
            "optimizer",
            "factor",
            LrFactors::default().all().map(|(name, factor)| (name, json!(factor))).into_iter().collect(),
        ),
        ("optimizer", "frozen", json!([])),
        ("objective", "siblings", json!(Siblings::default())),
        ("objective", "doubtful", json!(DoubtfulSettings::default())),
        ("objective", "patch_weight", json!(0.0)),
        ("objective", "separation_weight", json!(0.0)),
        ("objective", "image_negatives_weight", json!(0.0)),
        ("objective", "shortcut_check", json!(false)),
        ("objective", "gram_weight", json!(0.0)),
    ] {
        defaults[section][key] = value;
    }
    let every = Settings::with_every_key();
    let all = fields("Settings", "settings/mod.rs");
    let (sections, top): (Vec<&Field>, Vec<&Field>) =
        all.iter().partition(|field| STRUCTS.iter().any(|(name, _)| *name == field.kind));
    let mut page = HEAD.to_owned();
    page.push_str("\n## Top level\n\n");
    table(&mut page, &top, &defaults);
    for section in &sections {
        let (name, file) = STRUCTS.iter().find(|(name, _)| *name == section.kind).unwrap();
        let _ = write!(page, "\n## `[{}]`\n\n{}\n\n", section.name, section.text);
        let fields = fields(name, file);
        let documented: BTreeSet<&str> =
            fields.iter().filter_map(|field| field.name.split('.').next()).collect();
        let keys = every[&section.name].as_object().unwrap().keys();
        assert_eq!(documented, keys.map(String::as_str).collect(), "[{}]", section.name);
        table(&mut page, &fields.iter().collect::<Vec<_>>(), &defaults[&section.name]);
    }
    assert_eq!(top.len() + sections.len(), defaults.as_object().unwrap().len());
    presets(&mut page);
    page
}

#[test]
fn settings_page_is_current() {
    let path = crate_root().join("../docs/settings.md");
    let expected = page();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
    assert!(
        found == expected,
        "docs/settings.md differs from the comments in the sources from line {} on; renew it: UPDATE=1 cargo test -p simzss-trainer \
         settings_page",
        differs.unwrap_or(found.lines().count().min(expected.lines().count())) + 1
    );
}
