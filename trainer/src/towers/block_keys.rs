//! The state-dict keys of transformer blocks.

/// State-dict keys of the parts of a block in a family of checkpoints.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) norm1: &'static str,
    pub(super) qkv: [&'static str; 2],
    /// Of towers whose keys have no bias: a tensor that is multiplied with the bias of `qkv`, and may be missing, as that bias may.
    pub(super) bias_mask: Option<&'static str>,
    pub(super) proj: &'static str,
    pub(super) scale1: Option<&'static str>,
    pub(super) norm2: &'static str,
    pub(super) fc1: &'static str,
    pub(super) fc2: &'static str,
    /// The layers of a gated MLP.
    pub(super) gated: Option<Gated>,
    pub(super) scale2: Option<&'static str>,
}

/// State-dict keys of the layers of a gated MLP.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Gated {
    /// Gate and value in one layer, then the output.
    Packed([&'static str; 2]),
    /// Gate, value and output.
    Split([&'static str; 3]),
}

/// The keys of DINOv2; those of timm are the same, except for a gated MLP.
pub(super) const DINOV2: Names = Names {
    norm1: "norm1",
    qkv: ["attn.qkv.weight", "attn.qkv.bias"],
    bias_mask: None,
    proj: "attn.proj",
    scale1: Some("ls1.gamma"),
    norm2: "norm2",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    gated: Some(Gated::Packed(["mlp.w12", "mlp.w3"])),
    scale2: Some("ls2.gamma"),
};

/// The keys of DINOv3.
pub(super) const DINOV3: Names = Names {
    bias_mask: Some("attn.qkv.bias_mask"),
    gated: Some(Gated::Split(["mlp.w1", "mlp.w2", "mlp.w3"])),
    ..DINOV2
};

/// The keys of a trained head: those of DINOv3, but gate and value are one layer, because a parameter cannot be a part of another.
pub(super) const HEAD: Names = Names { gated: Some(Gated::Packed(["mlp.w12", "mlp.w3"])), ..DINOV3 };

/// The keys of open_clip.
pub(super) const OPEN_CLIP: Names = Names {
    norm1: "ln_1",
    qkv: ["attn.in_proj_weight", "attn.in_proj_bias"],
    bias_mask: None,
    proj: "attn.out_proj",
    scale1: None,
    norm2: "ln_2",
    fc1: "mlp.c_fc",
    fc2: "mlp.c_proj",
    gated: None,
    scale2: None,
};
