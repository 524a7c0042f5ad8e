//! What the families of vision towers differ in, beyond what their tensors say.

use super::block::Activation;
use super::block_keys::{DINOV2 as DINOV2_KEYS, DINOV3 as DINOV3_KEYS, Names};
use super::heads;
use super::normalization::Normalization;
use super::pooling::QUERY;
use crate::weights::Weights;
use crate::weights::families::augreg;

/// Vision towers that are trained and built in the same way. Width, depth, patch size, number of registers, kind of the MLP, and
/// whether there is LayerScale follow from the tensors.
#[derive(Debug, PartialEq)]
pub struct TowerFamily {
    /// Name, as its authors write it.
    pub name: &'static str,
    /// Epsilon of LayerNorm.
    pub(super) eps: f64,
    /// State-dict keys of a block; they also say whether keys of the attention have a bias.
    pub(super) block: &'static Names,
    /// Activation function of an MLP that is not gated.
    pub(super) activation: Activation,
    /// Whether a class token embeds the image; otherwise a query that attends to the patches does.
    pub class_token: bool,
    /// State-dict key of the registers.
    pub(super) registers: &'static str,
    /// State-dict key of the last LayerNorm.
    pub(super) norm: &'static str,
    /// Whether positions are rotary; otherwise they are learned.
    pub rotary: bool,
    /// Normalization of the images with which it was trained.
    pub normalization: Normalization,
}

/// DINOv2. (The ViT ports in other Rust examples use an epsilon of 1e-5, and their features differ.)
pub(super) const DINOV2: TowerFamily = TowerFamily {
    name: "DINOv2",
    eps: 1e-6,
    block: &DINOV2_KEYS,
    activation: Activation::Gelu,
    class_token: true,
    registers: "register_tokens",
    norm: "norm",
    rotary: false,
    normalization: Normalization::IMAGENET,
};

/// TIPSv2: DINOv2's structure with one register, for images that are not normalized.
const TIPSV2: TowerFamily =
    TowerFamily { name: "TIPSv2", normalization: Normalization { mean: [0.0; 3], std: [1.0; 3] }, ..DINOV2 };

/// DINOv3 and EUPE.
const DINOV3: TowerFamily = TowerFamily {
    name: "DINOv3",
    eps: 1e-5,
    block: &DINOV3_KEYS,
    registers: "storage_tokens",
    rotary: true,
    ..DINOV2
};

/// SigLIP and SigLIP 2. They were trained with the tanh approximation of GELU, as transformers computes them; most of timm's
/// configurations have the exact function.
const SIGLIP: TowerFamily = TowerFamily {
    name: "SigLIP",
    activation: Activation::GeluTanh,
    class_token: false,
    normalization: Normalization { mean: [0.5; 3], std: [0.5; 3] },
    ..DINOV2
};

/// AugReg's, as Google's code computes them.
const AUGREG: TowerFamily = TowerFamily {
    name: "AugReg",
    activation: Activation::GeluTanh,
    norm: augreg::NORM,
    normalization: SIGLIP.normalization,
    ..DINOV2
};

static FAMILIES: [TowerFamily; 5] = [DINOV2, TIPSV2, DINOV3, SIGLIP, AUGREG];

impl TowerFamily {
    /// The family of a tower with the state-dict keys of DINOv2, DINOv3 or SigLIP.
    pub fn of(weights: &Weights) -> &'static Self {
        let [dinov2, tipsv2, dinov3, siglip, augreg] = &FAMILIES;
        let registers = weights.size(DINOV2.registers).ok().and_then(|size| size.get(1).copied());
        if weights.has(QUERY) {
            siglip
        } else if weights.has(&format!("{}.weight", augreg::NORM)) {
            augreg
        } else if weights.has("pos_embed") {
            if registers == Some(1) { tipsv2 } else { dinov2 }
        } else if weights.has(DINOV3.registers) || weights.has(super::rotary::PERIODS) {
            dinov3
        } else {
            dinov2
        }
    }

    /// Whether there are denoisers for its towers: DVT trained them for those with a class token and learned positions.
    pub(super) fn denoisable(&self) -> bool {
        self.class_token && !self.rotary
    }

    /// DINOv2's.
    pub(super) fn dinov2() -> &'static Self {
        &FAMILIES[0]
    }

    /// Number of attention heads of a tower of this width; `None` if no tower of the family can have it.
    pub(super) fn heads(&self, width: i64) -> Option<i64> {
        if self.rotary { heads::of_dinov3(width) } else { heads::of_vision(width) }
    }
}
