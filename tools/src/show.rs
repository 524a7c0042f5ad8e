//! `tools show`: lists the samples of a shard with their captions and mentions.

use anyhow::{Context, Result, bail};
use clap::ValueHint;
use concepts::sidecar::CaptionCheck;
use disk::foreign_files::visible;
use loader::shards::{Archive, Member, Sample};
use loader::{images, shards};
use program::{Interrupted, Outcome, UsageError, location};
use serde_json::{Value, json};
use storage::Location;

use crate::input::{folder_of, must_exist};
use crate::stats::sidecar_of;

/// List the samples of a shard: key, image, caption and mentions
///
/// Prints, per sample, the key, the image's type and size, the caption, and one line per mention: its concept, then its
/// phrase. The mentions come from the sidecar (NNNNN.concepts.parquet) that `ingest tag` wrote; a shard without one is
/// listed too.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The shard, a .tar, .tar.zst, .tar.gz or .tgz file, on disk or at an address such as s3://bucket/shards/00000.tar
    #[arg(value_name = "SHARD", value_parser = location(), value_hint = ValueHint::AnyPath)]
    shard: Location,
    /// Show only the sample with this key
    #[arg(long, conflicts_with = "limit")]
    key: Option<String>,
    /// Show only the first N samples
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: usize,
    /// Print the samples as one line of JSON instead
    #[arg(long)]
    json: bool,
}

/// As much of a caption is shown, bytes, and as many of its mentions. No caption of an image is longer; what is may not fit into
/// memory several times.
const CAPTION_BYTES: u64 = 1 << 16;
const MENTIONS: usize = 1000;
const CAPTIONS: usize = 100;

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let path = &arguments.shard;
    if path.is_local_folder() || (path.is_remote() && shards::stem(path).is_none()) {
        let example = path.join("00000.tar");
        let line = format!("{path} is a folder; give one of its shards, such as {example}");
        return Err(UsageError(line).into());
    }
    if shards::stem(path).is_none() {
        let line = format!("{path} is not a shard: shards end in .tar, .tar.zst, .tar.gz or .tgz");
        return Err(UsageError(line).into());
    }
    must_exist(path)?;
    let archive = Archive::open(path)?;
    let samples = archive.samples()?;
    let tagged = storage::exists(shards::sidecar_path(path))?;
    let sidecar = if tagged { Some(sidecar_of(path)?) } else { None };
    let chosen: Vec<(u32, &Sample)> = match &arguments.key {
        Some(key) => (0..).zip(&samples).filter(|(_, sample)| sample.key == *key).collect(),
        None => (0..).zip(&samples).take(arguments.limit).collect(),
    };
    if let (Some(key), true) = (&arguments.key, chosen.is_empty()) {
        match samples.first() {
            Some(first) => bail!("{path} has no sample {key}; its first key is {}", first.key),
            None => bail!("{path} has no samples"),
        }
    }
    let mut shown = Vec::new();
    for (position, sample) in chosen {
        let raw = raw_caption(&archive, sample)?;
        let field = sidecar.as_ref().and_then(|it| it.metadata.field.as_deref());
        let captions = field.map(|field| captions_in(&archive, sample, field)).transpose()?;
        let check = captions.as_ref().map_or_else(
            || CaptionCheck::of(raw.as_deref().unwrap_or_default()),
            |captions| CaptionCheck::of_all(captions),
        );
        if sidecar.as_ref().and_then(|it| it.has_captions(position, check)) == Some(false) {
            let (key, folder) = (&sample.key, folder_of(path));
            bail!(
                "the caption of sample {key} is not the one that was tagged; run `ingest tag {folder}` again"
            );
        }
        let mentions = sidecar.as_ref().map(|sidecar| {
            let mention = |row: concepts::sidecar::MentionRow<'_>| {
                let mut mention = json!({
                    "phrase": row.phrase, "concept": row.concept, "head": row.head, "tags": row.tags,
                    "phrase_span": [row.phrase_span.start, row.phrase_span.end],
                    "concept_span": [row.concept_span.start, row.concept_span.end],
                });
                if field.is_some() {
                    mention["caption"] = row.caption.into();
                }
                mention
            };
            sidecar.mentions(position).take(MENTIONS).map(mention).collect::<Vec<_>>()
        });
        let mut entry = json!({
            "sample": position,
            "key": sample.key,
            "image": image(&archive, sample)?,
            "caption": raw.map(|raw| shown_caption(&raw)),
            "mentions": mentions,
        });
        if let Some(captions) = &captions {
            let shown = captions.iter().take(CAPTIONS).map(|caption| shown_caption(caption.as_bytes()));
            entry["captions"] = shown.collect();
        }
        let of = |member: &Member| member.length;
        let bytes_left_out = sample.caption().map_or(0, of).saturating_sub(CAPTION_BYTES);
        let mentions = sidecar.as_ref().map_or(0, |sidecar| sidecar.mentions(position).count());
        for (name, left_out) in [
            ("caption_bytes_left_out", bytes_left_out),
            ("captions_left_out", captions.map_or(0, |all| all.len().saturating_sub(CAPTIONS)) as u64),
            ("mentions_left_out", mentions.saturating_sub(MENTIONS) as u64),
        ] {
            if left_out > 0 {
                entry[name] = left_out.into();
            }
        }
        shown.push(entry);
        if program::interrupted() {
            bail!(Interrupted::new("not all samples are shown"));
        }
    }
    if arguments.json {
        return program::print_json(&json!({
            "shard": path.to_string(),
            "samples": samples.len(),
            "shown": shown,
        }))
        .map(|()| Outcome::Done);
    }
    let mut text = String::new();
    for sample in &shown {
        text += &describe(sample);
    }
    text += &format!("{} of {} samples", shown.len(), samples.len());
    if !tagged {
        text += &format!("; without mentions: run `ingest tag {}` to find them", folder_of(path));
    }
    text += "\n";
    crate::screen(&text)?;
    Ok(Outcome::Done)
}

/// Type, bytes, width and height; null without an image. Width and height are null when the image cannot be decoded.
fn image(archive: &Archive, sample: &Sample) -> Result<Value> {
    let Some(member) = sample.image() else { return Ok(Value::Null) };
    let bytes = archive.read(member.offset, member.length)?;
    let (width, height) = images::size(&bytes).ok().unzip();
    Ok(json!({"type": member.extension, "bytes": member.length, "width": width, "height": height}))
}

fn raw_caption(archive: &Archive, sample: &Sample) -> Result<Option<Vec<u8>>> {
    let Some(member) = sample.caption() else { return Ok(None) };
    archive.read(member.offset, member.length).map(Some).with_context(|| format!("sample {}", sample.key))
}

/// The captions in a field of the sample's JSON; none if they cannot be read, as for the tagger.
fn captions_in(archive: &Archive, sample: &Sample, field: &str) -> Result<Vec<String>> {
    let Some(member) = sample.member("json") else { return Ok(Vec::new()) };
    let json = archive.read(member.offset, member.length);
    let json = json.with_context(|| format!("sample {}", sample.key))?;
    Ok(shards::field_captions(&json, field).unwrap_or_default())
}

/// The part of a caption that is shown.
fn shown_caption(raw: &[u8]) -> String {
    String::from_utf8_lossy(&raw[..raw.len().min(CAPTION_BYTES as usize)]).into_owned()
}

/// A caption without its line breaks, word by word.
fn one_line(caption: &str) -> String {
    let mut line = String::new();
    for word in caption.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

/// A sample as text: a line about the image, the caption, one line per mention.
fn describe(sample: &Value) -> String {
    let word = |value: &Value| visible(value.as_str().unwrap_or_default()).into_owned();
    let image = &sample["image"];
    let size = match (image["width"].as_u64(), image["height"].as_u64()) {
        _ if image.is_null() => "no image".to_owned(),
        (Some(width), Some(height)) => {
            format!("{} {width} x {height}, {} bytes", word(&image["type"]), image["bytes"])
        }
        _ => format!("{} that cannot be decoded, {} bytes", word(&image["type"]), image["bytes"]),
    };
    let mut text = format!("{}  ({size})\n", word(&sample["key"]));
    let only = [sample["caption"].clone()];
    let captions = sample["captions"].as_array().map_or(&only[..], Vec::as_slice);
    for (number, caption) in captions.iter().enumerate() {
        text += &match caption.as_str() {
            Some(caption) => format!("    {}\n", visible(&one_line(caption))),
            None => "    (no caption)\n".to_owned(),
        };
        let mentions = sample["mentions"].as_array().into_iter().flatten();
        for mention in mentions.filter(|it| it["caption"].as_u64().unwrap_or_default() == number as u64) {
            text += &format!("      {:<24} {}\n", word(&mention["concept"]), word(&mention["phrase"]));
        }
    }
    for (name, what) in [
        ("caption_bytes_left_out", "bytes of the caption"),
        ("captions_left_out", "captions"),
        ("mentions_left_out", "mentions"),
    ] {
        if let Some(count) = sample[name].as_u64() {
            text += &format!("    ({count} more {what})\n");
        }
    }
    text + "\n"
}
