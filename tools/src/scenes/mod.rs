//! `tools scenes`: synthetic photographs with captions and exact masks, the demo's data.
//!
//! The folder appears complete or not at all. Every scene depends only on seed and index: the same command writes the
//! same bytes with any number of threads.

// Points in the image are x, y; points on an object are u, v.
#![allow(clippy::many_single_char_names)]

mod caption;
mod classes;
mod colours;
mod draw;
mod expressions;
mod font;
mod frequencies;
mod grounds;
mod names;
mod objects;
mod paint;
mod roles;
mod sheet;
mod tables;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use anyhow::{Context, Result, bail};
use clap::ValueHint;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use program::{Interrupted, Outcome, Progress, UsageError, location};
use storage::Location;

use self::caption::{Caption, Style};
use self::draw::{Content, Scene};
use self::expressions::Expression;
use self::frequencies::Frequencies;
use self::roles::Role;
use self::tables::{Pixels, Thing};
use crate::folder;

/// File with the counts by class; it is written last.
const SCENES: &str = "scenes.json";

/// A usual quality of images on the web. The textures stay visible at it.
const JPEG_QUALITY: u8 = 92;

/// The quality of near-duplicates.
const LOW_QUALITY: u8 = 70;

/// Render synthetic scenes with captions and exact masks
///
/// Writes, for the scene with index NNNNNN, DIR/images/NNNNNN.jpg and DIR/masks/NNNNNN.png (8-bit; the value of a pixel
/// is the number of its class's line in classes.txt, counted from 0), and for the dataset DIR/classes.txt,
/// DIR/captions.parquet (columns URL and TEXT, the input of `ingest download`; with --duplicates or --mismatched also
/// duplicate_of and mismatched) and DIR/scenes.json (counts by class). With --objects also DIR/instances/NNNNNN.png (8-bit; 0 where
/// a ground is seen, otherwise the number of the object in its image, counted from 1) and DIR/objects.parquet (everything that is in
/// each image); with --expressions also DIR/expressions.jsonl (phrases and the objects that they mean, the input of `trainer eval
/// referring`).
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder or address to write; it must be empty or not exist yet
    #[arg(long, value_name = "DIR", value_parser = location(), value_hint = ValueHint::AnyPath)]
    out: Location,
    /// Number of scenes
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    count: u64,
    /// Random seed: the same seed and index give the same scene
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Width and height of the images, pixels
    #[arg(long, default_value_t = 112, value_parser = clap::value_parser!(u32).range(16..=2048))]
    size: u32,
    /// Index of the first scene; disjoint ranges give different scenes, for example for training and for evaluation
    #[arg(long, value_name = "INDEX", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=u64::MAX / 4))]
    first_index: u64,
    /// Start of the images' URLs in captions.parquet; empty for paths relative to the output folder
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000/")]
    url_prefix: String,
    /// Captions per image; each is one row of captions.parquet
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    captions_per_image: u32,
    /// Draw the classes of objects by Zipf's law, the class of rank r in proportion to r^-S, in the order of classes.txt [default: all as
    /// often]
    #[arg(long, value_name = "S", value_parser = exponent)]
    zipf: Option<f64>,
    /// Fraction of scenes that are near-duplicates of an earlier one: the same image, stored at a lower quality, with another caption
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0, value_parser = fraction)]
    duplicates: f64,
    /// Fraction of scenes whose captions belong to another scene
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0, value_parser = fraction)]
    mismatched: f64,
    /// Mention each visible class in a caption with this probability [default: one to three objects and perhaps a ground]
    #[arg(long, value_name = "P", value_parser = fraction)]
    naming_rate: Option<f64>,
    /// Call some classes by a second name in half of their mentions, and write DIR/second-names.txt, as long as classes.txt
    #[arg(long)]
    two_names: bool,
    /// Draw objects in colours that do not follow from their classes, and mention these
    #[arg(long)]
    colours: bool,
    #[command(flatten)]
    besides: Besides,
    /// Also write an overview as one PNG: the first scenes with their masks and captions
    #[arg(long, value_name = "FILE", value_parser = location(), value_hint = ValueHint::AnyPath)]
    sheet: Option<Location>,
    /// Number of threads [default: number of cores]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Print a summary as one line of JSON
    #[arg(long)]
    json: bool,
}

/// What is written besides.
#[derive(Debug, clap::Args)]
struct Besides {
    /// Also write which pixel belongs to which object, and a table of all objects
    #[arg(long)]
    objects: bool,
    /// Also write referring expressions of several kinds for each image, and what --objects writes
    #[arg(long)]
    expressions: bool,
}

fn fraction(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("a fraction is 0 to 1".to_owned()) }
}

fn exponent(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=10.0).contains(&value) { Ok(value) } else { Err("the exponent is 0 to 10".to_owned()) }
}

impl Arguments {
    /// What the scenes show.
    fn content(&self) -> Content {
        let frequencies = self.zipf.map_or_else(Frequencies::default, Frequencies::zipf);
        Content { frequencies, colours: self.colours }
    }

    fn style(&self) -> Style {
        Style { naming_rate: self.naming_rate, two_names: self.two_names }
    }

    /// Whether objects are told apart in what is written.
    fn with_objects(&self) -> bool {
        self.besides.objects || self.besides.expressions
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    if arguments.duplicates + arguments.mismatched > 1.0 {
        let line = "--duplicates and --mismatched are fractions of all scenes; together they are at most 1";
        return Err(UsageError(line.to_owned()).into());
    }
    let folder = folder::create(&arguments.out)?;
    let instances = arguments.with_objects().then_some("instances");
    for part in ["images", "masks"].into_iter().chain(instances) {
        let part = folder.path().join(part);
        fs::create_dir(&part).with_context(|| format!("cannot create the folder {}", part.display()))?;
    }
    let (scenes, pixels) = render(arguments, folder.path())?;
    let summary = tables::write(arguments, folder.path(), &scenes, &pixels)?;
    if let Some(path) = &arguments.sheet {
        storage::replace(path, sheet::draw(arguments)?)?;
    }
    folder.publish(SCENES)?;
    let (out, plural) = (&arguments.out, if arguments.count == 1 { "" } else { "s" });
    let mut text = format!("written to {out} ({} scene{plural})", arguments.count);
    if let Some(path) = &arguments.sheet {
        text += &format!(" and {path}");
    }
    crate::screen(&(text + "\n"))?;
    if arguments.json {
        program::print_json(&summary)?;
    }
    Ok(Outcome::Done)
}

/// Name of a scene's files, without extension.
fn stem(index: u64) -> String {
    format!("{index:06}")
}

/// What is kept of a scene until the tables are written.
#[derive(Debug, Default)]
struct Rendered {
    role: Role,
    captions: Vec<Caption>,
    /// What is in the image.
    things: Vec<Thing>,
    expressions: Vec<Expression>,
}

/// Renders all scenes into `folder`; returns what the tables say of each, in order, and the pixels of each class.
fn render(arguments: &Arguments, folder: &Path) -> Result<(Vec<Rendered>, Pixels)> {
    let threads = arguments.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        |threads| threads as usize,
    );
    let next = AtomicU64::new(0);
    // The bound is never reached in practice: messages are small and the receiver only counts.
    let (sender, receiver) = mpsc::sync_channel::<Result<(u64, Rendered, Pixels)>>(4 * threads);
    let mut scenes: Vec<Rendered> = (0..arguments.count).map(|_| Rendered::default()).collect();
    let mut pixels = Pixels::default();
    let mut progress = Progress::new("rendering", "scenes", arguments.count);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    // Sending fails after the first error, which drops the receiver.
                    if number >= arguments.count
                        || sender.send(render_one(arguments, folder, number)).is_err()
                    {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for rendered in receiver {
            let (number, scene, of_scene) = rendered?;
            pixels.add(&of_scene);
            scenes[number as usize] = scene;
            progress.advance(1, String::new);
            if program::interrupted() {
                bail!(Interrupted::new(format!("{} was not written", arguments.out)));
            }
        }
        Ok(())
    })?;
    progress.finish("");
    Ok((scenes, pixels))
}

fn render_one(arguments: &Arguments, folder: &Path, number: u64) -> Result<(u64, Rendered, Pixels)> {
    let index = arguments.first_index + number;
    let role = Role::of(arguments, number);
    let (scene, captions) = scene(arguments, number, arguments.size as usize);
    let quality = if matches!(role, Role::DuplicateOf(_)) { LOW_QUALITY } else { JPEG_QUALITY };
    let write = |part: &str, extension: &str, bytes: &[u8]| {
        let path = folder.join(part).join(stem(index) + extension);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    };
    let labels = |of: &[u8]| png(of, arguments.size, arguments.size, ExtendedColorType::L8);
    write("images", ".jpg", &jpeg(&scene, arguments.size, quality)?)?;
    write("masks", ".png", &labels(&scene.mask)?)?;
    let mut rendered = Rendered { role, captions, ..Rendered::default() };
    if arguments.with_objects() {
        write("instances", ".png", &labels(&scene.instances)?)?;
        rendered.things = tables::things(&scene);
    }
    if arguments.besides.expressions {
        let mut rng = draw::stream(arguments.seed ^ EXPRESSIONS, index, 0);
        rendered.expressions = expressions::write(&scene, &mut rng);
    }
    Ok((number, rendered, Pixels::of(&scene.mask)))
}

/// Separates the random numbers of expressions from those of scenes.
const EXPRESSIONS: u64 = 0x7068_7261_7365_0000;

/// The image and mask of scene `number`, and its captions.
fn scene(arguments: &Arguments, number: u64, size: usize) -> (Scene, Vec<Caption>) {
    let (content, style) = (arguments.content(), arguments.style());
    let of = |number: u64| draw::draw(arguments.seed, arguments.first_index + number, size, &content);
    let mut rng = draw::stream(arguments.seed, arguments.first_index + number, 1);
    let mut captions = |scene: &Scene| {
        (0..arguments.captions_per_image).map(|_| caption::write(scene, style, &mut rng)).collect()
    };
    match Role::of(arguments, number) {
        Role::Own => {
            let scene = of(number);
            let captions = captions(&scene);
            (scene, captions)
        }
        Role::DuplicateOf(other) => {
            let scene = of(other);
            let captions = captions(&scene);
            (scene, captions)
        }
        Role::CaptionsOf(other) => (of(number), captions(&of(other))),
    }
}

fn jpeg(scene: &Scene, size: u32, quality: u8) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
    encoder
        .write_image(&scene.pixels, size, size, ExtendedColorType::Rgb8)
        .context("cannot encode a JPEG")?;
    Ok(bytes)
}

fn png(pixels: &[u8], width: u32, height: u32, colour: ExtendedColorType) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(pixels, width, height, colour).context("cannot encode a PNG")?;
    Ok(bytes)
}
