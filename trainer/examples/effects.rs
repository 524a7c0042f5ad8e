//! Measures how much each difference between the paper and the authors' code changes the concept loss and its gradient, on a batch of
//! a run: the tables in `docs/released.md`. In two ranks:
//!
//! ```sh
//! for rank in 0 1; do
//!     RUN=$PWD/run SHARDS=$PWD/shards RANK=$rank WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29511 \
//!         cargo run --release -p simzss-trainer --example effects &
//! done; wait
//! ```

#![allow(clippy::unwrap_used, reason = "a measurement ends at the first error")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use loader::Position;
use tch::{Device, Kind, Tensor};
use trainer::Silent;
use trainer::checkpoint::Checkpoint;
use trainer::data::{self, Prefetcher, VisionSource};
use trainer::distributed::{Group, Launch};
use trainer::method::losses::Target;
use trainer::method::objective::{
    Objective, ObjectiveSettings, Query, Scope, StepInput, StepReport, Tokens, gradients,
};
use trainer::towers::{TextTower, VisionHead};

/// The variants, and the sum of all of them.
fn variants() -> Vec<(&'static str, ObjectiveSettings)> {
    let paper = ObjectiveSettings { concept_weight: 1.0, ..ObjectiveSettings::default() };
    vec![
        ("paper", paper.clone()),
        ("target = argmax", ObjectiveSettings { target: Target::Argmax, ..paper.clone() }),
        ("query = concept", ObjectiveSettings { query: Query::Concept, ..paper.clone() }),
        ("tokens = unit", ObjectiveSettings { tokens: Tokens::Unit, ..paper.clone() }),
        ("concepts = rank", ObjectiveSettings { concepts: Scope::Rank, ..paper.clone() }),
        (
            "released: all of them",
            ObjectiveSettings {
                target: Target::Argmax,
                query: Query::Concept,
                tokens: Tokens::Unit,
                concepts: Scope::Rank,
                ..paper
            },
        ),
    ]
}

/// The concept loss of the global batch and the gradient of everything, as one vector.
fn measure(
    text: &TextTower,
    settings: &ObjectiveSettings,
    input: &StepInput<'_>,
    group: &Group,
) -> (f64, Tensor) {
    for (_, mut parameter) in text.named() {
        parameter.zero_grad();
    }
    let StepReport { concept, .. } = gradients(text, settings, input, group, 0, Kind::Float).unwrap();
    let concept = concept.map_or(0.0, |loss| {
        let loss = loss.to_kind(Kind::Double).view([1]);
        group.sum(std::slice::from_ref(&loss)).unwrap();
        loss.double_value(&[0])
    });
    let all: Vec<Tensor> =
        text.named().iter().map(|(_, p)| p.grad().to_kind(Kind::Double).view([-1])).collect();
    (concept, Tensor::cat(&all, 0))
}

fn norm(x: &Tensor) -> f64 {
    x.norm().double_value(&[])
}

fn main() {
    let folder = |name: &str| PathBuf::from(std::env::var_os(name).unwrap_or_default());
    let launch = Launch::from_environment().unwrap();
    let group = launch.map_or_else(Group::alone, |launch| {
        Group::join(&launch, Device::Cpu, Duration::from_mins(10)).unwrap()
    });
    let checkpoint = Checkpoint::open(Path::new(&folder("RUN"))).unwrap();
    let mut settings = checkpoint.state.settings.clone();
    settings.vision.weights = checkpoint.vision_path().unwrap();
    settings.data.shards = vec![folder("SHARDS")];
    settings.data.features = None;
    let shards = loader::shards::list(&settings.data.shards).unwrap();
    let bank = data::bank(&settings, &shards, &group, &Silent).unwrap().map(Arc::new);
    let loader = data::loader(&settings, shards, bank, &group, &Silent).unwrap();
    let (source, width) = VisionSource::open(&settings, &loader, Device::Cpu, &Silent).unwrap();
    let mut feed = Prefetcher::new(&loader, Position { epoch: 0, step: 0 }, &source, Device::Cpu).unwrap();
    let batch = feed.next_batch().unwrap();
    let head = VisionHead::none(settings.vision.embedding);
    let input = data::step_input(&batch, &source, &head, None, &settings, Device::Cpu).unwrap();
    let several = input.mentions.iter().filter(|m| m.positions.len() > 1).count();
    eprintln!("rank {}: {} mentions, {several} of several tokens", group.rank(), input.mentions.len());

    tch::manual_seed(0);
    let towers = [
        ("initial weights", TextTower::random(settings.text.shape(), width, Device::Cpu)),
        ("trained weights", checkpoint.text(width, Device::Cpu).unwrap()),
    ];
    for (weights, text) in towers {
        let lit = ObjectiveSettings { name: Objective::Lit, ..ObjectiveSettings::default() };
        let (_, contrastive) = measure(&text, &lit, &input, &group);
        let mut first: Option<Tensor> = None;
        for (name, variant) in variants() {
            let (loss, gradient) = measure(&text, &variant, &input, &group);
            let concept = gradient - &contrastive;
            let paper = first.get_or_insert_with(|| concept.shallow_clone());
            let apart = norm(&(&concept - &*paper));
            let cosine = concept.dot(paper).double_value(&[]) / (norm(&concept) * norm(paper));
            let whole = 0.05 * apart / norm(&(&contrastive + &*paper * 0.05));
            if group.is_first() {
                eprintln!(
                    "{weights} | {name} | concept loss {loss:.4} | its gradient: {:.3} of the paper's length, cosine {cosine:.4}, \
                     difference {:.4} | whole gradient: difference {whole:.5}",
                    norm(&concept) / norm(paper),
                    apart / norm(paper),
                );
            }
        }
    }
}
