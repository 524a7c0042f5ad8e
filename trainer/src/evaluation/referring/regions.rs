//! Masks as data sets of referring expressions store them: polygons, run lengths, or values of a PNG.

use std::path::PathBuf;

use super::{polygons, runs};
use crate::error::{Error, Result};
use crate::evaluation::masks;

/// What becomes of pixels that several polygons of an object cover.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MaskRule {
    /// They belong to the object.
    #[default]
    Union,
    /// They do not: only pixels under exactly one polygon do, as in released code that adds the polygons and compares the sum with 1.
    Single,
}

/// An object, or a part of one, in an image.
#[derive(Debug, Clone, PartialEq)]
pub enum Region {
    /// Polygons x0, y0, x1, y1, .. in pixels, filled as by pycocotools.
    Polygons(Vec<Vec<f64>>),
    /// Lengths of runs of pixels outside and inside in turn, column by column.
    Runs {
        /// Rows and columns.
        size: [u32; 2],
        /// The lengths.
        counts: Vec<u32>,
    },
    /// Polygons of whole pixels, filled with their outline as by Pillow.
    Drawn(Vec<Vec<[i64; 2]>>),
}

impl Region {
    /// Refuses what cannot be a mask of an image of this size. An error is the rest of a sentence about it.
    pub fn check(&self, width: u32, height: u32) -> std::result::Result<(), String> {
        match self {
            Self::Runs { size, .. } if *size != [height, width] => Err(format!(
                "has run lengths of {} x {} pixels (width x height), but its image has {width} x {height}",
                size[1], size[0]
            )),
            Self::Runs { counts, .. } => runs::check(counts, width, height),
            Self::Polygons(_) | Self::Drawn(_) => Ok(()),
        }
    }

    /// Which of `width` x `height` pixels belong to it, row by row. An error is the rest of a sentence about it.
    pub fn mask(&self, width: u32, height: u32, rule: MaskRule) -> std::result::Result<Vec<bool>, String> {
        let pixels = width as usize * height as usize;
        self.check(width, height)?;
        let masks: Vec<Vec<bool>> = match self {
            Self::Runs { counts, .. } => vec![runs::mask(counts, width, height)],
            Self::Polygons(all) => {
                all.iter().map(|one| polygons::as_pycocotools(one, width, height)).collect()
            }
            Self::Drawn(all) => all.iter().map(|one| polygons::as_pillow(one, width, height)).collect(),
        };
        let mut covered = vec![0u32; pixels];
        for mask in masks {
            covered.iter_mut().zip(mask).for_each(|(count, inside)| *count += u32::from(inside));
        }
        let is_inside = |&count: &u32| if rule == MaskRule::Union { count > 0 } else { count == 1 };
        Ok(covered.iter().map(is_inside).collect())
    }
}

/// What an expression means.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// All of these regions. Of none: nothing in the image is meant.
    Regions(std::sync::Arc<Vec<Region>>),
    /// The pixels of a PNG that have one of these values.
    Values {
        /// The PNG.
        path: PathBuf,
        /// The values.
        values: Vec<u8>,
    },
}

impl Target {
    /// Nothing in the image.
    pub fn nothing() -> Self {
        Self::Regions(std::sync::Arc::new(Vec::new()))
    }

    /// Whether something in the image is meant.
    pub fn is_something(&self) -> bool {
        match self {
            Self::Regions(regions) => !regions.is_empty(),
            Self::Values { values, .. } => !values.is_empty(),
        }
    }

    /// Its pixels in an image of this size, row by row; `of` names the expression in errors. Polygons of one region follow `rule`;
    /// several regions are joined.
    pub fn mask(
        &self,
        (width, height): (u32, u32),
        rule: MaskRule,
        of: &dyn Fn(String) -> Error,
    ) -> Result<Vec<bool>> {
        let mut all = vec![false; width as usize * height as usize];
        match self {
            Self::Regions(regions) => {
                for region in regions.iter() {
                    let mask = region.mask(width, height, rule).map_err(of)?;
                    all.iter_mut().zip(mask).for_each(|(pixel, inside)| *pixel |= inside);
                }
            }
            Self::Values { path, values } => {
                let mask = masks::read_indices(path)?;
                if (mask.width, mask.height) != (width, height) {
                    let problem = format!(
                        "has {} x {} pixels, but its image has {width} x {height}",
                        mask.width, mask.height
                    );
                    return Err(Error::Invalid { path: path.clone(), problem });
                }
                all.iter_mut().zip(&mask.labels).for_each(|(pixel, value)| *pixel = values.contains(value));
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_under_two_polygons_follow_the_rule() {
        let square = |from: f64| vec![from, 0.0, from + 2.0, 0.0, from + 2.0, 1.0, from, 1.0];
        let region = Region::Polygons(vec![square(0.0), square(1.0)]);
        assert_eq!(region.mask(4, 1, MaskRule::Union).unwrap(), [true, true, true, false]);
        assert_eq!(region.mask(4, 1, MaskRule::Single).unwrap(), [true, false, true, false]);
        let runs = Region::Runs { size: [1, 4], counts: vec![1, 2, 1] };
        assert_eq!(runs.mask(4, 1, MaskRule::Single).unwrap(), [false, true, true, false]);
        assert!(runs.mask(1, 4, MaskRule::Union).unwrap_err().contains("4 x 1 pixels"));
        let short = Region::Runs { size: [1, 4], counts: vec![1, 2] };
        assert!(short.check(4, 1).unwrap_err().contains("of 3 pixels"));
    }
}
