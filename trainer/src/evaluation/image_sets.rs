//! Sets of images with labels or captions: class folders as ImageNet's, WebDataset sets as the CLIP benchmark
//! publishes them, and captions in COCO's JSON or one a line.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use loader::crop::View;
use loader::permutation::Draws;
use loader::pixels::{Scaler, decode};
use loader::tar::{Archive, Sample};
use loader::{Crop, ImageSettings};
use tch::Tensor;

use crate::error::{Error, Result, at};

/// Endings of images in class folders.
const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];
/// An extension that some of the benchmark's sets have beside the usual ones.
const NUMBERED_IMAGE: &str = "0.webp";
/// ImageNet's class names in the order of its synsets.
const IMAGENET: &str = include_str!("../../data/classes/imagenet1000.txt");

/// What is known of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// The index of its class.
    Class(usize),
    /// Its captions.
    Captions(Vec<String>),
}

/// Images with what is known of them.
#[derive(Debug)]
pub struct ImageSet {
    /// The folder's name, or the published set's.
    pub name: String,
    /// Class names; empty for captions.
    pub classes: Vec<String>,
    /// The set's own templates, `{}` for the name; none where it has none.
    pub templates: Option<Vec<String>>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Files(Vec<(PathBuf, Known)>),
    Shards { paths: Vec<PathBuf>, captions: bool },
}

fn invalid(path: &Path, problem: impl Into<String>) -> Error {
    Error::Invalid { path: path.to_owned(), problem: problem.into() }
}

fn lines(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

impl ImageSet {
    /// A set with classes: WebDataset shards with `classnames.txt`, or a folder a class.
    pub fn classification(folder: &Path, split: &str) -> Result<Self> {
        let names = folder.join("classnames.txt");
        let kind = fs::read_to_string(folder.join("dataset_type.txt")).unwrap_or_default();
        match kind.trim() {
            "" | "classification" => {}
            other => return Err(invalid(folder, format!("is a {other} set, not one for classification"))),
        }
        match shards(folder, split)? {
            Some(paths) => {
                let templates = folder.join("zeroshot_classification_templates.txt");
                let own = |line: String| line.replace("{c}", "{}");
                let templates = match templates.exists() {
                    true => Some(lines(&templates)?.into_iter().map(own).collect()),
                    false => None,
                };
                Ok(Self {
                    name: name(folder),
                    classes: lines(&names)?,
                    templates,
                    source: Source::Shards { paths, captions: false },
                })
            }
            None => Self::class_folders(folder, split, &names),
        }
    }

    /// `val/n01440764/IMAGE.JPEG` and the like; the classes are the folders in order of name.
    fn class_folders(folder: &Path, split: &str, names: &Path) -> Result<Self> {
        let root = [folder.join(split), folder.join("val"), folder.to_owned()];
        let root = root.iter().find(|root| root.is_dir()).ok_or_else(|| invalid(folder, "is no folder"))?;
        let mut folders: Vec<PathBuf> = entries(root)?.into_iter().filter(|path| path.is_dir()).collect();
        folders.sort();
        if folders.is_empty() {
            return Err(invalid(root, "holds no folder a class, and there are no shards either"));
        }
        let classes = match names.exists() {
            true => lines(names)?,
            false if folders.len() == 1000 && folders.iter().all(|f| name(f).starts_with('n')) => {
                IMAGENET.lines().map(str::to_owned).collect()
            }
            false => folders.iter().map(|folder| name(folder).replace('_', " ")).collect(),
        };
        if classes.len() != folders.len() {
            let problem = format!(
                "names {} classes, and {} has {} folders",
                classes.len(),
                root.display(),
                folders.len()
            );
            return Err(invalid(names, problem));
        }
        let mut files = Vec::new();
        for (class, folder) in folders.iter().enumerate() {
            let mut images: Vec<PathBuf> =
                entries(folder)?.into_iter().filter(|path| is_image(path)).collect();
            images.sort();
            files.extend(images.into_iter().map(|path| (path, Known::Class(class))));
        }
        Ok(Self { name: name(folder), classes, templates: None, source: Source::Files(files) })
    }

    /// A set with captions: WebDataset shards with one caption a line of `.txt`.
    pub fn captioned_shards(folder: &Path, split: &str) -> Result<Self> {
        let paths =
            shards(folder, split)?.ok_or_else(|| invalid(folder, "holds no shard (0.tar, 00000.tar ..)"))?;
        let source = Source::Shards { paths, captions: true };
        Ok(Self { name: name(folder), classes: Vec::new(), templates: None, source })
    }

    /// Captions from a file: COCO's JSON, or JSON lines of `file` and `captions`; images in a folder. At most
    /// `most` captions an image are taken, the first ones.
    pub fn captions(file: &Path, images: &Path, most: usize) -> Result<Self> {
        let text = fs::read_to_string(file).map_err(at(file))?;
        let wrong = |e: serde_json::Error| invalid(file, format!("no captions: {e}"));
        let mut found: Vec<(String, Vec<String>)> = Vec::new();
        if file.extension().is_some_and(|extension| extension == "jsonl") {
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                let row: Captioned = serde_json::from_str(line).map_err(wrong)?;
                found.push((row.file, row.captions));
            }
        } else {
            let coco: Coco = serde_json::from_str(&text).map_err(wrong)?;
            let mut by_image: BTreeMap<u64, Vec<String>> = BTreeMap::new();
            for caption in coco.annotations {
                by_image.entry(caption.image_id).or_default().push(caption.caption);
            }
            let captions =
                |image: CocoImage| (image.file_name, by_image.remove(&image.id).unwrap_or_default());
            found.extend(coco.images.into_iter().map(captions));
        }
        let mut files = Vec::new();
        for (name, mut captions) in found {
            captions.truncate(most);
            let path = images.join(&name);
            if captions.is_empty() {
                return Err(invalid(file, format!("has no caption of {name}")));
            }
            if !path.exists() {
                return Err(invalid(&path, format!("is missing, and {} has captions of it", file.display())));
            }
            files.push((path, Known::Captions(captions)));
        }
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, classes: Vec::new(), templates: None, source: Source::Files(files) })
    }

    /// Images as squares of `size` pixels (short side bicubic, centre crop), `batch` at a time, in the set's order.
    pub fn batches(&self, size: u32, batch: usize, threads: usize) -> Batches<'_> {
        let work = match &self.source {
            Source::Files(files) => Work::Files(files.iter()),
            Source::Shards { paths, captions } => Work::Shards {
                paths: paths.iter(),
                captions: *captions,
                open: None,
                samples: VecDeque::new(),
            },
        };
        Batches { work, size, batch: batch.max(1), threads: threads.max(1), classes: self.classes.len() }
    }

    /// Images, where they can be counted without reading shards; 0 otherwise.
    pub fn known_length(&self) -> u64 {
        match &self.source {
            Source::Files(files) => files.len() as u64,
            Source::Shards { .. } => 0,
        }
    }
}

#[derive(serde::Deserialize)]
struct Captioned {
    file: String,
    captions: Vec<String>,
}

#[derive(serde::Deserialize)]
struct Coco {
    images: Vec<CocoImage>,
    annotations: Vec<CocoCaption>,
}

#[derive(serde::Deserialize)]
struct CocoImage {
    id: u64,
    file_name: String,
}

#[derive(serde::Deserialize)]
struct CocoCaption {
    image_id: u64,
    caption: String,
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_image(path: &Path) -> bool {
    path.extension().is_some_and(|e| EXTENSIONS.contains(&e.to_string_lossy().to_ascii_lowercase().as_str()))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(at(folder))?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(at(folder))).collect()
}

/// Shards of a split, in the order of their numbers: as many as `nshards.txt` says, or all there are.
fn shards(folder: &Path, split: &str) -> Result<Option<Vec<PathBuf>>> {
    let inside = folder.join(split);
    let root = if inside.is_dir() { inside } else { folder.to_owned() };
    if !root.is_dir() {
        return Err(invalid(folder, "is no folder"));
    }
    let number = |path: &PathBuf| {
        loader::shard::stem(path).map(|stem| (stem.parse::<u64>().unwrap_or(u64::MAX), stem.to_owned()))
    };
    let mut paths: Vec<PathBuf> = entries(&root)?.into_iter().filter(|path| number(path).is_some()).collect();
    paths.sort_by_key(number);
    let counted = root.join("nshards.txt");
    if counted.exists() {
        let text = fs::read_to_string(&counted).map_err(at(&counted))?;
        let count: usize =
            text.trim().parse().map_err(|_| invalid(&counted, format!("{:?} is no number", text.trim())))?;
        if paths.len() < count {
            return Err(invalid(&counted, format!("says {count} shards, and there are {}", paths.len())));
        }
        paths.truncate(count);
    }
    Ok((!paths.is_empty()).then_some(paths))
}

/// Images read and cut, with what is known of them.
#[derive(Debug)]
pub struct ImageBatch {
    /// Pixels 0..255, [n, size, size, 3].
    pub pixels: Tensor,
    /// One an image.
    pub known: Vec<Known>,
}

/// An image's bytes, or where they are.
enum Bytes<'a> {
    File(&'a Path),
    Read(String, Vec<u8>),
}

enum Work<'a> {
    Files(std::slice::Iter<'a, (PathBuf, Known)>),
    Shards {
        paths: std::slice::Iter<'a, PathBuf>,
        captions: bool,
        open: Option<Archive>,
        samples: VecDeque<Sample>,
    },
}

/// The batches of a set.
pub struct Batches<'a> {
    work: Work<'a>,
    size: u32,
    batch: usize,
    threads: usize,
    classes: usize,
}

impl Work<'_> {
    /// The next image; none at the end.
    fn next(&mut self) -> Result<Option<(Bytes<'_>, Known)>> {
        match self {
            Self::Files(files) => Ok(files.next().map(|(path, known)| (Bytes::File(path), known.clone()))),
            Self::Shards { paths, captions, open, samples } => loop {
                if let (Some(sample), Some(archive)) = (samples.pop_front(), open.as_ref()) {
                    let (bytes, known) = read_sample(archive, &sample, *captions)?;
                    return Ok(Some((bytes, known)));
                }
                let Some(path) = paths.next() else { return Ok(None) };
                let archive = Archive::open(path)?;
                *samples = archive.samples()?.into();
                *open = Some(archive);
            },
        }
    }
}

fn read_sample(archive: &Archive, sample: &Sample, captions: bool) -> Result<(Bytes<'static>, Known)> {
    let lacks = |what: &str| invalid(archive.path(), format!("sample {} has no {what}", sample.key));
    let read = |member: &loader::tar::Member| archive.read(member.offset, member.length);
    let text = |extension: &str| -> Result<String> {
        let member = sample.member(extension).ok_or_else(|| lacks(&format!(".{extension}")))?;
        Ok(String::from_utf8_lossy(&read(member)?).into_owned())
    };
    let image = sample.image().or_else(|| sample.member(NUMBERED_IMAGE)).ok_or_else(|| lacks("image"))?;
    let known = if captions {
        let captions: Vec<String> =
            text("txt")?.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        if captions.is_empty() {
            return Err(lacks("caption"));
        }
        Known::Captions(captions)
    } else {
        let class = text("cls")?;
        Known::Class(
            class.trim().parse().map_err(|_| lacks(&format!("class number but {:?}", class.trim())))?,
        )
    };
    Ok((Bytes::Read(format!("{}: {}", archive.path().display(), sample.key), read(image)?), known))
}

impl Iterator for Batches<'_> {
    type Item = Result<ImageBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

impl Batches<'_> {
    fn read(&mut self) -> Result<Option<ImageBatch>> {
        let (mut images, mut known) = (Vec::new(), Vec::new());
        while images.len() < self.batch {
            let Some((bytes, what)) = self.work.next()? else { break };
            let (place, bytes) = match bytes {
                Bytes::File(path) => (path.display().to_string(), fs::read(path).map_err(at(path))?),
                Bytes::Read(place, bytes) => (place, bytes),
            };
            if let Known::Class(class) = what
                && class >= self.classes
            {
                return Err(invalid(
                    Path::new(&place),
                    format!("is of class {class}, and {} are named", self.classes),
                ));
            }
            images.push((place, bytes));
            known.push(what);
        }
        if images.is_empty() {
            return Ok(None);
        }
        let row = self.size as usize * self.size as usize * 3;
        let mut pixels = vec![0u8; row * images.len()];
        let share = images.len().div_ceil(self.threads);
        std::thread::scope(|scope| {
            let threads: Vec<_> = images
                .chunks(share)
                .zip(pixels.chunks_mut(share * row))
                .map(|(images, rows)| scope.spawn(|| cut(images, rows, self.size)))
                .collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(_) => Err(invalid(Path::new(&images[0].0), "the thread that read it stopped")),
            })
        })?;
        let side = i64::from(self.size);
        let pixels = Tensor::from_slice(&pixels).view([known.len() as i64, side, side, 3]);
        Ok(Some(ImageBatch { pixels, known }))
    }
}

/// Decodes images and puts their centres into rows of `size` x `size` x 3 bytes.
fn cut(images: &[(String, Vec<u8>)], rows: &mut [u8], size: u32) -> Result<()> {
    let settings = ImageSettings { crop: Crop::Centre { size }, flip: 0.0 };
    let mut scaler = Scaler::default();
    for ((place, bytes), row) in images.iter().zip(rows.chunks_mut(size as usize * size as usize * 3)) {
        let wrong = |why: String| invalid(Path::new(place), why);
        let image = decode(bytes).map_err(wrong)?;
        // A centre crop draws nothing.
        let view = View::choose(&settings, Draws::new(&[]), image.width(), image.height());
        scaler.resize(&image, view, size, row).map_err(wrong)?;
    }
    Ok(())
}
