//! One function per kind of hostile input. It panics when the code under test does, or when what the code says of the input
//! cannot be true; an error about the input is as good as a result.

// A check that fails is the purpose, and so are the reasons that the calls give.
#![allow(clippy::expect_used, clippy::missing_panics_doc)]

pub mod caption;
pub mod picture;
pub mod response;
mod scratch;
pub mod sidecar;
pub mod table;
pub mod tar;
pub mod weights;

/// Runs a target on an input.
pub type Target = fn(&[u8]);

/// All targets by the names of their corpora.
pub const TARGETS: [(&str, Target); 8] = [
    ("caption", caption::run),
    ("pickle", weights::pickle),
    ("picture", picture::run),
    ("response", response::run),
    ("safetensors", weights::safetensors),
    ("sidecar", sidecar::run),
    ("table", table::run),
    ("tar", tar::run),
];
