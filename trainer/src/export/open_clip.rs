//! A model as a folder that open_clip's own factory loads: `open_clip_config.json` and `open_clip_model.safetensors`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::checkpoint::Checkpoint;
use crate::device::{self, to_vec};
use crate::error::{Error, Result};
use crate::towers::heads::HEAD_WIDTH;
use crate::towers::{
    Activation, Embedding, FrozenVision, Normalization, PositionResize, TextTower, VOCABULARY,
};
use crate::weights::{self, families};

/// What was written.
#[derive(Debug)]
pub struct Exported {
    /// The files.
    pub files: Vec<PathBuf>,
    /// The size of the images, in pixels, for which the model is to be created; `None` if it is the one in the configuration.
    pub force_image_size: Option<i64>,
}

/// A vision tower in open_clip: `vision_cfg`, its tensors with the names below `visual.`, and the size to force.
struct Vision {
    config: Value,
    named: Vec<(String, Tensor)>,
    normalization: Normalization,
    force_image_size: Option<i64>,
}

/// Writes a checkpoint for images of `size` pixels (those of the training if it is `None`).
///
/// # Errors
/// Wrong use, before anything is written, if open_clip has no such model.
pub fn open_clip(checkpoint: &Checkpoint, size: Option<i64>, out: &Path) -> Result<Exported> {
    let device = device::open("cpu")?;
    let settings = &checkpoint.state.settings;
    let size = size.unwrap_or_else(|| i64::from(settings.data.loading.size));
    let (vision, text) = if checkpoint.trains_vision() {
        let tower = checkpoint.trained_vision(Kind::Float, device)?;
        let text = checkpoint.text(tower.output(), device)?;
        if text.activation() != Activation::Gelu {
            return lacks(
                "two activation functions in one model: the text tower has OpenAI's (text.quick_gelu), the vision tower not",
            );
        }
        if size != tower.grid * tower.patch {
            let problem =
                format!("is {size} px, but the vision tower was trained for {} px", tower.grid * tower.patch);
            return Err(Error::Setting { name: "--size".to_owned(), problem });
        }
        let config = json!({
            "image_size": size, "layers": tower.depth(), "width": tower.width(), "head_width": HEAD_WIDTH, "patch_size": tower.patch,
        });
        let normalization = settings.vision.normalization(Normalization::IMAGENET);
        (Vision { config, named: tower.named(), normalization, force_image_size: None }, text)
    } else {
        let vision = checkpoint.frozen_vision(Kind::Float, device)?;
        let text = checkpoint.text(vision.width(), device)?;
        if text.is_mapped() {
            return Err(Error::Setting {
                name: "--to open_clip".to_owned(),
                problem: "cannot hold this model: open_clip has no map behind a text tower (objective talk2dino); `trainer classes` \
                          writes class embeddings that it has made"
                    .to_owned(),
            });
        }
        let normalization = settings.vision.normalization(vision.encoder.tower.family.normalization);
        (of_timm(&vision, size, normalization)?, text)
    };
    let Normalization { mean, std } = vision.normalization;
    let config = json!({
        "model_cfg": {
            "embed_dim": text.output(),
            // Of the text tower only: those of timm have GELU in any case.
            "quick_gelu": text.activation() == Activation::QuickGelu,
            "init_logit_bias": text.logit_bias().map(|bias| bias.double_value(&[])),
            "vision_cfg": vision.config,
            "text_cfg": text_config(&text),
        },
        "preprocess_cfg": { "mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "shortest" },
    });
    storage::create_folder(out)?;
    let files = vec![out.join("open_clip_model.safetensors"), out.join("open_clip_config.json")];
    let named: Vec<(String, Tensor)> = vision.named.into_iter().chain(text.named()).collect();
    weights::write(&files[0], &named)?;
    // Last: open_clip loads no folder without it.
    storage::replace(&files[1], format!("{config:#}\n").into_bytes())?;
    Ok(Exported { files, force_image_size: vision.force_image_size })
}

fn text_config(text: &TextTower) -> Value {
    json!({
        "context_length": text.shape.context,
        "vocab_size": VOCABULARY,
        "width": text.shape.width,
        "heads": text.shape.heads,
        "layers": text.shape.depth,
    })
}

fn lacks<T>(what: &str) -> Result<T> {
    let problem = format!(
        "cannot hold this model: open_clip has no {what}; `trainer export` without --to writes all of it"
    );
    Err(Error::Setting { name: "--to open_clip".to_owned(), problem })
}

/// A frozen tower as a model of timm, which open_clip creates by its name.
fn of_timm(vision: &FrozenVision, size: i64, normalization: Normalization) -> Result<Vision> {
    let (tower, head) = (&vision.encoder.tower, &vision.head);
    if head.is_trained() {
        return lacks("blocks behind the vision tower (vision.head.blocks)");
    }
    if head.embedding == Embedding::ClassMean {
        return lacks("embedding of class token and mean of the patches (vision.embedding = class+mean)");
    }
    if tower.is_denoised() {
        return lacks("denoiser behind the vision tower (vision.denoiser)");
    }
    tower.check_size("--size", size)?;
    if !tower.family.class_token {
        return lacks("frozen tower without a class token (SigLIP) here");
    }
    let named = families::to_timm(tower.named().into_iter().collect());
    let named = named.map_err(|problem| Error::Failed(format!("the vision tower {problem}")))?;
    let Some(model) = model(&named, tower.depth(), tower.patch, tower.registers()) else {
        let problem = format!(
            "vision tower of this size ({}: {} wide, {} blocks, patches of {} px, {} registers), because timm has no model of this name",
            tower.family.name,
            tower.width,
            tower.depth(),
            tower.patch,
            tower.registers()
        );
        return lacks(&problem);
    };
    let mut image_size = size;
    if let Some(periods) = tower.periods() {
        let exact = crate::towers::exact_periods(4 * periods.size()[0], periods.device());
        if to_vec(periods) != to_vec(&exact) {
            return lacks(
                "rounded periods of rotary positions (vision.rope_periods = file): a run with vision.rope_periods = exact can be exported",
            );
        }
    } else if let Some(grid) = tower.grid() {
        image_size = grid * tower.patch;
        // With registers, all methods are timm's.
        let as_timm = tower.registers() > 0 || tower.position_resize() == Some(PositionResize::Timm);
        if size != image_size && !as_timm {
            return lacks(&format!(
                "position embedding that is resized to {size} px as in training (vision.position = {}): use --size {image_size}, the size \
                 that it was trained with, or vision.position = timm in a run",
                tower.position_resize().map_or_else(String::new, |method| method.to_string())
            ));
        }
    }
    let config = json!({
        "image_size": image_size, "timm_model_name": model, "timm_model_pretrained": false, "timm_pool": "token", "timm_proj": "none",
    });
    let named = named.into_iter().map(|(name, tensor)| (format!("visual.trunk.{name}"), tensor)).collect();
    Ok(Vision { config, named, normalization, force_image_size: (size != image_size).then_some(size) })
}

/// Sizes of timm's models: name, width, number of blocks, hidden width of the MLP, and whether it is gated.
type Size = (&'static str, i64, i64, i64, bool);

const LEARNED: [Size; 5] = [
    ("small", 384, 12, 1536, false),
    ("base", 768, 12, 3072, false),
    ("large", 1024, 24, 4096, false),
    ("so400m", 1152, 27, 4304, false),
    ("giant", 1536, 40, 4096, true),
];
const ROTARY: [Size; 6] = [
    ("tiny", 192, 12, 768, false),
    ("small", 384, 12, 1536, false),
    ("small_plus", 384, 12, 1536, true),
    ("base", 768, 12, 3072, false),
    ("large", 1024, 24, 4096, false),
    ("huge_plus", 1280, 32, 5120, true),
];

/// The name of a model in timm with these tensors.
fn model(named: &families::Named, depth: i64, patch: i64, registers: i64) -> Option<String> {
    let size = |name: &str| named.get(name).map(Tensor::size);
    let [width, hidden] = size("blocks.0.mlp.fc2.weight")?[..] else { return None };
    let learned = size("pos_embed");
    let gated = if learned.is_some() {
        size("blocks.0.mlp.fc1.weight")?.first() == Some(&(2 * hidden))
    } else {
        named.contains_key("blocks.0.mlp.fc1_g.weight")
    };
    let sizes = if learned.is_some() { &LEARNED[..] } else { &ROTARY };
    let (name, ..) =
        *sizes.iter().find(|(_, w, d, h, g)| (*w, *d, *h, *g) == (width, depth, hidden, gated))?;
    let Some(position) = learned else {
        if (patch, registers) != (16, 4) || !named.contains_key("blocks.0.gamma_1") {
            return None;
        }
        return match (name, named.contains_key("blocks.0.attn.q_bias")) {
            ("tiny", false) => None,
            (name, true) => Some(format!("vit_{name}_patch16_dinov3_qkvb")),
            (name, false) => Some(format!("vit_{name}_patch16_dinov3")),
        };
    };
    if patch != 14 || !named.contains_key("blocks.0.ls1.gamma") {
        return None;
    }
    match (registers, *position.get(1)?, name) {
        (0, 1370, "small" | "base" | "large" | "giant") => Some(format!("vit_{name}_patch14_dinov2")),
        (4, 1369, "small" | "base" | "large" | "giant") => Some(format!("vit_{name}_patch14_reg4_dinov2")),
        (1, 1024, "base" | "large" | "so400m" | "giant") => Some(format!("vit_{name}_patch14_reg1_tipsv2")),
        _ => None,
    }
}
