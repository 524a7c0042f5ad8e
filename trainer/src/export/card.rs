//! The model card of a run, in the format of the Hugging Face Hub: YAML between dashes, then Markdown.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::data;
use crate::distributed::Group;
use crate::error::{Error, Result};
use crate::method::objective::{CaptionLoss, Objective};
use crate::observer::Silent;
use crate::towers::Embedding;

/// The parts of a card that do not come from the run.
#[derive(Debug, Clone, Default)]
pub struct CardSettings {
    /// Name of the model.
    pub name: String,
    /// Licence: its identifier on the hub, such as `mit` or `cc-by-4.0`.
    pub license: Option<String>,
    /// Files with summaries of `trainer eval .. --json`.
    pub results: Vec<PathBuf>,
}

/// The metrics on the card: key in the summary, name on the hub, name in the text.
const METRICS: [(&str, &str, &str); 12] = [
    ("miou", "mean_iou", "mIoU"),
    ("pixel_accuracy", "accuracy", "pixel accuracy"),
    ("top1", "accuracy", "top-1"),
    ("top5", "accuracy", "top-5"),
    ("mean_per_class", "accuracy", "mean per class"),
    ("mean_class_accuracy", "accuracy", "mean per class"),
    ("image_to_text_r1", "recall", "image to text, R@1"),
    ("image_to_text_r5", "recall", "image to text, R@5"),
    ("image_to_text_r10", "recall", "image to text, R@10"),
    ("text_to_image_r1", "recall", "text to image, R@1"),
    ("text_to_image_r5", "recall", "text to image, R@5"),
    ("text_to_image_r10", "recall", "text to image, R@10"),
];

/// The summary of an evaluation.
struct Scores {
    dataset: String,
    task: &'static str,
    /// Index into [`METRICS`], and value, as a fraction of 1.
    metrics: Vec<(usize, f64)>,
    images: Option<u64>,
    /// Class names, if the summary lists them.
    classes: Vec<String>,
}

impl Scores {
    /// Reads the last line that is JSON, so that the file may contain the whole output of the program.
    fn read(path: &Path) -> Result<Self> {
        let text = storage::read_text(path)?;
        let whole = serde_json::from_str(&text).ok();
        let last = || text.lines().rev().find_map(|line| serde_json::from_str(line).ok());
        let value: Value = whole.or_else(last).unwrap_or_default();
        let metrics: Vec<(usize, f64)> = METRICS
            .iter()
            .enumerate()
            .filter_map(|(i, (name, _, _))| Some((i, value.get(name)?.as_f64()?)))
            .collect();
        if metrics.is_empty() {
            let problem = "is not a summary of trainer eval .. --json".to_owned();
            return Err(Error::Invalid { path: path.to_owned(), problem });
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let classes = value["classes"].as_array().map_or_else(Vec::new, |classes| {
            classes.iter().filter_map(|class| class["class"].as_str().map(str::to_owned)).collect()
        });
        let segmentation = value.get("miou").is_some();
        Ok(Self {
            dataset: value["dataset"].as_str().map_or(stem, str::to_owned),
            task: if segmentation { "image-segmentation" } else { "zero-shot-image-classification" },
            metrics,
            images: value["images"].as_u64(),
            classes,
        })
    }
}

/// The training data, if it can still be read.
struct Data {
    shards: usize,
    samples: u64,
    mentions: u64,
    taggers: BTreeSet<String>,
}

fn data(checkpoint: &Checkpoint) -> Option<Data> {
    let shards = loader::shards::list(&checkpoint.state.settings.data.shards).ok()?;
    let mut data = Data { shards: shards.len(), samples: 0, mentions: 0, taggers: BTreeSet::new() };
    for shard in &shards {
        let metadata = loader::shards::sidecar::metadata(shard).ok()?;
        data.samples += u64::from(metadata.samples);
        data.mentions += metadata.mentions;
        data.taggers.insert(format!("{} (grammar {})", metadata.tagger, metadata.grammar));
    }
    Some(data)
}

/// The concept vocabulary (bank), if its file or the shards still exist and give as many concepts as the run had.
fn bank(checkpoint: &Checkpoint) -> Option<BTreeSet<String>> {
    let settings = &checkpoint.state.settings;
    let shards = loader::shards::list(&settings.data.shards).unwrap_or_default();
    let bank = if let Some(path) = &settings.bank.names {
        concepts::Bank::from_bytes(path, &storage::read(path).ok()?).ok()?
    } else if shards.is_empty() {
        return None;
    } else {
        data::bank(settings, &shards, &Group::alone(), &Silent).ok()??
    };
    (bank.len() == checkpoint.state.bank).then(|| bank.names().iter().cloned().collect())
}

/// The overlap of the training vocabulary and the evaluation classes, which a reader needs to interpret a score.
fn overlap(bank: Option<&BTreeSet<String>>, scores: &Scores) -> String {
    let dataset = code(&scores.dataset);
    if scores.classes.is_empty() {
        return format!(
            "{dataset}: the summary lists no classes, so they are not compared with the vocabulary."
        );
    }
    let Some(bank) = bank else {
        return format!(
            "{dataset}: the vocabulary cannot be read any more, so it is not compared with the classes."
        );
    };
    let classes: BTreeSet<String> = scores.classes.iter().map(|name| concepts::canonical(name)).collect();
    let known = classes.intersection(bank).count();
    if *bank == classes {
        return format!(
            "{dataset}: **the vocabulary is exactly the list of evaluation classes**, all {known} of them."
        );
    }
    format!(
        "{dataset}: the vocabulary contains {known} of the {} evaluation classes, and {} concepts in total.",
        classes.len(),
        bank.len()
    )
}

/// The text of the card.
pub fn write(checkpoint: &Checkpoint, settings: &CardSettings) -> Result<String> {
    let results: Vec<Scores> =
        settings.results.iter().map(|path| Scores::read(path)).collect::<Result<_>>()?;
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = front(&mut out, settings, checkpoint, &results);
    let _ = body(&mut out, settings, checkpoint, &results);
    Ok(out)
}

fn front(
    out: &mut String,
    settings: &CardSettings,
    checkpoint: &Checkpoint,
    results: &[Scores],
) -> std::fmt::Result {
    let objective = checkpoint.state.settings.objective.name;
    writeln!(out, "---")?;
    if let Some(license) = &settings.license {
        writeln!(out, "license: {}", quoted(license))?;
    }
    writeln!(out, "language: en\npipeline_tag: image-segmentation")?;
    writeln!(out, "tags:\n- {objective}\n- zero-shot\n- open-vocabulary\n- semantic-segmentation")?;
    if !results.is_empty() {
        writeln!(out, "model-index:\n- name: {}\n  results:", quoted(&settings.name))?;
        for scores in results {
            writeln!(out, "  - task:\n      type: {}", scores.task)?;
            let dataset = quoted(&scores.dataset);
            writeln!(out, "    dataset:\n      type: {dataset}\n      name: {dataset}\n    metrics:")?;
            for &(metric, value) in &scores.metrics {
                let (_, kind, name) = METRICS[metric];
                writeln!(
                    out,
                    "    - type: {kind}\n      name: {}\n      value: {:.2}",
                    quoted(name),
                    100.0 * value
                )?;
            }
        }
    }
    writeln!(out, "---\n")
}

fn body(
    out: &mut String,
    card: &CardSettings,
    checkpoint: &Checkpoint,
    results: &[Scores],
) -> std::fmt::Result {
    let state = &checkpoint.state;
    let settings = &state.settings;
    let method = match settings.objective.name {
        Objective::Simzss => {
            "SimZSS: captions are aligned with whole images, and the concepts in them with patches"
        }
        Objective::Lit => "LiT: captions are aligned with whole images",
        Objective::Talk2dino => {
            "Talk2DINO: a map from a frozen text tower is trained, by which captions are aligned with parts of images"
        }
        Objective::Clip => {
            "CLIP: captions are aligned with whole images, and the vision tower is trained too"
        }
    };
    writeln!(out, "# {}\n", card.name.replace(['\n', '\r'], " "))?;
    writeln!(
        out,
        "A text tower trained to match a vision tower ({method}). The model labels the pixels of an image with classes that are named in text.\n"
    )?;

    writeln!(out, "## Data\n")?;
    match data(checkpoint) {
        Some(data) => {
            let taggers = data.taggers.into_iter().collect::<Vec<_>>().join(", ");
            writeln!(
                out,
                "{} image-caption pairs in {} shards, with {} concept mentions, tagged by {taggers}. ",
                data.samples, data.shards, data.mentions
            )?;
        }
        None => writeln!(out, "The training shards could not be read when this card was written.")?,
    }
    let seen = state.step * settings.data.loading.batch_size as u64;
    writeln!(
        out,
        "The training used {seen} pairs, including repetitions, in {} steps of {} pairs at {} px.\n",
        state.step, settings.data.loading.batch_size, settings.data.loading.size
    )?;
    // Runs of earlier versions do not say it.
    if let Some(precision) = settings.precision.describe() {
        writeln!(out, "Its towers computed in {precision}.\n")?;
    }
    match settings.vision.position {
        _ if checkpoint.trains_vision() => {}
        Some(position) => writeln!(
            out,
            "The position embedding of the vision tower is resized to other image sizes as in `{position}`.\n"
        )?,
        None => writeln!(
            out,
            "The positions of the vision tower are rotary, with the periods `{}`.\n",
            settings.vision.rope_periods
        )?,
    }
    let vision = &settings.vision;
    if vision.head.blocks > 0 {
        writeln!(
            out,
            "Behind the frozen vision tower, {} transformer blocks were trained on its tokens (the vision head of dino.txt).\n",
            vision.head.blocks
        )?;
    }
    if vision.embedding == Embedding::ClassMean {
        writeln!(
            out,
            "An image is embedded as its class token and the mean of its patches; the second half of a text's embedding is compared \
             with patches.\n"
        )?;
    }
    if settings.objective.caption == CaptionLoss::Sigmoid {
        writeln!(out, "The loss of images and captions is a sigmoid for each pair (SigLIP).\n")?;
    }
    let lr = settings.optimizer.describe_lr(settings.data.loading.batch_size);
    writeln!(out, "Maximum learning rate: {lr}.\n")?;

    writeln!(out, "## Concept vocabulary\n")?;
    let named = match &settings.bank.names {
        Some(path) => {
            format!(
                "the concepts in the file {}",
                code(&path.file_name().unwrap_or_default().to_string_lossy())
            )
        }
        None => format!(
            "every concept that the training captions mention at least {} times",
            settings.bank.min_mentions
        ),
    };
    writeln!(out, "The vocabulary (concept bank) of the training has {} concepts: {named}.", state.bank)?;
    let bank = bank(checkpoint);
    for scores in results {
        writeln!(out, "- {}", overlap(bank.as_ref(), scores))?;
    }
    writeln!(out)?;

    writeln!(out, "## Results\n")?;
    if results.is_empty() {
        writeln!(out, "There are no results.\n")?;
    } else {
        writeln!(out, "| dataset | images | metric | % |\n|---|---|---|---|")?;
        for scores in results {
            let images = scores.images.map_or(String::new(), |images| images.to_string());
            for &(metric, value) in &scores.metrics {
                writeln!(
                    out,
                    "| {} | {images} | {} | {:.2} |",
                    code(&scores.dataset),
                    METRICS[metric].2,
                    100.0 * value
                )?;
            }
        }
        writeln!(out)?;
    }

    writeln!(out, "## Configuration\n")?;
    writeln!(out, "```toml\n{}```\n", toml::to_string(&public(settings)).unwrap_or_default())?;
    writeln!(out, "## Versions\n")?;
    writeln!(out, "| | |\n|---|---|")?;
    writeln!(out, "| trained by | trainer {} |", state.program)?;
    writeln!(out, "| card written by | trainer {} |", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "| libtorch | 2.11 |")?;
    writeln!(out, "| checkpoint | step {}, format version {} |", state.step, state.version)?;
    writeln!(out, "| frozen vision tower | SHA-256 `{}` |", state.vision)
}

/// The settings without folder names of the machine on which the run was made.
fn public(settings: &crate::settings::Settings) -> crate::settings::Settings {
    let name = |path: &Path| PathBuf::from(path.file_name().unwrap_or_default());
    let mut out = settings.clone();
    out.out = name(&out.out);
    out.vision.weights = name(&out.vision.weights);
    out.text.weights = out.text.weights.as_deref().map(name);
    out.data.shards = out.data.shards.iter().map(|path| name(path)).collect();
    out.data.features = out.data.features.as_deref().map(name);
    let file = |selection: &storage::Location| storage::Location::from(&*selection.file_name());
    out.data.loading.selection = out.data.loading.selection.as_ref().map(file);
    out.bank.names = out.bank.names.as_deref().map(name);
    out
}

/// A string as YAML: double-quoted JSON strings are valid YAML.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A name as Markdown code, on one line, without characters that would end the code or the cell of a table.
fn code(text: &str) -> String {
    format!("`{}`", text.replace(['`', '|', '\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(classes: &[&str]) -> Scores {
        let classes = classes.iter().map(|name| (*name).to_owned()).collect();
        Scores {
            dataset: "held-out".to_owned(),
            task: "image-segmentation",
            metrics: vec![],
            images: None,
            classes,
        }
    }

    #[test]
    fn the_overlap_with_the_evaluation_classes_is_stated() {
        let bank: BTreeSet<String> = ["cat".to_owned(), "traffic cone".to_owned()].into();
        assert!(
            overlap(Some(&bank), &scores(&["Traffic  Cone", "cat"])).contains("**the vocabulary is exactly")
        );
        let more = overlap(Some(&bank), &scores(&["cat", "dog", "fish"]));
        assert!(more.contains("contains 1 of the 3 evaluation classes, and 2 concepts"), "{more}");
        assert!(overlap(None, &scores(&["cat"])).contains("cannot be read"));
        assert!(overlap(Some(&bank), &scores(&[])).contains("lists no classes"));
    }

    #[test]
    fn names_cannot_leave_their_place() {
        assert_eq!(quoted("a: \"b\"\n- c"), r#""a: \"b\"\n- c""#);
        assert_eq!(code("a`|b\nc"), "`a  b c`");
    }
}
