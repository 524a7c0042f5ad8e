//! The method of the paper: its losses ([`losses`]; another for captions, [`sigmoid`], and one for what is trained behind a frozen
//! tower, [`gram`]), concept pooling ([`pooling`]), the concept loss ([`concept_loss`]) and that of single patches ([`patch_loss`]),
//! concepts that captions do not mention ([`unmentioned`]) and other images to compare with ([`next_image`]), one forward and backward pass over a batch ([`objective`]), and
//! AdamW with its learning rate schedule ([`optimizer`]) for groups of parameters ([`groups`]); what Talk2DINO does otherwise
//! ([`talk2dino`]). Nothing here reads or writes files.

pub mod concept_loss;
pub mod gram;
pub mod groups;
pub mod losses;
pub mod next_image;
pub mod objective;
pub mod optimizer;
pub mod patch_loss;
mod pieces;
pub mod pooling;
mod settings;
pub mod sigmoid;
pub mod talk2dino;
pub mod unmentioned;
