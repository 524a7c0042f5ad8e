//! Files for others: towers and class embeddings for other programs, folders for open_clip ([`open_clip()`]), and the model card
//! ([`card`]) of a run.

pub mod card;
mod open_clip;

pub use open_clip::{Exported, open_clip};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::checkpoint::Checkpoint;
use crate::device::{self, to_vec};
use crate::error::{Error, Result};
use crate::inference::class_list::ClassList;
use crate::settings::VisionSettings;
use crate::towers::{Activation, TextTower, VOCABULARY, VisionHead, VisionTower};
use crate::weights;

/// The Python script that loads an export with timm and open_clip.
pub const LOAD: &str = include_str!("load.py");

/// Writes both towers of a checkpoint to a folder; see [`towers`].
pub fn checkpoint(checkpoint: &Checkpoint, out: &Path) -> Result<Vec<PathBuf>> {
    let device = device::open("cpu")?;
    let settings = &checkpoint.state.settings;
    let vision = checkpoint.frozen_vision(Kind::Float, device)?;
    let text = checkpoint.text(vision.width(), device)?;
    if text.is_mapped() {
        let problem = "holds a map behind its text tower (objective talk2dino), which neither timm nor open_clip has; `trainer classes` \
                       writes class embeddings that it has made";
        return Err(Error::Failed(format!("cannot export the checkpoint: it {problem}")));
    }
    let about = json!({
        "objective": settings.objective.name.to_string(),
        "size": settings.data.loading.size,
        "step": checkpoint.state.step,
        "program": checkpoint.state.program,
    });
    towers(&vision.encoder.tower, &vision.head, &text, &settings.vision, &about, out)
}

/// Writes `vision.safetensors` with the state-dict keys of timm, `head.safetensors` if blocks were trained behind it, `text.safetensors` with those of open_clip, `config.json` with the
/// constructor arguments of both, and `load.py`, which loads them.
///
/// For towers with registers, timm has no position embedding for the class token. As in timm's own conversion of DINOv2, it is
/// added to the class token.
pub fn towers(
    vision: &VisionTower,
    head: &VisionHead,
    text: &TextTower,
    settings: &VisionSettings,
    about: &Value,
    out: &Path,
) -> Result<Vec<PathBuf>> {
    storage::create_folder(out)?;
    if vision.is_denoised() {
        let problem =
            "the tower has a denoiser, which timm does not support: its features would differ there";
        return Err(Error::Weights { path: settings.weights.clone(), problem: problem.to_owned() });
    }
    let in_timm = weights::families::to_timm(vision.named().into_iter().collect());
    let named: Vec<(String, Tensor)> = in_timm
        .map_err(|problem| Error::Weights { path: settings.weights.clone(), problem })?
        .into_iter()
        .collect();
    let normalization = settings.normalization(vision.family.normalization);
    let config = json!({
        "vision": arguments(vision, &named),
        // Arguments of open_clip.transformer.TextTransformer.
        "text": {
            "context_length": text.shape.context,
            "vocab_size": VOCABULARY,
            "width": text.shape.width,
            "heads": text.shape.heads,
            "layers": text.shape.depth,
            "output_dim": text.output(),
        },
        // The blocks that were trained behind the vision tower, and how an image is embedded.
        "head": { "blocks": head.depth(), "width": vision.width },
        "embedding": head.embedding,
        // OpenAI's approximation of GELU in the text tower.
        "quick_gelu": text.activation() == Activation::QuickGelu,
        "logit_scale": text.logit_scale().log().double_value(&[]),
        "logit_bias": text.logit_bias().map(|bias| bias.double_value(&[])),
        "mean": normalization.mean,
        "std": normalization.std,
        "position": vision.position_resize(),
        "rope_periods": vision.periods().map(to_vec),
        "trained": about,
    });
    let text_named: Vec<(String, Tensor)> =
        text.named().into_iter().filter(|(name, _)| !name.starts_with("logit_")).collect();
    let names = ["vision.safetensors", "text.safetensors", "config.json", "load.py", "head.safetensors"];
    let mut files = names.map(|name| out.join(name)).to_vec();
    weights::write(&files[0], &named)?;
    weights::write(&files[1], &text_named)?;
    if head.is_trained() {
        weights::write(&files[4], &head.named())?;
    } else {
        files.pop();
    }
    let config = format!("{config:#}\n");
    storage::replace(&files[3], LOAD.as_bytes())?;
    // Last: it says what the others are.
    storage::replace(&files[2], config.into_bytes())?;
    Ok(files)
}

/// The arguments of the class in timm that builds the tower, of which the tensors are `named`: `timm.models.VisionTransformer` or,
/// for rotary positions, `timm.models.Eva`.
fn arguments(vision: &VisionTower, named: &[(String, Tensor)]) -> Value {
    let size_of = |name: &str| named.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor.size());
    let registers = size_of("reg_token").map_or(0, |size| size[1]);
    let has = |name: &str| size_of(name).is_some();
    let scaled = has("blocks.0.ls1.gamma") || has("blocks.0.gamma_1");
    let layer_scale = scaled.then_some(1e-5);
    let mut arguments = json!({
        "img_size": vision.grid().unwrap_or(16) * vision.patch,
        "patch_size": vision.patch,
        "embed_dim": vision.width,
        "depth": vision.depth(),
        "num_heads": vision.heads,
        "init_values": layer_scale,
        "num_classes": 0,
        "dynamic_img_size": true,
    });
    let more = if vision.family.rotary {
        let hidden = size_of("blocks.0.mlp.fc2.weight").map_or(0, |size| size[1]);
        let gated = has("blocks.0.mlp.fc1_g.weight");
        json!({
            "num_reg_tokens": registers,
            "qkv_bias": has("blocks.0.attn.q_bias"),
            // timm rounds width * ratio down.
            "mlp_ratio": (hidden as f64 + 0.5) / vision.width as f64,
            "swiglu_mlp": gated,
            "swiglu_align_to": u8::from(gated),
            "use_rot_pos_emb": true,
            "use_abs_pos_emb": false,
            "rope_type": "dinov3",
            "rope_temperature": 100,
            "rope_rotate_half": true,
            "use_fc_norm": false,
        })
    } else if vision.family.class_token {
        json!({ "reg_tokens": registers, "no_embed_class": registers > 0 })
    } else {
        let hidden = size_of("blocks.0.mlp.fc1.weight").map_or(0, |size| size[0]);
        json!({
            "class_token": false,
            "global_pool": "map",
            "mlp_ratio": (hidden as f64 + 0.5) / vision.width as f64,
            "act_layer": "gelu_tanh",
        })
    };
    if let (Some(all), Value::Object(more)) = (arguments.as_object_mut(), more) {
        all.extend(more);
    }
    arguments
}

/// Writes class embeddings, to use the model without its text tower: `weight`, float32 [names, d_v] of unit length; `class`, int64
/// `[names]`, the class of each name; and as metadata (JSON) the classes, all names, and how they were made.
pub fn classes(list: &ClassList, vectors: &Tensor, about: &Value, out: &Path) -> Result<()> {
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let weight = bytes(&to_vec(vectors));
    let of: Vec<u8> = list
        .counts
        .iter()
        .enumerate()
        .flat_map(|(class, &count)| std::iter::repeat_n(class as i64, count))
        .flat_map(i64::to_le_bytes)
        .collect();
    let invalid =
        |e: safetensors::SafeTensorError| Error::Weights { path: out.to_owned(), problem: e.to_string() };
    let (words, width) = (list.words.len(), vectors.size()[1] as usize);
    let tensors = [
        ("weight", TensorView::new(Dtype::F32, vec![words, width], &weight).map_err(invalid)?),
        ("class", TensorView::new(Dtype::I64, vec![words], &of).map_err(invalid)?),
    ];
    let metadata = BTreeMap::from([
        ("classes", json!(list.names).to_string()),
        ("words", json!(list.words).to_string()),
        ("made_by", about.to_string()),
    ]);
    let file = safetensors::serialize(tensors, None).map_err(invalid)?;
    Ok(storage::replace(out, with_metadata(file, &metadata))?)
}

/// Adds metadata to a safetensors file, in the order of their names. (The library writes them in the order of a hash map, which
/// differs from run to run.)
fn with_metadata(file: Vec<u8>, metadata: &BTreeMap<&str, String>) -> Vec<u8> {
    // The length of the header, the header, which is a JSON object, and the tensors.
    let Some((length, rest)) = file.split_first_chunk::<8>() else { return file };
    let Some((tensors, bytes)) = rest.split_at_checked(u64::from_le_bytes(*length) as usize) else {
        return file;
    };
    let mut header = format!("{{\"__metadata__\":{},", json!(metadata)).into_bytes();
    header.extend_from_slice(tensors.trim_ascii().strip_prefix(b"{").unwrap_or_default());
    // The tensors are aligned as before.
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes(), &header[..], bytes].concat()
}
