//! Pictures to go with the concepts: a few samples of each, cut to small squares and written into the page itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use concepts::canonical;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, GenericImageView, ImageReader};
use loader::index::{Caption, Index};
use loader::program::{self, Progress};
use loader::tar::Archive;

use crate::stats::sidecar_of;

/// Pictures of a concept.
pub(crate) const PICTURES: usize = 4;
/// Characters that all pictures together may take in the page.
const BUDGET: usize = 3_000_000;
/// Pixels of a picture's side: sharp at half of that on a dense screen.
const SIDE: u32 = 144;
const QUALITY: u8 = 72;
/// Shards opened for their pictures, spread over the set.
const SHARDS: usize = 16;
/// Larger files are not decoded for a picture of this size.
const LARGEST: u64 = 64 << 20;
/// Samples tried of a shard for one picture that is wanted: the next may show the same scene, or be broken.
const TRIES: usize = 4;
/// Channels this bright, in whole rows or columns at both ends, are padding.
const WHITE: u8 = 244;

/// One picture.
#[derive(Debug)]
pub(crate) struct Example {
    /// `data:` URI.
    pub(crate) uri: String,
    /// Canonical text of the caption.
    pub(crate) caption: String,
    /// The mention's phrase in it, bytes.
    pub(crate) phrase: std::ops::Range<usize>,
}

/// The pictures found.
#[derive(Debug, Default)]
pub(crate) struct Examples {
    /// As many as concepts asked for, in their order.
    pub(crate) of: Vec<Vec<Example>>,
    /// Pictures that could not be read, or were too large to try.
    pub(crate) skipped: u64,
    /// Whether pictures were left out to keep the page small.
    pub(crate) full: bool,
}

/// Up to [`PICTURES`] pictures of each concept. `shards` are those of the set; `likely` names shards, by file name,
/// that surely speak of the concepts.
pub(crate) fn collect(concepts: &[&str], shards: &[PathBuf], likely: &[&str]) -> Result<Examples> {
    let mut gathering = Gathering {
        places: concepts.iter().enumerate().map(|(at, concept)| (*concept, at)).collect(),
        seen: vec![HashSet::new(); concepts.len()],
        broken: HashSet::new(),
        characters: 0,
        found: Examples { of: concepts.iter().map(|_| Vec::new()).collect(), ..Examples::default() },
    };
    let visits = visits(shards, likely);
    let mut progress = Progress::new("collecting pictures", "shards", visits.len() as u64);
    for (shard, wanted) in visits {
        if program::interrupted() {
            bail!("interrupted; nothing was written");
        }
        if !gathering.is_done() {
            gathering.visit(shard, &shards[shard], wanted)?;
        }
        progress.advance(1, String::new);
    }
    progress.finish("");
    Ok(gathering.found)
}

/// Which shards to open, and how many pictures of a concept to take from each: two, so that the four are not all of
/// one place, and whatever is missing from the likely ones.
fn visits(shards: &[PathBuf], likely: &[&str]) -> Vec<(usize, usize)> {
    let take = if shards.len() == 1 { PICTURES } else { PICTURES / 2 };
    let some = shards.len().min(SHARDS);
    let mut visits: Vec<(usize, usize)> = (0..some).map(|at| (at * shards.len() / some, take)).collect();
    let names: HashSet<&str> = likely.iter().copied().collect();
    let named =
        |shard: &PathBuf| shard.file_name().is_some_and(|name| names.contains(&*name.to_string_lossy()));
    visits.extend((0..shards.len()).filter(|&at| named(&shards[at])).map(|at| (at, PICTURES)));
    visits
}

struct Gathering<'a> {
    places: HashMap<&'a str, usize>,
    /// Hashes of the files already shown of each concept: captions of one picture are neighbours.
    seen: Vec<HashSet<u64>>,
    /// Shard and sample.
    broken: HashSet<(usize, u32)>,
    characters: usize,
    found: Examples,
}

impl Gathering<'_> {
    fn is_done(&self) -> bool {
        self.found.full || self.found.of.iter().all(|pictures| pictures.len() == PICTURES)
    }

    fn visit(&mut self, number: usize, path: &Path, take: usize) -> Result<()> {
        let sidecar = sidecar_of(path)?;
        let archive = Archive::open(path)?;
        let index = Index::load(&archive)?;
        // By concept: samples and the phrase of the first mention in each.
        let mut candidates: BTreeMap<usize, Vec<(u32, std::ops::Range<usize>)>> = BTreeMap::new();
        for sample in 0..sidecar.metadata.samples {
            for row in sidecar.mentions(sample) {
                let Some(&place) = self.places.get(row.concept) else { continue };
                let samples = candidates.entry(place).or_default();
                if samples.last().is_none_or(|(last, _)| *last != sample) {
                    samples.push((sample, row.phrase_span.start as usize..row.phrase_span.end as usize));
                }
            }
        }
        for (place, samples) in candidates {
            let wanted = take.min(PICTURES - self.found.of[place].len());
            let tries = (wanted * TRIES).min(samples.len());
            let before = self.found.of[place].len();
            for at in 0..tries {
                if self.found.of[place].len() == before + wanted {
                    break;
                }
                // Spread over the shard first, and between these places when more are needed.
                let (round, step) = (at / wanted, at % wanted);
                let share = (step as f64 + round as f64 / TRIES as f64) / wanted as f64;
                let (sample, phrase) = &samples[(share * samples.len() as f64) as usize];
                self.try_sample(place, (number, *sample), phrase.clone(), &archive, &index)?;
            }
        }
        Ok(())
    }

    fn try_sample(
        &mut self,
        place: usize,
        (shard, sample): (usize, u32),
        phrase: std::ops::Range<usize>,
        archive: &Archive,
        index: &Index,
    ) -> Result<()> {
        let Some((offset, length)) = index.image(sample) else { return Ok(()) };
        let picture = if length > LARGEST { None } else { Some(archive.read(offset, length)?) };
        if let Some(bytes) = &picture
            && !self.seen[place].insert(hash(bytes))
        {
            return Ok(());
        }
        let Some(jpeg) = picture.and_then(|bytes| thumbnail(&bytes)) else {
            self.found.skipped += u64::from(self.broken.insert((shard, sample)));
            return Ok(());
        };
        let uri = format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg));
        if self.characters + uri.len() > BUDGET {
            self.found.full = true;
            return Ok(());
        }
        self.characters += uri.len();
        let caption = match index.caption(sample) {
            Some(Caption::Text(text)) => canonical(text),
            Some(Caption::At(offset, length)) => {
                canonical(&String::from_utf8_lossy(&archive.read(offset, length)?))
            }
            None => String::new(),
        };
        self.found.of[place].push(Example { uri, caption, phrase });
        Ok(())
    }
}

fn hash(bytes: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// A small square JPEG of the picture's middle; none when it cannot be decoded.
fn thumbnail(bytes: &[u8]) -> Option<Vec<u8>> {
    // The reader's default limits keep a small file that claims a huge picture from being decoded.
    let picture = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?.decode().ok()?;
    let picture = without_padding(&DynamicImage::ImageRgb8(picture.into_rgb8()));
    let (width, height) = picture.dimensions();
    let side = width.min(height);
    let square = picture.crop_imm((width - side) / 2, (height - side) / 2, side, side);
    let small = square.resize_exact(SIDE.min(side), SIDE.min(side), FilterType::CatmullRom);
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY).encode_image(&small).ok()?;
    Some(jpeg)
}

/// Without the white bars that packing to squares puts on two sides. Only bars of one width at both ends go.
fn without_padding(picture: &DynamicImage) -> DynamicImage {
    let (width, height) = picture.dimensions();
    let white = |x: u32, y: u32| picture.get_pixel(x, y).0.iter().all(|&channel| channel >= WHITE);
    let row = |y: u32| (0..width).all(|x| white(x, y));
    let column = |x: u32| (0..height).all(|y| white(x, y));
    let rows = (0..height / 2).take_while(|&y| row(y) && row(height - 1 - y)).count() as u32;
    let columns = (0..width / 2).take_while(|&x| column(x) && column(width - 1 - x)).count() as u32;
    // A picture that is white everywhere has nothing to keep.
    if rows >= height / 2 || columns >= width / 2 {
        return picture.clone();
    }
    picture.crop_imm(columns, rows, width - 2 * columns, height - 2 * rows)
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    #[test]
    fn padding_goes_and_white_pictures_stay() {
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
        assert!(thumbnail(b"not a picture").is_none());
    }

    #[test]
    fn shards_are_spread_and_likely_ones_come_last() {
        let shards: Vec<PathBuf> = (0..100).map(|number| format!("set/{number:05}.tar").into()).collect();
        let visits = visits(&shards, &["00007.tar"]);
        assert_eq!(visits.len(), SHARDS + 1);
        assert_eq!((visits[0], visits[1], visits[SHARDS]), ((0, 2), (6, 2), (7, PICTURES)));
        assert_eq!(super::visits(&shards[..1], &[]), [(0, PICTURES)]);
    }
}
