//! An exported model, loaded by timm and open_clip with the exported `load.py`, computes the same features as the trainer.
//!
//! `TRAINER_PYTHON` must be the path of a Python with open_clip_torch, timm and safetensors (3 GB with torch).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use trainer::checkpoint::{Checkpoint, State};
use trainer::device::Precision;
use trainer::device::to_vec;
use trainer::inference::class_list::ClassList;
use trainer::inference::class_vectors::{ClassVectors, ComparedWith, class_vectors};
use trainer::inference::model::{Model, Vision};
use trainer::inference::templates;
use trainer::method::objective::{CaptionLoss, Objective};
use trainer::method::optimizer::Optimizer;
use trainer::settings::{Settings, VisionSettings};
use trainer::towers::{
    Activation, CaptionTokens, ClipShape, ClipVisionTower, Embedding, PositionResize, TextShape, TextTower,
    VisionHead, VisionShape, VisionTower,
};
use trainer::{export, weights};

fn python() -> Option<String> {
    let python = std::env::var("TRAINER_PYTHON").ok();
    if python.is_none() {
        println!("skipped: TRAINER_PYTHON is not set to a Python with open_clip_torch, timm and safetensors");
    }
    python
}

/// Runs a Python script in a folder and returns the JSON that it prints.
fn told(python: &str, folder: &Path, script: &str) -> Value {
    let output = Command::new(python).args(["-c", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

fn close(what: &str, ours: &Tensor, theirs: &Value, tolerance: f32) {
    let theirs: Vec<f32> = serde_json::from_value(theirs.clone()).unwrap();
    let ours = to_vec(ours);
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let apart = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < tolerance, "{what}: off by {apart:e}");
}

/// A tower with random weights, with or without registers, as read from a file.
fn vision(folder: &Path, registers: i64, position: PositionResize) -> VisionTower {
    let random = VisionTower::random(VisionShape { width: 128, depth: 3, patch: 8, grid: 6 }, Device::Cpu);
    let mut named = random.named();
    if registers > 0 {
        let tokens = Tensor::randn([1, registers, 128], (Kind::Float, Device::Cpu));
        named.push(("register_tokens".to_owned(), tokens));
    }
    let path = folder.join("tower.safetensors");
    weights::write(&path, &named).unwrap();
    VisionTower::read(&path, Some(position), Kind::Float, Device::Cpu).unwrap()
}

const CAPTIONS: [&str; 3] = ["a photo of a cat.", "two rubber ducks and a soccer ball near snow", "sofa"];

#[test]
fn timm_and_open_clip_compute_the_same() {
    let Some(python) = python() else { return };
    let _turn = crate::random(3);
    let shape = TextShape { width: 64, depth: 3, heads: 4, context: 32 };
    let text = TextTower::random(shape, 128, Device::Cpu);
    let positions = [PositionResize::Timm, PositionResize::Dinov2, PositionResize::Huggingface];
    for (registers, position) in
        [0, 4].into_iter().flat_map(|count| positions.map(|position| (count, position)))
    {
        let folder = tempfile::tempdir().unwrap();
        let vision = vision(folder.path(), registers, position);
        export::towers(
            &vision,
            &VisionHead::none(Embedding::Class),
            &text,
            &VisionSettings::default(),
            &json!({}),
            folder.path(),
        )
        .unwrap();
        // At the image size of the tower, and at another shape.
        for (height, width) in [(48, 48), (64, 96)] {
            let script = format!(
                r"
import json, torch
exec(open('load.py').read().replace('Path(__file__).parent', 'Path(\'.\')'))
pixels = torch.sin(torch.arange(2 * 3 * {height} * {width}, dtype=torch.float64)).float().view(2, 3, {height}, {width})
with torch.no_grad():
    features = vision.forward_features(pixels)
    captions = text(tokenizer({captions}))
print(json.dumps({{
    'class': features[:, 0].flatten().tolist(),
    'patches': features[:, vision.num_prefix_tokens:].flatten().tolist(),
    'captions': captions.flatten().tolist(),
}}))",
                captions = json!(CAPTIONS)
            );
            let theirs = told(&python, folder.path(), &script);
            let pixels = Tensor::arange(2 * 3 * height * width, (Kind::Double, Device::Cpu))
                .sin()
                .to_kind(Kind::Float)
                .view([2, 3, height, width]);
            let (features, captions) = tch::no_grad(|| {
                let tokenizer = concepts::Tokenizer::clip();
                let ids: Vec<i64> = CAPTIONS
                    .iter()
                    .flat_map(|caption| tokenizer.encode(&concepts::canonical(caption), 32).ids)
                    .map(i64::from)
                    .collect();
                let tokens = CaptionTokens::new(&ids, 32, Device::Cpu);
                let captions = text.captions(&text.tokens(&tokens, Kind::Float), &tokens.end);
                (vision.forward(&pixels), captions)
            });
            let what = |part: &str| format!("{registers} registers, {position}, {height} x {width}: {part}");
            close(&what("class"), &features.class, &theirs["class"], 1e-4);
            close(&what("patches"), &features.patches, &theirs["patches"], 1e-4);
            close(&what("captions"), &captions, &theirs["captions"], 1e-5);
        }
    }
}

#[test]
fn the_configuration_says_how_the_position_embedding_is_resized() {
    let _turn = crate::random(5);
    let text = TextTower::random(TextShape { width: 64, depth: 1, heads: 4, context: 32 }, 128, Device::Cpu);
    for position in [PositionResize::Timm, PositionResize::Dinov2, PositionResize::Huggingface] {
        let folder = tempfile::tempdir().unwrap();
        let vision = vision(folder.path(), 0, position);
        // The tower counts, whatever the settings leave open.
        export::towers(
            &vision,
            &VisionHead::none(Embedding::Class),
            &text,
            &VisionSettings::default(),
            &json!({}),
            folder.path(),
        )
        .unwrap();
        let config = std::fs::read(folder.path().join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["position"], position.to_string());
    }
}

#[test]
fn class_vectors_are_those_of_open_clips_zero_shot_classifier() {
    let Some(python) = python() else { return };
    let _turn = crate::random(4);
    let folder = tempfile::tempdir().unwrap();
    let shape = TextShape { width: 64, depth: 2, heads: 2, context: 77 };
    let text = TextTower::random(shape, 128, Device::Cpu);
    let vision = vision(folder.path(), 0, PositionResize::Timm);
    export::towers(
        &vision,
        &VisionHead::none(Embedding::Class),
        &text,
        &VisionSettings::default(),
        &json!({}),
        folder.path(),
    )
    .unwrap();
    let list = ClassList::parse("cat|kitten, traffic cone").unwrap();
    let templates = templates::read("imagenet").unwrap();
    let vectors = class_vectors(
        &text,
        &list.words,
        &templates,
        ClassVectors::Caption,
        ComparedWith::Images,
        Kind::Float,
    )
    .unwrap();
    let file = folder.path().join("classes.safetensors");
    export::classes(&list, &vectors, &json!({"templates": "imagenet"}), &file).unwrap();
    let script = format!(
        r"
import json, torch
exec(open('load.py').read().replace('Path(__file__).parent', 'Path(\'.\')'))
from safetensors import safe_open
class Model:
    def encode_text(self, tokens, normalize=False):
        captions = text(tokens)
        return torch.nn.functional.normalize(captions, dim=-1) if normalize else captions
with torch.no_grad():
    weights = open_clip.build_zero_shot_classifier(
        Model(), tokenizer, {words}, open_clip.OPENAI_IMAGENET_TEMPLATES, num_classes_per_batch=None)
with safe_open('classes.safetensors', 'pt') as file:
    stored = file.get_tensor('weight')
    print(json.dumps({{
        'weights': weights.T.flatten().tolist(),
        'stored': stored.flatten().tolist(),
        'class': file.get_tensor('class').tolist(),
        'names': json.loads(file.metadata()['classes']),
        'words': json.loads(file.metadata()['words']),
    }}))",
        words = json!(list.words)
    );
    let theirs = told(&python, folder.path(), &script);
    close("classifier", &vectors, &theirs["weights"], 1e-5);
    close("file", &vectors, &theirs["stored"], 1e-7);
    assert_eq!(theirs["class"], json!([0, 0, 1]));
    assert_eq!(theirs["names"], json!(["cat", "traffic cone"]));
    assert_eq!(theirs["words"], json!(list.words));
}

type Tensors = Vec<(String, Tensor)>;

/// A checkpoint of a run with a text tower of random weights; `tower` is the frozen vision tower, with which `change` changes the
/// settings, and `more` are other weights that were trained.
fn run(
    folder: &Path,
    tower: &[(String, Tensor)],
    more: Vec<(String, Tensor)>,
    change: impl Fn(&mut Settings),
) -> Checkpoint {
    let mut settings = Settings { out: folder.to_owned(), ..Settings::default() };
    settings.text = TextShape { width: 64, depth: 2, heads: 2, context: 32 }.into();
    settings.objective.name = Objective::Lit;
    settings.data.loading.size = 224;
    change(&mut settings);
    std::fs::create_dir_all(folder).unwrap();
    let width = if tower.is_empty() { settings.clip.output } else { tower_width(tower) };
    if !tower.is_empty() {
        weights::write(&trainer::checkpoint::vision_path(folder), tower).unwrap();
    }
    let (scale, bias) = settings.objective.initial_logits();
    let text = TextTower::random(settings.text.shape(), settings.vision.embedding.width(width), Device::Cpu);
    let mut named = text.with_logits(scale, bias).named();
    named.extend(more);
    let optimizer = Optimizer::new(&settings.optimizer, Vec::new());
    trainer::checkpoint::save(folder, &State::new(&settings, 1, (0, 1), "", 0), &named, &optimizer, None)
        .unwrap();
    std::fs::write(folder.join("latest"), "step-00000001").unwrap();
    Checkpoint::open(folder).unwrap()
}

fn tower_width(tower: &[(String, Tensor)]) -> i64 {
    tower.iter().find(|(name, _)| name == "norm.weight").unwrap().1.size()[0]
}

/// A tower of the size of DINOv2's ViT-S/14, or of DINOv3's ViT-S/16, with random weights.
fn small(registers: i64, rotary: bool) -> Vec<(String, Tensor)> {
    let shape = VisionShape {
        width: 384,
        depth: 12,
        patch: if rotary { 16 } else { 14 },
        grid: if rotary { 16 } else { 37 },
    };
    let mut named = VisionTower::random(shape, Device::Cpu).named();
    let tokens = Tensor::randn([1, registers, 384], (Kind::Float, Device::Cpu));
    if rotary {
        named.retain(|(name, _)| name != "pos_embed" && !name.ends_with("qkv.bias"));
        named.push(("storage_tokens".to_owned(), tokens));
    } else if registers > 0 {
        named.push(("register_tokens".to_owned(), tokens));
    }
    // So that position and registers matter.
    for (name, tensor) in &named {
        if name == "pos_embed" || name == "cls_token" {
            let _ = tensor.shallow_clone().g_mul_scalar_(20.0);
        }
    }
    named
}

/// open_clip's own factory loads the folder without a missing or unexpected tensor, and gives the same embeddings.
#[test]
fn open_clips_factory_loads_the_folder() {
    let Some(python) = python() else { return };
    let _turn = crate::random(7);
    let set = |name: Objective, position: Option<PositionResize>, size: u32| {
        move |settings: &mut Settings| {
            settings.objective.name = name;
            settings.vision.position = position;
            settings.data.loading.size = size;
        }
    };
    type Case<'a> = (&'a str, Tensors, Tensors, Box<dyn Fn(&mut Settings)>);
    let clip = ClipShape { width: 128, depth: 2, patch: 8, output: 48 };
    let of_clip = ClipVisionTower::random(clip, 6, Kind::Float, Device::Cpu).named();
    let (timm, dinov2) = (Some(PositionResize::Timm), Some(PositionResize::Dinov2));
    let lit = Objective::Lit;
    let cases: Vec<Case<'_>> = vec![
        ("DINOv2, 224 px", small(0, false), Vec::new(), Box::new(set(lit, timm, 224))),
        ("DINOv2, 518 px", small(0, false), Vec::new(), Box::new(set(lit, dinov2, 518))),
        ("DINOv2 with registers", small(4, false), Vec::new(), Box::new(set(lit, dinov2, 224))),
        (
            "DINOv3, sigmoid, OpenAI's GELU",
            small(4, true),
            Vec::new(),
            Box::new(|settings: &mut Settings| {
                settings.text.quick_gelu = true;
                settings.objective.caption = CaptionLoss::Sigmoid;
            }),
        ),
        (
            "CLIP",
            Vec::new(),
            of_clip,
            Box::new(move |settings: &mut Settings| {
                settings.objective.name = Objective::Clip;
                settings.clip = clip;
                settings.data.loading.size = 48;
            }),
        ),
    ];
    for (what, tower, more, change) in cases {
        let place = tempfile::tempdir().unwrap();
        let checkpoint = run(&place.path().join("run"), &tower, more, change);
        let settings = &checkpoint.state.settings;
        let out = place.path().join("export");
        let made = export::open_clip(&checkpoint, None, &out).unwrap();
        let size = i64::from(settings.data.loading.size);
        let forced = made.force_image_size.map_or_else(|| "None".to_owned(), |size| size.to_string());
        let script = format!(
            r"
import json, torch, open_clip
from open_clip.factory import load_checkpoint
model, _, preprocess = open_clip.create_model_and_transforms('local-dir:export', force_image_size={forced})
keys = load_checkpoint(open_clip.create_model('local-dir:export', load_weights=False), 'export/open_clip_model.safetensors')
pixels = torch.sin(torch.arange(2 * 3 * {size} * {size}, dtype=torch.float64)).float().view(2, 3, {size}, {size})
with torch.no_grad():
    images = model.eval().encode_image(pixels)
    texts = model.encode_text(open_clip.get_tokenizer('local-dir:export')({captions}))
print(json.dumps({{
    'missing': list(keys.missing_keys) + list(keys.unexpected_keys),
    'images': images.flatten().tolist(),
    'texts': texts.flatten().tolist(),
    'scale': model.logit_scale.item(),
    'bias': None if model.logit_bias is None else model.logit_bias.item(),
    'size': list(preprocess.transforms[1].size),
    'mean': list(preprocess.transforms[-1].mean),
}}))",
            captions = json!(CAPTIONS)
        );
        let theirs = told(&python, place.path(), &script);
        assert_eq!(theirs["missing"], json!([]), "{what}");
        let model = Model::open(&checkpoint, Precision::Float32, Device::Cpu).unwrap();
        let pixels = Tensor::arange(2 * 3 * size * size, (Kind::Double, Device::Cpu))
            .sin()
            .to_kind(Kind::Float)
            .view([2, 3, size, size]);
        let (images, texts) = tch::no_grad(|| {
            let images = match &model.vision {
                Vision::Frozen(vision) => vision.encoder.tower.forward(&pixels).class,
                Vision::Clip(vision) => vision.tower.class(&pixels),
            };
            let tokenizer = concepts::Tokenizer::clip();
            let ids = CAPTIONS.iter().flat_map(|text| tokenizer.encode(&concepts::canonical(text), 32).ids);
            let tokens = CaptionTokens::new(&ids.map(i64::from).collect::<Vec<_>>(), 32, Device::Cpu);
            (images, model.text.captions(&model.text.tokens(&tokens, Kind::Float), &tokens.end))
        });
        close(&format!("{what}: images"), &images, &theirs["images"], 1e-4);
        close(&format!("{what}: texts"), &texts, &theirs["texts"], 1e-4);
        let scale = model.text.logit_scale().log().double_value(&[]);
        assert!((theirs["scale"].as_f64().unwrap() - scale).abs() < 1e-6, "{what}");
        let bias = model.text.logit_bias().map(|bias| bias.double_value(&[]));
        assert_eq!(theirs["bias"].as_f64(), bias, "{what}");
        assert_eq!(theirs["size"], json!([size, size]), "{what}: after force_image_size");
        assert_eq!(theirs["mean"], json!([0.485, 0.456, 0.406]), "{what}");
        assert_eq!(model.text.activation() == Activation::QuickGelu, settings.text.quick_gelu);
    }
}

/// Before anything is written.
#[test]
fn what_open_clip_does_not_have_is_refused_by_name() {
    let _turn = crate::random(8);
    let narrow =
        VisionTower::random(VisionShape { width: 128, depth: 2, patch: 14, grid: 4 }, Device::Cpu).named();
    let head = VisionHead::random(1, Embedding::Class, 384, Device::Cpu).named();
    let mut periods = small(4, true);
    periods.push(("rope_embed.periods".to_owned(), Tensor::from_slice(&[1.5f32; 16])));
    type Case<'a> = (&'a str, Tensors, Tensors, fn(&mut Settings));
    let cases: [Case<'_>; 6] = [
        ("vision tower of this size (DINOv2: 128 wide", narrow, Vec::new(), |_| {}),
        ("vision.head.blocks", small(0, false), head, |settings| settings.vision.head.blocks = 1),
        ("vision.embedding = class+mean", small(0, false), Vec::new(), |settings| {
            settings.vision.embedding = Embedding::ClassMean;
        }),
        ("vision.position = dinov2): use --size 518", small(0, false), Vec::new(), |settings| {
            settings.vision.position = Some(PositionResize::Dinov2);
        }),
        ("vision.rope_periods = file", periods, Vec::new(), |_| {}),
        (
            "two activation functions",
            Vec::new(),
            ClipVisionTower::random(ClipShape::default(), 14, Kind::Float, Device::Cpu).named(),
            |settings| {
                settings.objective.name = Objective::Clip;
                settings.text.quick_gelu = true;
            },
        ),
    ];
    for (message, tower, more, change) in cases {
        let place = tempfile::tempdir().unwrap();
        let checkpoint = run(&place.path().join("run"), &tower, more, change);
        let out = place.path().join("export");
        let error = export::open_clip(&checkpoint, None, &out).unwrap_err();
        assert!(error.is_wrong_use() && error.to_string().contains(message), "{error}");
        assert!(!out.exists(), "{message}");
    }
}
