//! How patch features are read from the last blocks of a vision transformer, by name, and what each name stands for.

use serde::Serialize;

use super::position::PositionResize;

/// Which patch features of a vision transformer are used. All but the first two are for the tower of a CLIP; they train nothing, except
/// for the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dense {
    /// The patch tokens of the last block, for a CLIP projected like the class token: "CLIP" in the tables of the papers.
    #[default]
    Tokens,
    /// The last block with every patch attending only to itself, so that its attention gives the value vectors: MaskCLIP (Zhou et al.,
    /// 2022), TIPSv2. Positions are resized as for the tokens.
    Values,
    /// The same with positions resized as in MaskCLIP's code.
    Maskclip,
    /// SCLIP (Wang et al., 2024): attention between queries and queries, and between keys and keys, added.
    Sclip,
    /// NACLIP (Hajimiri et al., 2025): attention between keys and keys that prefers patches nearby; neither residual nor MLP.
    Naclip,
    /// `ClearCLIP` (Lan et al., 2024): attention between queries and queries; neither residual nor MLP.
    Clearclip,
    /// `ProxyCLIP` (Lan et al., 2024): attention by the similarity of the patch tokens of another tower; neither residual nor MLP.
    Proxyclip,
    /// GEM (Bousselham et al., 2024): a second stream through the last blocks, of self-self attention without MLP.
    Gem,
    /// CLIP-DINOiser (Wysoczanska et al., 2024): values, averaged over patches whose learned correlation is high.
    ClipDinoiser,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// The output of the last block.
    AsTrained,
    /// The last block, read in another way than it was trained in.
    Last(LastBlock),
    /// A second stream beside the last blocks of this number.
    SecondStream(usize),
    /// The last block, then a mean over correlated patches.
    Pooled(LastBlock),
}

/// A way to read the last block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastBlock {
    pub(super) attention: Attention,
    /// Whether the input of the block is added to the output of its attention.
    pub(super) residual: bool,
    /// Whether the MLP follows.
    pub(super) mlp: bool,
}

/// To what a token attends in the last block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attention {
    /// To itself.
    Itself,
    /// Its query to all queries, and its key to all keys; both distributions are added, so that the weights of a token sum to 2.
    QueriesAndKeys,
    /// Its key to all keys, with a Gaussian of the distance between the patches added before the softmax.
    KeysNearby,
    /// Its query to all queries.
    Queries,
    /// As another tower says.
    Proxy,
}

/// The last block with every token attending only to itself.
const VALUES: LastBlock = LastBlock { attention: Attention::Itself, residual: true, mlp: true };

/// Number of blocks beside which GEM's second stream runs.
const GEM_BLOCKS: usize = 6;

impl Dense {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Values => "values",
            Self::Maskclip => "maskclip",
            Self::Sclip => "sclip",
            Self::Naclip => "naclip",
            Self::Clearclip => "clearclip",
            Self::Proxyclip => "proxyclip",
            Self::Gem => "gem",
            Self::ClipDinoiser => "clip-dinoiser",
        }
    }

    /// Whether only the tower of a CLIP can be read in this way.
    pub fn needs_clip(self) -> bool {
        !matches!(self, Self::Tokens | Self::Values)
    }

    pub(super) fn reading(self) -> Reading {
        let alone = |attention| LastBlock { attention, residual: false, mlp: false };
        match self {
            Self::Tokens => Reading::AsTrained,
            Self::Values | Self::Maskclip => Reading::Last(VALUES),
            Self::Sclip => {
                Reading::Last(LastBlock { attention: Attention::QueriesAndKeys, residual: true, mlp: true })
            }
            Self::Naclip => Reading::Last(alone(Attention::KeysNearby)),
            Self::Clearclip => Reading::Last(alone(Attention::Queries)),
            Self::Proxyclip => Reading::Last(alone(Attention::Proxy)),
            Self::Gem => Reading::SecondStream(GEM_BLOCKS),
            Self::ClipDinoiser => Reading::Pooled(VALUES),
        }
    }

    /// How the position embedding of a CLIP is resized in the code of its authors: open_clip's for the first two.
    pub(super) fn positions(self) -> PositionResize {
        match self {
            Self::Tokens | Self::Values | Self::Gem => PositionResize::Timm,
            Self::Maskclip | Self::ClipDinoiser => PositionResize::Huggingface,
            Self::Sclip | Self::Naclip | Self::Clearclip | Self::Proxyclip => PositionResize::Dinov2,
        }
    }
}
