//! Writes the inputs with a name into the corpora: small valid files of every kind, and for each kind of harm one made by hand.
//!
//!     cargo run --release -p fuzz --example seeds
//!
//! The fuzzer starts from them, and `./check` runs them. What it wrote before is replaced; inputs of the fuzzer, which are called
//! by their hash, stay.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use concepts::sidecar::{CaptionCheck, Metadata, Writer};
use concepts::{Extractor, TaggerKind, canonical};
use image::{ImageFormat, Rgb, RgbImage};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

fn main() {
    caption();
    picture();
    table();
    tar();
    pickle();
    safetensors();
    sidecar();
    response();
}

fn put(target: &str, name: &str, bytes: impl AsRef<[u8]>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}

/// Puts the first part of a file as well.
fn put_with_half(target: &str, name: &str, bytes: &[u8]) {
    put(target, name, bytes);
    put(target, &format!("{name}-half"), &bytes[..bytes.len() / 2]);
}

/// Text of a fixture elsewhere in the repository.
fn fixture(path: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

fn caption() {
    for (name, text) in [
        ("plain", "Two tiny Rubber Ducks near snow, and a man's dog on the red fire-engine."),
        ("markup", "A &amp;amp; B &lt;b&gt;cat&lt;/b&gt; &#x1F600; &#0; &#99999999; &nosuch; photo&copy"),
        ("mojibake", "cafÃ© â€œquotedâ€\u{9d} naÃ¯ve Ã\u{a0} la carte"),
        (
            "scripts",
            "中文字 e\u{301}\u{301}\u{301} ﬁne ｆｕｌｌ \u{200b}\u{feff}\u{202e}hsilgnE שלום 👩‍👩‍👧‍👦 İI ß",
        ),
        ("controls", "a\0dog\u{1}on\u{7f}a\u{85}beach\r\n\tat\u{2028}dusk \u{fffd}"),
        (
            "punctuation",
            "--- 3.5\" x 4' (50%) [#1], e.g. U.S.A.'s \"it's\" can't & he'll... http://a.example/b?c=d @me",
        ),
        ("empty", " \t\n "),
    ] {
        put("caption", name, text);
    }
    put("caption", "not-utf-8", b"a \xff\xfe dog \xed\xa0\x80 and a c\xe9t \xf4\x90\x80\x80 \xc0\xaf");
    put("caption", "long-word", "a".repeat(3000));
    put("caption", "many-words", "red dog of ".repeat(300));
    put("caption", "many-marks", format!("a{} dog", "\u{300}".repeat(1000)));
    put("caption", "nested-markup", format!("&{}lt; dog", "amp;".repeat(500)));
}

fn picture() {
    // The first byte selects the settings: see src/picture.rs.
    let with = |choice: u8, bytes: &[u8]| [&[choice], bytes].concat();
    let small = RgbImage::from_fn(24, 17, |x, y| Rgb([x as u8 * 10, y as u8 * 15, (x * y) as u8]));
    for (choice, format, name) in [
        (0, ImageFormat::Jpeg, "jpeg"),
        (1, ImageFormat::Png, "png"),
        (2, ImageFormat::Gif, "gif"),
        (3, ImageFormat::Bmp, "bmp"),
        (4, ImageFormat::Tiff, "tiff"),
        (0x80, ImageFormat::WebP, "webp"),
    ] {
        let mut bytes = Vec::new();
        small.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        put_with_half("picture", name, &with(choice, &bytes));
        // What a header claims: every byte of the first ones becomes the largest.
        for (at, what) in [(16, "width"), (20, "height"), (4, "length")] {
            let mut claim = bytes.clone();
            claim[at..at + 4].fill(0xff);
            put("picture", &format!("{name}-{what}"), with(choice, &claim));
        }
    }
    for (number, name) in [
        "alpha.png",
        "animated.gif",
        "cmyk.jpg",
        "grey16.png",
        "orientation.jpg",
        "palette.png",
        "progressive.jpg",
    ]
    .into_iter()
    .enumerate()
    {
        let bytes = fixture(&format!("ingest/tests/fixtures/{name}"));
        put("picture", name, with(number as u8, &bytes));
        put("picture", &format!("{name}-smaller"), with(0x40 | number as u8, &bytes));
    }
    // A JPEG whose frame is 65,500 pixels wide and high, and one that begins a thousand frames.
    let frame = b"\xff\xc0\x00\x11\x08\xff\xdc\xff\xdc\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01";
    put("picture", "jpeg-huge", with(0, &[b"\xff\xd8".as_slice(), frame, b"\xff\xda"].concat()));
    put(
        "picture",
        "jpeg-frames",
        with(0, &[b"\xff\xd8".as_slice(), &frame.repeat(200), b"\xff\xd9"].concat()),
    );
    // A TIFF whose directory is followed by itself, and one with 65,535 entries.
    put(
        "picture",
        "tiff-loop",
        with(0, b"II*\0\x08\0\0\0\x01\0\x00\x01\x03\0\x01\0\0\0\x10\0\0\0\x08\0\0\0"),
    );
    put(
        "picture",
        "tiff-entries",
        with(0, b"II*\0\x08\0\0\0\xff\xff\x00\x01\x04\0\xff\xff\xff\xff\x10\0\0\0"),
    );
    put("picture", "web-page", with(0, b"<!doctype html><title>404</title>"));
}

fn table() {
    // The first byte selects the format, the second the columns: see src/table.rs.
    let with = |format: u8, choice: u8, bytes: &[u8]| [&[format, choice], bytes].concat();
    let boxes = "[[0.1, 0.2, 0.3, 0.4]]";
    let csv = format!(
        "url,caption,a,b,c,hash,boxes\n{}",
        (0..3)
            .map(|i| format!("http://a.example/{i},\"dog \"\"{i}\"\"\",x{i},y,0.5,00ff,\"{boxes}\"\n"))
            .collect::<String>()
    );
    let object = format!(
        r#"{{"url":"http://a.example/1","caption":"a dog","a":"x","b":["y","z"],"c":{{"d":[1,null]}},"boxes":"{boxes}"}}"#
    );
    let lines = format!("{object}\n").repeat(3);
    let batch = RecordBatch::try_from_iter([
        ("url", Arc::new(StringArray::from(vec!["http://a.example/1"; 5])) as ArrayRef),
        ("caption", Arc::new(StringArray::from(vec![Some("a dog"), None, Some(""), Some("two"), None]))),
        ("c", Arc::new(Float64Array::from(vec![0.25; 5]))),
        ("boxes", Arc::new(StringArray::from(vec![boxes; 5]))),
    ])
    .unwrap();
    let write = |batch: &RecordBatch, compression| {
        let properties = WriterProperties::builder().set_compression(compression).build();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
        writer.write(batch).unwrap();
        writer.into_inner().unwrap()
    };
    let parquet = write(&batch, Compression::UNCOMPRESSED);
    put_with_half("table", "parquet", &with(0, 0b0010_0000, &parquet));
    put(
        "table",
        "parquet-zstd",
        with(0, 0b0001_0000, &write(&batch, Compression::ZSTD(ZstdLevel::default()))),
    );
    put("table", "parquet-snappy", with(0, 0, &write(&batch, Compression::SNAPPY)));
    put("table", "parquet-no-captions", with(0, 0b1000, &parquet));
    // One row a million times.
    let same = StringArray::from(vec!["http://a.example/1"; 1_000_000]);
    let same = RecordBatch::try_from_iter([("url", Arc::new(same) as ArrayRef)]).unwrap();
    put(
        "table",
        "parquet-same-rows",
        with(0, 0b1000, &write(&same, Compression::ZSTD(ZstdLevel::default()))),
    );
    // A footer that claims to be longer than the file, and one of structures inside one another.
    put("table", "parquet-footer", with(0, 0, b"PAR1\xff\xff\xff\x7fPAR1"));
    let nested = [b"PAR1".as_slice(), &[0x1c; 500], &500u32.to_le_bytes(), b"PAR1"].concat();
    put("table", "parquet-nested", with(0, 0, &nested));

    put_with_half("table", "csv", &with(1, 0b0111_0110, csv.as_bytes()));
    put("table", "csv-local", with(1, 0b0000_0111, csv.as_bytes()));
    put("table", "csv-open-quote", with(1, 0, b"url,caption\nhttp://a.example/,\"never\nends\n"));
    put("table", "csv-no-header", with(1, 0, b"http://a.example/1,a dog\nhttp://a.example/2,a cat\n"));
    put("table", "csv-many-columns", with(1, 0, "url,".repeat(1000).as_bytes()));
    put("table", "csv-utf-16", with(1, 0, b"\xff\xfeu\0r\0l\0\n\0"));
    put("table", "tsv", with(2, 0, csv.replace(',', "\t").as_bytes()));
    put_with_half("table", "json", &with(3, 0b0011_0000, format!("[{object},{object}]").as_bytes()));
    put(
        "table",
        "json-columns",
        with(3, 0, br#"{"url":["http://a.example/1","b"],"caption":{"0":"x","1":"y"}}"#),
    );
    let coco = br#"{"images":[{"id":1,"file_name":"1.jpg","coco_url":"http://a.example/1"}],"annotations":[{"image_id":1,"caption":"a dog"},{"image_id":2,"caption":"b"}]}"#;
    put("table", "json-coco", with(3, 1, coco));
    let karpathy =
        br#"{"images":[{"filename":"1.jpg","split":"test","sentences":[{"raw":"a dog"},{"raw":"two"}]}]}"#;
    put("table", "json-karpathy", with(3, 0b1000_0001, karpathy));
    let redcaps = br#"{"info":{},"annotations":[{"url":"http://a.example/1","caption":"a dog"}]}"#;
    put("table", "json-redcaps", with(3, 0, redcaps));
    put("table", "json-deep", with(3, 0, "[".repeat(4000).as_bytes()));
    put("table", "json-deep-objects", with(3, 0, "{\"a\":".repeat(1000).as_bytes()));
    put(
        "table",
        "json-same-keys",
        with(3, 0, br#"[{"url":"a","url":"b","url":null,"caption":1e999,"caption":"\ud800"}]"#),
    );
    put_with_half("table", "jsonl", &with(4, 0b0011_0000, lines.as_bytes()));
    put(
        "table",
        "jsonl-other-values",
        with(4, 0, b"null\n1\n[]\n{}\n\"a\"\n{\"url\":1}\n{\"url\":\"a\",\"caption\":[]}\n"),
    );
    put("table", "txt", with(5, 0, b"http://a.example/1\r\n\n \xff\nhttp://a.example/2"));
    let gz = |bytes: &[u8]| {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    };
    put_with_half("table", "csv-gz", &with(6, 0, &gz(csv.as_bytes())));
    put(
        "table",
        "csv-gz-bomb",
        with(6, 0, &gz(&[b"url,caption\n".as_slice(), &b"\n".repeat(1 << 20)].concat())),
    );
    put("table", "csv-gz-line", with(6, 0, &gz(&vec![b'a'; 1 << 20])));
    put_with_half("table", "jsonl-zst", &with(7, 0, &zstd::encode_all(lines.as_bytes(), 1).unwrap()));
    // A frame that claims a window of 3.75 TiB.
    put("table", "jsonl-zst-window", with(7, 0, b"\x28\xb5\x2f\xfd\x00\xff\x01\x00\x00"));
    put("table", "json-gz-deep", with(8, 0, &gz("[".repeat(1 << 16).as_bytes())));
}

/// A header of a tar with this name, size field and kind.
fn tar_header(name: &[u8], size: &[u8; 12], kind: u8) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    let bytes = header.as_mut_bytes();
    bytes[..name.len()].copy_from_slice(name);
    bytes[124..136].copy_from_slice(size);
    bytes[156] = kind;
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn tar() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    add("0001.jpg", b"\xff\xd8\xff");
    add("0001.txt", b"a dog");
    add("0001.json", b"{}");
    add(&format!("{}/0002.png", "long".repeat(40)), b"png");
    add("0002.txt", b"");
    let two = builder.into_inner().unwrap();
    put_with_half("tar", "two-samples", &two);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gz.write_all(&two).unwrap();
    put_with_half("tar", "gz", &gz.finish().unwrap());
    put_with_half("tar", "zst", &zstd::encode_all(&*two, 19).unwrap());
    for kind in ["gnu", "pax", "ustar", "written"] {
        put("tar", kind, fixture(&format!("loader/tests/fixtures/{kind}.tar.zst")));
    }

    let data = [0; 512];
    let one = |header: Vec<u8>| [header, data.to_vec()].concat();
    put("tar", "size-octal", one(tar_header(b"1.txt", b"77777777777\0", b'0')));
    put("tar", "size-binary", one(tar_header(b"1.txt", b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", b'0')));
    put(
        "tar",
        "size-negative",
        one(tar_header(b"1.txt", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b'0')),
    );
    put("tar", "size-not-a-number", one(tar_header(b"1.txt", b"0000009x\0   ", b'0')));
    put("tar", "name-not-utf-8", one(tar_header(b"\xff\xfe.txt", b"00000000003\0", b'0')));
    put("tar", "name-outside", one(tar_header(b"../../1.txt", b"00000000003\0", b'0')));
    put("tar", "name-huge", one(tar_header(b"././@LongLink", b"77777777777\0", b'L')));
    put("tar", "link", one(tar_header(b"1.txt", b"00000000003\0", b'1')));
    put("tar", "sparse", one(tar_header(b"1.txt", b"00000001000\0", b'S')));
    let mut pax = tar_header(b"PaxHeader", b"00000000066\0", b'x');
    let mut records = b"30 size=99999999999999999999\n99999999 path=a.txt\n\n".to_vec();
    records.resize(512, 0);
    pax.extend(records);
    put("tar", "pax-size", [pax, one(tar_header(b"1.txt", b"00000000003\0", b'0'))].concat());
    let same = [
        one(tar_header(b"1.txt", b"00000000003\0", b'0')),
        one(tar_header(b"1.txt", b"00000000003\0", b'0')),
    ];
    put("tar", "same-name", same.concat());
    put("tar", "no-end", one(tar_header(b"1.txt", b"00000000003\0", b'0')));
    put("tar", "empty-members", tar_header(b"1.txt", b"00000000000\0", b'0').repeat(20));
    put("tar", "zeros", [0; 1024]);
}

fn pickle() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/towers/pth");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files.iter().filter(|path| path.extension().is_some_and(|kind| kind != "json")) {
        let mut archive = zip::ZipArchive::new(File::open(path).unwrap()).unwrap();
        let stem = path.file_stem().unwrap().to_string_lossy();
        for name in ["archive/data.pkl", &format!("{stem}/data.pkl")] {
            let Ok(mut entry) = archive.by_name(name) else { continue };
            let mut bytes = Vec::new();
            // One fixture is compressed, which PyTorch's files never are.
            if entry.read_to_end(&mut bytes).is_err() {
                continue;
            }
            put("pickle", &stem, bytes);
        }
    }
    let ordered = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/pickle/ordered")).unwrap();
    put("pickle", "ordered-half", &ordered[..ordered.len() / 2]);
    // Lengths of a text, of bytes and of a number that are not there.
    put("pickle", "text-length", b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.");
    put("pickle", "bytes-length", b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\xffabc.");
    put("pickle", "number-length", b"\x80\x02\x8a\xff\x01.");
    put("pickle", "name-without-end", b"\x80\x02ctorch");
    put("pickle", "memo-missing", b"\x80\x02h\x07.");
    put("pickle", "memo-number", b"\x80\x02]r\xff\xff\xff\xffj\xff\xff\xff\xff.");
    // Marks, tuples and lists inside one another; a dictionary that is its own value.
    put("pickle", "marks", [b"\x80\x02".as_slice(), &[b'('; 3000], &[b't'; 3000], b"."].concat());
    put("pickle", "tuples", [b"\x80\x02)".as_slice(), &[0x85; 4000], b"."].concat());
    put("pickle", "itself", b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.");
    put("pickle", "memo-bomb", [b"\x80\x04]".as_slice(), &[0x94; 4000], b"."].concat());
    // The same dictionary 200 times in each of 30.
    let mut copies = b"\x80\x02}q\x00".to_vec();
    for depth in 1..30u8 {
        copies.extend(b"}(");
        for entry in 0..20u8 {
            copies.extend([b'X', 1, 0, 0, 0, b'a' + entry, b'h', depth - 1]);
        }
        copies.extend([b'u', b'q', depth]);
    }
    copies.push(b'.');
    put("pickle", "shared-dictionaries", copies);
    // State copied from one object to the next.
    let state = b"\x80\x02ccollections\nOrderedDict\nq\x00}(K\x01K\x02K\x03K\x04uq\x01".to_vec();
    put("pickle", "state-copies", [state, b"h\x00)Rh\x01b0".repeat(500), b"N.".to_vec()].concat());
    // A long key for each of many tensors, whose sizes are one long list.
    let mut keys = b"\x80\x02(K\x01K\x01tq\x00(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQq\x01".to_vec();
    keys.extend(b"ctorch._utils\n_rebuild_tensor\n(h\x01K\x00h\x00h\x00tRq\x02");
    keys.extend([b'X', 0xd0, 0x07, 0, 0]);
    keys.extend([b'k'; 2000]);
    keys.extend(b"q\x03}(");
    keys.extend(b"h\x03h\x02".repeat(1000));
    keys.extend(b"u.");
    put("pickle", "long-keys", keys);
}

fn safetensors() {
    let file = |header: &str, data: usize| {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
    };
    let plain = r#"{"__metadata__":{"a":"b"},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[],"data_offsets":[24,26]}}"#;
    put_with_half("safetensors", "plain", &file(plain, 26));
    for (name, header, data) in [
        ("empty", "{}", 0),
        ("no-numbers", r#"{"w":{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]}}"#, 0),
        ("product", r#"{"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#, 0),
        (
            "end",
            r#"{"w":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}}"#,
            0,
        ),
        ("backwards", r#"{"w":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}}"#, 4),
        (
            "overlap",
            r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#,
            4,
        ),
        (
            "hole",
            r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}}"#,
            4,
        ),
        (
            "same-name",
            r#"{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#,
            2,
        ),
        ("beyond", r#"{"w":{"dtype":"F64","shape":[1000000000],"data_offsets":[0,8000000000]}}"#, 8),
        ("trailing", r#"{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, 9),
        (
            "kinds",
            r#"{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F4","shape":[2],"data_offsets":[1,2]},"c":{"dtype":"X","shape":[],"data_offsets":[2,2]}}"#,
            2,
        ),
        ("half-bytes", r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#, 2),
        ("negative", r#"{"w":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}"#, 1),
        ("float", r#"{"w":{"dtype":"U8","shape":[1e1],"data_offsets":[0,10.0]}}"#, 10),
        ("metadata", r#"{"__metadata__":{"a":1}}"#, 0),
        ("list", "[1,2]", 0),
        ("not-json", "{\"w\":", 0),
    ] {
        put("safetensors", name, file(header, data));
    }
    put("safetensors", "length", b"\xff\xff\xff\xff\xff\xff\xff\xff{}");
    put("safetensors", "length-99-mb", b"\xff\xe0\xf5\x05\0\0\0\0{}");
    put("safetensors", "deep", file(&"{\"a\":".repeat(1000), 0));
    put("safetensors", "deep-lists", file(&format!("{{\"a\":{}", "[".repeat(3000)), 0));
    let sides = vec!["1"; 1000].join(",");
    put(
        "safetensors",
        "sides",
        file(&format!(r#"{{"w":{{"dtype":"U8","shape":[{sides}],"data_offsets":[0,1]}}}}"#), 1),
    );
    put("safetensors", "not-utf-8", b"\x04\0\0\0\0\0\0\0{\"\xff\"");
}

fn sidecar() {
    let extractor = Extractor::new(TaggerKind::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |checked: bool, captions: &[&str]| {
        let path = folder.path().join("00000.concepts.parquet");
        let about = Metadata::new(&extractor.description(), Path::new("00000.tar"), 10_240);
        let mut writer = Writer::create(&path, about).unwrap();
        for (sample, caption) in (0..).zip(captions) {
            writer.tag(sample, &format!("{sample:09}"), &[canonical(caption)], &extractor).unwrap();
            if checked {
                writer.check(sample, CaptionCheck::of(caption.as_bytes()));
            }
        }
        writer.finish().unwrap();
        fs::read(path).unwrap()
    };
    let captions = ["a dog on a beach", "", "two red tennis rackets and a man", "running"];
    let whole = write(true, &captions);
    put_with_half("sidecar", "plain", &whole);
    put("sidecar", "end", &whole[whole.len() / 2..]);
    put("sidecar", "first-version", write(false, &captions));
    put("sidecar", "no-mention", write(true, &["running", ""]));
    put("sidecar", "no-sample", write(true, &[]));
    put("sidecar", "same-rows", write(true, &["a dog and a dog and a dog"; 50]));
    let of_field = of_field(&extractor, folder.path());
    put("sidecar", "field", &of_field);
    for at in (0..of_field.len()).step_by(of_field.len() / 4) {
        let mut changed = of_field.clone();
        changed[at] = 0xff;
        put("sidecar", &format!("field-byte-{at}"), changed);
    }
    // Claims in the JSON of the footer, which keep its length.
    let claim = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = whole.windows(from.len()).position(|found| found == from.as_bytes()).expect(from);
        let mut changed = whole.clone();
        changed[at..at + from.len()].copy_from_slice(to.as_bytes());
        changed
    };
    put("sidecar", "mentions", claim("\"mentions\":4", "\"mentions\":5"));
    put("sidecar", "samples", claim("\"samples\":4", "\"samples\":1"));
    put("sidecar", "version", claim("\"version\":2", "\"version\":1"));
    put("sidecar", "check", claim("\"xxh64\"", "\"xxh32\""));
    put("sidecar", "offset", claim("\"offset\":", "\"offSet\":"));
    put("sidecar", "column", claim("phrase_end", "phrase_enD"));
    // Each length in a page header or the footer is some byte: the largest value of one in 40.
    for at in (0..whole.len()).step_by(whole.len() / 8) {
        let mut changed = whole.clone();
        changed[at] = 0xff;
        put("sidecar", &format!("byte-{at}"), changed);
    }
}

/// The sidecar of samples with several captions.
fn of_field(extractor: &Extractor, folder: &Path) -> Vec<u8> {
    let path = folder.join("00000.concepts.parquet");
    let mut about = Metadata::new(&extractor.description(), Path::new("00000.tar"), 10_240);
    about.field = Some("captions".to_owned());
    let mut writer = Writer::create(&path, about).unwrap();
    for (sample, captions) in (0..).zip([&["a dog", "", "a cat and a dog"][..], &[], &["a red ball"]]) {
        let texts: Vec<_> = captions.iter().map(|caption| canonical(caption)).collect();
        writer.tag(sample, &format!("{sample:09}"), &texts, extractor).unwrap();
        writer.check(sample, CaptionCheck::of_all(captions));
    }
    writer.finish().unwrap();
    fs::read(path).unwrap()
}

fn response() {
    let image = "GIF89a\x01\x00\x01\x00\x00\x00\x00;";
    let length = image.len();
    for (name, text) in [
        ("image", format!("HTTP/1.1 200 OK\r\nContent-Type: image/gif\r\nContent-Length: {length}\r\n\r\n{image}")),
        ("until-the-end", format!("HTTP/1.0 200 OK\r\n\r\n{image}")),
        ("chunked", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ne;x=y\r\n{image}\r\n0\r\nA: b\r\n\r\n")),
        ("chunk-size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nGIF".to_owned()),
        ("chunk-endless", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", "1\r\na\r\n".repeat(400))),
        ("encoded", format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n{image}")),
        ("encoded-text", "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 3\r\n\r\nabc".to_owned()),
        ("length-huge", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\nGIF".to_owned()),
        ("length-too-huge", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nGIF".to_owned()),
        ("length-negative", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nGIF".to_owned()),
        ("length-twice", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nGIF8".to_owned()),
        ("length-and-chunks", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n".to_owned()),
        ("length-short", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nGIF".to_owned()),
        ("length-zero", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("too-large", format!("HTTP/1.0 200 OK\r\n\r\n{}", "a".repeat(300))),
        ("opted-out", "HTTP/1.1 200 OK\r\nX-Robots-Tag: otherbot: all, fuzzer: NoAI\r\nx-robots-tag: max-snippet: 1, noindex\r\n\r\na".to_owned()),
        ("redirect", "HTTP/1.1 302 Found\r\nLocation: ../x?y#z\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("redirect-other-scheme", "HTTP/1.1 301 M\r\nLocation: file:///etc/passwd\r\n\r\n".to_owned()),
        ("redirect-data", "HTTP/1.1 307 M\r\nLocation: data:image/gif;base64,R0lGODlhAQ==\r\n\r\n".to_owned()),
        ("redirect-no-host", "HTTP/1.1 308 M\r\nLocation: http://\r\n\r\n".to_owned()),
        ("redirect-host", "HTTP/1.1 303 M\r\nLocation: //u:p@[::ffff:127.0.0.1]:99999/\r\n\r\n".to_owned()),
        ("redirect-nowhere", "HTTP/1.1 300 M\r\n\r\n".to_owned()),
        ("not-modified", "HTTP/1.1 304 N\r\n\r\n".to_owned()),
        ("wait", "HTTP/1.1 429 T\r\nRetry-After: 120\r\n\r\n".to_owned()),
        ("wait-forever", "HTTP/1.1 503 S\r\nRetry-After: 18446744073709551615\r\n\r\n".to_owned()),
        ("wait-until", "HTTP/1.1 503 S\r\nDate: Sun, 06 Nov 1994 08:49:00 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n".to_owned()),
        ("wait-years", "HTTP/1.1 503 S\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n\r\n".to_owned()),
        ("informed", format!("{}HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", "HTTP/1.1 103 E\r\nLink: a\r\n\r\n".repeat(50))),
        ("switching", "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nabc".to_owned()),
        ("no-content", "HTTP/1.1 204 N\r\nContent-Length: 3\r\n\r\nabc".to_owned()),
        ("partial", "HTTP/1.1 206 P\r\nContent-Range: bytes 0-2/*\r\nContent-Length: 3\r\n\r\nGIF".to_owned()),
        ("status", "HTTP/1.1 999 ?\r\n\r\n".to_owned()),
        ("status-short", "HTTP/1.1 2 ?\r\n\r\n".to_owned()),
        ("blank-before-colon", "HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\na".to_owned()),
        ("folded", "HTTP/1.1 200 OK\r\nX-Robots-Tag: all,\r\n noai\r\n\r\na".to_owned()),
        ("no-header", "HTTP/1.1 200 OK\r\nthis is none\r\n\u{e9}: b\r\n\r\na".to_owned()),
        ("line-feeds", "HTTP/1.1 200 OK\nContent-Length: 1\n\na".to_owned()),
        ("many-headers", format!("HTTP/1.1 200 OK\r\n{}\r\na", "A: b\r\n".repeat(200))),
        ("long-header", format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\na", "b".repeat(4000))),
        ("no-head", image.to_owned()),
        ("http-2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("nothing", String::new()),
    ] {
        put("response", name, text);
    }
    put("response", "redirect-latin-1", b"HTTP/1.1 302 F\r\nLocation: /caf\xe9\x80?\xff\r\n\r\n");
    put("response", "robots-latin-1", b"HTTP/1.1 200 OK\r\nX-Robots-Tag: \xe9, noai\r\n\r\na");
}
