//! Several processes train one model together: how a process learns which one it is ([`Launch`]), and what all of them compute
//! with each other ([`Group`]).

mod group;
mod launch;

pub use group::Group;
pub use launch::Launch;
