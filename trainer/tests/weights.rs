//! Weights files: valid and hostile PyTorch files (`tests/fixtures/towers/make_pth.py`), and conversions between all families of
//! state-dict keys.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use crate::wave::{fill, tensors};
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use trainer::towers::convert::convert;
use trainer::towers::{TextShape, TextTower, VisionShape, VisionTower};
use trainer::weights::{self, Family};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/towers")
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixtures().join(name)).unwrap()).unwrap()
}

#[test]
fn pytorchs_files_hold_what_torch_load_says() {
    let expected = json("pth/expected.json");
    for (file, named) in expected.as_object().unwrap() {
        let found = weights::tensors(&fixtures().join("pth").join(file)).unwrap();
        let named = named.as_object().unwrap();
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            named.keys().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>(),
            "{file}"
        );
        for (name, tensor) in &found {
            let kind = match named[name]["kind"].as_str().unwrap() {
                "float32" => Kind::Float,
                "float16" => Kind::Half,
                "bfloat16" => Kind::BFloat16,
                "float64" => Kind::Double,
                "int64" => Kind::Int64,
                "uint8" => Kind::Uint8,
                "bool" => Kind::Bool,
                other => panic!("{other}"),
            };
            assert_eq!(tensor.kind(), kind, "{file} {name}");
            let size: Vec<i64> = serde_json::from_value(named[name]["size"].clone()).unwrap();
            assert_eq!(tensor.size(), size, "{file} {name}");
            let values: Vec<f64> = serde_json::from_value(named[name]["values"].clone()).unwrap();
            let found: Vec<f64> = tensor.to_kind(Kind::Double).reshape([-1]).try_into().unwrap();
            assert_eq!(found, values, "{file} {name}");
        }
    }
}

#[test]
fn hostile_pytorch_files_are_refused_with_the_reason() {
    for (file, reason) in [
        ("malicious", "posix.system"),
        ("offset", "tensor w: size [3], stride [1], offset 4 exceed its storage of 6"),
        ("stride", "tensor w: size [2, 3], stride [4, 1], offset 0 exceed"),
        ("overflow", "tensor w: "),
        ("negative", "offset -1"),
        ("repeated", "tensor w: size [1048576, 1048576]"),
        ("short", "tensor w: storage 0 has 24 bytes instead of 1099511627776 numbers"),
        ("elsewhere", "tensor w: has an unknown kind of storage, storage ../data.pkl"),
        ("missing", "tensor w: archive/data/1"),
        ("compressed", "compressed"),
        ("shared", "more than 8 times as large as the file"),
        ("endless", "nested too deeply"),
        ("exploding", "nested too deeply"),
        ("nothing", "no named tensors"),
    ] {
        let path = fixtures().join(format!("pth/{file}.pth"));
        let error = weights::tensors(&path).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains(file) && !error.contains('\n'), "{file}: {error}");
    }
    assert!(!Path::new("/tmp/this-file-must-not-appear").exists());
}

/// An archive may list the same bytes of the file under many names.
#[test]
fn storages_that_are_the_same_bytes_are_refused() {
    const NUMBERS: u32 = 1 << 18;
    const COPIES: usize = 20;
    let text = |text: &str| [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let mut pickle = b"\x80\x02(K\x01tq\x00}(".to_vec();
    for copy in 0..COPIES {
        let name = format!("{copy:02}");
        pickle
            .extend([text(&name), b"ctorch._utils\n_rebuild_tensor\n((".to_vec(), text("storage")].concat());
        pickle.extend([b"ctorch\nFloatStorage\n".to_vec(), text(&name), text("cpu")].concat());
        pickle.extend([b"J".as_slice(), &NUMBERS.to_le_bytes(), b"tQK\x00h\x00h\x00tR"].concat());
    }
    pickle.extend(b"u.");
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in [("a/data.pkl", &pickle), ("a/data/00", &vec![0; 4 * NUMBERS as usize])] {
        writer.start_file(name, stored).unwrap();
        writer.write_all(content).unwrap();
    }
    let mut file = writer.finish().unwrap().into_inner();

    // The end of the file: the directory, whose last entry is repeated under other names, and 22 bytes about the directory.
    let mut end = file.split_off(file.len() - 22);
    let entry = file.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap();
    let entry = file[entry..].to_vec();
    for copy in 1..COPIES {
        file.extend_from_slice(&entry);
        let name = file.len() - entry.len() + 46 + "a/data/".len();
        file[name..name + 2].copy_from_slice(format!("{copy:02}").as_bytes());
    }
    let directory = u32::from_le_bytes(end[16..20].try_into().unwrap());
    end[8..12].copy_from_slice(&[COPIES as u8 + 1, 0, COPIES as u8 + 1, 0]);
    end[12..16].copy_from_slice(&(file.len() as u32 - directory).to_le_bytes());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("same.pth");
    fs::write(&path, [file, end].concat()).unwrap();
    let error = weights::tensors(&path).unwrap_err().to_string();
    assert!(error.contains("a/data/01 has 1048576 bytes; the limit is"), "{error}");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.pth");
    let whole = fs::read(fixtures().join("pth/ordered.pth")).unwrap();
    for length in (0..whole.len()).step_by(7) {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(weights::tensors(&path).is_err(), "{length} of {} bytes", whole.len());
    }
}

#[test]
fn no_changed_byte_makes_the_reader_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changed.pth");
    let whole = fs::read(fixtures().join("pth/nested.pth")).unwrap();
    for place in (0..whole.len()).step_by(3) {
        let mut changed = whole.clone();
        changed[place] ^= 0x55;
        fs::write(&path, &changed).unwrap();
        let _ = weights::tensors(&path);
    }
}

type Named = BTreeMap<String, Tensor>;

fn same(left: &Named, right: &Named, what: &str) {
    assert_eq!(left.keys().collect::<Vec<_>>(), right.keys().collect::<Vec<_>>(), "{what}");
    for (name, tensor) in left {
        assert_eq!(tensor.kind(), right[name].kind(), "{what}: {name}");
        assert!(tensor.equal(&right[name]), "{what}: {name}");
    }
}

/// The keys and shapes with which the libraries save the narrow towers of make.py.
fn case(name: &str) -> Named {
    let cases = json("cases.json");
    let clip = &cases["clip_text"];
    let case = cases["families"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap_or(clip);
    let named = tensors(case);
    fill(&named);
    named.into_iter().collect()
}

fn written(path: &Path, named: &Named) {
    let named: Vec<(String, Tensor)> =
        named.iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect();
    weights::write(path, &named).unwrap();
}

/// Converting there and back gives the same tensors, also in half precision; the keys are those that the library saves.
#[test]
fn every_family_is_written_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, own, other) in [
        ("Dinov2Model", Family::Huggingface, Family::Dinov2),
        ("Dinov2Model, gated", Family::Huggingface, Family::Dinov2),
        ("Dinov2WithRegistersModel", Family::Huggingface, Family::Dinov2),
        ("timm's giant", Family::Timm, Family::Dinov2),
        ("timm's giant", Family::Timm, Family::Huggingface),
        ("timm with registers", Family::Timm, Family::Dinov2),
        ("timm with registers", Family::Timm, Family::Huggingface),
        ("timm with registers", Family::Timm, Family::Simzss),
        ("CLIPModel", Family::Huggingface, Family::OpenClip),
    ] {
        for kind in [Kind::Float, Kind::Half] {
            let source: Named = case(name).into_iter().map(|(name, t)| (name, t.to_kind(kind))).collect();
            written(&at("source"), &source);
            let there = convert(&[at("source")], other, &at("there")).unwrap();
            assert!(there.left_out.is_empty(), "{name}: {:?}", there.left_out);
            let back = convert(&[at("there")], own, &at("back")).unwrap();
            assert!(back.left_out.is_empty(), "{name}: {:?}", back.left_out);
            same(&source, &weights::tensors(&at("back")).unwrap(), name);
        }
    }
}

#[test]
fn both_towers_become_a_simzss_file_and_come_apart_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let _turn = crate::random(5);
    let vision = VisionTower::random(VisionShape { width: 64, depth: 2, patch: 8, grid: 3 }, Device::Cpu);
    let text = TextTower::random(TextShape { width: 64, depth: 1, heads: 1, context: 8 }, 64, Device::Cpu);
    let mut denoised = vision.named();
    // The denoiser is a block of the tower, without LayerScale.
    denoised.extend(vision.named().into_iter().filter_map(|(name, tensor)| {
        let name = name.strip_prefix("blocks.1.").filter(|name| !name.starts_with("ls"))?;
        Some((format!("denoiser.{name}"), tensor))
    }));
    denoised.push(("denoiser.pos_embed".to_owned(), Tensor::randn([1, 25, 64], (Kind::Float, Device::Cpu))));
    weights::write(&at("vision"), &denoised).unwrap();
    weights::write(&at("text"), &text.named()).unwrap();

    let joined = convert(&[at("vision"), at("text")], Family::Simzss, &at("joined")).unwrap();
    assert_eq!(joined.tensors, denoised.len() + text.named().len());
    let names = weights::tensors(&at("joined")).unwrap();
    for name in [
        "visual.vit.model.blocks.1.mlp.fc1.weight",
        "visual.denoiser.norm1.bias",
        "visual.pos_embed",
        "text.transformer.resblocks.0.attn.in_proj_weight",
        "text.text_projection",
        "logit_scale",
    ] {
        assert!(names.contains_key(name), "{name}");
    }
    let apart = convert(&[at("joined")], Family::Dinov2, &at("vision again")).unwrap();
    assert_eq!(apart.left_out.len(), text.named().len());
    same(&denoised.into_iter().collect(), &weights::tensors(&at("vision again")).unwrap(), "vision");
    convert(&[at("joined")], Family::OpenClip, &at("text again")).unwrap();
    let named = text.named().into_iter().map(|(name, tensor)| (name, tensor.detach())).collect();
    same(&named, &weights::tensors(&at("text again")).unwrap(), "text");

    let twice = convert(&[at("vision"), at("joined")], Family::Dinov2, &at("twice")).unwrap_err().to_string();
    assert!(twice.contains("is in two of the files"), "{twice}");
}

#[test]
fn a_conversion_names_what_does_not_fit_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    let refused = |change: &dyn Fn(&mut Named), to: Family| {
        let mut named = case("Dinov2WithRegistersModel");
        change(&mut named);
        written(&source, &named);
        let error = convert(std::slice::from_ref(&source), to, &out).unwrap_err().to_string();
        assert!(!out.exists());
        error
    };
    let key = "encoder.layer.1.attention.attention.key.weight";
    let missing = refused(&|named| drop(named.remove(key)), Family::Dinov2);
    assert!(missing.contains("blocks.1.attn.qkv.weight is missing"), "{missing}");
    let misshapen =
        refused(&|named| drop(named.insert("layernorm.bias".to_owned(), Tensor::from(1.0))), Family::Timm);
    assert!(misshapen.contains("norm.bias has the shape []; it must have [64]"), "{misshapen}");
    let extra =
        refused(&|named| drop(named.insert("classifier.weight".to_owned(), Tensor::from(1.0))), Family::Timm);
    assert!(extra.contains("unexpected tensor classifier.weight"), "{extra}");
    assert!(refused(&|_| (), Family::OpenClip).contains("no text tower"));
    let unknown = refused(&|named| *named = [("w".to_owned(), Tensor::from(1.0))].into(), Family::Timm);
    assert!(unknown.contains("its state-dict keys are not"), "{unknown}");
}

/// DINOv2's training saves `teacher_checkpoint.pth` as `backbone.*`, `dino_head.*` and `ibot_head.*` in a dict `teacher`; DINO's
/// saves a student as well; its classifiers have a `linear_head`.
#[test]
fn heads_next_to_the_backbone_are_left_out_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    let tower = case("timm's giant");
    let heads = |prefix: &str, names: &[&str]| -> Named {
        names
            .iter()
            .map(|name| (format!("{prefix}{name}"), Tensor::zeros([3, 3], (Kind::Float, Device::Cpu))))
            .collect()
    };
    let inside = |prefix: &str| -> Named {
        tower.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.shallow_clone())).collect()
    };
    let both = ["dino_head.mlp.0.weight", "ibot_head.last_layer.weight"];
    let mut student_too = inside("teacher.backbone.");
    student_too.extend(heads("teacher.", &both));
    let scaled = inside("student.backbone.").into_iter().map(|(name, tensor)| (name, tensor * 2.0));
    student_too.extend(scaled.collect::<Named>());
    for (mut file, left_out) in [
        (heads("", &both).into_iter().chain(inside("backbone.")).collect::<Named>(), both.len()),
        (heads("teacher.", &both).into_iter().chain(inside("teacher.backbone.")).collect(), both.len()),
        (heads("", &both).into_iter().chain(inside("")).collect(), both.len()),
        (heads("", &["linear_head.weight"]).into_iter().chain(inside("backbone.")).collect(), 1),
        (student_too, both.len() + tower.len()),
    ] {
        written(&source, &file);
        let converted = convert(std::slice::from_ref(&source), Family::Timm, &out).unwrap();
        assert_eq!((converted.tensors, converted.left_out.len()), (tower.len(), left_out));
        same(&tower, &weights::tensors(&out).unwrap(), "the teacher's backbone");
        // What is neither a head nor a part of the tower changes what the tower computes.
        file.insert("neck.weight".to_owned(), Tensor::zeros([3], (Kind::Float, Device::Cpu)));
        written(&source, &file);
        let error = convert(std::slice::from_ref(&source), Family::Timm, &out).unwrap_err().to_string();
        assert!(error.contains("unexpected tensor neck.weight"), "{error}");
    }
}

#[test]
fn towers_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    let refused = |name: &str, change: &dyn Fn(&Tensor) -> Tensor| {
        let mut named = case("Dinov2Model");
        let tensor = change(&named[name]);
        named.insert(name.to_owned(), tensor);
        written(&source, &named);
        convert(std::slice::from_ref(&source), Family::Dinov2, &out).unwrap_err().to_string()
    };
    // The position of the class token alone, for no patch.
    let error = refused("embeddings.position_embeddings", &|position| position.narrow(1, 0, 1));
    assert!(error.contains("pos_embed has the shape [1, 1, 64]; it must have"), "{error}");
    for (kind, name) in [(Kind::Bool, "Bool"), (Kind::Int64, "Int64"), (Kind::Uint8, "Uint8")] {
        let error = refused("layernorm.bias", &|bias| bias.to_kind(kind));
        assert!(error.contains(&format!("norm.bias holds numbers of kind {name}")), "{error}");
    }
}
