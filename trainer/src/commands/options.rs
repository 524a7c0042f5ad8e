//! Options that several commands have.

use std::path::{Path, PathBuf};

use clap::Args;
use program::UsageError;
use trainer::checkpoint::Checkpoint;
use trainer::device::{self, Precision};
use trainer::inference::class_list::ClassList;
use trainer::inference::class_vectors::ClassVectors;
use trainer::inference::referring::find::ReferSettings;
use trainer::inference::referring::map::CutRule;
use trainer::inference::segmenter::SegmentSettings;

use super::choices;

#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    /// Where to compute: `auto` (the first GPU if there is one, otherwise the CPU), `cpu`, `cuda` or `cuda:N`.
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
    /// CPU threads; 0 = one per core.
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
}

/// A trained model.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Run folder (its newest checkpoint is used), or the folder of one checkpoint.
    #[arg(long, value_name = "DIR")]
    pub(crate) checkpoint: PathBuf,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// How exactly a model computes.
#[derive(Debug, Args)]
pub(crate) struct PrecisionArgs {
    /// Number format in which the towers compute.
    #[arg(long, value_parser = choices::precision(), default_value = "auto")]
    pub(crate) precision: Precision,
}

/// How an image is cut into windows.
#[derive(Debug, Args)]
pub(crate) struct WindowArgs {
    /// Resize the short side of the image to this many pixels, which is also the side of the sliding window; 0 = the image
    /// size in training.
    #[arg(long, default_value_t = 0)]
    pub(crate) size: u32,
    /// Step of the sliding window in pixels; 0 = half of the window.
    #[arg(long, default_value_t = 0)]
    pub(crate) stride: u32,
}

/// How a class name becomes an embedding.
#[derive(Debug, Args)]
pub(crate) struct PromptArgs {
    /// Prompt templates for the class names: `imagenet` (the 80 of CLIP), `simple` ("a photo of a {}.") or a file with one
    /// template per line.
    #[arg(long, default_value = "imagenet")]
    pub(crate) templates: String,
    /// Embedding of a class [default: `concept` for models trained with simzss, `caption` for lit and clip].
    #[arg(long, value_parser = choices::class_vectors())]
    pub(crate) class_vectors: Option<ClassVectors>,
}

/// How expressions are followed.
#[derive(Debug, Args)]
pub(crate) struct ReferArgs {
    /// Weight, 0 to 1, of the embedding of a whole expression; that of its head phrase ("red car") has the rest [default: 0 for models
    /// trained with simzss, 0.5 for the others].
    #[arg(long, value_name = "WEIGHT")]
    expression_weight: Option<f64>,
    /// Where the mask of an expression is cut from its similarities: `otsu` (of 5 %, 10 % .. 95 % of their range, where the variance between
    /// inside and outside is highest), `difference` (where the mean inside is the furthest above the mean outside, as Ref-Diff), or a share
    /// of the range between 0 and 1 [default: otsu].
    #[arg(long, value_name = "RULE", value_parser = choices::cut)]
    cut: Option<CutRule>,
    /// Nothing in the image is meant if the highest similarity of a patch with the expression is below this cosine [default: none, so that
    /// every expression gets a mask]. `trainer eval referring --calibrate` finds a value.
    #[arg(long, allow_negative_numbers = true, value_name = "COSINE")]
    absent_below: Option<f64>,
}

impl ReferArgs {
    /// The settings of the library.
    pub(crate) fn settings(&self) -> trainer::Result<ReferSettings> {
        let settings = ReferSettings {
            expression_weight: self.expression_weight,
            cut: self.cut.unwrap_or_default(),
            absent_below: self.absent_below,
        };
        settings.check()?;
        Ok(settings)
    }

    /// Whether one of the options is given.
    pub(crate) fn is_given(&self) -> bool {
        self.expression_weight.is_some() || self.cut.is_some() || self.absent_below.is_some()
    }
}

/// A list of classes: one of the two options.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct ClassListArgs {
    /// Class names, separated by commas; `cat|kitten` is one class with two names.
    #[arg(long, value_name = "LIST")]
    classes: Option<String>,
    /// File with one class per line: `name`, `name|synonym`, or `name = prompt | prompt` to show one name and use others in the
    /// prompts.
    #[arg(long, value_name = "FILE")]
    class_file: Option<PathBuf>,
}

impl ClassListArgs {
    /// The list; wrong use if neither option is given.
    pub(crate) fn read(&self) -> anyhow::Result<ClassList> {
        if !self.is_given() {
            return Err(UsageError("missing --classes or --class-file".to_owned()).into());
        }
        class_list(self.classes.as_deref(), self.class_file.as_deref())
    }

    /// Whether one of the options is given.
    pub(crate) fn is_given(&self) -> bool {
        self.classes.is_some() || self.class_file.is_some()
    }
}

/// The classes of `--classes`, or else of `--class-file`.
pub(crate) fn class_list(list: Option<&str>, file: Option<&Path>) -> anyhow::Result<ClassList> {
    match (list, file) {
        (None, Some(file)) => Ok(ClassList::read(file)?),
        (list, _) => ClassList::parse(list.unwrap_or_default())
            .map_err(|problem| UsageError(format!("option --classes {problem}")).into()),
    }
}

impl RunArgs {
    pub(crate) fn open(&self) -> anyhow::Result<Checkpoint> {
        device::limit_threads(self.device.threads);
        Ok(Checkpoint::open(&self.checkpoint)?)
    }

    /// The settings of the library; what a command has no options for keeps its default.
    pub(crate) fn settings(
        &self,
        image: Option<(&WindowArgs, &PrecisionArgs)>,
        prompts: Option<&PromptArgs>,
    ) -> SegmentSettings {
        let (window, precision) = image.unzip();
        SegmentSettings {
            device: self.device.device.clone(),
            precision: precision.map_or(Precision::Auto, |args| args.precision),
            size: window.map_or(0, |window| window.size),
            stride: window.map_or(0, |window| window.stride),
            templates: prompts.map_or("imagenet".to_owned(), |prompts| prompts.templates.clone()),
            vectors: prompts.and_then(|prompts| prompts.class_vectors),
        }
    }
}
