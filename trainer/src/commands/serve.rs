//! `trainer serve`: a page to play with a model.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use trainer::picture::{self, Limits};
use trainer::segmenter::{ClassVectors, SegmentSettings};
use trainer::serve::{self, ServeSettings};

use crate::DeviceArgs;

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Pictures, folders of them or patterns that the page offers beside those one brings.
    examples: Vec<PathBuf>,
    /// A run's folder (its newest checkpoint is used) or one checkpoint.
    #[arg(long)]
    checkpoint: PathBuf,
    /// Where to listen. Only this machine can reach 127.0.0.1; 0.0.0.0 lets everyone in who reaches this machine.
    #[arg(long, default_value = "127.0.0.1:8787")]
    address: SocketAddr,
    /// Words that the page starts with, separated by commas.
    #[arg(long, default_value = "")]
    words: String,
    /// Short side the pictures are brought to, and side of the window, in pixels; 0 for the training size.
    #[arg(long, default_value_t = 0)]
    size: u32,
    /// Step of the sliding window in pixels; 0 for half the window.
    #[arg(long, default_value_t = 0)]
    stride: u32,
    /// Sentences for the words: `simple` ("a photo of a {}.") answers as one types; `imagenet` (CLIP's 80) takes 80
    /// times as long for a new word.
    #[arg(long, default_value = "simple")]
    templates: String,
    /// Which embedding of a word is its vector [default: as for segment].
    #[arg(long, value_enum)]
    class_vectors: Option<ClassVectors>,
    /// Largest picture taken, MB.
    #[arg(long, default_value_t = 32)]
    max_mb: u64,
    /// Largest picture taken, millions of pixels.
    #[arg(long, default_value_t = 64)]
    max_megapixels: u64,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: ServeArgs) -> anyhow::Result<Value> {
    trainer::device::limit_threads(args.device.threads);
    let examples = if args.examples.is_empty() { Vec::new() } else { picture::list(&args.examples)? };
    let settings = ServeSettings {
        address: args.address,
        checkpoint: args.checkpoint,
        segment: SegmentSettings {
            device: args.device.device,
            precision: trainer::device::Precision::Auto,
            size: args.size,
            stride: args.stride,
            templates: args.templates,
            vectors: args.class_vectors,
        },
        words: args.words,
        examples,
        limits: Limits { bytes: args.max_mb << 20, pixels: args.max_megapixels * 1_000_000, ratio: 8 },
    };
    serve::serve(&settings, |address| {
        println!("open http://{address} in a browser; Ctrl-C ends");
        let _ = std::io::stdout().flush();
    })?;
    Ok(json!({ "address": args.address }))
}
