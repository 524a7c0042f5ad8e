//! The dataset's Croissant 1.1 metadata: its files, and record sets of its samples and mentions.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use anyhow::Result;
use arrow_schema::DataType;
use loader::shards::{self, SUFFIXES};
use serde_json::{Map, Value, json};
use storage::Location;

use super::text::counted;
use super::{Arguments, CROISSANT, Findings};

/// Part of every description that this module writes. It tells these files from those of other programs.
pub(super) const MARK: &str = "Described by tools report.";

/// Columns of a sidecar: name, type, description.
const MENTION: [(&str, &str, &str); 10] = [
    ("key", "sc:Text", "Key of the sample"),
    ("sample", "sc:Integer", "Position of the sample in its shard, counted from 0"),
    ("phrase", "sc:Text", "The noun phrase, as written in the canonical caption"),
    ("concept", "sc:Text", "The last compound noun of the phrase, with its head noun as a lemma (singular)"),
    ("head", "sc:Text", "Lemma of the phrase's head noun"),
    ("phrase_start", "sc:Integer", "Start of the phrase in the canonical caption, bytes"),
    ("phrase_end", "sc:Integer", "End of the phrase in the canonical caption, exclusive, bytes"),
    ("concept_start", "sc:Integer", "Start of the concept's words in the canonical caption, bytes"),
    ("concept_end", "sc:Integer", "End of the concept's words in the canonical caption, exclusive, bytes"),
    ("tags", "sc:Text", "Penn Treebank part-of-speech tags of the phrase's words"),
];

/// The JSON text.
pub(super) fn describe(
    findings: &Findings<'_>,
    arguments: &Arguments,
    shards: &[Location],
) -> Result<String> {
    let folder = prefix(&arguments.shards, &arguments.out);
    let has_tables = !findings.survey.columns.is_empty();
    let with = |suffix: &str| -> Vec<Location> {
        shards.iter().filter(|shard| shard.file_name().ends_with(suffix)).cloned().collect()
    };
    let tars = SUFFIXES.map(|suffix| patterns(&folder, &with(suffix), suffix)).concat();
    let mut distribution = vec![file_set(
        "shards",
        "application/x-tar",
        "WebDataset shards: images, captions and one JSON file per sample",
        &tars,
    )];
    if has_tables {
        distribution.push(file_set(
            "tables",
            "application/x-parquet",
            "One row per attempted sample, in a file next to each shard",
            &patterns(&folder, shards, ".parquet"),
        ));
    }
    distribution.push(file_set(
        "sidecars",
        "application/x-parquet",
        "One row per mention of a concept, in a file next to each shard",
        &patterns(&folder, shards, ".concepts.parquet"),
    ));
    let mut record_sets = Vec::new();
    if has_tables {
        record_sets.push(json!({
            "@type": "cr:RecordSet",
            "@id": "samples",
            "name": "samples",
            "description": "Attempted samples; the shards have those with status \"success\"",
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
        counted(totals.samples, "sample", "samples"),
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

/// The shards' folder relative to the page's folder, with a slash at the end. Croissant's patterns cannot leave a
/// folder, so for shards elsewhere the patterns are relative to the shards' own folder, where croissant.json must be
/// copied.
fn prefix(shards: &Location, page: &Location) -> String {
    let pattern =
        |below: &Path| below.iter().map(|part| literal(&part.to_string_lossy()) + "/").collect::<String>();
    let (Location::Local(shards), Location::Local(page)) = (shards, page) else {
        let below = page.parent().and_then(|folder| shards.relative_to(&folder));
        return below.map_or_else(|| elsewhere(shards), |below| pattern(&below));
    };
    let folder = page.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (Ok(shards), Ok(folder)) = (fs::canonicalize(shards), fs::canonicalize(folder)) else {
        return String::new();
    };
    if let Ok(below) = shards.strip_prefix(folder) {
        return pattern(below);
    }
    elsewhere(&shards.into())
}

/// For shards that are not below the page's folder.
fn elsewhere(shards: &Location) -> String {
    eprintln!(
        "note: the file names in {CROISSANT} are relative to {shards}; copy it there before loading the dataset with it"
    );
    String::new()
}

/// One pattern for shards with numbers of equal length as names, otherwise the name of every shard.
fn patterns(folder: &str, shards: &[Location], suffix: &str) -> Vec<String> {
    let stems: Vec<&str> = shards.iter().filter_map(|shard| shards::stem(shard)).collect();
    let digits = |stem: &&str| stem.bytes().all(|byte| byte.is_ascii_digit());
    match stems.first() {
        Some(first) if stems.iter().all(|stem| digits(stem) && stem.len() == first.len()) => {
            vec![format!("{folder}{}{suffix}", "[0-9]".repeat(first.len()))]
        }
        _ => stems.iter().map(|stem| format!("{folder}{}{suffix}", literal(stem))).collect(),
    }
}

/// Escapes a name, so that as a pattern it matches only itself.
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

/// The fields of the tables' columns, except columns of nested types.
fn samples(findings: &Findings<'_>) -> Vec<Value> {
    let mut ids = HashSet::new();
    let mut fields = Vec::new();
    for (column, kind) in &findings.survey.columns {
        let Some(kind) = data_type(kind) else { continue };
        let mut field = field("samples", "tables", column, kind, description(column));
        // A column name may contain any characters, but an id is part of a URL.
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
        DataType::Timestamp(..) => Some("sc:DateTime"),
        _ => None,
    }
}

fn description(column: &str) -> &'static str {
    match column {
        "key" => "Key of the sample",
        "url" => "URL of the image",
        "caption" => "Caption, unchanged",
        "status" => "\"success\", \"removed\", or the step that failed, such as \"failed_to_download\"",
        "error_message" => "Reason of a failure",
        "width" | "height" => "Size in the shard, pixels",
        "original_width" | "original_height" => "Size before resizing, pixels",
        "exif" => "EXIF tags as JSON",
        "sha256" => "SHA-256 of the original file",
        "url_sha256" => "SHA-256 of the URL of a removed sample",
        "caption_sha256" => "SHA-256 of the caption of a removed sample",
        "offset" => "Offset of the image in the uncompressed tar, bytes",
        "length" => "Length of the image file, bytes",
        "final_url" => "URL that answered, after redirects",
        "fetched" => "When it answered",
        "etag" => "Its ETag header",
        "last_modified" => "Its Last-Modified header",
        "opt_outs" => "Signals by which the owner opts out",
        _ => "Column carried over from the input",
    }
}

/// The context, exactly as the specification requires it.
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
    fn patterns_match_only_the_shards() {
        let shards = |names: &[&str]| names.iter().map(Location::from).collect::<Vec<_>>();
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
