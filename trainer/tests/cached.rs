//! Features of `trainer cache` are those of the frozen tower, rounded to bfloat16.

use std::fs::{self, File};
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{ImageFormat, RgbImage};
use tch::{Device, Kind, Tensor};
use trainer::Silent;
use trainer::data::feature_cache::{CacheSettings, FeatureCache, compute, verify};
use trainer::data::{self, frozen_tower, run_shards};
use trainer::device::Precision;
use trainer::settings::VisionSettings;
use trainer::towers::{VisionShape, VisionTower};

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
        head_means: false,
        size: SIZE,
        device: "cpu".to_owned(),
        precision: Precision::Float32,
        threads: 1,
    };
    let header = compute(&settings, &at("features"), &Silent).unwrap();
    let cache = FeatureCache::open(&at("features"), &header).unwrap();

    let side = i64::from(SIZE);
    let encoder = frozen_tower::open(&vision, Kind::Float, Device::Cpu).unwrap();
    let features = encoder.features(&Tensor::from_slice(&pixels).view([i64::from(COUNT), side, side, 3]));
    let order: Vec<i64> = (0..i64::from(COUNT)).rev().collect();
    let samples: Vec<u64> = (0..u64::from(COUNT)).rev().collect();
    let mut buffer = cache.buffer(samples.len(), true, Device::Cpu).unwrap();
    // Twice, as in training; with the patches of a few samples first.
    cache.read(&samples, &[1, 5], &mut buffer, 3).unwrap();
    let some = cache.features(&buffer, samples.len(), 2).patches.copy();
    let all: Vec<u32> = (0..COUNT).collect();
    cache.read(&samples, &all, &mut buffer, 2).unwrap();
    let found = cache.features(&buffer, samples.len(), samples.len());
    assert!(some.equal(&found.patches.index_select(0, &Tensor::from_slice(&[1_i64, 5]))));
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

/// A shard of four images. All images, and so all shards, have the same size, keys and places.
fn write_shard(path: &Path, seed: u32) {
    let mut tar = tar::Builder::new(File::create(path).unwrap());
    for sample in 0..4 {
        let image =
            RgbImage::from_fn(SIZE, SIZE, |x, y| image::Rgb([x, y, sample + 9 * seed].map(|v| v as u8)));
        // Without compression.
        let mut bytes = Cursor::new(Vec::new());
        let encoder = image::codecs::png::PngEncoder::new_with_quality(
            &mut bytes,
            image::codecs::png::CompressionType::Uncompressed,
            image::codecs::png::FilterType::NoFilter,
        );
        image.write_with_encoder(encoder).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.get_ref().len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{sample:05}.png"), bytes.get_ref().as_slice()).unwrap();
    }
    tar.finish().unwrap();
}

fn exchange(a: &Path, b: &Path) {
    let aside = a.with_extension("aside");
    fs::rename(a, &aside).unwrap();
    fs::rename(b, a).unwrap();
    fs::rename(aside, b).unwrap();
}

/// A table as `ingest` writes it, of which only the hashes tell the shards apart.
fn write_table(shard: &Path, seed: u32) {
    use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use std::sync::Arc;
    let samples = loader::shards::Archive::open(shard).unwrap().samples().unwrap();
    let text = |of: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..samples.len()).map(of)))
    };
    let number = |of: &dyn Fn(usize) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values((0..samples.len()).map(|sample| of(sample) as i64)))
    };
    let image = |sample: usize| samples[sample].image().unwrap();
    let batch = RecordBatch::try_from_iter([
        ("key", text(&|sample| samples[sample].key.clone())),
        ("status", text(&|_| "success".to_owned())),
        ("caption", text(&|_| "a dog".to_owned())),
        ("sha256", text(&|sample| format!("{:064x}", 100 * seed as usize + sample))),
        ("offset", number(&|sample| image(sample).offset)),
        ("length", number(&|sample| image(sample).length)),
    ])
    .unwrap();
    let file = File::create(loader::shards::table_path(&shard.into()).as_name()).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn a_cache_and_a_run_know_their_images() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tower = VisionTower::random(VisionShape { width: 64, depth: 1, patch: 8, grid: 4 }, Device::Cpu);
    trainer::weights::write(&at("tower.safetensors"), &tower.named()).unwrap();
    let shards: Vec<PathBuf> = ["00000.tar", "00001.tar"].map(at).into();
    for (seed, shard) in (0..).zip(&shards) {
        write_shard(shard, seed);
    }
    let settings = CacheSettings {
        shards: shards.clone(),
        vision: VisionSettings { weights: at("tower.safetensors"), ..VisionSettings::default() },
        head_means: false,
        size: SIZE,
        device: "cpu".to_owned(),
        precision: Precision::Float32,
        threads: 1,
    };
    let places: Vec<storage::Location> = shards.iter().map(Into::into).collect();
    let swap = || exchange(&shards[0], &shards[1]);
    let loader = || data::image_loader(places.clone(), SIZE, 1).unwrap();
    let verified = |out: &str| verify(&at(out), &places, &Silent).map_err(|error| error.to_string());

    // Without tables, only reading the images tells that they are those of another shard.
    let header = compute(&settings, &at("features"), &Silent).unwrap();
    assert_eq!(verified("features").unwrap().samples, 8);
    swap();
    let open = |out: &str, loader: &loader::Loader| {
        let cache = FeatureCache::open(&at(out), &header).unwrap();
        cache.expect_its_images(loader, &Silent).map_err(|error| error.to_string())
    };
    open("features", &loader()).unwrap();
    let error = verified("features").unwrap_err();
    assert!(error.contains("00000.tar: the image of sample 00000 has changed"), "{error}");
    swap();

    // With the hashes in their tables, training refuses them.
    for (seed, shard) in (0..).zip(&shards) {
        write_table(shard, seed);
    }
    compute(&settings, &at("known"), &Silent).unwrap();
    let first = loader();
    first.batches(loader::Position::default()).take(8).for_each(|batch| drop(batch.unwrap()));
    open("known", &first).unwrap();
    let mut saved = run_shards::shards(&first);
    run_shards::note(&mut saved, &run_shards::encode(&first.opened()));
    assert!(saved.iter().all(|shard| shard.content.is_some_and(|content| content.images.is_some())));
    swap();
    exchange(
        &loader::shards::table_path(&(&shards[0]).into()).as_name(),
        &loader::shards::table_path(&(&shards[1]).into()).as_name(),
    );
    let second = loader();
    let error = open("known", &second).unwrap_err();
    assert!(error.contains("has other images than when the features in"), "{error}");
    assert!(error.contains("run trainer cache again"), "{error}");
    assert!(verified("known").unwrap_err().contains("other images"));
    // So does a run that used the shards.
    let third = loader();
    let error = run_shards::compare(&saved, &mut run_shards::shards(&third), &third, &Silent)
        .unwrap_err()
        .to_string();
    assert!(error.contains("has other images than when the run used it before"), "{error}");
    let fewer = data::image_loader(places[..1].to_vec(), SIZE, 1).unwrap();
    let error = run_shards::compare(&saved, &mut run_shards::shards(&fewer), &fewer, &Silent)
        .unwrap_err()
        .to_string();
    assert!(error.contains("has 1 shards, but was started with 2"), "{error}");
    swap();
    exchange(
        &loader::shards::table_path(&(&shards[0]).into()).as_name(),
        &loader::shards::table_path(&(&shards[1]).into()).as_name(),
    );
    let fourth = loader();
    run_shards::compare(&saved, &mut run_shards::shards(&fourth), &fourth, &Silent).unwrap();

    // A bit of the features, of their checks, of the header.
    for (name, at_byte) in [("features.bf16", 1000), ("features.checks", 20), ("features.json", 20)] {
        let path = at("known").join(name);
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[at_byte] ^= 1;
        fs::write(&path, damaged).unwrap();
        let error = verified("known").unwrap_err();
        assert!(error.contains("features."), "{error}");
        fs::write(&path, whole).unwrap();
    }
    verified("known").unwrap();
}

/// A tower with two attention heads.
#[test]
fn head_means_are_cached_and_no_cache_is_taken_for_another() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tower = VisionTower::random(VisionShape { width: 128, depth: 2, patch: 8, grid: 4 }, Device::Cpu);
    fill(&tower.named());
    trainer::weights::write(&at("tower.safetensors"), &tower.named()).unwrap();
    write_shard(&at("00000.tar"), 3);
    let settings = |head_means| CacheSettings {
        shards: vec![at("00000.tar")],
        vision: VisionSettings { weights: at("tower.safetensors"), ..VisionSettings::default() },
        head_means,
        size: SIZE,
        device: "cpu".to_owned(),
        precision: Precision::Float32,
        threads: 1,
    };
    let means = compute(&settings(true), &at("means"), &Silent).unwrap();
    let tokens = compute(&settings(false), &at("tokens"), &Silent).unwrap();
    assert_eq!((means.version, means.heads), (3, 2));
    // As before there were head means.
    assert_eq!((tokens.version, tokens.heads), (2, 0));
    assert!(!fs::read_to_string(at("tokens/features.json")).unwrap().contains("heads"));
    assert_eq!(fs::metadata(at("means/features.bf16")).unwrap().len(), 4 * 2 * 128 * 2);
    verify(&at("means"), &[at("00000.tar").into()], &Silent).unwrap();

    let cache = FeatureCache::open(&at("means"), &means).unwrap();
    let mut buffer = cache.buffer(4, false, Device::Cpu).unwrap();
    cache.read(&[3, 2, 1, 0], &[], &mut buffer, 2).unwrap();
    let found = cache.head_means(&buffer, 4).to_kind(Kind::Float);
    let images: Vec<u8> = (0..4)
        .rev()
        .flat_map(|sample| {
            RgbImage::from_fn(SIZE, SIZE, |x, y| image::Rgb([x, y, sample + 27].map(|v| v as u8))).into_raw()
        })
        .collect();
    let side = i64::from(SIZE);
    let encoder = frozen_tower::open(&settings(true).vision, Kind::Float, Device::Cpu).unwrap();
    let expected = encoder.head_means(&Tensor::from_slice(&images).view([4, side, side, 3]));
    // Half of the last of 8 bits, and the rounding of sums.
    let apart = ((&found - &expected).abs() - expected.abs() / 256.0).max().double_value(&[]);
    assert!(found.size() == [4, 2, 128] && apart < 1e-4, "{apart:e}");

    for (name, expected, message) in [
        ("tokens", &means, "class and patch tokens, but objective talk2dino needs head means"),
        ("means", &tokens, "head means (--head-means), which are for objective talk2dino only"),
    ] {
        let error = FeatureCache::open(&at(name), expected).unwrap_err().to_string();
        assert!(error.contains(message) && error.contains("run trainer cache again"), "{error}");
    }
}

/// A folder says in which precision the tower computed. Features are not taken for more exact ones, but more exact ones are taken.
#[test]
fn rounded_features_are_not_taken_for_exact_ones() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tower = VisionTower::random(VisionShape { width: 64, depth: 2, patch: 8, grid: 4 }, Device::Cpu);
    fill(&tower.named());
    trainer::weights::write(&at("tower.safetensors"), &tower.named()).unwrap();
    write_shard(&at("00000.tar"), 3);
    let made = |name: &str, precision| {
        let settings = CacheSettings {
            shards: vec![at("00000.tar")],
            vision: VisionSettings { weights: at("tower.safetensors"), ..VisionSettings::default() },
            head_means: false,
            size: SIZE,
            device: "cpu".to_owned(),
            precision,
            threads: 1,
        };
        compute(&settings, &at(name), &Silent).unwrap()
    };
    let exact = made("exact", Precision::Float32);
    let rounded = made("rounded", Precision::Bfloat16Vision);
    let coarse = made("coarse", Precision::Float8Vision);
    assert_eq!((exact.precision, rounded.precision), (Some(Precision::Float32), Some(Precision::Bfloat16)));
    assert_eq!(coarse.precision, Some(Precision::Float8Vision));
    let bytes = |name: &str| fs::read(at(name).join("features.bf16")).unwrap();
    assert_ne!(bytes("exact"), bytes("rounded"));
    assert_ne!(bytes("coarse"), bytes("rounded"));

    let error = FeatureCache::open(&at("rounded"), &exact).unwrap_err().to_string();
    assert!(error.contains("computed in bfloat16, but precision is float32"), "{error}");
    FeatureCache::open(&at("rounded"), &rounded).unwrap();
    FeatureCache::open(&at("exact"), &rounded).unwrap();
    for expected in [&exact, &rounded] {
        let error = FeatureCache::open(&at("coarse"), expected).unwrap_err().to_string();
        assert!(error.contains("computed in float8, but precision is not set to float8-vision"), "{error}");
    }
    for name in ["coarse", "rounded", "exact"] {
        FeatureCache::open(&at(name), &coarse).unwrap();
    }
    // As of earlier versions.
    let header = at("rounded/features.json");
    let text = fs::read_to_string(&header).unwrap().replace("\"precision\"", "\"unknown\"");
    fs::write(&header, text).unwrap();
    fs::remove_file(at("rounded/features.sha256")).unwrap();
    FeatureCache::open(&at("rounded"), &exact).unwrap();
}
