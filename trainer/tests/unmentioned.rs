//! Concepts that captions do not mention: values and gradients of an independent float64 implementation
//! (`tests/fixtures/losses/unmentioned.py`), whole and as the sum over ranks; micro-batches and processes; settings.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use tch::{Device, Kind, Tensor};
use trainer::data::seen;
use trainer::distributed::Group;
use trainer::method::concept_loss::{concept_loss, embed_mentions};
use trainer::method::losses::{self, Target};
use trainer::method::next_image::NextImage;
use trainer::method::objective::{Images, ObjectiveSettings, StepInput, StepReport, Tokens, gradients};
use trainer::method::pooling::{Mention, Mentions};
use trainer::method::sigmoid;
use trainer::method::unmentioned::{Beyond, DoubtfulSettings, Siblings, Unmentioned, numbers, sibling_pairs};
use trainer::towers::{CaptionTokens, TextShape, TextTower, VisionFeatures, unit};

use crate::losses::{of_ranks, total};
use crate::wave::{fill, wave};
use crate::{refused, settings_of};

/// Both sides compute in float64; the remaining difference comes from the order of summation.
const TOLERANCE: f64 = 1e-10;

fn list<T: serde::de::DeserializeOwned>(value: &Value) -> Vec<T> {
    serde_json::from_value(value.clone()).unwrap()
}

fn close(name: &str, found: &Tensor, expected: &Value) {
    let expected = expected.as_f64().map_or_else(|| list(expected), |value| vec![value]);
    assert_eq!(found.numel(), expected.len(), "{name}: size");
    let error = (found.detach().reshape([-1]) - Tensor::from_slice(&expected)).abs().max().double_value(&[]);
    assert!(error < TOLERANCE, "{name}: off by {error:e}");
}

fn settings(case: &Value) -> ObjectiveSettings {
    let settings = &case["settings"];
    let siblings = settings
        .get("siblings")
        .map_or(Siblings::Negative, |value| serde_json::from_value(value.clone()).unwrap());
    let threshold = settings["doubtful"].as_f64();
    ObjectiveSettings {
        siblings,
        target: if settings["target"] == "argmax" { Target::Argmax } else { Target::Label },
        doubtful: DoubtfulSettings {
            decay: if threshold.is_some() { 0.9 } else { 0.0 },
            threshold: threshold.unwrap_or(0.8),
            soft: settings["soft"].as_f64().unwrap_or(0.0),
            added_weight: settings["added"][0].as_f64().unwrap_or(0.0),
            added_threshold: settings["added"][1].as_f64().unwrap_or(1.0),
            start: 0,
        },
        patch_weight: settings["patches"].as_f64().unwrap_or(0.0),
        separation_weight: settings["separation"].as_f64().unwrap_or(0.0),
        image_negatives_weight: settings["images"].as_f64().unwrap_or(0.0),
        shortcut_check: true,
        ..ObjectiveSettings::default()
    }
}

#[test]
fn values_and_gradients_are_the_references() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/losses/unmentioned.json");
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(all["cases"].as_object().unwrap().len(), 25);
    for (name, case) in all["cases"].as_object().unwrap() {
        for ranks in [1, 2, 3] {
            compare(&format!("{name}, {ranks} ranks"), &all, case, ranks);
        }
    }
}

/// Compares a case with the sum over ranks, each with as many rows of the batch as the others.
fn compare(name: &str, all: &Value, case: &Value, ranks: usize) {
    let size = |part: &str| all["shape"][part].as_i64().unwrap();
    let (batch, tokens, width) = (size("batch"), size("tokens"), size("vision_width"));
    let tensor = |part: &str, shape: &[i64]| Tensor::from_slice(&list::<f64>(&case[part])).view(shape);
    let trained = |part: &str, shape: &[i64]| tensor(part, shape).set_requires_grad(true);
    let z_t = trained("z_t", &[batch, tokens, size("text_width")]);
    let projection = trained("projection", &[size("text_width"), width]);
    let (images, captions) = (trained("images", &[batch, width]), trained("captions", &[batch, width]));
    let seen = trained("z_v", &[batch, size("patches"), width]);
    let z_v = unit(&seen);
    let settings = settings(case);
    let mention = |m: &Vec<u32>| Mention { row: m[0], label: m[3], positions: m[1]..m[2] };
    let mentions: Vec<Mention> = list::<Vec<u32>>(&case["mentions"]).iter().map(mention).collect();
    let siblings: Vec<Vec<u32>> = list(&all["siblings"]);
    let rows = batch / ranks as i64;
    let rank_of = |mention: &Mention| i64::from(mention.row) / rows;
    let parts: Vec<Vec<Mention>> =
        (0..ranks as i64).map(|r| mentions.iter().filter(|m| rank_of(m) == r).cloned().collect()).collect();
    let labels: Vec<Vec<i64>> =
        parts.iter().map(|own| own.iter().map(|m| i64::from(m.label)).collect()).collect();

    let together = Mentions::new(&mentions, tokens, Device::Cpu);
    let texts = embed_mentions(Tokens::Mean, &together, &z_t, |rows| rows.matmul(&projection));
    let of_ranks = of_ranks(&labels, &texts);
    let sums = total(&of_ranks);
    let averaged =
        (settings.doubtful.decay > 0.0).then(|| unit(&tensor("averaged", &[mentions.len() as i64, width])));
    let of_images: Vec<i64> = list(&all["of_images"]);
    let numbers = numbers(&[of_images], Device::Cpu).expect("some rows have the same image");

    let negative = settings.siblings == Siblings::Negative;
    let zero = || Tensor::zeros([] as [i64; 0], (Kind::Double, Device::Cpu));
    let [
        mut contrastive,
        mut by_sigmoid,
        mut concept,
        mut patch,
        mut separation,
        mut image_negatives,
        mut other,
        mut doubtful,
        mut added,
    ] = [(); 9].map(|()| zero());
    for (rank, own) in parts.iter().enumerate() {
        let first = rank as i64 * rows;
        let own_rows = first..first + rows;
        let pairs = (settings.siblings != Siblings::Negative).then(|| sibling_pairs(&numbers, &own_rows));
        let number = |name: &str| Tensor::from(all[name].as_f64().unwrap());
        let (x, y, pairs) = (unit(&images), unit(&captions), pairs.as_ref());
        contrastive += losses::contrastive(&x, &y, &number("scale"), own_rows.clone(), pairs);
        by_sigmoid += sigmoid::sigmoid(&x, &y, &Tensor::from(10.0), &number("bias"), own_rows, pairs);

        let next = (1..=ranks).map(|by| &parts[(rank + by) % ranks]).find(|of| !of.is_empty()).unwrap();
        let unmentioned = Unmentioned {
            siblings: if negative {
                Vec::new()
            } else {
                own.iter().map(|m| siblings[m.row as usize].as_slice()).collect()
            },
            averaged: averaged.as_ref().map(|texts| total(&crate::losses::of_ranks(&labels, texts))),
            next: Some(NextImage {
                patches: z_v.narrow(0, i64::from(next[0].row), 1),
                labels: next
                    .iter()
                    .filter(|m| m.row == next[0].row)
                    .map(|m| m.label)
                    .chain(if negative { Vec::new() } else { siblings[next[0].row as usize].clone() })
                    .collect(),
            }),
        };
        let here: Vec<Mention> =
            own.iter().map(|m| Mention { row: m.row - first as u32, ..m.clone() }).collect();
        let here = Mentions::new(&here, tokens, Device::Cpu);
        let (concepts, texts, _) = &of_ranks[rank];
        let patches = z_v.narrow(0, first, rows);
        let part = concept_loss(&settings, &patches, &here, texts, concepts, &sums, &unmentioned);
        concept += part.loss;
        patch += part.patch.unwrap_or_else(zero) / batch as f64;
        separation += part.separation.unwrap_or_else(zero);
        image_negatives += part.image_negatives.unwrap_or_else(zero);
        other += part.other_image.unwrap_or_else(zero);
        doubtful += part.doubtful.unwrap_or_else(zero);
        added += part.added.unwrap_or_else(zero);
    }
    close(&format!("{name}: contrastive"), &contrastive, &case["contrastive"]);
    close(&format!("{name}: sigmoid"), &by_sigmoid, &case["sigmoid"]);
    close(&format!("{name}: concept"), &concept, &case["concept"]);
    close(&format!("{name}: other image"), &other, &case["other image"]);
    for (what, found) in [("doubtful", &doubtful), ("added", &added)] {
        let off = found.double_value(&[]) - case[what].as_f64().unwrap();
        assert!(off.abs() < 1e-6, "{name}: the number per mention ({what}) is off by {off}");
    }
    let mut loss = contrastive + by_sigmoid + concept * settings.concept_weight;
    if settings.patch_weight > 0.0 {
        close(&format!("{name}: patch"), &patch, &case["patch"]);
        loss += patch * settings.patch_weight;
    }
    if settings.separation_weight > 0.0 {
        close(&format!("{name}: separation"), &separation, &case["separation"]);
        loss += separation * settings.separation_weight;
    }
    if settings.image_negatives_weight > 0.0 {
        close(&format!("{name}: image negatives"), &image_negatives, &case["image negatives"]);
        loss += image_negatives * settings.image_negatives_weight;
    }
    loss.backward();
    for (part, tensor) in
        [("z_t", &z_t), ("projection", &projection), ("images", &images), ("captions", &captions)]
    {
        close(&format!("{name}: d {part}"), &tensor.grad(), &case["gradients"][part]);
    }
    if let Some(expected) = case["gradients"].get("z_v") {
        close(&format!("{name}: d z_v"), &seen.grad(), expected);
    }
}

const CAPTIONS: [&str; 6] = [
    "a red ball on the grass",
    "snow",
    "two small boats and a ball",
    "the ball near a boat",
    "grass",
    "a boat on the grass",
];

/// All that captions do not mention, at once.
fn everything(siblings: Siblings) -> ObjectiveSettings {
    ObjectiveSettings {
        concept_weight: 0.5,
        siblings,
        doubtful: DoubtfulSettings {
            decay: 0.9,
            threshold: 0.5,
            soft: 0.2,
            added_weight: 0.5,
            added_threshold: 0.6,
            start: 0,
        },
        patch_weight: 0.3,
        separation_weight: 0.25,
        image_negatives_weight: 0.2,
        shortcut_check: true,
        ..ObjectiveSettings::default()
    }
}

fn tower(phase: usize) -> TextTower {
    let shape = TextShape { width: 32, depth: 2, heads: 2, context: 16 };
    let tower = TextTower::random(shape, 24, Device::Cpu);
    fill(&tower.named());
    for (_, tensor) in tower.named() {
        let by = wave(tensor.numel(), phase).view(tensor.size().as_slice()).to_kind(Kind::Float) * 0.02;
        let _ = tch::no_grad(|| tensor.shallow_clone().g_add_(&by));
    }
    tower
}

/// The rows of a rank.
fn input<'a>(group: &Group, averaged: &'a TextTower) -> StepInput<'a> {
    let tokenizer = concepts::Tokenizer::clip();
    let rows = CAPTIONS.len() / group.world();
    let own = group.rank() * rows..(group.rank() + 1) * rows;
    let ids: Vec<i64> = CAPTIONS[own.clone()]
        .iter()
        .flat_map(|caption| tokenizer.encode(caption, 16).ids)
        .map(i64::from)
        .collect();
    let numbers = |size: &[i64]| {
        let all = wave(size.iter().product::<i64>() as usize, 4).view(size).to_kind(Kind::Float);
        all.narrow(0, own.start as i64, rows as i64)
    };
    let features = VisionFeatures { class: numbers(&[6, 24]), patches: numbers(&[6, 9, 24]) };
    let mention = |row: usize, label, positions| (row, label, positions);
    let mentions = [
        mention(0, 4, 2..4),
        mention(0, 1, 6..7),
        mention(1, 9, 1..2),
        mention(2, 9, 2..4),
        mention(2, 4, 6..7),
        mention(3, 4, 2..3),
        mention(3, 1, 5..6),
    ];
    // The last of three ranks has none.
    let mentions = mentions.into_iter().filter(|(row, ..)| own.contains(row));
    let siblings = [vec![9], vec![], vec![1, 77], vec![9], vec![], vec![4]];
    StepInput {
        images: Images::Seen(seen(&features, true, Kind::Float)),
        captions: CaptionTokens::new(&ids, 16, Device::Cpu),
        mentions: mentions
            .map(|(row, label, positions)| Mention { row: (row - own.start) as u32, label, positions })
            .collect(),
        beyond: Beyond {
            images: [7_i64, 8, 9, 7, 9, 10][own.clone()].to_vec(),
            siblings: siblings[own].to_vec(),
            averaged: Some(averaged),
        },
    }
}

/// The measurements, summed over the ranks, and the gradients of a step.
fn step(
    settings: &ObjectiveSettings,
    group: &Group,
    micro_batch: usize,
) -> (Vec<f64>, Vec<(String, Tensor)>) {
    let (text, averaged) = (tower(0), tower(5));
    let report =
        gradients(&text, settings, &input(group, &averaged), group, micro_batch, Kind::Float).unwrap();
    let StepReport {
        loss,
        contrastive,
        concept,
        patch,
        separation,
        image_negatives,
        other_image,
        doubtful,
        added,
        ..
    } = report;
    let [loss, contrastive] = [loss, contrastive].map(Some);
    let parts =
        [loss, contrastive, concept, patch, separation, image_negatives, other_image, doubtful, added];
    let parts: Vec<Tensor> = parts.into_iter().map(|part| part.unwrap().to_kind(Kind::Double)).collect();
    let sums = Tensor::stack(&parts, 0);
    group.sum(std::slice::from_ref(&sums)).unwrap();
    assert!(averaged.named().iter().all(|(_, weight)| !weight.grad().defined()), "the copy is not trained");
    (Vec::try_from(sums).unwrap(), text.named().into_iter().map(|(name, p)| (name, p.grad())).collect())
}

fn same(
    what: &str,
    (parts, gradients): &(Vec<f64>, Vec<(String, Tensor)>),
    expected: &(Vec<f64>, Vec<(String, Tensor)>),
) {
    for (part, (found, expected)) in parts.iter().zip(&expected.0).enumerate() {
        assert!(
            (found - expected).abs() < 1e-5 * expected.max(1.0),
            "{what}, part {part}: {found}, {expected}"
        );
    }
    for ((name, found), (_, expected)) in gradients.iter().zip(&expected.1) {
        let apart = (found - expected).abs().max().double_value(&[]);
        let apart = apart / expected.abs().max().double_value(&[]).max(1.0);
        assert!(apart < 2e-5, "{what}: {name} differs by {apart:e}");
    }
}

#[test]
fn gradients_do_not_depend_on_the_pieces() {
    for siblings in [Siblings::Ignore, Siblings::Positive] {
        let settings = everything(siblings);
        let whole = step(&settings, &Group::alone(), 0);
        assert!(whole.0.iter().all(|&part| part > 0.0), "all parts take part: {:?}", whole.0);
        for micro_batch in [1, 2, 4] {
            let pieces = step(&settings, &Group::alone(), micro_batch);
            same(&format!("{siblings:?}, pieces of {micro_batch}"), &pieces, &whole);
        }
    }
}

/// The same in one of several processes, which the tests of trainings start.
pub(crate) fn as_rank(group: &Group) {
    for siblings in [Siblings::Ignore, Siblings::Positive] {
        let settings = everything(siblings);
        let whole = step(&settings, &Group::alone(), 0);
        for micro_batch in [0, 1] {
            let parts = step(&settings, group, micro_batch);
            same(&format!("{siblings:?}, rank {} of {}", group.rank(), group.world()), &parts, &whole);
        }
    }
}

/// With the paper's settings, nothing that is known beyond the captions has an effect.
#[test]
fn the_paper_uses_none_of_it() {
    let (text, averaged) = (tower(0), tower(5));
    let paper = ObjectiveSettings { concept_weight: 0.5, ..ObjectiveSettings::default() };
    let loss = |beyond: bool| {
        let mut input = input(&Group::alone(), &averaged);
        if !beyond {
            input.beyond = Beyond::default();
        }
        let report = gradients(&text, &paper, &input, &Group::alone(), 0, Kind::Float).unwrap();
        assert!(report.separation.is_none() && report.other_image.is_none() && report.doubtful.is_none());
        assert!(report.added.is_none() && report.patch.is_none());
        report.loss.double_value(&[]).to_bits()
    };
    let known = Beyond { averaged: None, ..input(&Group::alone(), &averaged).beyond };
    assert!(!known.siblings.is_empty());
    assert_eq!(loss(false), {
        let mut input = input(&Group::alone(), &averaged);
        input.beyond = known;
        let report = gradients(&text, &paper, &input, &Group::alone(), 0, Kind::Float).unwrap();
        report.loss.double_value(&[]).to_bits()
    });
}

#[test]
fn a_copy_of_the_tower_follows_it() {
    let (text, other) = (tower(0), tower(5));
    let copy = text.averaged().unwrap();
    copy.average(&other, 0.75);
    for (((name, copy), (_, a)), (_, b)) in copy.named().iter().zip(text.named()).zip(other.named()) {
        assert!(!copy.requires_grad(), "{name}");
        let apart = (copy - (a * 0.75 + b * 0.25)).abs().max().double_value(&[]);
        assert!(apart < 1e-6, "{name}: {apart:e}");
    }
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    let several = "data.captions={ json = { key = 'captions', choice = 'random' } }";
    for (changes, message) in [
        (&["objective.siblings=ignore"][..], "`objective.siblings` needs samples with several captions"),
        (
            &["objective.siblings=positive", "objective.target=argmax", several],
            "`objective.siblings` cannot be positive",
        ),
        (&["objective.siblings=drop"], "it must be one of `negative`, `ignore`, `positive`"),
        (&["objective.doubtful.decay=1"], "`objective.doubtful.decay` must be at least 0 and less than 1"),
        (&["objective.doubtful.soft=0.1"], "`objective.doubtful.soft` needs the averaged copy"),
        (
            &["objective.doubtful.soft=0.1", "objective.doubtful.decay=0.9", "objective.target=argmax"],
            "`objective.doubtful.soft` cannot be used with objective.target",
        ),
        (
            &["objective.doubtful.added_weight=0.1"],
            "`objective.doubtful.added_weight` needs the averaged copy",
        ),
        (&["objective.doubtful.added_threshold=-1"], "`objective.doubtful.added_threshold` must be 0 to 1"),
        (&["objective.doubtful.threshold=2"], "`objective.doubtful.threshold` must be 0 to 1"),
        (&["objective.patch_weight=-1"], "`objective.patch_weight` must be 0 or more"),
        (&["objective.patch_weight=1", "objective.name=lit"], "is about the concept loss"),
        (&["objective.separation_weight=-1"], "`objective.separation_weight` must be 0 or more"),
        (&["objective.separation_weight=1", "objective.name=lit"], "is about the concept loss"),
        (&["objective.shortcut_check=true", "objective.name=lit"], "is about the concept loss"),
    ] {
        refused(changes, message);
    }
    let saved = |changes: &[&str]| toml::to_string(&settings_of(changes).unwrap().objective).unwrap();
    let names = [
        "siblings",
        "doubtful",
        "patch_weight",
        "separation_weight",
        "image_negatives_weight",
        "shortcut_check",
    ];
    assert!(names.iter().all(|name| !saved(&[]).contains(name)), "a run of the paper's settings saves none");
    let all = saved(&[
        "objective.siblings=ignore",
        "objective.doubtful.decay=0.99",
        "objective.patch_weight=0.1",
        "objective.separation_weight=0.1",
        "objective.image_negatives_weight=0.1",
        "objective.shortcut_check=true",
        several,
    ]);
    assert!(names.iter().all(|name| all.contains(name)), "{all}");
}
