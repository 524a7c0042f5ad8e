//! Finds what an expression such as "the red car on the left" means in an image. [`expression`] reads it (its words are in [`words`]),
//! [`vectors`] embeds it; [`map`] cuts a mask from its similarities with the pixels, [`components`] are the connected parts of the mask,
//! [`choose`] says which of them are meant, and [`find`](mod@find) does all of this. [`referrer`] has the towers.

pub mod choose;
pub mod components;
pub mod expression;
pub mod find;
pub mod map;
pub mod referrer;
pub mod vectors;
pub mod words;
