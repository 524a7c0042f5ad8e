//! Referring segmentation: how well masks match what expressions mean. [`open`](mod@open) reads a set ([`set`]) in one of its layouts, whose
//! masks ([`regions`]) become pixels by `polygons` and `runs`; [`evaluate`](mod@evaluate) finds the masks and counts, [`scores`] makes scores of it.

mod coco;
pub mod evaluate;
mod folder;
pub mod open;
mod phrasecut;
mod polygons;
pub mod regions;
mod runs;
pub mod scores;
pub mod set;
pub(super) mod table;

pub use open::{Place, open};
pub use set::ReferringSet;
