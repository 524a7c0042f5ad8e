//! The names of AugReg's vision towers (Steiner et al., 2021) in the files of Google's `vision_transformer`, in JAX's layout: the kernels
//! of dense layers are [in, out], those of attention have a side for the heads. Internally they have the keys of DINOv2, but for the last
//! LayerNorm, by whose own key they are known: their GELU and the normalization of their images are others.

use tch::Tensor;

use super::Named;

/// The last LayerNorm with our keys.
pub(crate) const NORM: &str = "encoder_norm";
/// An array by which the files are known.
const THEIRS: &str = "Transformer/encoder_norm/scale";
/// Arrays beside the tower: the classifier, and a layer before it in older files.
const BESIDE: [&str; 2] = ["head/", "pre_logits/"];

/// Whether the names are those of the files.
pub(super) fn is_theirs(tensors: &Named) -> bool {
    tensors.contains_key(THEIRS) && tensors.contains_key("embedding/kernel")
}

/// Whether tensors with our keys are a tower of AugReg.
pub(crate) fn is_ours(tensors: &Named) -> bool {
    tensors.contains_key(&format!("{NORM}.weight"))
}

/// The tower with our keys. What has another shape than expected keeps its name, and is reported by the tower.
pub(super) fn from_theirs(tensors: Named, beside: &mut Named) -> Named {
    let mut ours = Named::new();
    // Queries, keys and values of each block, which become one layer.
    let mut apart: std::collections::BTreeMap<String, [Option<Tensor>; 3]> =
        std::collections::BTreeMap::new();
    for (name, tensor) in tensors {
        if BESIDE.iter().any(|start| name.starts_with(start)) {
            beside.insert(name, tensor);
            continue;
        }
        match part(&name, &tensor) {
            Some(Part::Whole(key, tensor)) => {
                ours.insert(key, tensor);
            }
            Some(Part::OfThree(key, which, tensor)) => {
                apart.entry(key).or_default()[which] = Some(tensor);
            }
            None => {
                ours.insert(name, tensor);
            }
        }
    }
    for (key, parts) in apart {
        // If one is missing, the layer is.
        if let [Some(queries), Some(keys), Some(values)] = &parts
            && queries.size() == keys.size()
            && keys.size() == values.size()
        {
            ours.insert(key, Tensor::cat(&[queries, keys, values], 0));
        }
    }
    ours
}

/// The tower with the keys of timm, whose GELU is the exact one.
pub(super) fn to_timm(tensors: Named) -> Named {
    let renamed = |name: String| match name.strip_prefix(NORM) {
        Some(rest) => format!("norm{rest}"),
        None => name,
    };
    tensors.into_iter().map(|(name, tensor)| (renamed(name), tensor)).collect()
}

/// What an array is in our tower.
enum Part {
    Whole(String, Tensor),
    OfThree(String, usize, Tensor),
}

fn part(name: &str, tensor: &Tensor) -> Option<Part> {
    let whole = |key: &str, tensor: Tensor| Some(Part::Whole(key.to_owned(), tensor));
    let sides = tensor.dim();
    match name {
        "cls" => return whole("cls_token", tensor.shallow_clone()),
        "embedding/kernel" if sides == 4 => {
            return whole("patch_embed.proj.weight", tensor.permute([3, 2, 0, 1]).contiguous());
        }
        "embedding/bias" => return whole("patch_embed.proj.bias", tensor.shallow_clone()),
        _ => {}
    }
    let rest = name.strip_prefix("Transformer/")?;
    if rest == "posembed_input/pos_embedding" {
        return whole("pos_embed", tensor.shallow_clone());
    }
    let norm = |ending: &str| match ending {
        "scale" => Some("weight"),
        "bias" => Some("bias"),
        _ => None,
    };
    if let Some(ending) = rest.strip_prefix("encoder_norm/") {
        return whole(&format!("{NORM}.{}", norm(ending)?), tensor.shallow_clone());
    }
    let (number, rest) = rest.strip_prefix("encoderblock_")?.split_once('/')?;
    let number: u32 = number.parse().ok()?;
    let key = |layer: &str, ending: &str| format!("blocks.{number}.{layer}.{ending}");
    let (module, rest) = rest.split_once('/')?;
    match (module, rest.split_once('/')) {
        ("LayerNorm_0", None) => whole(&key("norm1", norm(rest)?), tensor.shallow_clone()),
        ("LayerNorm_2", None) => whole(&key("norm2", norm(rest)?), tensor.shallow_clone()),
        ("MlpBlock_3", Some((layer, ending))) => {
            let layer = match layer {
                "Dense_0" => "mlp.fc1",
                "Dense_1" => "mlp.fc2",
                _ => return None,
            };
            match ending {
                "kernel" if sides == 2 => whole(&key(layer, "weight"), tensor.tr().contiguous()),
                "bias" => whole(&key(layer, "bias"), tensor.shallow_clone()),
                _ => None,
            }
        }
        ("MultiHeadDotProductAttention_1", Some(("out", "kernel"))) if sides == 3 => {
            whole(&key("attn.proj", "weight"), tensor.flatten(0, 1).tr().contiguous())
        }
        ("MultiHeadDotProductAttention_1", Some(("out", "bias"))) => {
            whole(&key("attn.proj", "bias"), tensor.shallow_clone())
        }
        ("MultiHeadDotProductAttention_1", Some((layer, ending))) => {
            let which = ["query", "key", "value"].iter().position(|name| *name == layer)?;
            match ending {
                "kernel" if sides == 3 => {
                    let weight = tensor.flatten(1, 2).tr().contiguous();
                    Some(Part::OfThree(key("attn.qkv", "weight"), which, weight))
                }
                "bias" if sides == 2 => {
                    Some(Part::OfThree(key("attn.qkv", "bias"), which, tensor.flatten(0, 1)))
                }
                _ => None,
            }
        }
        _ => None,
    }
}
