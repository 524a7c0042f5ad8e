//! Compares optimizer steps, in one and in several processes, with PyTorch (`tests/fixtures/training/make.py`) and with the authors'
//! own code (`tests/fixtures/training/released.py`); and tests what happens when a rank is lost.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::wave::{fill, wave};
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use trainer::Error;
use trainer::data::seen;
use trainer::distributed::{Group, Launch};
use trainer::method::losses::Target;
use trainer::method::objective::{
    CaptionLoss, Images, Objective, ObjectiveSettings, Query, StepInput, StepReport, gradients,
};
use trainer::method::optimizer::{Optimizer, OptimizerSettings};
use trainer::method::pooling::Mention;
use trainer::method::unmentioned::Beyond;
use trainer::settings::Settings;
use trainer::towers::{
    CaptionTokens, ClipShape, ClipVisionTower, Embedding, PositionResize, TextShape, TextTower, VisionHead,
    VisionShape, VisionTower,
};

const SIZE: i64 = 32;
const OUTPUT: i64 = 64;

/// The device of the tests: the CPU, or the value of TRAINER_TEST_DEVICE.
pub(crate) fn device() -> Device {
    trainer::device::open(&std::env::var("TRAINER_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())).unwrap()
}

/// The part of an `in_proj_bias` for the keys. It adds the same value to all similarities of a query, which does not change a softmax,
/// so its gradient is only rounding error, from which Adam makes full steps.
fn keys(bias: &Tensor) -> std::ops::Range<i64> {
    let third = bias.numel() as i64 / 3;
    third..2 * third
}

fn read(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub(crate) fn cases() -> Value {
    read(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/training/cases.json"))
}

/// The steps of the authors' code: those in the repository, or the ones in the file that RELEASED_STEPS names.
fn released() -> Value {
    let stored = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/training/released.json");
    read(&std::env::var("RELEASED_STEPS").unwrap_or_else(|_| stored.to_owned()))
}

pub(crate) fn context(all: &Value) -> usize {
    all["context"].as_u64().unwrap() as usize
}

fn vision(kind: Kind) -> VisionTower {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tower.safetensors");
    let shape = VisionShape { width: OUTPUT, depth: 2, patch: 8, grid: 4 };
    let tower = VisionTower::random(shape, device());
    fill(&tower.named());
    trainer::weights::write(&path, &tower.named()).unwrap();
    VisionTower::read(&path, Some(PositionResize::Timm), kind, device()).unwrap()
}

fn text(all: &Value) -> TextTower {
    let shape = TextShape { width: 32, depth: 2, heads: 2, context: context(all) as i64 };
    let tower = TextTower::random(shape, OUTPUT, device());
    // The logit scale keeps its initial value, that of CLIP.
    fill(&tower.named().into_iter().filter(|(name, _)| name != "logit_scale").collect::<Vec<_>>());
    tower
}

fn objective(case: &Value, all: &Value) -> ObjectiveSettings {
    ObjectiveSettings {
        name: if case["objective"] == "lit" { Objective::Lit } else { Objective::Simzss },
        target: if case["target"] == "argmax" { Target::Argmax } else { Target::Label },
        query: if case["query"] == "concept" { Query::Concept } else { Query::Mention },
        concept_weight: all["concept_weight"].as_f64().unwrap(),
        ..ObjectiveSettings::default()
    }
}

/// The rows of a rank in batch `step`: pixels, captions and mentions.
pub(crate) fn rows(all: &Value, step: usize, group: &Group) -> (Tensor, CaptionTokens, Vec<Mention>) {
    let tokenizer = concepts::Tokenizer::clip();
    let rows = all["batches"][step].as_array().unwrap();
    let count = rows.len() / group.world();
    let (mut ids, mut pixels, mut mentions) = (Vec::new(), Vec::new(), Vec::new());
    for (row, sample) in rows[group.rank() * count..][..count].iter().enumerate() {
        let sample = sample.as_u64().unwrap() as usize;
        let caption = &all["captions"][sample];
        let text = concepts::canonical(caption["text"].as_str().unwrap());
        ids.extend(tokenizer.encode(&text, context(all)).ids.into_iter().map(i64::from));
        pixels.push(wave((3 * SIZE * SIZE) as usize, sample).view([3, SIZE, SIZE]).to_kind(Kind::Float));
        for mention in caption["mentions"].as_array().unwrap() {
            let [first, end, label] = [0, 1, 2].map(|i| mention[i].as_u64().unwrap() as u32);
            mentions.push(Mention { row: row as u32, label, positions: first..end });
        }
    }
    let pixels = Tensor::stack(&pixels, 0).to_device(device());
    (pixels, CaptionTokens::new(&ids, context(all), device()), mentions)
}

/// The same as the input of a step with a frozen tower that computes in `kind`.
fn input(all: &Value, vision: &VisionTower, step: usize, group: &Group, kind: Kind) -> StepInput<'static> {
    let (pixels, captions, mentions) = rows(all, step, group);
    let features = tch::no_grad(|| vision.forward(&pixels.to_kind(kind)));
    StepInput {
        images: Images::Seen(seen(&features, true, kind)),
        captions,
        mentions,
        beyond: Beyond::default(),
    }
}

/// Takes ten steps and compares all losses and the weights with those of PyTorch.
fn ten_steps(name: &str, group: &Group, micro_batch: usize) {
    let all = cases();
    let settings = objective(&all[name], &all);
    let optimizer = OptimizerSettings {
        lr: all["lr"].as_f64(),
        clip: all[name]["clip"].as_f64().unwrap(),
        ..OptimizerSettings::default()
    };
    take_steps(&all, name, &text(&all), &settings, &optimizer, group, micro_batch, 1e-4);
}

/// Takes twenty steps with the preset `released` and compares all losses and the weights with those of the authors' code.
fn twenty_steps(group: &Group, micro_batch: usize) {
    let all = released();
    let preset = Path::new(env!("CARGO_MANIFEST_DIR")).join("presets/released.toml");
    let required =
        ["out=run", "data.shards=['shards']", "vision.weights=tower.safetensors"].map(str::to_owned);
    let mut settings = Settings::read(&[preset], &required).unwrap();
    settings.objective.concept_weight = all["concept_weight"].as_f64().unwrap();
    settings.optimizer.lr_per_256 = all["lr_per_256"].as_f64().unwrap();
    settings.optimizer.warmup = all["warmup"].as_f64().unwrap();
    let text = text(&all);
    // As in released.py: one large weight makes the lengths of tokens differ.
    for (name, weight) in text.named() {
        if name == "ln_final.weight" {
            tch::no_grad(|| {
                let _ = weight.shallow_clone().fill_(0.4);
                let _ = weight.narrow(0, 0, 1).fill_(12.0);
            });
        }
    }
    let (name, tolerance) = if group.world() == 1 { ("one rank", 1e-5) } else { ("two ranks", 1e-4) };
    take_steps(&all, name, &text, &settings.objective, &settings.optimizer, group, micro_batch, tolerance);
}

/// Takes the steps of the case `name` of a file and compares all losses and the weights. They may differ by `tolerance`; losses
/// above 1 by `tolerance` of their value.
#[allow(clippy::too_many_arguments)]
fn take_steps(
    all: &Value,
    name: &str,
    text: &TextTower,
    settings: &ObjectiveSettings,
    optimizer_settings: &OptimizerSettings,
    group: &Group,
    micro_batch: usize,
    tolerance: f64,
) {
    let case = &all[name];
    let vision = vision(Kind::Float);
    let mut optimizer = Optimizer::new(optimizer_settings, text.named());
    let losses = case["losses"].as_array().unwrap();
    let batch = all["batches"][0].as_array().unwrap().len();
    let mut worst = (0.0_f64, 0.0_f64);
    for (step, expected) in losses.iter().enumerate() {
        let input = input(all, &vision, step, group, Kind::Float);
        let report = gradients(text, settings, &input, group, micro_batch, Kind::Float).unwrap();
        let concept = report.concept.unwrap_or_else(|| report.contrastive.zeros_like());
        let parts = Tensor::stack(&[&report.loss, &report.contrastive, &concept], 0).to_kind(Kind::Double);
        group.sum(std::slice::from_ref(&parts)).unwrap();
        for (part, what) in ["loss", "contrastive loss", "concept loss"].into_iter().enumerate() {
            let (found, expected) = (parts.double_value(&[part as i64]), expected[part].as_f64().unwrap());
            // The rounding of logits does not become smaller with the loss.
            let apart = (found - expected).abs() / expected.max(1.0);
            assert!(apart < tolerance, "{name}, step {step}: {what} {found}, not {expected}");
            worst.0 = worst.0.max(apart);
        }
        optimizer.step(optimizer_settings.lr_at(batch, step as u64, losses.len() as u64)).unwrap();
        text.clamp_logit_scale();
    }
    worst.1 = compare_weights(name, case, &text.named(), tolerance);
    eprintln!(
        "{name}, {} steps, rank {} of {}: losses differ by at most {:.1e}, weights by {:.1e}",
        losses.len(),
        group.rank(),
        group.world(),
        worst.0,
        worst.1
    );
}

/// Compares weights with those of a case; returns the largest difference.
pub(crate) fn compare_weights(name: &str, case: &Value, named: &[(String, Tensor)], tolerance: f64) -> f64 {
    let mut worst = 0.0_f64;
    assert_eq!(named.len(), case["weights"].as_object().unwrap().len());
    for (tensor_name, tensor) in named {
        let expected = &case["weights"][tensor_name];
        let flat = tensor.detach().reshape([-1]).to_kind(Kind::Double);
        for (at, value) in
            expected["at"].as_array().unwrap().iter().zip(expected["values"].as_array().unwrap())
        {
            let at = at.as_i64().unwrap();
            if tensor_name.ends_with("in_proj_bias") && keys(tensor).contains(&at) {
                continue;
            }
            let found = flat.double_value(&[at]);
            let apart = (found - value.as_f64().unwrap()).abs();
            assert!(apart < tolerance, "{name}: {tensor_name}[{at}] is {found}, not {value}");
            worst = worst.max(apart);
        }
        if tensor_name.ends_with("in_proj_bias") {
            continue;
        }
        let apart = (flat.mean(Kind::Double).double_value(&[]) - expected["mean"].as_f64().unwrap()).abs();
        assert!(apart < tolerance, "{name}: the mean of {tensor_name} is off by {apart:e}");
    }
    worst
}

/// The loss of all ranks.
pub(crate) fn total(report: &StepReport, group: &Group) -> f64 {
    let loss = report.loss.to_kind(Kind::Double).view([1]);
    group.sum(std::slice::from_ref(&loss)).unwrap();
    loss.double_value(&[0])
}

/// Ten steps of the objective `clip`, which trains both towers, are those of open_clip.
fn ten_steps_of_clip(group: &Group, micro_batch: usize) {
    let all = cases();
    let text = text(&all);
    let shape = ClipShape { width: OUTPUT, depth: 2, patch: 8, output: OUTPUT };
    let vision = ClipVisionTower::random(shape, 4, Kind::Float, device()).trainable();
    fill(&vision.named());
    let settings = ObjectiveSettings { name: Objective::Clip, ..ObjectiveSettings::default() };
    let optimizer_settings = OptimizerSettings { lr: all["lr"].as_f64(), ..OptimizerSettings::default() };
    let named = || text.named().into_iter().chain(vision.named()).collect::<Vec<_>>();
    let mut optimizer = Optimizer::new(&optimizer_settings, named());
    let mut worst = 0.0_f64;
    for (step, expected) in all["clip"]["losses"].as_array().unwrap().iter().enumerate() {
        let (pixels, captions, _) = rows(&all, step, group);
        let input = StepInput {
            images: Images::ToTrain(&vision, pixels),
            captions,
            mentions: Vec::new(),
            beyond: Beyond::default(),
        };
        let report = gradients(&text, &settings, &input, group, micro_batch, Kind::Float).unwrap();
        let (found, expected) = (total(&report, group), expected[0].as_f64().unwrap());
        worst = worst.max((found - expected).abs() / expected);
        assert!(worst < 1e-4, "clip, step {step}: {found}, not {expected}");
        optimizer.step(optimizer_settings.lr_at(0, step as u64, 10)).unwrap();
        text.clamp_logit_scale();
    }
    let weights = compare_weights("clip", &all["clip"], &named(), 1e-4);
    eprintln!("clip: losses differ by at most {worst:.1e} of their value, weights by {weights:.1e}");
}

/// The cases of `tests/fixtures/training/frontier.py` and `gram.py`: a head behind the frozen tower, the sigmoid loss, the Gram loss, the patch loss.
const FRONTIER: [&str; 6] =
    ["head", "sigmoid", "head and sigmoid", "head and gram", "patches", "head and patches"];

/// Ten steps of such a case are PyTorch's.
fn ten_steps_of_frontier(name: &str, group: &Group, micro_batch: usize) {
    let all = cases();
    let file = if name.ends_with("gram") { "gram" } else { "frontier" };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/training");
    let frontier = read(&format!("{folder}/{file}.json"));
    let case = &frontier[name];
    let (blocks, sigmoid) = (case["blocks"].as_i64().unwrap(), case["sigmoid"] == true);
    let embedding = if case["mean"] == true { Embedding::ClassMean } else { Embedding::Class };
    let settings = ObjectiveSettings {
        caption: if sigmoid { CaptionLoss::Sigmoid } else { CaptionLoss::Infonce },
        logit_bias: -2.71,
        concept_weight: all["concept_weight"].as_f64().unwrap(),
        patch_weight: case["patch"].as_f64().unwrap_or_default(),
        gram_weight: frontier["weight"].as_f64().unwrap_or_default(),
        ..ObjectiveSettings::default()
    };
    let shape = TextShape { width: 32, depth: 2, heads: 2, context: context(&all) as i64 };
    let (scale, bias) = settings.initial_logits();
    let text = TextTower::random(shape, embedding.width(OUTPUT), device()).with_patches(OUTPUT);
    let text = text.with_logits(scale, bias);
    fill(&text.named().into_iter().filter(|(name, _)| !name.starts_with("logit_")).collect::<Vec<_>>());
    let head = VisionHead::random(blocks, embedding, OUTPUT, device());
    fill(&head.named());
    let vision = vision(Kind::Float);
    let named = || text.named().into_iter().chain(head.named()).collect::<Vec<_>>();
    let optimizer_settings = OptimizerSettings { lr: all["lr"].as_f64(), ..OptimizerSettings::default() };
    let mut optimizer = Optimizer::new(&optimizer_settings, named());
    let mut worst = 0.0_f64;
    for (step, expected) in case["losses"].as_array().unwrap().iter().enumerate() {
        let (pixels, captions, mentions) = rows(&all, step, group);
        let frozen = tch::no_grad(|| vision.forward(&pixels));
        let images = if head.is_trained() {
            Images::Headed(&head, frozen, None)
        } else {
            Images::Seen(seen(&head.features(&frozen), true, Kind::Float))
        };
        let input = StepInput { images, captions, mentions, beyond: Beyond::default() };
        let report = gradients(&text, &settings, &input, group, micro_batch, Kind::Float).unwrap();
        let concept = report.concept.unwrap();
        let mut parts = vec![&report.loss, &report.contrastive, &concept];
        parts.extend(report.gram.iter().chain(&report.patch));
        let parts = Tensor::stack(&parts, 0).to_kind(Kind::Double);
        group.sum(std::slice::from_ref(&parts)).unwrap();
        assert_eq!(parts.size(), [expected.as_array().unwrap().len() as i64], "{name}");
        for part in 0..parts.size()[0] {
            let (found, expected) = (parts.double_value(&[part]), expected[part as usize].as_f64().unwrap());
            let apart = (found - expected).abs() / expected.max(1.0);
            assert!(apart < 1e-4, "{name}, step {step}, part {part}: {found}, not {expected}");
            worst = worst.max(apart);
        }
        optimizer.step(optimizer_settings.lr_at(0, step as u64, 10)).unwrap();
        text.clamp_logit_scale();
    }
    let weights = compare_weights(name, case, &named(), 1e-4);
    eprintln!("{name}: losses differ by at most {worst:.1e}, weights by {weights:.1e}");
}

#[test]
fn ten_steps_with_a_head_and_of_the_sigmoid_loss_are_pytorchs() {
    for name in FRONTIER {
        ten_steps_of_frontier(name, &Group::alone(), 0);
        ten_steps_of_frontier(name, &Group::alone(), 4);
    }
}

#[test]
fn ten_steps_of_clip_are_open_clips() {
    ten_steps_of_clip(&Group::alone(), 0);
    ten_steps_of_clip(&Group::alone(), 4);
}

/// With towers in bfloat16 the losses of ten steps differ from float32 by no more than those of PyTorch with autocast do, within a
/// factor of 3, because rounding errors are not the same in both. Differences are relative to the first loss.
#[test]
fn bfloat16_rounds_as_pytorchs() {
    let all = cases();
    let (group, half) = (Group::alone(), Kind::BFloat16);
    let vision = vision(half);
    for (name, theirs) in all["bfloat16"].as_object().unwrap() {
        let (case, text) = (&all[name], text(&all));
        let settings = objective(case, &all);
        let optimizer_settings = OptimizerSettings {
            lr: all["lr"].as_f64(),
            clip: case["clip"].as_f64().unwrap(),
            ..OptimizerSettings::default()
        };
        let mut optimizer = Optimizer::new(&optimizer_settings, text.named());
        let mut worst = 0.0_f64;
        for (step, expected) in case["losses"].as_array().unwrap().iter().enumerate() {
            let input = input(&all, &vision, step, &group, half);
            let loss = gradients(&text, &settings, &input, &group, 0, half).unwrap().loss.double_value(&[]);
            let first = case["losses"][0][0].as_f64().unwrap();
            worst = worst.max((loss - expected[0].as_f64().unwrap()).abs() / first);
            optimizer.step(optimizer_settings.lr_at(0, step as u64, 10)).unwrap();
            text.clamp_logit_scale();
        }
        let theirs = theirs.as_f64().unwrap();
        eprintln!(
            "{name}: bfloat16 changes the losses of ten steps by at most {worst:.1e} (PyTorch: {theirs:.1e})"
        );
        assert!(worst > 1e-6, "{name}: computed in float32");
        assert!(worst < 3.0 * theirs, "{name}: {worst:e}, PyTorch: {theirs:e}");
    }
}

#[test]
fn twenty_steps_are_those_of_the_released_code() {
    twenty_steps(&Group::alone(), 0);
    twenty_steps(&Group::alone(), 5);
}

#[test]
fn twenty_steps_of_two_ranks_are_those_of_the_released_code() {
    ranks(2, "released");
}

const CASES: [&str; 3] = ["paper", "argmax", "lit"];

#[test]
fn ten_steps_are_pytorchs() {
    for name in CASES {
        ten_steps(name, &Group::alone(), 0);
        ten_steps(name, &Group::alone(), 2);
    }
}

/// The loss and the gradients of one batch.
fn one_step(
    all: &Value,
    name: &str,
    step: usize,
    group: &Group,
    micro_batch: usize,
) -> (f64, Vec<(String, Tensor)>) {
    let (vision, text) = (vision(Kind::Float), text(all));
    let input = input(all, &vision, step, group, Kind::Float);
    let report =
        gradients(&text, &objective(&all[name], all), &input, group, micro_batch, Kind::Float).unwrap();
    (total(&report, group), text.named().into_iter().map(|(name, p)| (name, p.grad())).collect())
}

fn norm(x: &Tensor) -> f64 {
    x.to_kind(Kind::Double).norm().double_value(&[])
}

/// Runs in one of several processes. The process of the test starts it and checks how it ends.
fn as_rank(role: &str, group: &Group) {
    // All ranks have connected before one leaves.
    group.gather_numbers(&[]).unwrap();
    match role {
        "compare" => {
            let all = cases();
            let mut worst: f64 = 0.0;
            // The single process uses micro-batches of the size of a rank's batch, so that matrix products are rounded in the same way.
            // Cases: all ranks have mentions; only the first; none.
            for (name, step) in
                [("paper", 0), ("paper", 3), ("paper", 5), ("argmax", 1), ("argmax", 3), ("lit", 0)]
            {
                let (whole_loss, whole) = one_step(&all, name, step, &Group::alone(), 6 / group.world());
                let (loss, parts) = one_step(&all, name, step, group, 0);
                assert!(
                    (loss - whole_loss).abs() < 1e-6 * whole_loss.max(1.0),
                    "{name} {step}: {loss}, {whole_loss}"
                );
                let (mut apart, mut size) = (0.0, 0.0);
                for ((tensor, a), (_, b)) in whole.iter().zip(&parts) {
                    let counted = |x: &Tensor| {
                        if !tensor.ends_with("in_proj_bias") {
                            return x.shallow_clone();
                        }
                        let keys = keys(x);
                        Tensor::cat(&[x.narrow(0, 0, keys.start), x.narrow(0, keys.end, keys.start)], 0)
                    };
                    let (a, b) = (counted(a), counted(b));
                    apart += norm(&(&a - &b)).powi(2);
                    size += norm(&a).powi(2);
                }
                let apart = (apart / size).sqrt();
                // Logits of up to 14 cause an error of 14 · 6e-8 in every gradient.
                assert!(apart < 3e-6, "{name} {step}: the gradient is off by {apart:e}");
                worst = worst.max(apart);
            }
            eprintln!(
                "rank {} of {}: maximum relative error of gradients {worst:e}",
                group.rank(),
                group.world()
            );
        }
        "train" => {
            for name in CASES {
                ten_steps(name, group, 0);
            }
            ten_steps("paper", group, 1);
            for name in FRONTIER {
                ten_steps_of_frontier(name, group, 0);
            }
            ten_steps_of_frontier("head", group, 1);
            ten_steps_of_frontier("head and patches", group, 1);
            ten_steps_of_frontier("head and gram", group, 2);
            ten_steps_of_clip(group, 0);
            crate::talk2dino::ten_steps(group, 0);
            crate::talk2dino::ten_steps(group, 2);
        }
        "released" => {
            twenty_steps(group, 0);
            twenty_steps(group, 4);
        }
        "unmentioned" => crate::unmentioned::as_rank(group),
        "leave" if group.rank() == 1 => {}
        "fail" if group.rank() == 1 => {
            group.announce_failure(&Error::Failed("the dog ate it".to_owned()));
        }
        "hang" if group.rank() == 1 => std::thread::sleep(Duration::from_secs(12)),
        "leave" | "fail" | "hang" => {
            let tensors = [Tensor::ones([4], (Kind::Float, device()))];
            // The first operation may still succeed before the other rank ends.
            let error = (0..1000).find_map(|_| group.sum(&tensors).err()).expect("rank 1 takes no part");
            let message = error.to_string();
            let reason = if role == "fail" { "rank 1 stopped: the dog ate it" } else { "rank 1 is gone" };
            assert!(message.contains(reason), "{message}");
        }
        other => panic!("no role {other}"),
    }
}

const ROLE: &str = "TRAINER_TEST_ROLE";

/// Does the work of a process that [`ranks`] started; does nothing otherwise.
#[test]
fn part_of_another_test() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let launch = Launch::from_environment().unwrap().unwrap();
    let timeout = Duration::from_secs(if role == "hang" { 3 } else { 60 });
    let group = Group::join(&launch, device(), timeout).unwrap();
    as_rank(&role, &group);
}

/// Starts `world` processes with `role` and waits for them; panics with the output of one that failed.
fn ranks(world: usize, role: &str) {
    if world > 1 && device().is_cuda() {
        eprintln!("skipped: {role} with {world} ranks, because NCCL needs one GPU per rank");
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = |rank: usize| -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "training::part_of_another_test", "--nocapture", "--test-threads=1"])
            .envs([(ROLE, role.to_owned()), ("RANK", rank.to_string()), ("WORLD_SIZE", world.to_string())])
            .envs([("MASTER_ADDR", "127.0.0.1".to_owned()), ("MASTER_PORT", port.to_string())])
            .env("OMP_NUM_THREADS", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let started: Vec<Child> = (0..world).map(start).collect();
    for (rank, child) in started.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{role}, rank {rank} of {world}: {printed}");
        eprint!("{printed}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("1 passed"),
            "{role}: the child ran no test"
        );
    }
}

#[test]
fn several_ranks_have_the_gradients_of_one_process() {
    ranks(2, "compare");
    ranks(3, "compare");
}

#[test]
fn ten_steps_of_two_ranks_are_pytorchs() {
    ranks(2, "train");
}

#[test]
fn several_ranks_agree_on_what_captions_do_not_mention() {
    ranks(2, "unmentioned");
    ranks(3, "unmentioned");
}

/// A group with a single rank uses all collective operations too, on a GPU those of NCCL.
#[test]
fn ten_steps_of_a_group_of_one_are_pytorchs() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let launch = Launch {
        rank: 0,
        world: 1,
        local_rank: 0,
        host: "127.0.0.1".to_owned(),
        port,
        prefix: String::new(),
        store_is_external: false,
    };
    let group = Group::join(&launch, device(), Duration::from_mins(1)).unwrap();
    as_rank("train", &group);
}

#[test]
fn a_rank_that_ends_fails_or_hangs_is_named() {
    ranks(3, "leave");
    ranks(2, "fail");
    ranks(2, "hang");
}
