//! `trainer weights` and `trainer convert`: downloads published weights, and converts state-dict keys.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use program::UsageError;
use serde_json::{Value, json};
use trainer::towers::convert::convert;
use trainer::weights::Family;
use trainer::weights::download::{Downloaded, download};
use trainer::weights::published::{self, PUBLISHED};

use super::choices;
use super::console::Console;

#[derive(Debug, Args)]
pub(crate) struct WeightsArgs {
    /// Published model to download, such as `dinov2_vitb14`; without it, all are listed.
    #[arg(group = "source")]
    name: Option<String>,
    /// Download another file from this address: https://, s3://, gs://, az:// or hf://.
    #[arg(long, value_name = "URL", group = "source")]
    from_url: Option<String>,
    /// Expected SHA-256 of the file in hexadecimal [default: the known hash of a published model, if there is one].
    #[arg(long, requires = "source", value_name = "HEX")]
    sha256: Option<String>,
    /// File to write [default: the file name on the server, in the current folder].
    #[arg(long, requires = "source", value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &WeightsArgs) -> anyhow::Result<Value> {
    let (url, known) = match (&args.name, &args.from_url) {
        (None, None) => return Ok(list()),
        (_, Some(url)) => (url.as_str(), None),
        (Some(name), None) => {
            let published = published::find(name).ok_or_else(|| {
                UsageError(format!(
                    "unknown model {name:?}; `trainer weights` lists the published ones, --from-url downloads any other file"
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
    let done = if storage::Location::from(&out).is_remote() {
        to_store(url, &out, expected)?
    } else {
        download(url, &out, expected, &Console)?
    };
    let checked = match (expected, done.was_there) {
        (Some(_), _) => "as expected",
        (None, true) => "unchanged since its download",
        (None, false) => "no expected hash is known; saved next to the file",
    };
    println!("{}: {} bytes, sha256 {} ({checked})", out.display(), done.bytes, done.sha256);
    Ok(serde_json::to_value(done)?)
}

/// Downloads to the folder for temporary files, and uploads the file and its hash from there.
fn to_store(url: &str, out: &Path, expected: Option<&str>) -> anyhow::Result<Downloaded> {
    let name =
        out.file_name().ok_or_else(|| UsageError(format!("--out {} has no file name", out.display())))?;
    let place = std::env::temp_dir().join("simzss-weights");
    disk::files::clear_leftovers_of(&place);
    let (folder, _held) = disk::files::temporary_folder(&place)
        .with_context(|| format!("cannot create {}", place.display()))?;
    let uploaded = || -> anyhow::Result<Downloaded> {
        let file = folder.join(name);
        let done = download(url, &file, expected, &Console)?;
        for ending in ["", ".sha256"] {
            let name = format!("{}{ending}", name.to_string_lossy());
            storage::upload(&folder.join(&name), out.with_file_name(name))?;
        }
        Ok(Downloaded { path: out.to_owned(), ..done })
    };
    let done = uploaded();
    let _ = std::fs::remove_dir_all(&folder);
    done
}

/// The last part of the address, without the query.
fn file_name(url: &str) -> anyhow::Result<&str> {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let name = path.rsplit('/').next().filter(|name| !name.is_empty() && !name.starts_with('.'));
    Ok(name.ok_or_else(|| UsageError(format!("{url} has no file name; add --out FILE")))?)
}

fn list() -> Value {
    for published in PUBLISHED {
        println!("{:<18} {}\n{:<18} {}", published.name, published.about, "", published.url);
    }
    json!(PUBLISHED.iter().map(|published| published.name).collect::<Vec<_>>())
}

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// Weights files of one model, PyTorch (.pth, .pt, .bin) or safetensors. The towers may be in several files.
    #[arg(required = true, value_name = "FILES")]
    inputs: Vec<PathBuf>,
    /// Library or project whose state-dict keys are written.
    #[arg(long, value_parser = choices::family())]
    to: Family,
    /// File to write (safetensors).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Maximum number of left-out tensors that are printed by name; `--json` has all.
const MAX_NAMED: usize = 5;

pub(crate) fn run_convert(args: &ConvertArgs) -> anyhow::Result<Value> {
    let folder = args.out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    storage::create_folder(folder)?;
    let done = convert(&args.inputs, args.to, &args.out)?;
    println!("{}: {} tensors", args.out.display(), done.tensors);
    if !done.left_out.is_empty() {
        let named = done.left_out.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = if done.left_out.len() > MAX_NAMED { ", .." } else { "" };
        println!("left out {} tensors that this format does not have: {named}{more}", done.left_out.len());
    }
    Ok(serde_json::to_value(done)?)
}
