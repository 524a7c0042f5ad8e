//! The method of the paper: its losses ([`losses`]; another for captions, [`sigmoid`], and one for a head behind a frozen tower,
//! [`gram`]), concept pooling ([`pooling`]), one forward and backward pass over a batch ([`objective`]), and AdamW with its learning
//! rate schedule ([`optimizer`]) for groups of parameters ([`groups`]); what Talk2DINO does otherwise ([`talk2dino`]). Nothing here
//! reads or writes files.

pub mod gram;
pub mod groups;
pub mod losses;
pub mod objective;
pub mod optimizer;
pub mod pooling;
pub mod sigmoid;
pub mod talk2dino;
