//! Options with a few named values, and what the help says about each value.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use trainer::device::Precision;
use trainer::evaluation::predictions::Numbering;
use trainer::evaluation::protocol::{PROTOCOLS, Protocol};
use trainer::evaluation::published_datasets::Background;
use trainer::evaluation::referring::evaluate::Control;
use trainer::evaluation::referring::regions::MaskRule;
use trainer::inference::class_vectors::ClassVectors;
use trainer::inference::classes::ClassNames;
use trainer::inference::fusion::Fusion;
use trainer::inference::referring::map::CutRule;
use trainer::inference::window::Resize;
use trainer::towers::{Dense, PositionResize, RopePeriods};
use trainer::weights::Family;

/// The value of an option, its name, and its help.
type Choice<T> = (T, &'static str, &'static str);

/// A parser of the values of an enum of the library. It compiles only if all of them are named.
macro_rules! choices {
    ($parser:ident: $type:ident { $($value:ident = $name:literal: $help:literal;)+ }) => {
        pub(crate) fn $parser() -> impl TypedValueParser<Value = $type> {
            const CHOICES: &[Choice<$type>] = &[$(($type::$value, $name, $help)),+];
            let _all = |value| match value {
                $($type::$value => (),)+
            };
            one_of(CHOICES)
        }
    };
}

/// A parser of the names of the published protocols of segmentation.
pub(crate) fn protocol() -> impl TypedValueParser<Value = &'static Protocol> {
    let names = PROTOCOLS.iter().map(|protocol| {
        let datasets = protocol.datasets.join(", ");
        PossibleValue::new(protocol.name).help(format!("{} ({datasets})", protocol.about))
    });
    PossibleValuesParser::new(names).try_map(|given| {
        PROTOCOLS.iter().find(|protocol| protocol.name == given).ok_or("is not one of the protocols")
    })
}

/// A parser of where a map is cut.
pub(crate) fn cut(given: &str) -> Result<CutRule, String> {
    match given {
        "otsu" => Ok(CutRule::Otsu),
        "difference" => Ok(CutRule::Difference),
        share => match share.parse() {
            Ok(share) if share > 0.0 && share < 1.0 => Ok(CutRule::Share(share)),
            _ => Err("it must be otsu, difference, or a share above 0 and below 1".to_owned()),
        },
    }
}

/// A parser of one of these values. Names that are separated by `|` are of the same value; the help shows the first.
fn one_of<T>(choices: &'static [Choice<T>]) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let values = choices.iter().map(|(_, names, help)| {
        let mut names = names.split('|');
        PossibleValue::new(names.next().unwrap_or_default()).aliases(names).help(*help)
    });
    PossibleValuesParser::new(values).try_map(|given| {
        let chosen = choices.iter().find(|(_, names, _)| names.split('|').any(|name| name == given));
        chosen.map(|(value, ..)| *value).ok_or("is not one of the values")
    })
}

choices!(precision: Precision {
    Auto = "auto": "bfloat16 on a GPU; on a CPU float32 or, where the processor has AVX512-BF16, bfloat16-vision. For evaluation always \
        float32 on a CPU";
    Float32 = "float32": "float32";
    Bfloat16 = "bfloat16": "bfloat16";
    Bfloat16Vision = "bfloat16-vision": "bfloat16 for a frozen vision tower, float32 for everything else";
    Float8Vision = "float8-vision": "float8 for the products in the blocks of a frozen vision tower, bfloat16 for its other parts; \
        everything else in bfloat16 on a GPU, in float32 on a CPU. Less exact, and slower on a CPU";
});

choices!(position_resize: PositionResize {
    Dinov2 = "dinov2": "As DINOv2: scale factor (grid + 0.1) / trained grid without antialiasing; for towers with \
        registers, the exact size with antialiasing";
    Timm = "timm": "As timm's `resample_abs_pos_embed`: the exact size with antialiasing";
    Huggingface = "huggingface": "As Hugging Face transformers: the exact size, with antialiasing only for towers with \
        registers";
});

choices!(rope_periods: RopePeriods {
    File = "file": "Those that the weights file holds, rounded to bfloat16 as in DINOv3's training; exact ones if it holds none, as \
        files of timm and Hugging Face";
    Exact = "exact": "Computed in float32";
});

choices!(dense: Dense {
    Tokens = "tokens|plain": "The patch tokens of the last block; of a CLIP projected like the class token (\"CLIP\" in the tables of the \
        papers). `plain` is the same";
    Values = "values": "The value vectors of the last block without attention: MaskCLIP (Zhou et al., 2022), TIPSv2";
    Maskclip = "maskclip": "Of a CLIP: as `values`, with positions resized as in MaskCLIP's code (bicubic without antialiasing)";
    Sclip = "sclip": "Of a CLIP: attention of queries to queries and of keys to keys, added";
    Naclip = "naclip": "Of a CLIP: attention of keys to keys that prefers patches nearby; neither residual nor MLP";
    Clearclip = "clearclip": "Of a CLIP: attention of queries to queries; neither residual nor MLP";
    Proxyclip = "proxyclip": "Of a CLIP: attention by the similarity of the patches of another tower (--proxy-weights); neither residual \
        nor MLP";
    Gem = "gem": "Of a CLIP: self-self attention in a second stream beside its last six blocks";
    ClipDinoiser = "clip-dinoiser": "Of a CLIP: as `maskclip`, averaged over patches whose correlation two trained convolutions find high \
        (--dinoiser-weights)";
});

choices!(numbering: Numbering {
    Indices = "indices": "Indices of the classes, from 0; 255 is no class";
    FromOne = "from-one": "Class i is stored as i + 1; 0 and 255 are no class";
    Masks = "masks": "As in the masks of the dataset, for example the label ids of Cityscapes";
});

choices!(class_vectors: ClassVectors {
    Caption = "caption": "The embedding of the whole prompt, as in CLIP. The contrastive loss trains it to match whole images; \
        the published protocol";
    Concept = "concept": "The mean of the tokens of the class name in the prompt. The concept loss of simzss trains it to match \
        patches";
    Unscaled = "unscaled": "As `caption`, but prompts are averaged without bringing their embeddings to length 1 first, as in TCL \
        and Talk2DINO";
});

choices!(class_names: ClassNames {
    Plain = "plain": "The name in plain English, `potted plant` for `pottedplant`, as for the published results";
    Dataset = "dataset": "The name exactly as the dataset spells it, `pottedplant`";
    Synonyms = "synonyms": "The plain name and all synonyms in the class list";
});

choices!(background: Background {
    Ignored = "ignored": "Not at all: its pixels do not count (foreground only)";
    Threshold = "threshold": "A pixel is background if the probability of every class is below the threshold";
    Words = "words": "As a class like the others, with its own prompts";
});

choices!(mask_rule: MaskRule {
    Union = "union": "They belong to the object";
    Single = "single": "They do not: only pixels under exactly one polygon do, as in released code that adds polygons and compares with 1";
});

choices!(control: Control {
    WholeImage = "whole-image": "The mask is the whole image; needs no model";
    Mirrored = "mirrored": "The image is mirrored, and left and right change places in the expression; the mask must be the mirror image";
    Patches = "patches": "The true mask as exactly as the patches of the model can tell: the upper bound of any map of them";
});

choices!(resize: Resize {
    Opencv = "opencv": "As OpenCV, and with it mmcv, resizes 8-bit images: the result is rounded to 8 bits";
    Float = "float": "As PyTorch resizes floating-point images";
    Bicubic = "bicubic": "As Pillow resizes 8-bit images bicubically; windows are stretched to whole patches. As dino.txt and TIPSv2";
});

choices!(fusion: Fusion {
    Similarity = "similarity": "The similarities themselves";
    Softmax = "softmax": "Their softmax over all class names, at temperature 1: as dino.txt and TIPSv2";
    Sigmoid = "sigmoid": "Their sigmoid, as Talk2DINO";
    PatchSoftmax = "patch-softmax": "Their softmax over all class names, 100 times as large, for each patch before it is up-sampled: as \
        CLIP-DINOiser";
});

choices!(family: Family {
    Dinov2 = "dinov2": "DINOv2: a vision tower. A DVT denoiser is stored with the prefix `denoiser.`";
    Dinov3 = "dinov3": "DINOv3 and EUPE: a vision tower with rotary positions. Read only: the text tower of dino.txt";
    Timm = "timm": "timm: `VisionTransformer`, or `Eva` for DINOv3 and EUPE";
    Huggingface = "huggingface": "Hugging Face transformers: `Dinov2Model`, `Dinov2WithRegistersModel`, `DINOv3ViTModel` or \
        `CLIPModel`";
    OpenClip = "open_clip": "open_clip and OpenAI: a CLIP, or only its text tower";
    Simzss = "simzss": "The SimZSS release: a vision tower of timm, optionally a denoiser, and a text tower. Files of DVT have \
        the keys of its vision part";
    Augreg = "augreg": "AugReg's vision towers in Google's `vision_transformer` (.npz). Read only";
});
