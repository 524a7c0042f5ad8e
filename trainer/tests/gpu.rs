//! Tests that need a GPU. Without one they print that they are skipped, and pass.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::Path;
use std::sync::Mutex;

use loader::{Loader, Position};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};
use trainer::data::{DeviceImages, Prefetcher, VisionSource, seen};
use trainer::device;
use trainer::distributed::Group;
use trainer::method::objective::{Images, ObjectiveSettings, StepInput, gradients};
use trainer::method::pooling::Mention;
use trainer::method::unmentioned::Beyond;
use trainer::towers::{
    CaptionTokens, ImageEncoder, Normalization, TextShape, TextTower, VisionShape, VisionTower,
};

fn gpu() -> Option<Device> {
    let device = device::open("auto").unwrap();
    if !device.is_cuda() {
        eprintln!("skipped: there is no GPU");
        return None;
    }
    Some(device)
}

const SIZE: i64 = 224;
const FLOAT8: Kind = Kind::Float8e4m3fn;

/// GPUs before those of compute capability 8.9 do not; they say so when a tower is opened.
fn multiplies_float8(gpu: Device) -> bool {
    let shape = VisionShape { width: 64, depth: 1, patch: 14, grid: 1 };
    match VisionTower::random(shape, gpu).computing_in(FLOAT8) {
        Ok(_) => true,
        Err(refused) => {
            eprintln!("skipped in float8: {refused}");
            assert!(refused.to_string().contains("choose bfloat16"), "{refused}");
            false
        }
    }
}

/// What `draw` makes with this seed. libtorch has one generator for all threads, and the tests run on several.
fn seeded<T>(seed: i64, draw: impl FnOnce() -> T) -> T {
    static GENERATOR: Mutex<()> = Mutex::new(());
    let _held = GENERATOR.lock();
    tch::manual_seed(seed);
    draw()
}

/// A tower with the size of a ViT-S/14. The weights for a seed are the same on every device.
fn vision(kind: Kind, device: Device) -> ImageEncoder {
    let shape = VisionShape { width: 384, depth: 12, patch: 14, grid: 16 };
    let tower = seeded(1, || VisionTower::random(shape, device));
    let tower = tower.computing_in(kind).unwrap();
    let kind = tower.kind();
    ImageEncoder::new(tower, Normalization::IMAGENET, kind, device)
}

/// The largest absolute difference, and the relative L2 error, of `found` compared with `expected`.
fn apart(found: &Tensor, expected: &Tensor) -> (f64, f64) {
    let found = found.to_device(Device::Cpu).to_kind(Kind::Double);
    let expected = expected.to_device(Device::Cpu).to_kind(Kind::Double);
    let difference = &found - &expected;
    let largest = difference.abs().max().double_value(&[]);
    (largest, difference.norm().double_value(&[]) / expected.norm().double_value(&[]))
}

fn pixels(rows: i64) -> Tensor {
    seeded(2, || Tensor::randint(256, [rows, SIZE, SIZE, 3], (Kind::Uint8, Device::Cpu)))
}

#[test]
fn the_vision_tower_sees_what_it_sees_on_a_cpu() {
    let Some(gpu) = gpu() else { return };
    let pixels = pixels(4);
    let expected = vision(Kind::Float, Device::Cpu).features(&pixels);
    for (kind, most) in [(Kind::Float, 1e-5), (Kind::BFloat16, 2e-2), (FLOAT8, 1.5e-1)] {
        if kind == FLOAT8 && !multiplies_float8(gpu) {
            continue;
        }
        let found = vision(kind, gpu).features(&pixels);
        for (what, found, expected) in
            [("class", &found.class, &expected.class), ("patches", &found.patches, &expected.patches)]
        {
            let (largest, relative) = apart(found, expected);
            eprintln!(
                "{what} in {kind:?}: maximum difference {largest:.1e}, relative L2 error {relative:.1e}"
            );
            assert!(relative < most, "{what} in {kind:?}: {relative:e}");
        }
    }
}

#[test]
fn a_steps_gradients_are_those_of_a_cpu() {
    let Some(gpu) = gpu() else { return };
    let pixels = pixels(12);
    let step = |kind: Kind, device: Device, micro_batch: usize| {
        let vision = vision(kind, device);
        let shape = TextShape { width: 384, heads: 6, ..TextShape::default() };
        let text = seeded(3, || TextTower::random(shape, 384, device));
        let mut random = ChaCha8Rng::seed_from_u64(4);
        let (mut ids, mut mentions) = (Vec::new(), Vec::new());
        for row in 0..12 {
            let words = random.random_range(3..20);
            ids.push(49_406);
            ids.extend((0..words).map(|_| random.random_range(1000..40_000_i64)));
            ids.push(49_407);
            ids.resize(77 * (row + 1), 0);
            for _ in 0..random.random_range(0..3) {
                let first = random.random_range(1..words as u32);
                let label = random.random_range(0..9);
                mentions.push(Mention { row: row as u32, label, positions: first..first + 2 });
            }
        }
        let input = StepInput {
            images: Images::Seen(seen(&vision.features(&pixels), true, kind)),
            captions: CaptionTokens::new(&ids, 77, device),
            mentions,
            beyond: Beyond::default(),
        };
        let settings = ObjectiveSettings { concept_weight: 1.0, ..ObjectiveSettings::default() };
        let report = gradients(&text, &settings, &input, &Group::alone(), micro_batch, kind).unwrap();
        let all: Vec<Tensor> = text.named().iter().map(|(_, p)| p.grad().reshape([-1])).collect();
        (report.loss.double_value(&[]), Tensor::cat(&all, 0))
    };
    let (loss, expected) = step(Kind::Float, Device::Cpu, 0);
    for (kind, micro_batch, most) in
        [(Kind::Float, 0, 1e-4), (Kind::Float, 5, 1e-4), (Kind::BFloat16, 0, 5e-2), (Kind::BFloat16, 5, 5e-2)]
    {
        let (found_loss, found) = step(kind, gpu, micro_batch);
        let (_, relative) = apart(&found, &expected);
        let losses = (found_loss - loss).abs() / loss;
        eprintln!(
            "{kind:?}, micro-batch {micro_batch}: relative error of the loss {losses:.1e}, of the gradient {relative:.1e}"
        );
        assert!(losses < most && relative < most, "{kind:?}: {losses:e}, {relative:e}");
    }
}

/// A shard with images of noise.
fn shard(path: &Path) {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut tar = tar::Builder::new(File::create(path).unwrap());
    let mut add = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    for sample in 0..200 {
        let (width, height) = (random.random_range(60..90), random.random_range(60..90));
        let noise: Vec<u8> = (0..width * height * 3).map(|_| random.random()).collect();
        add(format!("{sample:05}.jpg"), &loader::jpeg::encode(&noise, width, height, 90).unwrap());
        add(format!("{sample:05}.txt"), format!("sample {sample}").as_bytes());
    }
    tar.finish().unwrap();
}

/// Pixels are copied through pinned memory on a separate stream while kernels read the previous batch. A copy that came too early or
/// too late would give the pixels of another batch.
#[test]
fn batches_arrive_whole_and_in_order() {
    let Some(gpu) = gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("00000.tar");
    shard(&path);
    let mut settings = loader::Settings::new(vec![path], 16);
    (settings.options.streams, settings.options.size) = (4, SIZE as u32);
    settings.options.crop = loader::CropKind::Centre;
    let loader = Loader::open(settings).unwrap();
    let start = Position { epoch: 0, step: 0 };
    let source = VisionSource::Frozen(vision(Kind::BFloat16, gpu), SIZE);
    let VisionSource::Frozen(tower, _) = &source else { unreachable!() };
    let mut feed = Prefetcher::new(&loader, start, &source, gpu).unwrap();
    for expected in loader.batches(start).take(40) {
        let expected = expected.unwrap();
        let fed = feed.next_batch().unwrap();
        assert_eq!(fed.batch.keys, expected.keys);
        let DeviceImages::Pixels(pixels) = fed.images else { unreachable!() };
        // These kernels still use the pixels when the next batches are copied.
        let _ = tower.features(&pixels);
        let sums = pixels.to_kind(Kind::Int64).sum_dim_intlist([1, 2, 3].as_slice(), false, Kind::Int64);
        let found = Vec::<i64>::try_from(sums.to_device(Device::Cpu)).unwrap();
        let rows = expected.images.chunks_exact((SIZE * SIZE * 3) as usize);
        let expected: Vec<i64> = rows.map(|row| row.iter().map(|&byte| i64::from(byte)).sum()).collect();
        assert_eq!(found, expected, "{:?}", fed.batch.position);
    }
}
