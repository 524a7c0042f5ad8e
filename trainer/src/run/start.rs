//! The weights that a new run starts with, `text.weights`: the text tower of a CLIP, or what another run of this program has trained.

use std::path::Path;

use tch::Tensor;

use super::learner::Learner;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::method::objective::Objective;
use crate::observer::Observer;
use crate::settings::Settings;
use crate::towers::{TextShape, TextTower, heads};
use crate::weights::Weights;

/// Replaces what was drawn at random by the weights in the settings, if there are any. `vision` identifies the frozen tower of the run.
///
/// # Errors
/// Weights of another family, or of another size than the settings say.
pub(super) fn start(learner: &mut Learner<'_>, vision: &str, observer: &dyn Observer) -> Result<()> {
    let settings = learner.settings;
    let mapped = settings.objective.name == Objective::Talk2dino;
    let Some(path) = &settings.text.weights else {
        if !mapped {
            return Ok(());
        }
        let problem = "is not set, but objective talk2dino trains a map behind a frozen text tower, which must have been trained \
                       before; add --set text.weights=FILE, such as a CLIP";
        return Err(Error::Setting { name: "text.weights".to_owned(), problem: problem.to_owned() });
    };
    if storage::is_folder(path)? {
        from_run(learner, &Checkpoint::open(path)?, path, vision, observer)?;
    } else {
        let (openais, weights) = Weights::read(path, learner.device)?.into_text()?;
        if openais && !settings.text.quick_gelu {
            let problem = format!(
                "is false, but {} is one of OpenAI's, which are trained with their approximation of GELU; add --set \
                 text.quick_gelu=true",
                path.display()
            );
            return Err(Error::Setting { name: "text.quick_gelu".to_owned(), problem });
        }
        let known = heads::known_of_text(TextShape::of(&weights, 1)?.width);
        learner.text = text(weights, known, path, settings, &learner.text)?;
        observer.message(&format!(
            "{}: the text tower {} these weights{}",
            path.display(),
            if mapped { "has, and keeps," } else { "starts with" },
            projected(settings)
        ));
    }
    learner.start_optimizer();
    Ok(())
}

/// Everything that a run has trained, as far as the new run trains it too.
fn from_run(
    learner: &mut Learner<'_>,
    checkpoint: &Checkpoint,
    path: &Path,
    vision: &str,
    observer: &dyn Observer,
) -> Result<()> {
    let (settings, of_run) = (learner.settings, &checkpoint.state.settings);
    let differs = |name: &str, ours: String, theirs: String| {
        let problem = format!(
            "is {ours}, but the run in {} was trained with {theirs}; add --set {name}={theirs}",
            path.display()
        );
        Err(Error::Setting { name: name.to_owned(), problem })
    };
    let [ours, theirs] = [settings, of_run].map(|it| it.text.quick_gelu);
    if ours != theirs {
        return differs("text.quick_gelu", ours.to_string(), theirs.to_string());
    }
    let [ours, theirs] = [settings, of_run].map(|it| it.vision.head.blocks);
    // A run without a head may get one.
    if theirs > 0 && ours != theirs {
        return differs("vision.head.blocks", ours.to_string(), theirs.to_string());
    }
    let [of_text, head, images] = checkpoint.trained(learner.device)?;
    learner.text = text(of_text, Some(of_run.text.heads), path, settings, &learner.text)?;
    let mut taken = "the text tower".to_owned();
    if theirs > 0 {
        copy(head, &learner.head.named())?;
        taken += " and the vision head";
    }
    let trained = learner.source.trained();
    if checkpoint.trains_vision() && !trained.is_empty() {
        copy(images, &trained)?;
        taken += " and the vision tower";
    }
    observer.message(&format!(
        "{}: starts with {taken} of step {}{}",
        path.display(),
        checkpoint.state.step,
        projected(settings)
    ));
    if checkpoint.state.vision != vision {
        observer.message(&format!(
            "warning: the run in {} was trained with another vision tower than this one",
            path.display()
        ));
    }
    Ok(())
}

fn projected(settings: &Settings) -> &'static str {
    if settings.text.new_projection { ", with a new projection and logit scale" } else { "" }
}

/// Copies the tensors of `from`, whose names have their prefix, to those of the same names.
fn copy(mut from: Weights, to: &[(String, Tensor)]) -> Result<()> {
    for (name, tensor) in to {
        let value = from.take(name, &tensor.size())?;
        tch::no_grad(|| tensor.shallow_clone().copy_(&value));
    }
    from.finish(&[])
}

/// The text tower in `weights`, with what the settings leave to `new`: the projection, a map behind it, and the logits. `heads`: the
/// number that the tower is known to have.
fn text(
    mut weights: Weights,
    heads: Option<i64>,
    path: &Path,
    settings: &Settings,
    new: &TextTower,
) -> Result<TextTower> {
    let shape = TextShape::of(&weights, heads.unwrap_or(settings.text.heads))?;
    fits(shape, heads, path, settings)?;
    let position = weights.take("positional_embedding", &[shape.context, shape.width])?;
    // Attention is causal: a token does not depend on later positions.
    weights.set("positional_embedding", position.narrow(0, 0, settings.text.context).copy());

    let fresh: Vec<(String, Tensor)> = new.named();
    let of_new =
        |name: &str| fresh.iter().find(|(own, _)| own == name).map(|(_, tensor)| tensor.copy().detach());
    // A map belongs behind the projection that the file has, whatever its width.
    let has_map = TextTower::map_is_in(&weights);
    if has_map && !new.is_mapped() {
        let problem =
            "has a map behind its text tower, which objective talk2dino has trained and others do not have";
        return Err(weights.problem(problem.to_owned()));
    }
    let output = match weights.size("text_projection").as_deref() {
        Ok([_, found]) if new.is_mapped() && !has_map => *found,
        _ => new.output(),
    };
    if settings.text.new_projection {
        replace(&mut weights, "text_projection", of_new("text_projection"));
    } else if !weights.has("text_projection") {
        let problem = "contains no projection into the embedding space of images";
        let rest = if new.is_mapped() {
            ", which objective talk2dino needs"
        } else {
            "; add --set text.new_projection=true"
        };
        return Err(weights.problem(format!("{problem}{rest}")));
    } else if has_map {
        // Its width is that of what the map is made for.
    } else if let [_, found] = weights.size("text_projection")?[..]
        && found != output
    {
        let problem = format!(
            "is false, but {} projects texts to {found} numbers, and images have {output} (the width of the vision tower, or twice \
             that with vision.embedding = class+mean); add --set text.new_projection=true to start with a new projection",
            path.display()
        );
        return Err(Error::Setting { name: "text.new_projection".to_owned(), problem });
    }
    // Scale and bias belong together, and to a loss.
    let keeps = !settings.text.new_projection
        && has_map == new.is_mapped()
        && settings.objective.logit_scale.is_none()
        && weights.has("logit_scale")
        && weights.has("logit_bias") == new.logit_bias().is_some();
    if !keeps {
        for name in ["logit_scale", "logit_bias"] {
            replace(&mut weights, name, of_new(name));
        }
    }
    let tower = TextTower::from_weights(weights, settings.text.heads, output, settings.text.activation())?;
    let tower = if new.is_mapped() && !has_map { tower.with_map(new.output()) } else { tower };
    tower.clamp_logit_scale();
    Ok(tower.with_patches(new.patches()))
}

fn replace(weights: &mut Weights, name: &str, by: Option<Tensor>) {
    match by {
        Some(tensor) => weights.set(name, tensor),
        None => weights.leave_out(name),
    }
}

/// An error if the settings say another size than the weights have. `heads`: the number that the tower is known to have.
fn fits(shape: TextShape, heads: Option<i64>, path: &Path, settings: &Settings) -> Result<()> {
    let text = &settings.text;
    let refuse = |name: &str, problem: String| Err(Error::Setting { name: format!("text.{name}"), problem });
    let mut sizes = vec![("width", text.width, shape.width), ("depth", text.depth, shape.depth)];
    sizes.extend(heads.map(|heads| ("heads", text.heads, heads)));
    if let Some((name, ours, theirs)) = sizes.iter().find(|(_, ours, theirs)| ours != theirs) {
        let right: Vec<String> =
            sizes.iter().map(|(name, _, theirs)| format!("--set text.{name}={theirs}")).collect();
        let path = path.display();
        return refuse(name, format!("is {ours}, but in {path} it is {theirs}; add {}", right.join(" ")));
    }
    if text.context > shape.context {
        let (path, most) = (path.display(), shape.context);
        let problem = format!(
            "is {}, but the text tower in {path} has positions for {most} tokens only; add --set text.context={most}",
            text.context
        );
        return refuse("context", problem);
    }
    Ok(())
}
