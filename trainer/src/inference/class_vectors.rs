//! Class embeddings: class names are inserted into prompt templates, embedded by the text tower, and averaged.

use std::ops::Range;
use std::sync::LazyLock;

use concepts::Tokenizer;
use serde::Serialize;
use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::method::objective::Objective;
use crate::method::pooling::{Mention, Mentions};
use crate::towers::{CaptionTokens, TextTower, unit};

/// Prompts per forward pass.
const TEXT_BATCH: usize = 256;

/// Which embedding of the prompts represents a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassVectors {
    /// The embedding of the whole prompt, as in CLIP. The contrastive loss trains it to match whole images; the published protocol.
    Caption,
    /// The mean of the tokens of the class name in the prompt. The concept loss of simzss trains it to match patches.
    Concept,
    /// As [`ClassVectors::Caption`], but the embeddings of the prompts are averaged as they are, without being brought to length 1 first:
    /// as in TCL and Talk2DINO. A map behind the text tower is applied to the mean.
    Unscaled,
}

/// What class embeddings are compared with. They differ where the embedding of an image contains the mean of its patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComparedWith {
    /// The embeddings of whole images.
    Images,
    /// Patches.
    Patches,
}

impl ClassVectors {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Caption => "caption",
            Self::Concept => "concept",
            Self::Unscaled => "unscaled",
        }
    }

    /// The embedding that the objective trains to match image regions best: `concept` for simzss, `unscaled` for talk2dino, `caption` for
    /// the others.
    pub fn of(objective: Objective) -> Self {
        match objective {
            Objective::Simzss => Self::Concept,
            Objective::Lit | Objective::Clip => Self::Caption,
            Objective::Talk2dino => Self::Unscaled,
        }
    }
}

/// Class embeddings, [C, d]: for each name the mean over the templates of its L2-normalized embeddings (unless `by` says otherwise),
/// L2-normalized again.
pub fn class_vectors(
    text: &TextTower,
    names: &[String],
    templates: &[String],
    by: ClassVectors,
    with: ComparedWith,
    kind: Kind,
) -> Result<Tensor> {
    if names.iter().any(|name| name.trim().is_empty()) {
        return Err(Error::Setting {
            name: "classes".to_owned(),
            problem: "contains an empty name".to_owned(),
        });
    }
    let captions: Vec<(String, Range<u32>)> =
        names.iter().flat_map(|name| templates.iter().map(move |template| worded(template, name))).collect();
    let embedded: Vec<Tensor> =
        tch::no_grad(|| captions.chunks(TEXT_BATCH).map(|some| embed(text, some, by, with, kind)).collect());
    let all = Tensor::cat(&embedded, 0).view([names.len() as i64, templates.len() as i64, -1]);
    let mean = all.mean_dim([1i64].as_slice(), false, Kind::Float);
    Ok(unit(&match by {
        ClassVectors::Unscaled => tch::no_grad(|| compared(text, &text.mapped(&mean), with)),
        ClassVectors::Caption | ClassVectors::Concept => mean,
    }))
}

/// L2-normalized embeddings of whole captions, [n, d_v].
pub fn caption_vectors(text: &TextTower, captions: &[String], kind: Kind) -> Tensor {
    let captions: Vec<(String, Range<u32>)> =
        captions.iter().map(|caption| (concepts::canonical(caption), 0..0)).collect();
    let embedded: Vec<Tensor> = tch::no_grad(|| {
        let embed = |some| embed(text, some, ClassVectors::Caption, ComparedWith::Images, kind);
        captions.chunks(TEXT_BATCH).map(embed).collect()
    });
    Tensor::cat(&embedded, 0)
}

/// L2-normalized embeddings of texts, or for [`ClassVectors::Concept`] of the byte range of each, [n, d]; a range beyond the context of
/// the text tower gives NaN.
pub fn span_vectors(
    text: &TextTower,
    texts: &[(String, Range<u32>)],
    by: ClassVectors,
    with: ComparedWith,
    kind: Kind,
) -> Tensor {
    let embedded: Vec<Tensor> =
        tch::no_grad(|| texts.chunks(TEXT_BATCH).map(|some| embed(text, some, by, with, kind)).collect());
    let all = Tensor::cat(&embedded, 0);
    match by {
        ClassVectors::Unscaled => tch::no_grad(|| unit(&compared(text, &text.mapped(&all), with))),
        ClassVectors::Caption | ClassVectors::Concept => all,
    }
}

/// A name in a template as normalized text, with the byte range of the name.
fn worded(template: &str, name: &str) -> (String, Range<u32>) {
    let caption = concepts::canonical(&template.replace("{}", name.trim()));
    let name = concepts::canonical(name);
    let before = concepts::canonical(template.split("{}").next().unwrap_or_default()).len();
    let start = caption.get(before..).and_then(|rest| rest.find(&name)).map_or(0, |at| before + at);
    (caption, start as u32..(start + name.len()) as u32)
}

/// Embeddings of captions, or of the names in them, [n, d_v], L2-normalized; for [`ClassVectors::Unscaled`] the projected captions as
/// they are.
fn embed(
    text: &TextTower,
    captions: &[(String, Range<u32>)],
    by: ClassVectors,
    with: ComparedWith,
    kind: Kind,
) -> Tensor {
    // Creating a tokenizer takes longer than embedding a name.
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::clip);
    let context = text.shape.context as usize;
    let device = text.logit_scale().device();
    let (mut ids, mut mentions) = (Vec::new(), Vec::new());
    for (row, (caption, name)) in captions.iter().enumerate() {
        let tokens = TOKENIZER.encode(caption, context);
        mentions.push(Mention { row: row as u32, label: 0, positions: tokens.positions(name) });
        ids.extend(tokens.ids.into_iter().map(i64::from));
    }
    let captions = CaptionTokens::new(&ids, context, device);
    let tokens = text.tokens(&captions, kind);
    let embedded = match by {
        ClassVectors::Unscaled => return text.unmapped_captions(&tokens, &captions.end),
        ClassVectors::Caption => text.captions(&tokens, &captions.end),
        ClassVectors::Concept => {
            let mentions = Mentions::new(&mentions, tokens.size()[1], device);
            text.project(&mentions.mean_tokens(&tokens))
        }
    };
    unit(&compared(text, &embedded, with))
}

/// Of embeddings, the part that is compared.
fn compared(text: &TextTower, embeddings: &Tensor, with: ComparedWith) -> Tensor {
    match with {
        ComparedWith::Images => embeddings.shallow_clone(),
        ComparedWith::Patches => text.patch_part(embeddings),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_in_its_template() {
        for (template, name, caption) in [
            ("a photo of a {}.", "Traffic  Cone", "a photo of a traffic cone."),
            ("{}", "ball", "ball"),
            ("the ball: a {} in the scene", "ball", "the ball: a ball in the scene"),
        ] {
            let (found, span) = worded(template, name);
            assert_eq!(found, caption);
            assert_eq!(&found[span.start as usize..span.end as usize], concepts::canonical(name));
        }
        assert_eq!(worded("the ball: a {} in the scene", "ball").1, 12..16);
    }
}
