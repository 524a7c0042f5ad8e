//! Matrix products in float8 of the form e4m3: 8 values between two powers of two, 448 the largest number.
//!
//! A tensor is stored as its values times a power of two, and the inverse of that power, with which a product is multiplied. The power
//! is chosen on the device, which nobody waits for. Any other factor would do, but with a power of two no value is rounded twice, and
//! the same value is rounded alike whatever else is in the tensor: the features of an image hardly depend on the other images of its
//! batch (only values that are 2^14 times smaller than the largest one lose more bits with a larger largest one).

use tch::{Device, Kind, TchError, Tensor};

use crate::error::Error;

/// The tensor kind of the values.
pub(crate) const FLOAT8: Kind = Kind::Float8e4m3fn;
/// The largest number; libtorch makes NaN of those that would be rounded to more.
const LARGEST: f64 = 448.0;
/// The bits of a float32 that are its sign and exponent: without the others, it is the power of two at or below it.
const POWER: i64 = 0x7f80_0000;
/// Both sides of a matrix must be multiples of this on a GPU. A CPU has no such limit, but a run may move.
const MULTIPLE: i64 = 16;

/// `x` in float8: its values times the largest power of two with which none exceeds 448, and the inverse of that power, a float32
/// scalar. (The power is computed in float32: a value of `x` in float32 may exceed 448 by 1e-6 of it, and is rounded to 448.)
pub(crate) fn quantize(x: &Tensor) -> Result<(Tensor, Tensor), TchError> {
    let largest = x.f_norm_scalaropt_dtype(f64::INFINITY, Kind::Float)?;
    // A tensor of zeros needs some power, too.
    let factor = (largest / LARGEST).f_clamp_min(1e-32)?.f_reciprocal()?;
    let power = factor.f_view_dtype(Kind::Int)?.f_bitwise_and(POWER)?.f_view_dtype(Kind::Float)?;
    // Multiplied and cast in one pass through memory.
    let values = x.f_mul_out(&Tensor::f_empty(x.size(), (FLOAT8, x.device()))?, &power)?;
    Ok((values, power.f_reciprocal()?))
}

/// x Wᵀ + b, in bfloat16, of rows and weights in float8 with their scales. The bias is in bfloat16.
pub(crate) fn product(
    [x, x_scale]: [&Tensor; 2],
    [weight, weight_scale]: [&Tensor; 2],
    bias: Option<&Tensor>,
) -> Result<Tensor, TchError> {
    let (columns, fast) = (weight.f_transpose(0, 1)?, x.device().is_cuda());
    x.f_internal_scaled_mm(&columns, x_scale, weight_scale, bias, None, Kind::BFloat16, fast)
}

/// The same of `x` in bfloat16, [.., columns], as a layer computes it: [.., rows of the weights].
pub(super) fn linear(x: &Tensor, weight: [&Tensor; 2], bias: Option<&Tensor>) -> Result<Tensor, TchError> {
    let (rows, scale) = quantize(&x.f_flatten(0, -2)?)?;
    let mut size = x.size();
    size.pop();
    size.push(weight[0].size()[0]);
    product([&rows, &scale], weight, bias)?.f_view(size.as_slice())
}

/// An error if the device does not multiply in float8, as GPUs with a compute capability below 8.9.
pub(super) fn check_device(device: Device) -> Result<(), Error> {
    let zeros = Tensor::zeros([MULTIPLE, MULTIPLE], (Kind::BFloat16, device));
    let tried = quantize(&zeros).and_then(|(weight, scale)| linear(&zeros, [&weight, &scale], None));
    match tried {
        Ok(_) => Ok(()),
        Err(why) => Err(refusal(&format!("{device:?} does not multiply in float8 ({})", Error::from(why)))),
    }
}

/// An error if there are no products in float8 with weights of this size.
pub(super) fn check_size(weight: &[i64]) -> Result<(), Error> {
    if weight.iter().all(|side| side % MULTIPLE == 0) {
        return Ok(());
    }
    let problem = format!(
        "the vision tower has a layer with weights of the size {weight:?}, whose sides must be multiples of {MULTIPLE} for float8"
    );
    Err(refusal(&problem))
}

fn refusal(problem: &str) -> Error {
    Error::Setting {
        name: "precision".to_owned(),
        problem: format!("is float8-vision, but {problem}; choose bfloat16 or bfloat16-vision"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(size: &[i64], kind: Kind) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(kind)
    }

    /// The numbers that are stored.
    fn stored((values, scale): &(Tensor, Tensor)) -> Tensor {
        values.to_kind(Kind::Double) * scale.to_kind(Kind::Double)
    }

    /// The relative L2 error.
    fn error(found: &Tensor, expected: &Tensor) -> f64 {
        let norm = |x: &Tensor| x.norm().double_value(&[]);
        norm(&(found.to_kind(Kind::Double) - expected)) / norm(expected)
    }

    fn largest(x: &Tensor) -> f64 {
        x.abs().max().double_value(&[])
    }

    /// Quantizes `x` and compares every value with what the format is defined to hold, computed in float64: below 2^(e + 1) the
    /// nearest multiple of 2^(e - 3), where e is at least -6.
    fn is_rounded_as_defined(x: &Tensor) {
        let (values, scale) = quantize(x).unwrap();
        let power = 1.0 / scale.double_value(&[]);
        assert_eq!(power.log2().fract(), 0.0, "{power:e} is no power of two");
        let scaled = x.to_kind(Kind::Double) * power;
        assert!(largest(&scaled) <= LARGEST * (1.0 + 1e-6), "{:e}", largest(&scaled));
        let step = scaled.abs().clamp_min(2f64.powi(-6)).log2().floor().exp2() / 8.0;
        let expected = ((&scaled / &step).round() * step).clamp(-LARGEST, LARGEST);
        assert_eq!(values.kind(), FLOAT8);
        assert_eq!(largest(&(values.to_kind(Kind::Double) - expected)), 0.0, "{x:?}");
    }

    #[test]
    fn values_are_rounded_once() {
        for kind in [Kind::BFloat16, Kind::Float] {
            for size in [1e-20, 1e-3, 1.0, 1e4, 1e30] {
                let x = random(&[64, 48], kind) * size;
                is_rounded_as_defined(&x);
                let (values, _) = quantize(&x).unwrap();
                let filled = largest(&values.to_kind(Kind::Float));
                assert!((224.0..=448.0).contains(&filled), "{filled}");
            }
        }
    }

    /// libtorch makes NaN of 464 and more. Nothing becomes that, whatever the tensor holds.
    #[test]
    fn hostile_tensors_have_no_nan() {
        let limits = [448.0, 448.000_03, 449.0, 450.0, 463.9, 464.0, 479.0, 480.0, 447.0, 224.0, 223.9];
        // From the largest number in bfloat16 to the smallest in float32.
        let sizes = [3.389_5e38, 1e20, 1e-30, 4.5e-30, 1e-32, 1e-37, 1.2e-38, 1e-40, 1e-45, 0.0];
        for kind in [Kind::BFloat16, Kind::Float] {
            for value in limits.iter().chain(&sizes) {
                for sign in [1.0, -1.0] {
                    // Alone, and as the one outlier among ordinary values.
                    let alone = Tensor::full([4, 16], sign * value, (Kind::Double, Device::Cpu));
                    is_rounded_as_defined(&alone.to_kind(kind));
                    let among = random(&[16, 16], Kind::Double);
                    let _ = among.get(3).get(5).fill_(sign * value);
                    is_rounded_as_defined(&among.to_kind(kind));
                }
            }
        }
        let (zeros, _) = quantize(&Tensor::zeros([16, 16], (Kind::BFloat16, Device::Cpu))).unwrap();
        let (weight, scale) = quantize(&random(&[32, 16], Kind::Float)).unwrap();
        let bias = random(&[32], Kind::BFloat16);
        let found = product([&zeros, &scale], [&weight, &scale], Some(&bias)).unwrap();
        assert_eq!(largest(&(found - &bias)), 0.0, "only the bias is left");
        // What is already broken is not hidden.
        for broken in [f64::NAN, f64::INFINITY] {
            let x = random(&[16, 16], Kind::BFloat16);
            let _ = x.get(1).get(1).fill_(broken);
            assert!(stored(&quantize(&x).unwrap()).get(1).get(1).double_value(&[]).is_nan());
        }
    }

    /// A value is stored as the same number beside others that are larger, unless it is very small.
    #[test]
    fn other_rows_hardly_matter() {
        let x = random(&[32, 64], Kind::BFloat16);
        let alone = stored(&quantize(&x).unwrap());
        let (values, scale) = quantize(&Tensor::cat(&[&x * 30.0, x.shallow_clone()], 0)).unwrap();
        let beside = stored(&(values, scale.shallow_clone())).narrow(0, 32, 32);
        let normal = x.abs().to_kind(Kind::Double).ge(2f64.powi(-6) * scale.double_value(&[]));
        assert!(normal.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]) > 0.98);
        assert_eq!(largest(&((&beside - &alone) * normal)), 0.0);
        assert!(error(&beside, &alone) < 1e-3);
    }

    #[test]
    fn products_are_those_of_the_stored_values() {
        for (rows, width, out) in [(1, 16, 16), (77, 768, 2304), (5, 3072, 768)] {
            let x = random(&[rows, width], Kind::BFloat16);
            let weight = random(&[out, width], Kind::Float) / (width as f64).sqrt();
            let bias = random(&[out], Kind::BFloat16);
            let (x8, weight8) = (quantize(&x).unwrap(), quantize(&weight).unwrap());
            let pair = |(values, scale): &(Tensor, Tensor)| [values.shallow_clone(), scale.shallow_clone()];
            let [a, b] = [pair(&x8), pair(&weight8)];
            for bias in [None, Some(&bias)] {
                let found = product([&a[0], &a[1]], [&b[0], &b[1]], bias).unwrap();
                assert_eq!((found.kind(), found.size()), (Kind::BFloat16, vec![rows, out]));
                let with_bias = |exact: Tensor| match bias {
                    Some(bias) => exact + bias.to_kind(Kind::Double),
                    None => exact,
                };
                // Rounded to bfloat16, of which 2^-8 is the largest relative error.
                let expected = with_bias(stored(&x8).matmul(&stored(&weight8).transpose(0, 1)));
                let apart = (found.to_kind(Kind::Double) - &expected).abs() - expected.abs() / 256.0;
                assert!(apart.max().double_value(&[]) < 1e-5, "{:e}", apart.max().double_value(&[]));
                // With 3 bits of mantissa, a product of random values has an error of 3.8e-2.
                let exact =
                    with_bias(x.to_kind(Kind::Double).matmul(&weight.to_kind(Kind::Double).transpose(0, 1)));
                let of_format = error(&found, &exact);
                eprintln!("{rows} x {width} x {out}: {of_format:.2e}");
                assert!(rows == 1 || (0.015..0.042).contains(&of_format), "{of_format:e}");
            }
        }
    }

    #[test]
    fn what_cannot_be_multiplied_is_refused() {
        check_device(Device::Cpu).unwrap();
        check_size(&[2304, 768]).unwrap();
        let refused = check_size(&[768, 3080]).unwrap_err();
        assert!(refused.is_wrong_use());
        let text = refused.to_string();
        for part in
            ["option `precision` is float8-vision", "[768, 3080]", "choose bfloat16 or bfloat16-vision"]
        {
            assert!(text.contains(part), "{text}");
        }
        // As by a GPU that has no float8: an error of libtorch, no panic.
        let [(x, scale), (weight, _)] =
            [16, 32].map(|width| quantize(&random(&[16, width], Kind::Float)).unwrap());
        assert!(product([&x, &scale], [&weight, &scale], None).is_err());
    }
}
