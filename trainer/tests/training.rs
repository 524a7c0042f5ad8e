//! Compares ten optimizer steps with PyTorch (`tests/fixtures/training/make.py`), in one and in several processes; and tests what
//! happens when a rank is lost.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::wave::{fill, wave};
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use trainer::Error;
use trainer::data::seen;
use trainer::group::Group;
use trainer::launch::Launch;
use trainer::losses::Target;
use trainer::objective::{Images, Objective, ObjectiveSettings, Query, StepInput, gradients};
use trainer::optimizer::{Optimizer, OptimizerSettings};
use trainer::pooling::Mention;
use trainer::towers::{CaptionTokens, PositionResize, TextShape, TextTower, VisionShape, VisionTower};

const SIZE: i64 = 32;
const CONTEXT: usize = 16;
/// The part of `in_proj_bias` for the keys. It adds the same value to all similarities of a query, which does not change a softmax, so
/// its gradient is only rounding error, from which Adam makes full steps.
const KEYS: std::ops::Range<i64> = 32..64;
const OUTPUT: i64 = 64;

/// The device of the tests: the CPU, or the value of TRAINER_TEST_DEVICE.
fn device() -> Device {
    trainer::device::open(&std::env::var("TRAINER_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())).unwrap()
}

fn cases() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/training/cases.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn vision() -> VisionTower {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tower.safetensors");
    let shape = VisionShape { width: OUTPUT, depth: 2, patch: 8, grid: 4 };
    let tower = VisionTower::random(shape, device());
    fill(tower.named());
    trainer::weights::write(&path, &tower.named()).unwrap();
    VisionTower::read(&path, Some(PositionResize::Timm), Kind::Float, device()).unwrap()
}

fn text() -> TextTower {
    let shape = TextShape { width: 32, depth: 2, heads: 2, context: CONTEXT as i64 };
    let tower = TextTower::random(shape, OUTPUT, device());
    // The logit scale keeps its initial value, that of CLIP.
    fill(tower.named().into_iter().filter(|(name, _)| name != "logit_scale").collect());
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

/// The rows of a rank in batch `step`.
fn input(all: &Value, vision: &VisionTower, step: usize, group: &Group) -> StepInput<'static> {
    let tokenizer = concepts::bpe::Tokenizer::clip();
    let rows = all["batches"][step].as_array().unwrap();
    let count = rows.len() / group.world();
    let (mut ids, mut pixels, mut mentions) = (Vec::new(), Vec::new(), Vec::new());
    for (row, sample) in rows[group.rank() * count..][..count].iter().enumerate() {
        let sample = sample.as_u64().unwrap() as usize;
        let caption = &all["captions"][sample];
        ids.extend(
            tokenizer.encode(caption["text"].as_str().unwrap(), CONTEXT).ids.into_iter().map(i64::from),
        );
        pixels.push(wave((3 * SIZE * SIZE) as usize, sample).view([3, SIZE, SIZE]).to_kind(Kind::Float));
        for mention in caption["mentions"].as_array().unwrap() {
            let [first, end, label] = [0, 1, 2].map(|i| mention[i].as_u64().unwrap() as u32);
            // Word i is token i + 1, after the start token.
            mentions.push(Mention { row: row as u32, label, positions: first + 1..end + 1 });
        }
    }
    let features = tch::no_grad(|| vision.forward(&Tensor::stack(&pixels, 0).to_device(device())));
    StepInput {
        images: Images::Seen(seen(&features, true, Kind::Float)),
        captions: CaptionTokens::new(&ids, CONTEXT, device()),
        mentions,
    }
}

/// Takes ten steps and compares all losses and the weights with those of PyTorch.
fn ten_steps(name: &str, group: &Group, micro_batch: usize) {
    let all = cases();
    let case = &all[name];
    let (vision, text) = (vision(), text());
    let settings = objective(case, &all);
    let optimizer_settings = OptimizerSettings {
        lr: all["lr"].as_f64(),
        clip: case["clip"].as_f64().unwrap(),
        ..OptimizerSettings::default()
    };
    let mut optimizer = Optimizer::new(&optimizer_settings, text.named());
    for (step, expected) in case["losses"].as_array().unwrap().iter().enumerate() {
        let input = input(&all, &vision, step, group);
        let report = gradients(&text, &settings, &input, group, micro_batch, Kind::Float).unwrap();
        let parts = Tensor::stack(&[&report.loss, &report.contrastive], 0).to_kind(Kind::Double);
        group.sum(std::slice::from_ref(&parts)).unwrap();
        for (part, what) in ["loss", "contrastive loss"].into_iter().enumerate() {
            let (found, expected) = (parts.double_value(&[part as i64]), expected[part].as_f64().unwrap());
            let apart = (found - expected).abs() / expected;
            assert!(apart < 1e-4, "{name}, step {step}: {what} {found}, not {expected}");
        }
        optimizer.step(optimizer_settings.lr_at(0, step as u64, 10)).unwrap();
        text.clamp_logit_scale();
    }
    let named = text.named();
    assert_eq!(named.len(), case["weights"].as_object().unwrap().len());
    for (tensor_name, tensor) in &named {
        let expected = &case["weights"][tensor_name];
        let flat = tensor.detach().reshape([-1]).to_kind(Kind::Double);
        for (at, value) in
            expected["at"].as_array().unwrap().iter().zip(expected["values"].as_array().unwrap())
        {
            let at = at.as_i64().unwrap();
            if tensor_name.ends_with("in_proj_bias") && KEYS.contains(&at) {
                continue;
            }
            let found = flat.double_value(&[at]);
            let apart = (found - value.as_f64().unwrap()).abs();
            assert!(apart < 1e-4, "{name}: {tensor_name}[{at}] is {found}, not {value}");
        }
        let apart = (flat.mean(Kind::Double).double_value(&[]) - expected["mean"].as_f64().unwrap()).abs();
        assert!(apart < 1e-4, "{name}: the mean of {tensor_name} is off by {apart:e}");
    }
}

const CASES: [&str; 3] = ["paper", "released", "lit"];

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
    let (vision, text) = (vision(), text());
    let input = input(all, &vision, step, group);
    let report =
        gradients(&text, &objective(&all[name], all), &input, group, micro_batch, Kind::Float).unwrap();
    let loss = report.loss.to_kind(Kind::Double).view([1]);
    group.sum(std::slice::from_ref(&loss)).unwrap();
    (loss.double_value(&[0]), text.named().into_iter().map(|(name, p)| (name, p.grad())).collect())
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
                [("paper", 0), ("paper", 3), ("paper", 5), ("released", 1), ("released", 3), ("lit", 0)]
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
                        Tensor::cat(&[x.narrow(0, 0, KEYS.start), x.narrow(0, KEYS.end, KEYS.start)], 0)
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
        }
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
            let told = if role == "fail" { "rank 1 stopped: the dog ate it" } else { "rank 1 is gone" };
            assert!(message.contains(told), "{message}");
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
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{role}, rank {rank} of {world}: {told}");
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
