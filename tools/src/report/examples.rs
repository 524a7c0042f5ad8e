//! Example images of the concepts: a few samples of each, cropped to small squares and embedded in the page.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use concepts::canonical;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, GenericImageView};
use loader::shards::{Archive, Index};
use program::{Interrupted, Progress};
use storage::Location;

use crate::stats::sidecar_of;

/// Maximum number of images per concept.
pub(crate) const IMAGES: usize = 4;
/// Maximum number of characters that all images together take in the page.
const MAX_TOTAL_CHARACTERS: usize = 3_000_000;
/// Width and height of an image, pixels. The page shows it at half this size, which is sharp on high-density screens.
const SIDE: u32 = 144;
const QUALITY: u8 = 72;
/// Number of shards opened for their images, spread over the dataset.
const SHARDS: usize = 16;
/// Larger files are not decoded, bytes.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Samples of a shard tried per wanted image: a sample may repeat an image or be damaged.
const TRIES: usize = 4;
/// Rows or columns at both ends are padding if all their channels are at least this bright.
const WHITE: u8 = 244;

/// One example image.
#[derive(Debug)]
pub(crate) struct Example {
    /// The image as a `data:` URI.
    pub(crate) uri: String,
    /// The caption as canonical text.
    pub(crate) caption: String,
    /// The phrase of the mention, as bytes of the caption.
    pub(crate) phrase: std::ops::Range<usize>,
}

/// The images found.
#[derive(Debug, Default)]
pub(crate) struct Examples {
    /// The images of each concept, in the order of the concepts given.
    pub(crate) of: Vec<Vec<Example>>,
    /// Images that could not be decoded or were too large.
    pub(crate) skipped: u64,
    /// Whether images were left out to keep the page small.
    pub(crate) full: bool,
}

/// Up to [`IMAGES`] images of each concept. `shards` are all shards of the dataset; `likely` are the file names of
/// shards that are known to mention the concepts.
pub(crate) fn collect(concepts: &[&str], shards: &[Location], likely: &[&str]) -> Result<Examples> {
    let mut gathering = Gathering {
        places: concepts.iter().enumerate().map(|(at, concept)| (*concept, at)).collect(),
        seen: vec![HashSet::new(); concepts.len()],
        broken: HashSet::new(),
        characters: 0,
        found: Examples { of: concepts.iter().map(|_| Vec::new()).collect(), ..Examples::default() },
    };
    let visits = visits(shards, likely);
    let mut progress = Progress::new("collecting images", "shards", visits.len() as u64);
    for (shard, wanted) in visits {
        if program::interrupted() {
            bail!(Interrupted::new("nothing was written"));
        }
        if !gathering.is_done() {
            gathering.visit(shard, &shards[shard], wanted)?;
        }
        progress.advance(1, String::new);
    }
    progress.finish("");
    Ok(gathering.found)
}

/// Which shards to open, and how many images of a concept to take from each: two from each of the spread shards, so
/// that the four images come from more than one shard, and the missing ones from the likely shards.
fn visits(shards: &[Location], likely: &[&str]) -> Vec<(usize, usize)> {
    let take = if shards.len() == 1 { IMAGES } else { IMAGES / 2 };
    let some = shards.len().min(SHARDS);
    let mut visits: Vec<(usize, usize)> = (0..some).map(|at| (at * shards.len() / some, take)).collect();
    let names: HashSet<&str> = likely.iter().copied().collect();
    let named = |shard: &Location| names.contains(&*shard.file_name());
    visits.extend((0..shards.len()).filter(|&at| named(&shards[at])).map(|at| (at, IMAGES)));
    visits
}

struct Gathering<'a> {
    places: HashMap<&'a str, usize>,
    /// By concept: hashes of the image files already taken. Several captions of one image are neighbouring samples.
    seen: Vec<HashSet<u64>>,
    /// Shard and sample of the images skipped.
    broken: HashSet<(usize, u32)>,
    characters: usize,
    found: Examples,
}

impl Gathering<'_> {
    fn is_done(&self) -> bool {
        self.found.full || self.found.of.iter().all(|images| images.len() == IMAGES)
    }

    fn visit(&mut self, number: usize, path: &Location, take: usize) -> Result<()> {
        let sidecar = sidecar_of(path)?;
        let archive = Archive::open(path)?;
        let field = sidecar.metadata.field.as_deref();
        let index = Index::load_for(&archive, field)?;
        // By concept: the samples that mention it, with the caption and the phrase of the first mention.
        let mut candidates: BTreeMap<usize, Vec<(u32, Phrase)>> = BTreeMap::new();
        for sample in sidecar.samples_with_mentions() {
            for row in sidecar.mentions(sample) {
                let Some(&place) = self.places.get(row.concept) else { continue };
                let samples = candidates.entry(place).or_default();
                if samples.last().is_none_or(|(last, _)| *last != sample) {
                    let span = row.phrase_span.start as usize..row.phrase_span.end as usize;
                    samples.push((sample, Phrase { caption: row.caption as usize, span }));
                }
            }
        }
        for (place, samples) in candidates {
            let wanted = take.min(IMAGES - self.found.of[place].len());
            let tries = (wanted * TRIES).min(samples.len());
            let before = self.found.of[place].len();
            for at in 0..tries {
                if self.found.of[place].len() == before + wanted {
                    break;
                }
                // First spread over the shard; when more are needed, the samples between these.
                let (round, step) = (at / wanted, at % wanted);
                let share = (step as f64 + round as f64 / TRIES as f64) / wanted as f64;
                let (sample, phrase) = &samples[(share * samples.len() as f64) as usize];
                self.try_sample(place, (number, *sample), phrase, (&archive, &index, field))?;
            }
        }
        Ok(())
    }

    fn try_sample(
        &mut self,
        place: usize,
        (shard, sample): (usize, u32),
        phrase: &Phrase,
        (archive, index, field): (&Archive, &Index, Option<&str>),
    ) -> Result<()> {
        let Some((offset, length)) = index.image(sample) else { return Ok(()) };
        let image = if length > MAX_FILE_BYTES { None } else { Some(archive.read(offset, length)?) };
        if let Some(bytes) = &image
            && !self.seen[place].insert(hash(bytes))
        {
            return Ok(());
        }
        let Some(jpeg) = image.and_then(|bytes| thumbnail(&bytes)) else {
            self.found.skipped += u64::from(self.broken.insert((shard, sample)));
            return Ok(());
        };
        let uri = format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg));
        if self.characters + uri.len() > MAX_TOTAL_CHARACTERS {
            self.found.full = true;
            return Ok(());
        }
        self.characters += uri.len();
        let caption = index.captions_of(archive, sample, field, |captions| {
            canonical(captions.texts().get(phrase.caption).map_or("", |text| text))
        })?;
        self.found.of[place].push(Example { uri, caption, phrase: phrase.span.clone() });
        Ok(())
    }
}

/// A phrase of one of a sample's captions.
struct Phrase {
    /// Number of the caption.
    caption: usize,
    /// Bytes of its canonical text.
    span: std::ops::Range<usize>,
}

fn hash(bytes: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// A small square JPEG of the image's centre; none when the image cannot be decoded.
fn thumbnail(bytes: &[u8]) -> Option<Vec<u8>> {
    let image = without_padding(&DynamicImage::ImageRgb8(loader::images::decode(bytes).ok()?));
    let (width, height) = image.dimensions();
    let side = width.min(height);
    let square = image.crop_imm((width - side) / 2, (height - side) / 2, side, side);
    let small = square.resize_exact(SIDE.min(side), SIDE.min(side), FilterType::CatmullRom);
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY).encode_image(&small).ok()?;
    Some(jpeg)
}

/// Crops the white bars on two opposite sides that resizing with a border adds. Only bars of equal width are cropped.
fn without_padding(image: &DynamicImage) -> DynamicImage {
    let (width, height) = image.dimensions();
    let white = |x: u32, y: u32| image.get_pixel(x, y).0.iter().all(|&channel| channel >= WHITE);
    let row = |y: u32| (0..width).all(|x| white(x, y));
    let column = |x: u32| (0..height).all(|y| white(x, y));
    let rows = (0..height / 2).take_while(|&y| row(y) && row(height - 1 - y)).count() as u32;
    let columns = (0..width / 2).take_while(|&x| column(x) && column(width - 1 - x)).count() as u32;
    // An image that is white everywhere stays as it is.
    if rows >= height / 2 || columns >= width / 2 {
        return image.clone();
    }
    image.crop_imm(columns, rows, width - 2 * columns, height - 2 * rows)
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    #[test]
    fn padding_is_cropped_and_white_images_are_kept() {
        let mut padded = RgbImage::from_pixel(40, 40, Rgb([255, 255, 255]));
        for y in 10..30 {
            for x in 0..40 {
                padded.put_pixel(x, y, Rgb([200, 30, 30]));
            }
        }
        let cut = without_padding(&DynamicImage::ImageRgb8(padded));
        assert_eq!(cut.dimensions(), (40, 20));
        let white = DynamicImage::ImageRgb8(RgbImage::from_pixel(9, 6, Rgb([255, 255, 255])));
        assert_eq!(without_padding(&white).dimensions(), (9, 6));
        assert!(thumbnail(b"not an image").is_none());
    }

    #[test]
    fn shards_are_spread_and_likely_shards_come_last() {
        let shards: Vec<Location> = (0..100).map(|number| format!("set/{number:05}.tar").into()).collect();
        let visits = visits(&shards, &["00007.tar"]);
        assert_eq!(visits.len(), SHARDS + 1);
        assert_eq!((visits[0], visits[1], visits[SHARDS]), ((0, 2), (6, 2), (7, IMAGES)));
        assert_eq!(super::visits(&shards[..1], &[]), [(0, IMAGES)]);
    }
}
