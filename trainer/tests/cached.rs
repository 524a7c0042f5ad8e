//! Features of `trainer cache` are those of the frozen tower, rounded to bfloat16.

use std::fs::File;
use std::io::Cursor;

use image::{ImageFormat, RgbImage};
use tch::{Device, Kind, Tensor};
use trainer::cache::{self, CacheSettings};
use trainer::device::Precision;
use trainer::settings::VisionSettings;
use trainer::towers::{VisionShape, VisionTower};
use trainer::vision_source::{FeatureCache, ImageEncoder};

use crate::wave::fill;

const SIZE: u32 = 32;
/// As many as `trainer cache` computes at once, so that the same matrix products are compared.
const COUNT: u32 = 64;

/// Round to nearest, ties to even, by the bits of the float32 number: an implementation of its own.
fn bfloat16(value: f32) -> i16 {
    let bits = value.to_bits();
    let odd = (bits >> 16) & 1;
    ((bits + 0x7fff + odd) >> 16) as u16 as i16
}

#[test]
fn cached_features_are_the_towers_rounded_to_bfloat16() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tower = VisionTower::random(VisionShape { width: 64, depth: 2, patch: 8, grid: 4 }, Device::Cpu);
    fill(&tower.named());
    trainer::weights::write(&at("tower.safetensors"), &tower.named()).unwrap();

    let mut tar = tar::Builder::new(File::create(at("00000.tar")).unwrap());
    let mut pixels = Vec::new();
    for sample in 0..COUNT {
        let image = RgbImage::from_fn(SIZE, SIZE, |x, y| {
            image::Rgb(
                [x * 7 + sample, y * 5 + 3 * sample, (x * y + sample * sample) / 3].map(|v| (v % 256) as u8),
            )
        });
        pixels.extend_from_slice(image.as_raw());
        let mut png = Cursor::new(Vec::new());
        image.write_to(&mut png, ImageFormat::Png).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(png.get_ref().len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{sample:05}.png"), png.get_ref().as_slice()).unwrap();
    }
    tar.finish().unwrap();

    let vision = VisionSettings { weights: at("tower.safetensors"), ..VisionSettings::default() };
    let settings = CacheSettings {
        shards: vec![at("00000.tar")],
        vision: vision.clone(),
        size: SIZE,
        device: "cpu".to_owned(),
        precision: Precision::Float32,
        threads: 1,
    };
    let header = cache::write(&settings, &at("features")).unwrap();
    let cache = FeatureCache::open(&at("features"), &header, Device::Cpu).unwrap();

    let side = i64::from(SIZE);
    let encoder = ImageEncoder::open(&vision, Kind::Float, Device::Cpu).unwrap();
    let features = encoder.features(&Tensor::from_slice(&pixels).view([i64::from(COUNT), side, side, 3]));
    let order: Vec<i64> = (0..i64::from(COUNT)).rev().collect();
    let found = cache.features(&order);
    for (what, found, expected) in
        [("class", &found.class, &features.class), ("patches", &found.patches, &features.patches)]
    {
        let expected = expected.index_select(0, &Tensor::from_slice(&order)).reshape([-1]);
        let expected: Vec<i16> = Vec::<f32>::try_from(expected).unwrap().into_iter().map(bfloat16).collect();
        assert_eq!(found.kind(), Kind::BFloat16);
        let found = Vec::<i16>::try_from(found.contiguous().view_dtype(Kind::Int16).reshape([-1])).unwrap();
        assert!(found == expected, "{what}: not the same bits");
    }
}
