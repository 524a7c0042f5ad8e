//! `trainer weights` and `trainer convert`: published weights, and weights in other names.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use loader::program::UsageError;
use serde_json::{Value, json};
use trainer::weights::Family;
use trainer::weights::convert::convert;
use trainer::weights::download::download;
use trainer::weights::published::{self, PUBLISHED};

#[derive(Debug, Args)]
pub(crate) struct WeightsArgs {
    /// The published model; without one, all are listed.
    name: Option<String>,
    /// Any other file, by its address.
    #[arg(long, value_name = "URL", conflicts_with = "name")]
    from_url: Option<String>,
    /// SHA-256 the file must have, in hexadecimal [default: the published one, where it is known].
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// The file [default: its name on the server, in this folder].
    #[arg(long)]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &WeightsArgs) -> anyhow::Result<Value> {
    let (url, known) = match (&args.name, &args.from_url) {
        (None, None) => return Ok(list()),
        (_, Some(url)) => (url.as_str(), None),
        (Some(name), None) => {
            let published = published::find(name).ok_or_else(|| {
                UsageError(format!(
                    "no weights {name:?}; trainer weights lists them, --from-url takes any other file"
                ))
            })?;
            (published.url, Some(published.sha256).filter(|hash| !hash.is_empty()))
        }
    };
    let out = match &args.out {
        Some(out) => out.clone(),
        None => PathBuf::from(file_name(url)?),
    };
    let expected = args.sha256.as_deref().or(known);
    let done = download(url, &out, expected)?;
    let checked = match (expected, done.was_there) {
        (Some(_), _) => "as expected",
        (None, true) => "as after its download",
        (None, false) => "not known before, now noted beside it",
    };
    println!("{}: {} bytes, sha256 {} ({checked})", out.display(), done.bytes, done.sha256);
    Ok(serde_json::to_value(done)?)
}

/// The last part of the address, without a query.
fn file_name(url: &str) -> anyhow::Result<&str> {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let name = path.rsplit('/').next().filter(|name| !name.is_empty() && !name.starts_with('.'));
    Ok(name.ok_or_else(|| UsageError(format!("{url} names no file; say where to with --out")))?)
}

fn list() -> Value {
    for published in PUBLISHED {
        println!("{:<18} {}\n{:<18} {}", published.name, published.about, "", published.url);
    }
    json!(PUBLISHED.iter().map(|published| published.name).collect::<Vec<_>>())
}

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// safetensors or PyTorch files of one model: its towers may lie in several.
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
    /// Whose names the tensors get.
    #[arg(long, value_enum)]
    to: Family,
    /// The file, safetensors.
    #[arg(long)]
    out: PathBuf,
}

/// Names of left-out tensors that are printed; `--json` has all.
const MOST_NAMED: usize = 5;

pub(crate) fn run_convert(args: &ConvertArgs) -> anyhow::Result<Value> {
    let folder = args.out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let done = convert(&args.inputs, args.to, &args.out)?;
    println!("{}: {} tensors", args.out.display(), done.tensors);
    if !done.left_out.is_empty() {
        let named = done.left_out.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = if done.left_out.len() > MOST_NAMED { ", .." } else { "" };
        println!("left out, as they have no place there: {} ({named}{more})", done.left_out.len());
    }
    Ok(serde_json::to_value(done)?)
}
