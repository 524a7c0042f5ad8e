//! Reads the images of a dataset, crops them to squares and joins them into batches.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use loader::DecodeError;
use loader::images::{centre_crop, decode};
use loader::shards::{Archive, Sample};
use tch::Tensor;

use super::image_datasets::{ImageDataset, Label, Source, invalid};
use crate::error::Result;

/// An extension that some datasets of the CLIP benchmark use in addition to the usual ones.
const NUMBERED_IMAGE: &str = "0.webp";

impl ImageDataset {
    /// Images as squares of `size` pixels (short side resized bicubically, centre crop), `batch` at a time, in the order of the
    /// dataset.
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
}

/// Cropped images with their labels.
#[derive(Debug)]
pub struct ImageBatch {
    /// Pixels 0..255, [n, size, size, 3].
    pub pixels: Tensor,
    /// One label per image.
    pub labels: Vec<Label>,
}

/// The bytes of an image, or its file.
enum Bytes<'a> {
    File(&'a Path),
    Read(String, Vec<u8>),
}

enum Work<'a> {
    Files(std::slice::Iter<'a, (PathBuf, Label)>),
    Shards {
        paths: std::slice::Iter<'a, PathBuf>,
        captions: bool,
        open: Option<Box<Archive>>,
        samples: VecDeque<Sample>,
    },
}

/// The batches of a dataset.
pub struct Batches<'a> {
    work: Work<'a>,
    size: u32,
    batch: usize,
    threads: usize,
    classes: usize,
}

impl Work<'_> {
    /// The next image; `None` at the end.
    fn next(&mut self) -> Result<Option<(Bytes<'_>, Label)>> {
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
                *open = Some(Box::new(archive));
            },
        }
    }
}

fn read_sample(archive: &Archive, sample: &Sample, captions: bool) -> Result<(Bytes<'static>, Label)> {
    let lacks =
        |what: &str| invalid(&archive.location().as_name(), format!("sample {} has no {what}", sample.key));
    let read = |member: &loader::shards::Member| archive.read(member.offset, member.length);
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
        Label::Captions(captions)
    } else {
        let class = text("cls")?;
        Label::Class(
            class.trim().parse().map_err(|_| lacks(&format!("class number, but {:?}", class.trim())))?,
        )
    };
    Ok((Bytes::Read(format!("{}: {}", archive.location(), sample.key), read(image)?), known))
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
                Bytes::File(path) => (path.display().to_string(), storage::read(path)?.to_vec()),
                Bytes::Read(place, bytes) => (place, bytes),
            };
            if let Label::Class(class) = what
                && class >= self.classes
            {
                return Err(invalid(
                    Path::new(&place),
                    format!("has class {class}, but there are only {} class names", self.classes),
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
        Ok(Some(ImageBatch { pixels, labels: known }))
    }
}

/// Decodes images and writes their centre crops to rows of `size` x `size` x 3 bytes.
fn cut(images: &[(String, Vec<u8>)], rows: &mut [u8], size: u32) -> Result<()> {
    for ((place, bytes), row) in images.iter().zip(rows.chunks_mut(size as usize * size as usize * 3)) {
        let wrong = |error: DecodeError| invalid(Path::new(place), error.to_string());
        row.copy_from_slice(&decode(bytes).and_then(|image| centre_crop(&image, size)).map_err(wrong)?);
    }
    Ok(())
}
