//! Files on a local disk, with the standard library alone: [`files`] that appear complete or not at all, and
//! [`foreign_files`], what programs on other systems leave in folders and texts.

pub mod files;
pub mod foreign_files;
