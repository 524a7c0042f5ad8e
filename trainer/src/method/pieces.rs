//! Losses that are sums over rows, computed a few rows at a time, so that what a row needs is in memory for a few of them only.

use std::ops::Range;

use tch::Tensor;

/// Logits that are computed at a time: 64 MB in float32.
const LOGITS: i64 = 1 << 24;

/// The sum of `part` over pieces of `rows`, each of which has `width` logits: a scalar.
///
/// `part` computes the loss of some rows, a scalar, from `inputs`, and gets these as its first argument: it must use no other tensor that
/// is trained. With several pieces the gradient of each is computed at once, and all that is kept of it are its values for the inputs. So
/// the result has the value and the gradients of the sum (but no second derivatives).
pub(super) fn sum<const N: usize>(
    inputs: [&Tensor; N],
    rows: Range<i64>,
    width: i64,
    part: impl Fn([&Tensor; N], Range<i64>) -> Tensor,
) -> Tensor {
    sum_of(inputs, rows, (LOGITS / width.max(1)).max(1), part)
}

/// As [`sum`], with `piece` rows in a piece.
fn sum_of<const N: usize>(
    inputs: [&Tensor; N],
    rows: Range<i64>,
    piece: i64,
    part: impl Fn([&Tensor; N], Range<i64>) -> Tensor,
) -> Tensor {
    if rows.end - rows.start <= piece {
        return part(inputs, rows);
    }
    let leaves = inputs.map(|input| input.detach().set_requires_grad(input.requires_grad()));
    let pieces = rows.clone().step_by(piece as usize).map(|start| start..(start + piece).min(rows.end));
    let of_pieces = pieces.map(|rows| {
        let of_piece = part(leaves.each_ref(), rows);
        if of_piece.requires_grad() {
            of_piece.backward();
        }
        of_piece.detach()
    });
    let value = Tensor::stack(&of_pieces.collect::<Vec<_>>(), 0);
    let value = value.sum(value.kind());
    // Its gradients are the ones that were found, and its own value takes no part.
    let gradients = inputs.iter().zip(&leaves).filter(|(_, leaf)| leaf.grad().defined());
    gradients.fold(value.shallow_clone(), |sum, (input, leaf)| {
        let linear = (*input * leaf.grad()).sum(value.kind());
        sum + (&linear - linear.detach())
    })
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    /// Values and gradients of a loss of 7 rows against 5 columns, with a scale; the columns come from other tensors.
    fn loss(piece: i64) -> (f64, [Tensor; 3]) {
        let numbers = |count: i64, width: i64, by: f64| {
            let numbers = Tensor::arange(count * width, (Kind::Double, Device::Cpu)) * by;
            numbers.sin().view([count, width]).set_requires_grad(true)
        };
        let (rows, columns) = (numbers(7, 3, 1.7), numbers(5, 3, 0.9));
        let scale = Tensor::from(1.5).set_requires_grad(true);
        let (fixed, power) = (numbers(7, 5, 0.4).detach(), columns.square());
        let loss = sum_of([&rows, &power, &scale.exp()], 0..7, piece, |[rows, columns, scale], own| {
            let of = |all: &Tensor| all.narrow(0, own.start, own.end - own.start);
            let logits = of(rows).matmul(&columns.transpose(0, 1)) * scale + of(&fixed);
            logits.logsumexp([1i64].as_slice(), false).sum(Kind::Double)
        });
        (&loss * 0.5 + rows.sum(Kind::Double)).backward();
        (loss.double_value(&[]), [rows.grad(), columns.grad(), scale.grad()])
    }

    #[test]
    fn pieces_have_the_value_and_the_gradients_of_the_whole() {
        let (value, gradients) = loss(7);
        for piece in 1..7 {
            let (found, of_pieces) = loss(piece);
            assert!((found - value).abs() < 1e-13, "pieces of {piece}: {found}, not {value}");
            for (found, expected) in of_pieces.iter().zip(&gradients) {
                let apart = (found - expected).abs().max().double_value(&[]);
                assert!(apart < 1e-13, "pieces of {piece}: gradients differ by {apart:e}");
            }
        }
    }
}
