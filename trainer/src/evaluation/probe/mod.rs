//! A ladder of segmentations from the same features, from what the text tower says to what the patches allow: class names ([`ladder`]),
//! means of the classes' patches and nearest neighbours ([`neighbours`]) and a linear classifier ([`linear`]) of the patches of a training
//! set ([`patches`]), one that is trained as DINOv2's ([`recipe`], on crops: [`augment`]), and the true labels of the patches themselves.
//! What is learned from the training set is kept ([`learned`]), and work is done in parts ([`parts`]).

pub mod augment;
pub mod ladder;
pub mod learned;
pub mod linear;
pub mod neighbours;
pub mod parts;
pub mod patches;
pub mod recipe;
