//! The header of a safetensors file. Needs no libtorch, so that the fuzz targets can compile it by itself.

use std::fmt::Display;

use concepts::tables::guarded;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

/// Maximum number of sides of a tensor, PyTorch's own. Also in `state_dict.rs`: the fuzz targets compile each file by itself.
const MAX_SIDES: usize = 64;

/// The tensors of a file by name, as parts of its bytes. An error is a part of a sentence about the file.
///
/// The library compares the header with the file: every byte of the data belongs to one tensor, whose shape and kind need that many.
pub(super) fn views(file: &[u8]) -> Result<Vec<(String, TensorView<'_>)>, String> {
    // The end that a header claims may overflow, which is a panic in builds that check for it.
    let first_line =
        |problem: &dyn Display| problem.to_string().lines().next().unwrap_or_default().to_owned();
    let views = guarded(|| SafeTensors::deserialize(file).map(|found| found.tensors()));
    let views = views.map_err(|panic| first_line(&panic))?.map_err(|error| first_line(&error))?;
    for (name, view) in &views {
        // An empty tensor may have sides of any length.
        let long = view.shape().iter().any(|&side| i64::try_from(side).is_err());
        if long || view.shape().len() > MAX_SIDES {
            return Err(format!("tensor {name} has an impossible shape"));
        }
    }
    Ok(views)
}
