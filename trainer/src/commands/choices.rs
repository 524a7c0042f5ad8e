//! Options with a few named values, and what the help says about each value.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use trainer::device::Precision;
use trainer::evaluation::published_datasets::Background;
use trainer::inference::class_vectors::ClassVectors;
use trainer::inference::classes::ClassNames;
use trainer::inference::window::Resize;
use trainer::towers::{Dense, PositionResize};
use trainer::weights::Family;

/// The value of an option, its name, and its help.
type Choice<T> = (T, &'static str, &'static str);

/// A parser of one of these values.
fn one_of<T>(choices: &'static [Choice<T>]) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    PossibleValuesParser::new(choices.iter().map(|(_, name, help)| PossibleValue::new(*name).help(*help)))
        .try_map(|given| {
            let chosen = choices.iter().find(|(_, name, _)| *name == given);
            chosen.map(|(value, ..)| *value).ok_or("is not one of the values")
        })
}

pub(crate) fn precision() -> impl TypedValueParser<Value = Precision> {
    one_of(&[
        (Precision::Auto, "auto", "bfloat16 on a GPU, float32 on a CPU"),
        (Precision::Float32, "float32", "float32"),
        (Precision::Bfloat16, "bfloat16", "bfloat16"),
    ])
}

pub(crate) fn position_resize() -> impl TypedValueParser<Value = PositionResize> {
    one_of(&[
        (
            PositionResize::Dinov2,
            "dinov2",
            "As DINOv2: scale factor (grid + 0.1) / trained grid without antialiasing; for towers with registers, the exact size \
             with antialiasing",
        ),
        (
            PositionResize::Timm,
            "timm",
            "As timm's `resample_abs_pos_embed`: the exact size with antialiasing",
        ),
        (
            PositionResize::Huggingface,
            "huggingface",
            "As Hugging Face transformers: the exact size, with antialiasing only for towers with registers",
        ),
    ])
}

pub(crate) fn dense() -> impl TypedValueParser<Value = Dense> {
    one_of(&[
        (
            Dense::Tokens,
            "tokens",
            "The patch tokens of the last block, projected like the class token: \"CLIP\" in the tables of the papers",
        ),
        (
            Dense::Values,
            "values",
            "The value vectors of the last block without attention: MaskCLIP (Zhou et al., 2022)",
        ),
    ])
}

pub(crate) fn class_vectors() -> impl TypedValueParser<Value = ClassVectors> {
    one_of(&[
        (
            ClassVectors::Caption,
            "caption",
            "The embedding of the whole prompt, as in CLIP. The contrastive loss trains it to match whole images; the published \
             protocol",
        ),
        (
            ClassVectors::Concept,
            "concept",
            "The mean of the tokens of the class name in the prompt. The concept loss of simzss trains it to match patches",
        ),
    ])
}

pub(crate) fn class_names() -> impl TypedValueParser<Value = ClassNames> {
    one_of(&[
        (
            ClassNames::Plain,
            "plain",
            "The name in plain English, `potted plant` for `pottedplant`, as for the published results",
        ),
        (ClassNames::Dataset, "dataset", "The name exactly as the dataset spells it, `pottedplant`"),
        (ClassNames::Synonyms, "synonyms", "The plain name and all synonyms in the class list"),
    ])
}

pub(crate) fn background() -> impl TypedValueParser<Value = Background> {
    one_of(&[
        (Background::Ignored, "ignored", "Not at all: its pixels do not count (foreground only)"),
        (
            Background::Threshold,
            "threshold",
            "A pixel is background if the probability of every class is below the threshold",
        ),
        (Background::Words, "words", "As a class like the others, with its own prompts"),
    ])
}

pub(crate) fn resize() -> impl TypedValueParser<Value = Resize> {
    one_of(&[
        (
            Resize::Opencv,
            "opencv",
            "As OpenCV, and with it mmcv, resizes 8-bit images: the result is rounded to 8 bits",
        ),
        (Resize::Float, "float", "As PyTorch resizes floating-point images"),
    ])
}

pub(crate) fn family() -> impl TypedValueParser<Value = Family> {
    one_of(&[
        (
            Family::Dinov2,
            "dinov2",
            "DINOv2: a vision tower. A DVT denoiser is stored with the prefix `denoiser.`",
        ),
        (Family::Timm, "timm", "timm: `VisionTransformer`"),
        (
            Family::Huggingface,
            "huggingface",
            "Hugging Face transformers: `Dinov2Model`, `Dinov2WithRegistersModel` or `CLIPModel`",
        ),
        (Family::OpenClip, "open_clip", "open_clip and OpenAI: a CLIP, or only its text tower"),
        (
            Family::Simzss,
            "simzss",
            "The SimZSS release: a vision tower of timm, optionally a denoiser, and a text tower. Files of DVT have the keys of its \
             vision part",
        ),
    ])
}
