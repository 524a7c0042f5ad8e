//! The set as Croissant 1.1 metadata: its files, and record sets of its samples and mentions.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use arrow_schema::DataType;
use loader::shard;
use serde_json::{Map, Value, json};

use super::text::counted;
use super::{Arguments, CROISSANT, Findings};

/// In every description that this module writes: tells its files from others.
pub(super) const MARK: &str = "Described by tools report.";

/// Columns of a sidecar: name, type, meaning.
const MENTION: [(&str, &str, &str); 10] = [
    ("key", "sc:Text", "Key of the sample"),
    ("sample", "sc:Integer", "Position of the sample in its shard, from 0"),
    ("phrase", "sc:Text", "The noun phrase, as it stands in the canonical caption"),
    ("concept", "sc:Text", "Last compound noun with the lemma of its head"),
    ("head", "sc:Text", "Lemma of the phrase's head"),
    ("phrase_start", "sc:Integer", "First byte of the phrase in the canonical caption"),
    ("phrase_end", "sc:Integer", "Byte after the phrase"),
    ("concept_start", "sc:Integer", "First byte of the concept's words"),
    ("concept_end", "sc:Integer", "Byte after them"),
    ("tags", "sc:Text", "Penn Treebank tags of the phrase's words"),
];

/// The JSON text.
pub(super) fn describe(findings: &Findings<'_>, arguments: &Arguments, shards: &[PathBuf]) -> Result<String> {
    let folder = prefix(&arguments.shards, &arguments.out);
    let has_tables = !findings.survey.columns.is_empty();
    let (packed, plain): (Vec<PathBuf>, Vec<PathBuf>) = shards
        .iter()
        .cloned()
        .partition(|shard| shard.extension().is_some_and(|extension| extension == "zst"));
    let tars = [patterns(&folder, &plain, ".tar"), patterns(&folder, &packed, ".tar.zst")].concat();
    let mut distribution = vec![file_set(
        "shards",
        "application/x-tar",
        "WebDataset shards: pictures, captions and one JSON a sample",
        &tars,
    )];
    if has_tables {
        distribution.push(file_set(
            "tables",
            "application/x-parquet",
            "One row an attempted sample, beside each shard",
            &patterns(&folder, shards, ".parquet"),
        ));
    }
    distribution.push(file_set(
        "sidecars",
        "application/x-parquet",
        "One row a mention of a concept, beside each shard",
        &patterns(&folder, shards, ".concepts.parquet"),
    ));
    let mut record_sets = Vec::new();
    if has_tables {
        record_sets.push(json!({
            "@type": "cr:RecordSet",
            "@id": "samples",
            "name": "samples",
            "description": "Attempted samples; those of status \"success\" are in the shards",
            "field": samples(findings),
        }));
    }
    record_sets.push(json!({
        "@type": "cr:RecordSet",
        "@id": "mentions",
        "name": "mentions",
        "description": "Mentions of concepts in the captions, in the order of the shards",
        "field": MENTION.map(|(name, kind, about)| field("mentions", "sidecars", name, kind, about)),
    }));
    let totals = findings.counts.totals();
    let description = format!(
        "{} with captions that mention {} {}. {MARK}",
        counted(totals.samples, "picture", "pictures"),
        counted(totals.concepts, "concept", "concepts"),
        counted(totals.mentions, "time", "times"),
    );
    let mut set = Map::new();
    set.insert("@context".into(), context());
    set.insert("@type".into(), json!("sc:Dataset"));
    set.insert("conformsTo".into(), json!("http://mlcommons.org/croissant/1.1"));
    set.insert("name".into(), json!(findings.name));
    set.insert("description".into(), json!(description));
    for (key, value) in [("license", &arguments.license), ("url", &arguments.url)] {
        if let Some(value) = value {
            set.insert(key.into(), json!(value));
        }
    }
    if let Some(creator) = &arguments.creator {
        set.insert("creator".into(), json!({"@type": "sc:Organization", "name": creator}));
    }
    set.insert("distribution".into(), json!(distribution));
    set.insert("recordSet".into(), json!(record_sets));
    Ok(serde_json::to_string_pretty(&set)? + "\n")
}

/// Where the shards are, as seen from the page's folder, with a slash at the end. Croissant's patterns only go down:
/// for shards elsewhere they are those of the shards' own folder, where the file then belongs.
fn prefix(shards: &Path, page: &Path) -> String {
    let folder = page.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (Ok(shards), Ok(folder)) = (fs::canonicalize(shards), fs::canonicalize(folder)) else {
        return String::new();
    };
    if let Ok(below) = shards.strip_prefix(folder) {
        return below.components().map(|part| literal(&part.as_os_str().to_string_lossy()) + "/").collect();
    }
    eprintln!(
        "{CROISSANT} names files relative to {}; copy it there to load the set with it",
        shards.display()
    );
    String::new()
}

/// One pattern for shards that are numbered as ours, else every name.
fn patterns(folder: &str, shards: &[PathBuf], suffix: &str) -> Vec<String> {
    let stems: Vec<&str> = shards.iter().filter_map(|shard| shard::stem(shard)).collect();
    let digits = |stem: &&str| stem.bytes().all(|byte| byte.is_ascii_digit());
    match stems.first() {
        Some(first) if stems.iter().all(|stem| digits(stem) && stem.len() == first.len()) => {
            vec![format!("{folder}{}{suffix}", "[0-9]".repeat(first.len()))]
        }
        _ => stems.iter().map(|stem| format!("{folder}{}{suffix}", literal(stem))).collect(),
    }
}

/// A name as a pattern that matches nothing else.
fn literal(name: &str) -> String {
    let mut pattern = String::new();
    for c in name.chars() {
        match c {
            '*' | '?' | '[' => pattern.extend(['[', c, ']']),
            c => pattern.push(c),
        }
    }
    pattern
}

fn file_set(id: &str, format: &str, about: &str, includes: &[String]) -> Value {
    json!({
        "@type": "cr:FileSet",
        "@id": id,
        "name": id,
        "description": about,
        "encodingFormat": format,
        "includes": includes,
    })
}

fn field(set: &str, files: &str, name: &str, kind: &str, about: &str) -> Value {
    json!({
        "@type": "cr:Field",
        "@id": format!("{set}/{name}"),
        "name": name,
        "description": about,
        "dataType": kind,
        "source": {"fileSet": {"@id": files}, "extract": {"column": name}},
    })
}

/// The tables' columns that have a plain type.
fn samples(findings: &Findings<'_>) -> Vec<Value> {
    let mut ids = HashSet::new();
    let mut fields = Vec::new();
    for (column, kind) in &findings.survey.columns {
        let Some(kind) = data_type(kind) else { continue };
        let mut field = field("samples", "tables", column, kind, meaning(column));
        // A name from the input may hold anything; an id is part of a web address.
        let plain = |c: char| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '_' };
        let mut id: String = column.chars().map(plain).collect();
        while !ids.insert(id.clone()) {
            id.push('_');
        }
        field["@id"] = json!(format!("samples/{id}"));
        fields.push(field);
    }
    fields
}

fn data_type(column: &DataType) -> Option<&'static str> {
    match column {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some("sc:Text"),
        DataType::Boolean => Some("sc:Boolean"),
        kind if kind.is_integer() => Some("sc:Integer"),
        kind if kind.is_floating() => Some("sc:Float"),
        _ => None,
    }
}

fn meaning(column: &str) -> &'static str {
    match column {
        "key" => "Key of the sample",
        "url" => "Where the picture came from",
        "caption" => "Caption, as it came",
        "status" => "\"success\", or the step that failed",
        "error_message" => "Why the sample is not in the shard",
        "width" | "height" => "Pixels, as stored",
        "original_width" | "original_height" => "Pixels before resizing",
        "exif" => "EXIF tags as JSON",
        "sha256" => "SHA-256 of the original file",
        "offset" => "First byte of the picture in the uncompressed tar",
        "length" => "Bytes of the picture",
        _ => "Column of the input",
    }
}

/// The context that the specification asks for, word for word.
fn context() -> Value {
    json!({
        "@language": "en",
        "@vocab": "https://schema.org/",
        "arrayShape": "cr:arrayShape",
        "citeAs": "cr:citeAs",
        "column": "cr:column",
        "conformsTo": "dct:conformsTo",
        "containedIn": "cr:containedIn",
        "cr": "http://mlcommons.org/croissant/",
        "data": {"@id": "cr:data", "@type": "@json"},
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        "dct": "http://purl.org/dc/terms/",
        "description": {"@container": "@language"},
        "equivalentProperty": "cr:equivalentProperty",
        "examples": {"@id": "cr:examples", "@type": "@json"},
        "extract": "cr:extract",
        "field": "cr:field",
        "fileObject": "cr:fileObject",
        "fileProperty": "cr:fileProperty",
        "fileSet": "cr:fileSet",
        "format": "cr:format",
        "includes": "cr:includes",
        "isArray": "cr:isArray",
        "isLiveDataset": "cr:isLiveDataset",
        "jsonPath": "cr:jsonPath",
        "key": "cr:key",
        "md5": "cr:md5",
        "name": {"@container": "@language"},
        "parentField": "cr:parentField",
        "path": "cr:path",
        "rai": "http://mlcommons.org/croissant/RAI/",
        "recordSet": "cr:recordSet",
        "references": "cr:references",
        "regex": "cr:regex",
        "repeated": "cr:repeated",
        "replace": "cr:replace",
        "samplingRate": "cr:samplingRate",
        "sc": "https://schema.org/",
        "separator": "cr:separator",
        "source": "cr:source",
        "subField": "cr:subField",
        "transform": "cr:transform",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_the_shards_alone() {
        let shards = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let numbered = shards(&["s/00000.tar", "s/00001.tar"]);
        assert_eq!(patterns("s/", &numbered, ".tar"), ["s/[0-9][0-9][0-9][0-9][0-9].tar"]);
        let named = shards(&["a[1].tar", "b.tar"]);
        assert_eq!(
            patterns("", &named, ".concepts.parquet"),
            ["a[[]1].concepts.parquet", "b.concepts.parquet"]
        );
        assert!(patterns("", &[], ".tar").is_empty());
    }
}
