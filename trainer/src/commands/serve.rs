//! `trainer serve`: a local web page that shows the segmentation of images.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use trainer::inference::class_vectors::ClassVectors;
use trainer::inference::segmenter::SegmentSettings;
use trainer::pictures::{self, Limits};
use trainer::serve::{self, ServeSettings};

use super::choices;
use super::console::Console;
use super::options::{PrecisionArgs, RunArgs, WindowArgs, class_list};

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Example images on the page, in addition to those that you open there: images, folders of images, or patterns.
    #[arg(value_name = "IMAGES")]
    examples: Vec<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    /// Address and port of the page. 127.0.0.1 can be reached from this machine only; with 0.0.0.0 everyone who can reach this
    /// machine can use the page.
    #[arg(long, default_value = "127.0.0.1:8787")]
    address: SocketAddr,
    /// Classes with which the page starts, separated by commas; `cat|kitten` is one class with two names.
    #[arg(long, alias = "words", value_name = "LIST")]
    classes: Option<String>,
    /// The same from a file with one class per line.
    #[arg(long, conflicts_with = "classes", value_name = "FILE")]
    class_file: Option<PathBuf>,
    #[command(flatten)]
    window: WindowArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    /// Prompt templates for the class names: `simple` ("a photo of a {}."), which is fast enough to answer while you type,
    /// `imagenet` (the 80 of CLIP), which takes 80 times as long for a new name, or a file with one template per line.
    #[arg(long, default_value = "simple")]
    templates: String,
    /// Embedding of a class [default: `concept` for models trained with simzss, `caption` for lit and clip].
    #[arg(long, value_parser = choices::class_vectors())]
    class_vectors: Option<ClassVectors>,
    /// Maximum size of an uploaded image, in MB.
    #[arg(long, default_value_t = 32)]
    max_mb: u64,
    /// Maximum size of an uploaded image, in megapixels.
    #[arg(long, default_value_t = 64)]
    max_megapixels: u64,
}

pub(crate) fn run(args: ServeArgs) -> anyhow::Result<Value> {
    trainer::device::limit_threads(args.run.device.threads);
    let classes = args.classes.as_deref().filter(|list| !list.trim().is_empty());
    let words = match (classes, args.class_file.as_deref()) {
        (None, None) => String::new(),
        (list, file) => class_list(list, file)?.line(),
    };
    let examples = if args.examples.is_empty() { Vec::new() } else { pictures::list(&args.examples)? };
    let settings = ServeSettings {
        address: args.address,
        segment: SegmentSettings {
            templates: args.templates,
            vectors: args.class_vectors,
            ..args.run.settings(Some((&args.window, &args.precision)), None)
        },
        checkpoint: args.run.checkpoint,
        words,
        examples,
        limits: Limits { bytes: args.max_mb << 20, pixels: args.max_megapixels * 1_000_000, ratio: 8 },
    };
    serve::serve(&settings, &Console, |address| {
        println!("open http://{address} in a browser; Ctrl-C stops the server");
        let _ = std::io::stdout().flush();
    })?;
    Ok(json!({ "address": args.address }))
}
