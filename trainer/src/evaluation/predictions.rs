//! Label maps that other programs have written, scored like those of a model: the same classes, masks and ignored pixels.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tch::{Kind, Tensor};

use super::confusion::IGNORED;
use super::datasets::SegmentationDataset;
use super::masks::{self, Conversion, Mask, Table};
use super::segmentation::{SegmentationScores, Tally, WorstImage};
use crate::error::{Error, Result};
use crate::inference::labels::{self, Rule};
use crate::observer::Observer;

/// What the values of a label map mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Numbering {
    /// Indices of the classes, from 0. A pixel of value 255 has no class.
    #[default]
    Indices,
    /// Class i is stored as i + 1. A pixel of value 0 or 255 has no class.
    FromOne,
    /// The values of the dataset's own masks, such as the label ids of Cityscapes. A pixel that would not count in a mask has no class.
    Masks,
}

/// One label map for each image of a dataset.
#[derive(Debug)]
pub struct Predictions {
    files: Vec<PathBuf>,
    /// For each value, the index of the class in the dataset, or [`IGNORED`] for no class.
    table: Table,
    /// The same for the channels of scores.
    channels: Vec<u8>,
    /// Whether they were found by the number of the image, not by its name.
    pub by_number: bool,
}

impl Predictions {
    /// Finds the label maps in `folder` and the folders in it: `NAME.png` (one channel of up to 8 bits, or a palette, whose colours are
    /// ignored) or `NAME.npy` (scores, float [C, h, w], or values, integers [height, width]), where NAME is that of the image or of its
    /// mask, or else the number of the image in the sorted list, from 0. `names`: the classes in the order of the program's indices, if
    /// it is not that of the dataset; `-` stands for one that the dataset does not have.
    ///
    /// # Errors
    /// An image has no label map, or two; a name is not one of the dataset's.
    pub fn open(
        folder: &Path,
        set: &SegmentationDataset,
        numbering: Numbering,
        names: Option<&[String]>,
    ) -> Result<Self> {
        let channels = match names {
            Some(names) => in_order(names, set)?,
            None => (0..set.classes.len() as u8).collect(),
        };
        let table = match numbering {
            Numbering::Indices => renamed(&Conversion::Indices.table(channels.len()), &channels),
            Numbering::FromOne => renamed(&Conversion::FromOne.table(channels.len()), &channels),
            Numbering::Masks => set.table,
        };
        let (files, by_number) = find(folder, set)?;
        Ok(Self { files, table, channels, by_number })
    }

    /// The class of each of the `width` x `height` pixels of an image, [`IGNORED`] where it has none.
    fn read(&self, at: usize, width: u32, height: u32) -> Result<Vec<u8>> {
        let path = &self.files[at];
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
            let Mask { width: own_width, height: own_height, labels } = masks::read_indices(path)?;
            refuse_other_size(path, (own_width, own_height), (width, height))?;
            return labels.into_iter().map(|value| self.class(path, i64::from(value))).collect();
        }
        let array = read_array(path)?;
        match (array.size().as_slice(), array.is_floating_point()) {
            (&[channels, ..], true) if array.dim() == 3 => {
                if channels as usize != self.channels.len() {
                    let problem =
                        format!("has scores of {channels} classes instead of {}", self.channels.len());
                    return Err(Error::Invalid { path: path.clone(), problem });
                }
                if array.isnan().any().int64_value(&[]) != 0 {
                    return Err(Error::Invalid {
                        path: path.clone(),
                        problem: "has scores that are no numbers".to_owned(),
                    });
                }
                let labels = labels::decide(
                    &array.to_kind(Kind::Float),
                    height.into(),
                    width.into(),
                    Rule::HighestScore,
                );
                Ok(labels::bytes(&labels)
                    .into_iter()
                    .map(|channel| self.channels[usize::from(channel)])
                    .collect())
            }
            (&[own_height, own_width], false) => {
                refuse_other_size(path, (own_width as u32, own_height as u32), (width, height))?;
                let values = Vec::<i64>::try_from(&array.to_kind(Kind::Int64).reshape(-1))?;
                values.into_iter().map(|value| self.class(path, value)).collect()
            }
            (shape, _) => {
                let problem = format!(
                    "has the shape {shape:?} and type {:?}; it must be float [classes, height, width] with scores, or integers \
                     [height, width]",
                    array.kind()
                );
                Err(Error::Invalid { path: path.clone(), problem })
            }
        }
    }

    /// The class that a value stands for.
    fn class(&self, path: &Path, value: i64) -> Result<u8> {
        let class = usize::try_from(value).ok().and_then(|value| self.table.get(value).copied().flatten());
        class.ok_or_else(|| {
            let known: Vec<usize> = (0..256).filter(|&known| self.table[known].is_some() && known != 255).collect();
            let range = known.first().zip(known.last()).map_or(String::new(), |(a, b)| format!(" ({a} to {b})"));
            let problem = format!(
                "has a pixel of value {value}, which is not the number of a class{range}; --numbering and --prediction-classes say what \
                 the values mean"
            );
            Error::Invalid { path: path.to_owned(), problem }
        })
    }
}

/// Scores label maps on a dataset. Also returns the `worst` images with the lowest scores, lowest first.
///
/// # Errors
/// A mask or a label map cannot be read, or the label map has another size or other values.
pub fn score(
    set: &SegmentationDataset,
    predictions: &Predictions,
    readers: usize,
    worst: usize,
    observer: &dyn Observer,
) -> Result<(SegmentationScores, Vec<WorstImage>)> {
    let mut tally = Tally::new(set, worst);
    let mut progress = observer.progress("scoring", "images", set.pairs.len() as u64);
    let read = |at: usize| -> Result<(Mask, Vec<u8>)> {
        let mask = masks::read(&set.pairs[at].1, &set.table)?;
        let predicted = predictions.read(at, mask.width, mask.height)?;
        Ok((mask, predicted))
    };
    let numbers: Vec<usize> = (0..set.pairs.len()).collect();
    for some in numbers.chunks(readers.max(1)) {
        if observer.interrupted() {
            return Err(Error::interrupted(format!("the scores on {} are not finished", set.title)));
        }
        let read: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|&at| scope.spawn(move || read(at))).collect();
            threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
        });
        for (&at, read) in some.iter().zip(read) {
            let stopped = || Error::Invalid {
                path: predictions.files[at].clone(),
                problem: "the thread that read it stopped".to_owned(),
            };
            let (mask, predicted) = read.map_err(|_| stopped())??;
            tally.add(at, mask, predicted);
            progress.advance(1, &|| tally.message());
        }
    }
    progress.finish(&tally.message());
    Ok(tally.finish())
}

/// The table with the dataset's indices instead of the program's.
fn renamed(table: &Table, channels: &[u8]) -> Table {
    table.map(|value| value.map(|index| channels.get(usize::from(index)).copied().unwrap_or(IGNORED)))
}

/// The index in the dataset of each of these names.
fn in_order(names: &[String], set: &SegmentationDataset) -> Result<Vec<u8>> {
    let named = |name: &String| {
        let wanted = concepts::canonical(name);
        if wanted == "-" {
            return Ok(IGNORED);
        }
        let is_class = |name: &str| concepts::canonical(name) == wanted;
        let found = set
            .classes
            .iter()
            .position(|class| is_class(&class.name) || class.words.iter().any(|word| is_class(word)));
        found.map(|class| class as u8).ok_or_else(|| {
            let all: Vec<&str> = set.classes.iter().map(|class| class.name.as_str()).collect();
            let problem = format!(
                "{name:?} is not a class of {} ({}); write - for one that it does not have",
                set.title,
                all.join(", ")
            );
            Error::Setting { name: "--prediction-classes".to_owned(), problem }
        })
    };
    names.iter().map(named).collect()
}

fn refuse_other_size(path: &Path, own: (u32, u32), image: (u32, u32)) -> Result<()> {
    if own == image {
        return Ok(());
    }
    let problem = format!(
        "has {} x {} pixels, but its image has {} x {}: write label maps in the size of the images",
        own.0, own.1, image.0, image.1
    );
    Err(Error::Invalid { path: path.to_owned(), problem })
}

/// A NumPy array, without a first dimension of 1 that stands for the batch.
fn read_array(path: &Path) -> Result<Tensor> {
    let invalid = |problem: String| Error::Invalid { path: path.to_owned(), problem };
    if storage::Location::from(path).is_remote() {
        return Err(invalid("is a NumPy file at an address: copy it to a disk".to_owned()));
    }
    let array =
        Tensor::read_npy(path).map_err(|e| invalid(format!("cannot be read as a NumPy array: {e}")))?;
    let of_batch =
        array.dim() > 2 && array.size()[0] == 1 && (array.dim() == 4 || !array.is_floating_point());
    Ok(if of_batch { array.squeeze_dim(0) } else { array })
}

/// The label map of every image, and whether they are named by number.
fn find(folder: &Path, set: &SegmentationDataset) -> Result<(Vec<PathBuf>, bool)> {
    let mut by_name: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for (at, is_folder) in storage::entries(folder.as_path())? {
            let path = PathBuf::from(at);
            let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
            if is_folder {
                folders.push(path);
            } else if extension == "png" || extension == "npy" {
                by_name.entry(stem(&path)).or_default().push(path);
            }
        }
    }
    let named = |(image, mask): &(PathBuf, PathBuf)| -> Vec<&PathBuf> {
        let mut names = vec![stem(image), stem(mask)];
        names.dedup();
        names.iter().filter_map(|name| by_name.get(name)).flatten().collect()
    };
    let mut found: Vec<Vec<&PathBuf>> = set.pairs.iter().map(named).collect();
    let by_number = found.iter().all(Vec::is_empty);
    if by_number {
        let mut numbered: BTreeMap<usize, Vec<&PathBuf>> = BTreeMap::new();
        for (name, files) in &by_name {
            if let Ok(number) = name.parse() {
                numbered.entry(number).or_default().extend(files);
            }
        }
        found = (0..set.pairs.len()).map(|at| numbered.remove(&at).unwrap_or_default()).collect();
    }
    let invalid = |path: &Path, problem: String| Err(Error::Invalid { path: path.to_owned(), problem });
    let missing: Vec<&PathBuf> = set
        .pairs
        .iter()
        .zip(&found)
        .filter(|(_, files)| files.is_empty())
        .map(|((image, _), _)| image)
        .collect();
    if let Some(first) = missing.first() {
        let problem = format!(
            "has no label map for {} of {} images, such as {}: name them {}.png or .npy, or all of them by number from 0 (0000.png)",
            missing.len(),
            set.pairs.len(),
            first.display(),
            stem(first)
        );
        return invalid(folder, problem);
    }
    if let Some(files) = found.iter().find(|files| files.len() > 1) {
        return invalid(
            files[0],
            format!("and {} are label maps of the same image: remove one", files[1].display()),
        );
    }
    Ok((found.into_iter().flatten().cloned().collect(), by_number))
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
