//! `tools scenes`: synthetic photographs with captions and exact masks, the demo's data.
//!
//! The folder appears complete or not at all. Every scene depends only on seed and index: the same command writes the
//! same bytes with any number of threads.

// Points in the image are x, y; points on an object are u, v.
#![allow(clippy::many_single_char_names)]

mod caption;
mod classes;
mod draw;
mod font;
mod frequencies;
mod grounds;
mod objects;
mod paint;
mod sheet;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use anyhow::{Context, Result, bail};
use arrow_array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use clap::ValueHint;
use disk::files;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use program::{Interrupted, Outcome, Progress, UsageError, location};
use rand::Rng;
use serde_json::json;
use storage::Location;

use self::caption::Caption;
use self::classes::CLASSES;
use self::draw::Scene;
use self::frequencies::Frequencies;
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
/// duplicate_of and mismatched) and DIR/scenes.json (counts by class).
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

fn fraction(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("a fraction is 0 to 1".to_owned()) }
}

fn exponent(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=10.0).contains(&value) { Ok(value) } else { Err("the exponent is 0 to 10".to_owned()) }
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    if arguments.duplicates + arguments.mismatched > 1.0 {
        let line = "--duplicates and --mismatched are fractions of all scenes; together they are at most 1";
        return Err(UsageError(line.to_owned()).into());
    }
    let folder = folder::create(&arguments.out)?;
    for part in ["images", "masks"] {
        let part = folder.path().join(part);
        fs::create_dir(&part).with_context(|| format!("cannot create the folder {}", part.display()))?;
    }
    let (captions, roles, pixels) = render(arguments, folder.path())?;
    let summary = write_tables(arguments, folder.path(), &captions, &roles, &pixels)?;
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

/// What is wrong with a scene on purpose. The number is that of another scene of the dataset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Role {
    /// Nothing.
    #[default]
    Own,
    /// It has the image of that scene.
    DuplicateOf(u64),
    /// It has captions of that scene.
    CaptionsOf(u64),
}

impl Role {
    /// The role of scene `number`: a function of the seed and the number.
    fn of(arguments: &Arguments, number: u64) -> Self {
        let mut rng = draw::stream(arguments.seed ^ ROLES, arguments.first_index + number, 0);
        let at: f64 = rng.random();
        if at < arguments.duplicates && number > 0 {
            // Of a scene that is none itself, so that the first of each group has an image of its own.
            let earlier = (0..TRIES).map(|_| rng.random_range(0..number));
            earlier
                .into_iter()
                .find(|&other| Self::is_own(arguments, other))
                .map_or(Self::Own, Self::DuplicateOf)
        } else if (arguments.duplicates..arguments.duplicates + arguments.mismatched).contains(&at)
            && arguments.count > 1
        {
            Self::CaptionsOf((number + rng.random_range(1..arguments.count)) % arguments.count)
        } else {
            Self::Own
        }
    }

    fn is_own(arguments: &Arguments, number: u64) -> bool {
        let at: f64 = draw::stream(arguments.seed ^ ROLES, arguments.first_index + number, 0).random();
        at >= arguments.duplicates + arguments.mismatched
    }
}

/// Number of earlier scenes that are tried as the original of a near-duplicate.
const TRIES: usize = 64;

/// Separates the random numbers of roles from those of scenes.
const ROLES: u64 = 0x726f_6c65_7300_0000;

/// The result of rendering one scene.
struct Rendered {
    number: usize,
    role: Role,
    captions: Vec<Caption>,
    /// Pixels of each class in the mask.
    pixels: [u64; CLASSES.len()],
}

/// Renders all scenes into `folder`; returns their captions and roles in order, and the pixels of each class.
fn render(arguments: &Arguments, folder: &Path) -> Result<(Vec<Vec<Caption>>, Vec<Role>, Pixels)> {
    let threads = arguments.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        |threads| threads as usize,
    );
    let next = AtomicU64::new(0);
    // The bound is never reached in practice: messages are small and the receiver only counts.
    let (sender, receiver) = mpsc::sync_channel::<Result<Rendered>>(4 * threads);
    let mut captions = vec![Vec::new(); arguments.count as usize];
    let mut roles = vec![Role::Own; arguments.count as usize];
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
            let rendered = rendered?;
            pixels.add(&rendered);
            roles[rendered.number] = rendered.role;
            captions[rendered.number] = rendered.captions;
            progress.advance(1, String::new);
            if program::interrupted() {
                bail!(Interrupted::new(format!("{} was not written", arguments.out)));
            }
        }
        Ok(())
    })?;
    progress.finish("");
    Ok((captions, roles, pixels))
}

fn render_one(arguments: &Arguments, folder: &Path, number: u64) -> Result<Rendered> {
    let index = arguments.first_index + number;
    let role = Role::of(arguments, number);
    let (scene, captions) = scene(arguments, number, arguments.size as usize);
    let quality = if matches!(role, Role::DuplicateOf(_)) { LOW_QUALITY } else { JPEG_QUALITY };
    let write = |path: PathBuf, bytes: &[u8]| {
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    };
    write(folder.join("images").join(stem(index) + ".jpg"), &jpeg(&scene, arguments.size, quality)?)?;
    let mask = png(&scene.mask, arguments.size, arguments.size, ExtendedColorType::L8)?;
    write(folder.join("masks").join(stem(index) + ".png"), &mask)?;
    let mut pixels = [0; CLASSES.len()];
    for &class in &scene.mask {
        pixels[usize::from(class)] += 1;
    }
    Ok(Rendered { number: number as usize, role, captions, pixels })
}

/// The image and mask of scene `number`, and its captions.
fn scene(arguments: &Arguments, number: u64, size: usize) -> (Scene, Vec<Caption>) {
    let frequencies = arguments.zipf.map_or_else(Frequencies::default, Frequencies::zipf);
    let of = |number: u64| draw::draw(arguments.seed, arguments.first_index + number, size, &frequencies);
    let mut rng = draw::stream(arguments.seed, arguments.first_index + number, 1);
    let mut captions =
        |scene: &Scene| (0..arguments.captions_per_image).map(|_| caption::write(scene, &mut rng)).collect();
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

/// How many pixels of the dataset each class covers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pixels {
    /// Pixels of each class.
    counts: [u64; CLASSES.len()],
    /// Number of images that contain each class.
    images: [u64; CLASSES.len()],
}

impl Pixels {
    fn add(&mut self, rendered: &Rendered) {
        for (class, &count) in rendered.pixels.iter().enumerate() {
            self.counts[class] += count;
            self.images[class] += u64::from(count > 0);
        }
    }

    /// Fraction of all pixels, 0..1, per class.
    fn shares(&self) -> Vec<f64> {
        let total = self.counts.iter().sum::<u64>().max(1) as f64;
        self.counts.iter().map(|&count| count as f64 / total).collect()
    }
}

/// Expected mean IoU of labels drawn uniformly at random, for classes that cover the fractions `shares` of many pixels
/// (their sum is 1). With K classes, a class with fraction f is predicted correctly in f/K of all pixels, and it is the
/// label or the prediction in f, plus 1/K, minus f/K of them.
fn chance(shares: &[f64]) -> f64 {
    let k = shares.len() as f64;
    shares.iter().map(|f| (f / k) / (f + 1.0 / k - f / k)).sum::<f64>() / k
}

/// Writes classes.txt, captions.parquet and scenes.json; returns the content of scenes.json.
fn write_tables(
    arguments: &Arguments,
    folder: &Path,
    captions: &[Vec<Caption>],
    roles: &[Role],
    pixels: &Pixels,
) -> Result<serde_json::Value> {
    let classes = CLASSES.iter().map(|class| class.name.to_owned() + "\n").collect::<String>();
    let path = folder.join("classes.txt");
    files::write_atomic(&path, classes.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;

    let prefix = match arguments.url_prefix.trim_end_matches('/') {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    };
    let mut urls = Vec::new();
    let mut texts = Vec::new();
    let (mut originals, mut mismatched) = (Vec::new(), Vec::new());
    for ((index, of_one), role) in (arguments.first_index..).zip(captions).zip(roles) {
        for caption in of_one {
            urls.push(format!("{prefix}images/{}.jpg", stem(index)));
            texts.push(caption.text.as_str());
            mismatched.push(matches!(role, Role::CaptionsOf(_)));
            originals.push(match role {
                Role::DuplicateOf(other) => Some(stem(arguments.first_index + other)),
                _ => None,
            });
        }
    }
    let rows = texts.len();
    let (urls, texts) = (StringArray::from(urls), StringArray::from(texts));
    let mut columns: Vec<(&str, ArrayRef)> = vec![("URL", Arc::new(urls)), ("TEXT", Arc::new(texts))];
    if arguments.duplicates > 0.0 || arguments.mismatched > 0.0 {
        columns.push(("duplicate_of", Arc::new(StringArray::from(originals))));
        columns.push(("mismatched", Arc::new(BooleanArray::from(mismatched))));
    }
    let path = folder.join("captions.parquet");
    crate::table::write(&path, &RecordBatch::try_from_iter(columns)?)?;

    let shares = pixels.shares();
    let mut mentioned = [0_u64; CLASSES.len()];
    for (class, _) in captions.iter().flatten().flat_map(|caption| &caption.mentioned) {
        mentioned[*class] += 1;
    }
    let classes: Vec<_> = (0..CLASSES.len())
        .map(|class| {
            json!({
                "name": CLASSES[class].name,
                "pixel_share": shares[class],
                "images": pixels.images[class],
                "captions": mentioned[class],
            })
        })
        .collect();
    let summary = json!({
        "made_by": concat!("tools scenes ", env!("CARGO_PKG_VERSION")),
        "seed": arguments.seed,
        "first_index": arguments.first_index,
        "images": arguments.count,
        "size": arguments.size,
        "captions": rows,
        "zipf": arguments.zipf,
        "duplicates": roles.iter().filter(|role| matches!(role, Role::DuplicateOf(_))).count(),
        "mismatched": roles.iter().filter(|role| matches!(role, Role::CaptionsOf(_))).count(),
        "chance": chance(&shares),
        "classes": classes,
    });
    let path = folder.join(SCENES);
    let text = serde_json::to_string_pretty(&summary)? + "\n";
    files::write_atomic(&path, text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn chance_by_hand() {
        // Two classes with half of the pixels each: a quarter of them is correct; the union is half + half - a quarter.
        assert!((chance(&[0.5, 0.5]) - 1.0 / 3.0).abs() < 1e-12);
        // 0.45 / 0.95 and 0.05 / 0.55.
        let wanted = f64::midpoint(0.45 / 0.95, 0.05 / 0.55);
        assert!((chance(&[0.9, 0.1]) - wanted).abs() < 1e-12);
    }

    #[test]
    fn chance_by_experiment() {
        let shares = [0.6, 0.25, 0.1, 0.05];
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let (mut hits, mut unions) = ([0.0; 4], [0.0; 4]);
        for i in 0..400_000 {
            let place = f64::from(i) / 400_000.0;
            let truth = [0.6, 0.85, 0.95, 1.0].iter().position(|&end| place < end).unwrap();
            let guess = rng.random_range(0..4);
            unions[truth] += 1.0;
            if truth == guess {
                hits[truth] += 1.0;
            } else {
                unions[guess] += 1.0;
            }
        }
        let miou: f64 = hits.iter().zip(unions).map(|(hit, union)| hit / union).sum::<f64>() / 4.0;
        assert!((miou - chance(&shares)).abs() < 2e-3, "{miou} against {}", chance(&shares));
    }
}
