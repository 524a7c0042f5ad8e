//! Opens a loader from the arguments of `Shards`.

use std::path::PathBuf;

use ::loader::{CaptionChoice, CaptionSource, CropKind, Decoding, Settings, shards};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use storage::{Cache, Location};

use crate::bank::Bank;
use crate::error::{IntoPython, python};
use crate::waiting::{self, Process};

/// The arguments, whose defaults are in Python.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Options {
    /// Each dataset's inputs, and its weight.
    sets: Vec<(Vec<PathBuf>, f64)>,
    batch_size: usize,
    seed: u64,
    streams: usize,
    window: usize,
    images: bool,
    image_size: u32,
    crop: String,
    scale: (f32, f32),
    flip: f32,
    decoding: String,
    captions: bool,
    caption_key: Option<String>,
    caption_choice: String,
    context: usize,
    max_mentions: usize,
    max_mention_tokens: usize,
    threads: Option<usize>,
    prefetch: usize,
    cache: Option<PathBuf>,
    cache_size: u64,
    selection: Option<PathBuf>,
    rank: usize,
    world_size: usize,
}

fn choose<T>(option: &str, value: &str, choices: &[(&str, T)]) -> PyResult<T>
where
    T: Copy,
{
    choices.iter().find(|(name, _)| *name == value).map(|&(_, choice)| choice).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        PyValueError::new_err(format!("{option} is {value:?}; choose one of {}", names.join(", ")))
    })
}

impl Options {
    /// All but the shards.
    fn settings(&self, bank: Option<&Bank>) -> PyResult<Settings> {
        let mut settings = Settings::new(Vec::<Location>::new(), self.batch_size);
        settings.seed = self.seed;
        settings.options.streams = self.streams;
        settings.options.window = self.window;
        settings.options.size = self.image_size;
        let crops = [("random", CropKind::Random), ("centre", CropKind::Centre)];
        settings.options.crop = choose("crop", &self.crop, &crops)?;
        (settings.options.scale, settings.options.flip) = (self.scale.into(), self.flip);
        let decoding = [("exact", Decoding::Exact), ("fast", Decoding::Fast)];
        settings.options.decoding = choose("decoding", &self.decoding, &decoding)?;
        settings.images = self.images;
        settings.captions = self.captions;
        let choices = [("first", CaptionChoice::First), ("random", CaptionChoice::Random)];
        let choice = choose("caption_choice", &self.caption_choice, &choices)?;
        if let Some(key) = self.caption_key.clone() {
            settings.options.captions = CaptionSource::Json { key, choice };
        }
        settings.context = self.context;
        settings.bank = bank.map(|bank| (std::sync::Arc::clone(&bank.bank), bank.matching));
        settings.options.max_mentions = self.max_mentions;
        settings.options.max_mention_tokens = self.max_mention_tokens;
        settings.options.threads = self.threads.unwrap_or_default();
        settings.options.prefetch = self.prefetch;
        settings.options.cache = self.cache.clone().map(|folder| Cache { folder, limit: self.cache_size });
        settings.options.selection = self.selection.clone().map(Location::from);
        settings.rank = self.rank;
        settings.world_size = self.world_size;
        Ok(settings)
    }
}

/// An opened dataset. It belongs to the process that opened it.
#[pyclass(frozen)]
pub(crate) struct Loader {
    loader: Option<::loader::Loader>,
    process: Process,
}

impl Drop for Loader {
    fn drop(&mut self) {
        if !self.process.is_here() {
            // Threads of the parent may have held its locks when the process was forked.
            std::mem::forget(self.loader.take());
        }
    }
}

impl Loader {
    pub(crate) fn get(&self) -> PyResult<&::loader::Loader> {
        self.process.check("this dataset")?;
        // It is there until it is dropped.
        self.loader.as_ref().ok_or_else(|| PyValueError::new_err("the dataset is closed"))
    }
}

#[pymethods]
impl Loader {
    #[new]
    fn open(py: Python<'_>, options: &Bound<'_, PyDict>, bank: Option<&Bound<'_, Bank>>) -> PyResult<Self> {
        let options: Options = options.extract()?;
        let mut settings = options.settings(bank.map(Bound::get))?;
        let inputs: Vec<(Vec<Location>, f64)> = options
            .sets
            .into_iter()
            .map(|(inputs, weight)| (inputs.into_iter().map(Location::from).collect(), weight))
            .collect();
        waiting::check_remote(
            inputs.iter().flat_map(|(inputs, _)| inputs).chain(&settings.options.selection),
        )?;
        let loader = waiting::run(py, move || {
            let sets: Result<Vec<_>, ::loader::Error> =
                inputs.into_iter().map(|(inputs, weight)| Ok((shards::list(inputs)?, weight))).collect();
            let sets = sets?;
            if let [(shards, _)] = &sets[..] {
                settings.shards.clone_from(shards);
            } else {
                let mixed = Settings::mixed(sets, settings.options.batch_size);
                (settings.shards, settings.sets) = (mixed.shards, mixed.sets);
            }
            ::loader::Loader::open(settings)
        })?;
        let loader = loader.map_err(python)?;
        Ok(Self { loader: Some(loader), process: Process::this() })
    }

    /// Whether it belongs to this process.
    fn is_here(&self) -> bool {
        self.process.is_here()
    }

    fn steps_per_epoch(&self) -> PyResult<u64> {
        Ok(self.get()?.steps_per_epoch())
    }

    fn samples(&self) -> PyResult<u64> {
        Ok(self.get()?.samples())
    }

    fn rows(&self) -> PyResult<usize> {
        Ok(self.get()?.rows())
    }

    fn warning(&self) -> PyResult<Option<String>> {
        Ok(self.get()?.warning())
    }

    /// A check of the selection's file.
    fn selection(&self) -> PyResult<Option<String>> {
        Ok(self.get()?.selection().map(|check| format!("{check:016x}")))
    }

    /// The shards: where each is, and its number of samples.
    fn shards(&self) -> PyResult<Vec<(String, u32)>> {
        let loader = self.get()?;
        let names = loader.settings().shards.iter().map(Location::to_string);
        Ok(names.zip(loader.shard_samples().iter().copied()).collect())
    }
}

/// The shards that inputs stand for.
#[pyfunction]
pub(crate) fn list_shards(py: Python<'_>, inputs: Vec<PathBuf>) -> PyResult<Vec<String>> {
    Ok(list(py, inputs)?.iter().map(Location::to_string).collect())
}

pub(crate) fn list(py: Python<'_>, inputs: Vec<PathBuf>) -> PyResult<Vec<Location>> {
    let inputs: Vec<Location> = inputs.into_iter().map(Location::from).collect();
    waiting::check_remote(&inputs)?;
    waiting::run(py, move || shards::list(inputs))?.map_err(IntoPython::into_python)
}
