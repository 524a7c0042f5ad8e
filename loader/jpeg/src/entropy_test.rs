//! Compares `entropy.rs` with libjpeg's own decoder of coefficients, on files with random Huffman codes and
//! coefficients.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::ffi::Codec;
use super::tests::{LIMITS, decode};
use super::*;

/// A Huffman table: symbols with their codes and lengths, and the segment's bytes.
struct Table {
    codes: [(u32, u32); 256],
    segment: Vec<u8>,
}

impl Table {
    /// A table with random code lengths for `symbols`; `skew` (0 to 4) says how much they differ.
    fn random(random: &mut ChaCha8Rng, mut symbols: Vec<u8>, skew: usize) -> Self {
        for i in (1..symbols.len()).rev() {
            symbols.swap(i, random.random_range(0..=i));
        }
        // The lengths are the depths of a binary tree's leaves. One leaf stays free, because no code may be all ones.
        let mut leaves = vec![0_u32];
        while leaves.len() <= symbols.len() {
            let open: Vec<usize> = (0..leaves.len()).filter(|&leaf| leaves[leaf] < 16).collect();
            let leaf = if random.random_range(0..4) < skew {
                open[open.len() - 1]
            } else {
                open[random.random_range(0..open.len())]
            };
            leaves[leaf] += 1;
            leaves.push(leaves[leaf]);
        }
        leaves.sort_unstable();
        let mut table = Self { codes: [(0, 0); 256], segment: vec![0; 16] };
        let (mut code, mut length) = (0, 0);
        for (&symbol, &leaf) in symbols.iter().zip(&leaves) {
            code <<= leaf - length;
            length = leaf;
            table.codes[usize::from(symbol)] = (code, length);
            table.segment[leaf as usize - 1] += 1;
            code += 1;
        }
        table.segment.extend(symbols);
        table
    }
}

/// Writes the bits of an entropy-coded segment.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    bits: u64,
    count: u32,
}

impl Bits {
    fn put(&mut self, value: u32, length: u32) {
        self.bits = self.bits << length | u64::from(value);
        self.count += length;
        while self.count >= 8 {
            self.count -= 8;
            let byte = (self.bits >> self.count) as u8;
            self.bytes.push(byte);
            if byte == 0xFF {
                self.bytes.push(0);
            }
        }
    }

    /// Writes a symbol, whose lower half is the length of the `value` that follows.
    fn put_symbol(&mut self, table: &Table, symbol: usize, value: u32) {
        let (code, length) = table.codes[symbol];
        assert!(length > 0);
        self.put(code, length);
        self.put(value, symbol as u32 & 15);
    }

    /// Fills the last byte with ones.
    fn align(&mut self) {
        let open = (8 - self.count) % 8;
        self.put((1 << open) - 1, open);
    }
}

/// The properties of a random file.
#[derive(Debug, Clone)]
struct Kind {
    width: u32,
    height: u32,
    /// For each component: blocks per row and per column of an MCU.
    sampling: Vec<(usize, usize)>,
    skew: usize,
    /// Number of coefficients per block that are not zero, of 64.
    density: usize,
    /// Number of bits of the largest value.
    largest: usize,
    restart_interval: usize,
    seed: u64,
}

fn kinds() -> impl Strategy<Value = Kind> {
    let samplings = vec![
        vec![(1, 1)],
        vec![(2, 2)],
        vec![(1, 1); 3],
        vec![(2, 1), (1, 1), (1, 1)],
        vec![(1, 2), (1, 1), (1, 1)],
        vec![(2, 2), (1, 1), (1, 1)],
        vec![(4, 1), (1, 1), (1, 1)],
        vec![(2, 2), (2, 1), (1, 2)],
        vec![(1, 1); 4],
        vec![(2, 2), (1, 1), (1, 1), (2, 2)],
    ];
    let size = (1..90_u32, 1..70_u32);
    let restart_interval = prop_oneof![9 => Just(0), 1 => 1..9_usize];
    (
        size,
        prop::sample::select(samplings),
        0..=4_usize,
        0..=64_usize,
        1..=15_usize,
        restart_interval,
        any::<u64>(),
    )
        .prop_map(|((width, height), sampling, skew, density, largest, restart_interval, seed)| Kind {
            width,
            height,
            sampling,
            skew,
            density,
            largest,
            restart_interval,
            seed,
        })
}

/// Writes a sequential file (ITU-T T.81, annexes B and F) with random codes and coefficients. Also returns the offset
/// of its entropy-coded data.
fn write(kind: &Kind) -> (Vec<u8>, usize) {
    let random = &mut ChaCha8Rng::seed_from_u64(kind.seed);
    let dc_symbols: Vec<u8> = (0..=kind.largest as u8).collect();
    let ac_symbols: Vec<u8> = (0..=0xFF_u8)
        .filter(|symbol| [0, 0xF0].contains(symbol) || (1..=kind.largest as u8).contains(&(symbol & 15)))
        .collect();
    let tables: Vec<[Table; 2]> = (0..2)
        .map(|_| [&dc_symbols, &ac_symbols].map(|symbols| Table::random(random, symbols.clone(), kind.skew)))
        .collect();

    let mut file = vec![0xFF, 0xD8];
    let segment = |file: &mut Vec<u8>, marker: u8, content: &[u8]| {
        file.extend([0xFF, marker]);
        file.extend((content.len() as u16 + 2).to_be_bytes());
        file.extend(content);
    };
    segment(&mut file, 0xDB, &[&[0], [random.random_range(1..=9); 64].as_slice()].concat());
    let mut frame = vec![8];
    frame.extend((kind.height as u16).to_be_bytes());
    frame.extend((kind.width as u16).to_be_bytes());
    frame.push(kind.sampling.len() as u8);
    let mut scan = vec![kind.sampling.len() as u8];
    for (number, &(across, down)) in kind.sampling.iter().enumerate() {
        frame.extend([number as u8 + 1, (across << 4 | down) as u8, 0]);
        scan.extend([number as u8 + 1, if number == 0 { 0 } else { 0x11 }]);
    }
    scan.extend([0, 63, 0]);
    segment(&mut file, 0xC1, &frame);
    for (number, pair) in tables.iter().enumerate() {
        for (class, table) in pair.iter().enumerate() {
            segment(&mut file, 0xC4, &[&[(class << 4 | number) as u8], table.segment.as_slice()].concat());
        }
    }
    if kind.restart_interval > 0 {
        segment(&mut file, 0xDD, &(kind.restart_interval as u16).to_be_bytes());
    }
    segment(&mut file, 0xDA, &scan);
    let start = file.len();

    // A single component has one block per MCU, whatever its sampling.
    let alone = [(1, 1)];
    let sampling = if kind.sampling.len() == 1 { &alone[..] } else { &kind.sampling };
    let max = |side: fn(&(usize, usize)) -> usize| sampling.iter().map(side).max().unwrap();
    let across = (kind.width as usize).div_ceil(8 * max(|s| s.0));
    let down = (kind.height as usize).div_ceil(8 * max(|s| s.1));
    let mut bits = Bits::default();
    for mcu in 0..across * down {
        if kind.restart_interval > 0 && mcu > 0 && mcu % kind.restart_interval == 0 {
            bits.align();
            bits.bytes.extend([0xFF, 0xD0 + (mcu / kind.restart_interval - 1) as u8 % 8]);
        }
        for (number, &(across, down)) in sampling.iter().enumerate() {
            let [dc, ac] = &tables[number.min(1)];
            for _ in 0..across * down {
                block(random, &mut bits, dc, ac, kind);
            }
        }
    }
    bits.align();
    file.extend(bits.bytes);
    file.extend([0xFF, 0xD9]);
    (file, start)
}

fn block(random: &mut ChaCha8Rng, bits: &mut Bits, dc: &Table, ac: &Table, kind: &Kind) {
    let size_of_difference = random.random_range(0..=kind.largest);
    bits.put_symbol(dc, size_of_difference, random.random::<u32>() & ((1 << size_of_difference) - 1));
    let mut run = 0;
    for at in 1..64 {
        if random.random_range(0..64) >= kind.density {
            run += 1;
            continue;
        }
        while run > 15 {
            bits.put_symbol(ac, 0xF0, 0);
            run -= 16;
        }
        // Small values are the most frequent, as in photos.
        let max = random.random_range(1..=kind.largest);
        let size = random.random_range(1..=max);
        bits.put_symbol(ac, run << 4 | size, random.random::<u32>() & ((1 << size) - 1));
        run = 0;
        // Most blocks end early.
        if at == 63 || random.random_range(0..40) == 0 {
            run = 63 - at;
            break;
        }
    }
    if run > 0 {
        bits.put_symbol(ac, 0, 0);
    }
}

/// A decoder with `entropy.rs`, and one with libjpeg's decoder of coefficients.
fn decoders() -> [Decoder; 2] {
    [Codec::new(LIMITS), Codec::without_entropy(LIMITS)]
        .map(|codec| Decoder { codec, ..Decoder::new(LIMITS) })
}

/// The results of both decoders, and whether `entropy.rs` decoded the coefficients.
fn decode_twice(
    decoders: &mut [Decoder; 2],
    file: &[u8],
    choose: impl Fn(u32, u32) -> Request,
) -> ([Result<Decoded, Error>; 2], bool) {
    let decoded = decoders.each_mut().map(|decoder| decoder.decode(file, Vec::new(), &choose));
    let quick = decoders.each_ref().map(|decoder| decoder.codec.as_ref().unwrap().was_quick());
    assert!(!quick[1]);
    (decoded, quick[0])
}

/// Compares the results of both decoders; also the pixels, if `pixels`. Only for a bad Huffman code may `entropy.rs`
/// report an error when libjpeg does not: libjpeg ignores it if many bytes follow.
fn compare(pixels: bool, decoded: &[Result<Decoded, Error>; 2]) -> Result<(), TestCaseError> {
    match decoded {
        [Ok(ours), Ok(theirs)] => {
            prop_assert_eq!(ours.area, theirs.area);
            prop_assert!(!pixels || ours.pixels == theirs.pixels, "the pixels differ");
        }
        [Err(_), Err(_)] => {}
        [Err(ours), Ok(_)] => prop_assert!(ours.to_string().contains("bad Huffman code"), "{ours}"),
        [Ok(_), Err(theirs)] => prop_assert!(false, "only libjpeg reports: {theirs}"),
    }
    Ok(())
}

fn random_region(width: u32, height: u32, random: &mut ChaCha8Rng) -> Area {
    let (left, top) = (random.random_range(0..width), random.random_range(0..height));
    let across = random.random_range(1..=width - left);
    Area { left, top, width: across, height: random.random_range(1..=height - top) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Also with a decoder that is reused from file to file.
    #[test]
    fn whole_files_give_libjpegs_pixels(
        files in prop::collection::vec((kinds(), any::<bool>(), prop_oneof![Just(8_u32), 1..=8_u32]), 1..5),
    ) {
        let mut decoders = decoders();
        for (kind, coarse, eighths) in files {
            let (file, _) = write(&kind);
            let (width, height) = (scaled(kind.width, eighths), scaled(kind.height, eighths));
            for area in [None, Some(random_region(width, height, &mut ChaCha8Rng::seed_from_u64(kind.seed)))] {
                let request = Request { eighths, area, coarse };
                let (decoded, quick) = decode_twice(&mut decoders, &file, |_, _| request);
                prop_assert_eq!(quick, kind.restart_interval == 0);
                for decoded in &decoded {
                    prop_assert!(decoded.is_ok(), "{decoded:?}");
                }
                compare(true, &decoded)?;
            }
        }
    }

    #[test]
    fn damaged_files_are_rejected_where_libjpeg_rejects_them(kind in kinds(), bits in prop::collection::vec(0.0..1.0, 8)) {
        let (file, start) = write(&kind);
        for (number, place) in bits.into_iter().enumerate() {
            let mut file = file.clone();
            // Mostly in the entropy-coded data.
            let from = if number == 0 { 2 } else { start };
            let bit = from * 8 + ((file.len() - from) as f64 * 8.0 * place) as usize;
            file[bit / 8] ^= 1 << (bit % 8);
            // 0xFF 0xFF 0 means the byte 0xFF, although no encoder writes it. libjpeg notices it late, and keeps what
            // it had decoded of that MCU until then among the right coefficients.
            let odd = file[start..].windows(3).any(|bytes| bytes == [0xFF, 0xFF, 0]);
            compare(!odd, &decode_twice(&mut decoders(), &file, |_, _| Request::WHOLE).0)?;
        }
    }

    #[test]
    fn arbitrary_data_are_rejected_where_libjpeg_rejects_them(
        kind in kinds(),
        mut bytes in prop::collection::vec(any::<u8>(), 0..3000),
    ) {
        let (mut file, start) = write(&kind);
        // No markers.
        for at in 1..bytes.len() {
            if bytes[at - 1] == 0xFF {
                bytes[at] = 0;
            }
        }
        file.splice(start..file.len() - 2, bytes);
        compare(true, &decode_twice(&mut decoders(), &file, |_, _| Request::WHOLE).0)?;
    }
}

#[test]
fn truncated_data_are_an_error() {
    for (density, sampling) in [(64, vec![(1, 1)]), (20, vec![(2, 2), (1, 1), (1, 1)]), (3, vec![(1, 1); 3])]
    {
        let kind = Kind {
            width: 40,
            height: 24,
            sampling,
            skew: 2,
            density,
            largest: 8,
            restart_interval: 0,
            seed: density as u64,
        };
        let (file, start) = write(&kind);
        for end in start..file.len() - 2 {
            let file = [&file[..end], &[0xFF, 0xD9]].concat();
            let (decoded, quick) = decode_twice(&mut decoders(), &file, |_, _| Request::WHOLE);
            assert!(quick);
            for decoded in decoded {
                let error = decoded.unwrap_err().to_string();
                assert!(error.contains("premature end"), "{end} of {} bytes: {error}", file.len());
            }
        }
    }
}

/// Compares with another library, which shares no code with libjpeg.
#[test]
fn pixels_agree_with_another_library() {
    let random = &mut ChaCha8Rng::seed_from_u64(1);
    for quality in (5..=100).step_by(5) {
        let (width, height) = (random.random_range(1..=100), random.random_range(1..=100));
        let (a, b) = (random.random_range(0..9), random.random_range(0..9));
        let grey: Vec<u8> = (0..width * height)
            .map(|i| ((i % width) * a + (i / width) * b + random.random_range(0..30)) as u8)
            .collect();
        let file = encode(&grey, width, height, quality as u8).unwrap();
        let theirs = image::load_from_memory(&file).unwrap().into_rgb8();
        for (ours, theirs) in decode(&file).unwrap().pixels.iter().zip(theirs.as_raw()) {
            assert!(ours.abs_diff(*theirs) <= 1, "quality {quality}: {ours}, {theirs}");
        }
    }
}

#[test]
fn photos_have_libjpegs_pixels() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/coco/images");
    let Ok(files) = fs::read_dir(&folder) else {
        println!("skipped: there are no photos in {}", folder.display());
        return;
    };
    let random = &mut ChaCha8Rng::seed_from_u64(2);
    let mut quick_ones = 0;
    for (number, file) in files.enumerate() {
        let file = fs::read(file.unwrap().path()).unwrap();
        let eighths = [8, 4, 1, 2][number % 4];
        for whole in [true, false] {
            let seed = random.random();
            let (decoded, quick) = decode_twice(&mut decoders(), &file, |width, height| {
                let region = random_region(
                    scaled(width, eighths),
                    scaled(height, eighths),
                    &mut ChaCha8Rng::seed_from_u64(seed),
                );
                Request { eighths, area: (!whole).then_some(region), coarse: number % 3 == 0 }
            });
            let [ours, theirs] = decoded.map(Result::unwrap);
            assert!(ours.pixels == theirs.pixels && ours.area == theirs.area);
            quick_ones += usize::from(quick);
        }
    }
    // Nearly all have a single scan.
    assert!(quick_ones > 700, "{quick_ones}");
}
