//! Which patch features of a vision transformer are used.

use serde::Serialize;

/// Which patch features of a vision transformer are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dense {
    /// The patch tokens of the last block, for a CLIP projected like the class token: "CLIP" in the tables of the papers.
    #[default]
    Tokens,
    /// The last block with every patch attending only to itself, so that its attention gives the value vectors: MaskCLIP (Zhou et al.,
    /// 2022), TIPSv2.
    Values,
}
