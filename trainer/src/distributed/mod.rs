//! Several processes train one model together: how a process learns which one it is ([`Launch`]), and what all of them compute
//! with each other ([`Group`]). [`FirstRank`] reports what is the same in all of them once.

mod first_rank;
mod group;
mod launch;

pub use first_rank::FirstRank;
pub use group::Group;
pub use launch::Launch;
