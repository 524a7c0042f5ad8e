//! How well the captions of shards agree with their images, for `trainer score`: the similarity of each image and its caption, and
//! of each mention and the patches that it attends to, as signals next to the shard ([`loader::shards::signals`]).

use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::builder::{Float32Builder, ListBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use concepts::sidecar::Sidecar;
use concepts::{Bank, Matching};
use loader::shards::signals::{Metadata, SCORE, Signals};
use loader::shards::{Archive, Index, sidecar};
use loader::{Batch, CaptionChoice, CaptionSource, CropKind, Loader, Location, Position};
use serde_json::{Value, json};
use tch::Tensor;

use crate::checkpoint::Checkpoint;
use crate::device::{self, Precision, to_vec};
use crate::error::{Error, Result};
use crate::inference::model::Model;
use crate::method::concept_loss::embed_mentions;
use crate::method::objective::ObjectiveSettings;
use crate::method::pooling::{Mention, Mentions};
use crate::observer::Observer;
use crate::towers::{CaptionTokens, pixels, unit};

/// Images per forward pass.
const BATCH: usize = 64;

/// Which shards are scored, and where.
#[derive(Debug, Clone)]
pub struct ScoreSettings {
    /// Shards: folders, tar files or brace lists.
    pub shards: Vec<PathBuf>,
    /// Only every `count`-th shard, from number `index` on.
    pub part: (usize, usize),
    /// Also shards that have the scores of this model.
    pub force: bool,
    /// `auto`, `cpu`, `cuda` or `cuda:N`, as for [`device::open`].
    pub device: String,
    /// CPU threads of libtorch and of the decoder; 0 = one per core.
    pub threads: usize,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scored {
    /// Shards that were scored, and their samples.
    pub shards: u64,
    /// Samples of these shards.
    pub samples: u64,
    /// Samples without a score, because image or caption cannot be read.
    pub without_score: u64,
    /// Shards that had the scores of this model already.
    pub unchanged: u64,
    /// Sum of the scores, for their mean.
    pub sum: f64,
}

/// Writes the scores of every shard, one after the other, so that the same call continues after a stop.
///
/// # Errors
/// A shard or the model cannot be read, or the scores cannot be written; the work was interrupted.
pub fn score(checkpoint: &Checkpoint, settings: &ScoreSettings, observer: &dyn Observer) -> Result<Scored> {
    device::limit_threads(settings.threads);
    let device = device::open(&settings.device)?;
    let model = Model::open(checkpoint, Precision::Auto.for_scores(device), device)?;
    model.for_whole_images()?;
    let about = json!({
        "model": model.description,
        "weights": checkpoint.model_sha256()?,
        "vision": checkpoint.state.vision,
        "size": model.size,
    });
    let (index, count) = settings.part;
    let shards: Vec<Location> =
        loader::shards::list(&settings.shards)?.into_iter().skip(index).step_by(count.max(1)).collect();
    let mut progress = observer.progress("scoring", "shards", shards.len() as u64);
    let mut scored = Scored::default();
    for shard in &shards {
        if !settings.force && has_scores(shard, &about)? {
            scored.unchanged += 1;
        } else {
            let scores =
                score_shard(shard, &model, &checkpoint.state.settings.objective, settings, observer)?;
            scored.shards += 1;
            scored.samples += scores.similarity.len() as u64;
            scored.without_score += scores.similarity.iter().filter(|score| score.is_none()).count() as u64;
            scored.sum += scores.similarity.iter().flatten().map(|&score| f64::from(score)).sum::<f64>();
            scores.write(shard, &about)?;
        }
        progress.advance(1, &String::new);
    }
    progress.finish("");
    Ok(scored)
}

/// Whether the shard has scores of this model.
fn has_scores(shard: &Location, about: &Value) -> Result<bool> {
    let path = loader::shards::signals::path(shard, SCORE);
    let bytes = match storage::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if storage::is_missing(&error) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    // Damaged scores, and those of an earlier state of the shard, are made again.
    let Ok(metadata) = Signals::metadata(&path, &bytes) else { return Ok(false) };
    let current = metadata.refuse_unless_for(&path, shard, storage::length(shard)?, None).is_ok();
    Ok(current && metadata.settings == *about)
}

/// The scores of a shard's samples, in tar order.
struct Scores {
    keys: Vec<String>,
    similarity: Vec<Option<f32>>,
    /// Of each mention, as the sidecar has them; `None` for one that the context of the text tower cuts off.
    mentions: Vec<Option<Vec<Option<f32>>>>,
}

impl Scores {
    fn write(&self, shard: &Location, about: &Value) -> Result<()> {
        let mut mentions = ListBuilder::new(Float32Builder::new());
        for of_sample in &self.mentions {
            mentions.append_option(of_sample.clone());
        }
        let similarity: ArrayRef = Arc::new(arrow_array::Float32Array::from(self.similarity.clone()));
        let columns =
            [("similarity", similarity), ("mention_similarity", Arc::new(mentions.finish()) as ArrayRef)];
        let columns = columns.map(|(name, column)| (name, column, true));
        let failed = |error: &dyn std::fmt::Display| Error::Failed(format!("the scores of {shard}: {error}"));
        let columns = RecordBatch::try_from_iter_with_nullable(columns).map_err(|e| failed(&e))?;
        let mut metadata = Metadata::new(SCORE, concat!("trainer ", env!("CARGO_PKG_VERSION")), shard)?;
        metadata.settings = about.clone();
        Ok(Signals::new(metadata, &self.keys, columns)?.write(shard)?)
    }
}

fn score_shard(
    shard: &Location,
    model: &Model,
    objective: &ObjectiveSettings,
    settings: &ScoreSettings,
    observer: &dyn Observer,
) -> Result<Scores> {
    let index = Index::load(&Archive::open(shard)?)?;
    let samples = index.len();
    let keys = (0..samples as u32).map(|sample| index.key(sample).to_owned()).collect();
    let mut scores = Scores { keys, similarity: vec![None; samples], mentions: vec![None; samples] };
    if samples == 0 {
        return Ok(scores);
    }
    let tagged = storage::exists(loader::shards::sidecar_path(shard))?;
    let tagged = if tagged { Some(Tagged::open(shard, samples as u32)?) } else { None };
    let loader = open(shard, model, tagged.as_ref(), settings)?;
    let mut batches = loader.batches(Position::default()).take(samples).enumerate();
    let mut waiting: Vec<Batch> = Vec::with_capacity(BATCH);
    loop {
        let next = batches.next();
        let done = next.is_none();
        if let Some((number, batch)) = next {
            let batch = batch?;
            // A sample that cannot be read was replaced by another one, which comes at its own place too.
            if batch.samples.first() == Some(&(number as u64)) {
                waiting.push(batch);
            }
        }
        if waiting.len() == BATCH || (done && !waiting.is_empty()) {
            score_batch(&waiting, model, objective, tagged.as_ref(), &mut scores);
            waiting.clear();
        }
        if done {
            return Ok(scores);
        }
        if observer.interrupted() {
            return Err(Error::interrupted(format!(
                "the scores of {shard} are not written; run the same command again"
            )));
        }
    }
}

/// The sidecar of a shard, and a vocabulary of all its concepts, so that the loader leaves none out.
struct Tagged {
    sidecar: Sidecar,
    bank: Arc<Bank>,
}

impl Tagged {
    fn open(shard: &Location, samples: u32) -> Result<Self> {
        let sidecar = sidecar::open(shard, Some(samples))?;
        let bank = Arc::new(Bank::from_names(sidecar.concept_names())?);
        Ok(Self { sidecar, bank })
    }
}

/// A loader of one shard that gives its samples one by one, in tar order.
fn open(
    shard: &Location,
    model: &Model,
    tagged: Option<&Tagged>,
    settings: &ScoreSettings,
) -> Result<Loader> {
    let mut to_load = loader::Settings::new([shard.clone()], 1);
    to_load.context = model.text.shape.context as usize;
    to_load.bank = tagged.map(|tagged| (Arc::clone(&tagged.bank), Matching::Strict));
    let options = &mut to_load.options;
    if let Some(field) = tagged.and_then(|tagged| tagged.sidecar.metadata.field.clone()) {
        options.captions = CaptionSource::Json { key: field, choice: CaptionChoice::First };
    }
    (options.size, options.crop, options.threads) = (model.size as u32, CropKind::Centre, settings.threads);
    (options.streams, options.window, options.prefetch) = (1, 1, 2 * BATCH);
    (options.max_mentions, options.max_mention_tokens) = (usize::MAX, usize::MAX);
    Ok(Loader::open(to_load)?)
}

/// Scores samples, one in each batch.
fn score_batch(
    batches: &[Batch],
    model: &Model,
    objective: &ObjectiveSettings,
    tagged: Option<&Tagged>,
    scores: &mut Scores,
) {
    let device = model.device();
    let images: Vec<Tensor> = batches.iter().map(|batch| pixels(&batch.images, model.size)).collect();
    let ids: Vec<i64> = batches.iter().flat_map(|batch| batch.tokens.iter().copied()).collect();
    let mut mentions = Vec::new();
    for (row, batch) in (0..).zip(batches) {
        let of_row = batch.mentions.iter();
        mentions.extend(of_row.map(|(_, it)| Mention { row, label: it.label, positions: it.positions }));
    }
    let (similarity, of_mentions) = tch::no_grad(|| {
        let features = model.vision.features(&device::send(&Tensor::cat(&images, 0), device));
        let captions = CaptionTokens::new(&ids, model.text.shape.context as usize, device);
        let tokens = model.text.tokens(&captions, model.kind);
        let embedded = unit(&model.text.captions(&tokens, &captions.end));
        let dot = |a: &Tensor, b: &Tensor| to_vec(&(a * b).sum_dim_intlist(1, false, None));
        let similarity = dot(&unit(&features.class), &embedded);
        if mentions.is_empty() {
            return (similarity, Vec::new());
        }
        let mentions = Mentions::new(&mentions, tokens.size()[1], device);
        let queries = unit(&embed_mentions(objective.tokens, &mentions, &tokens, |rows| {
            model.text.project_to_patches(rows)
        }));
        let patches = unit(&features.patches).to_kind(model.kind);
        let pooled = mentions.pool(&patches, &queries, objective.pooling_temperature);
        (similarity, dot(&queries, &pooled.to_kind(queries.kind())))
    });
    let mut of_mentions = of_mentions.into_iter();
    for (batch, similarity) in batches.iter().zip(similarity) {
        let Some(&number) = batch.samples.first() else { continue };
        scores.similarity[number as usize] = Some(similarity);
        let Some(Tagged { sidecar, bank }) = tagged else { continue };
        let mut scored = batch
            .mentions
            .iter()
            .map(|(_, it)| it.span)
            .zip(of_mentions.by_ref().take(batch.mentions.len()))
            .peekable();
        let of_sample = sidecar.mentions(number as u32).map(|row| {
            let (_, span) = bank.find(Matching::Strict, &row)?;
            scored.next_if(|(scored, _)| *scored == span).map(|(_, score)| score)
        });
        scores.mentions[number as usize] = Some(of_sample.collect());
    }
}
