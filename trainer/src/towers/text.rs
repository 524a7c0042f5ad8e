//! The text tower, which is trained: CLIP's causal transformer with a projection into the embedding space of the vision tower. In a run
//! of `talk2dino` it is frozen, and a map behind its projection is trained.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::block::{Activation, Block, Init};
use super::block_keys::OPEN_CLIP;
use super::captions::{CaptionTokens, Packed};
use super::layers::{Norm, normal};
use super::text_map::TextMap;
use crate::error::Result;
use crate::weights::Weights;

/// CLIP's byte-pair vocabulary.
pub(crate) const VOCABULARY: i64 = 49_408;
const EPS: f64 = 1e-5;
/// Temperature 0.07, as at the start of CLIP's training.
const LOGIT_SCALE: f64 = 2.659_260_036_932_778; // ln(1 / 0.07)
/// CLIP keeps the logit scale at or below 100.
const LOGIT_SCALE_MAX: f64 = 4.605_170_185_988_092; // ln 100

/// Size of a text tower. The defaults are those of CLIP with a ViT-B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextShape {
    /// Embedding width of a token.
    pub width: i64,
    /// Number of transformer blocks.
    pub depth: i64,
    /// Number of attention heads, which divides `width`.
    pub heads: i64,
    /// Context length in tokens, including the start and end tokens; longer captions are truncated.
    pub context: i64,
}

impl Default for TextShape {
    fn default() -> Self {
        Self { width: 512, depth: 12, heads: 8, context: 77 }
    }
}

impl TextShape {
    /// The size of a tower with the state-dict keys of open_clip, without taking its tensors out. The number of heads does not follow
    /// from them.
    pub fn of(weights: &Weights, heads: i64) -> Result<Self> {
        let position = weights.size("positional_embedding")?;
        let [context @ 2..=i64::MAX, width @ 1..=i64::MAX] = position[..] else {
            return Err(
                weights.problem(format!("positional_embedding is {position:?}, not [context, width]"))
            );
        };
        let mut depth = 0;
        while weights.has(&first_of_block(depth)) {
            depth += 1;
        }
        let depth = depth as i64;
        Ok(Self { width, depth, heads, context })
    }
}

/// A tensor that every block has.
fn first_of_block(block: usize) -> String {
    format!("transformer.resblocks.{block}.ln_1.weight")
}

/// CLIP's text transformer and its logit scale.
#[derive(Debug)]
pub struct TextTower {
    /// Its size.
    pub shape: TextShape,
    token_embedding: Tensor,
    position: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
    projection: Tensor,
    /// Behind the projection, which then leads into the space of the tower's own images. Boxed, because most towers have none.
    map: Option<Box<TextMap>>,
    logit_scale: Tensor,
    /// Added to the logits of a sigmoid loss; other losses have none.
    logit_bias: Option<Tensor>,
    /// Width of the last part of an embedding, which is compared with patches; that of all of it unless
    /// [`TextTower::with_patches`] says otherwise.
    patches: i64,
}

impl TextTower {
    /// A new tower with CLIP's initialization, for a vision tower of width `vision_width`. It uses libtorch's random generator:
    /// seed that first.
    pub fn random(shape: TextShape, vision_width: i64, device: Device) -> Self {
        let TextShape { width, depth, heads, context } = shape;
        let normal = |size: &[i64], std: f64| normal(size, std, device);
        let attention = (width as f64).powf(-0.5);
        let residual = attention * (2.0 * depth as f64).powf(-0.5);
        let init = Init {
            qkv: attention,
            proj: residual,
            fc1: (2.0 * width as f64).powf(-0.5),
            fc2: residual,
            layer_scale: None,
        };
        let tower = Self {
            shape,
            token_embedding: normal(&[VOCABULARY, width], 0.02),
            position: normal(&[context, width], 0.01),
            blocks: (0..depth).map(|_| Block::random(width, heads, EPS, &init, device)).collect(),
            norm: Norm::new(width, EPS, device),
            projection: normal(&[width, vision_width], attention),
            map: None,
            logit_scale: Tensor::full([] as [i64; 0], LOGIT_SCALE, (Kind::Float, device)),
            logit_bias: None,
            patches: vision_width,
        };
        tower.trainable()
    }

    /// Reads a tower with the state-dict keys of open_clip, Hugging Face or SimZSS. Width, depth and context length follow from the
    /// tensors; the number of heads does not.
    pub fn read(path: &Path, heads: i64, vision_width: i64, device: Device) -> Result<Self> {
        Self::from_weights(
            Weights::read(path, device)?.into_open_clip()?,
            heads,
            vision_width,
            Activation::default(),
        )
    }

    /// The same from tensors that contain nothing but the tower.
    pub fn from_weights(
        mut weights: Weights,
        heads: i64,
        vision_width: i64,
        activation: Activation,
    ) -> Result<Self> {
        let TextShape { width, context, .. } = TextShape::of(&weights, heads)?;
        let position = weights.take("positional_embedding", &[context, width])?;
        let token_embedding = weights.take("token_embedding.weight", &[VOCABULARY, width])?;
        let mut map = None;
        let mut projected = vision_width;
        if TextMap::is_in(&weights) {
            projected = weights.size("text_projection")?.get(1).copied().unwrap_or(0);
            map = Some(Box::new(TextMap::take(&mut weights, projected, vision_width)?));
        }
        let projection = weights.take("text_projection", &[width, projected])?;
        let logit_scale = weights.take("logit_scale", &[])?;
        let biased = weights.has("logit_bias");
        let logit_bias = biased.then(|| weights.take("logit_bias", &[])).transpose()?;
        let mut blocks = Vec::new();
        while weights.has(&first_of_block(blocks.len())) {
            let prefix = format!("transformer.resblocks.{}.", blocks.len());
            let block = Block::read(&mut weights, &prefix, &OPEN_CLIP, width, heads, EPS)?;
            blocks.push(block.with_activation(activation));
        }
        let norm = Norm::read(&mut weights, "ln_final", width, EPS)?;
        weights.finish(&[])?;
        let shape = TextShape { width, depth: blocks.len() as i64, heads, context };
        let tower = Self {
            shape,
            token_embedding,
            position,
            blocks,
            norm,
            projection,
            map,
            logit_scale,
            logit_bias,
            patches: vision_width,
        };
        Ok(tower.trainable())
    }

    /// The same tower, of whose embeddings only the last `width` numbers are compared with patches.
    #[must_use]
    pub fn with_patches(mut self, width: i64) -> Self {
        self.patches = width;
        self
    }

    /// The same tower with other initial values of the scale of the image-caption logits and, for a sigmoid loss, of their bias.
    #[must_use]
    pub fn with_logits(mut self, scale: f64, bias: Option<f64>) -> Self {
        let options = (Kind::Float, self.logit_scale.device());
        self.logit_scale = Tensor::full([] as [i64; 0], scale.ln(), options);
        self.logit_bias = bias.map(|bias| Tensor::full([] as [i64; 0], bias, options));
        self.trainable()
    }

    /// The same tower, new, with another activation function in its MLPs.
    #[must_use]
    pub fn with_activation(mut self, activation: Activation) -> Self {
        self.blocks = self.blocks.into_iter().map(|block| block.with_activation(activation)).collect();
        self
    }

    /// The same tower with a new map behind its projection, into `width` numbers, all of which are compared with patches. It uses
    /// libtorch's random generator.
    #[must_use]
    pub fn with_map(mut self, width: i64) -> Self {
        let (input, device) = (self.projection.size()[1], self.projection.device());
        self.map = Some(Box::new(TextMap::random(input, width, device)));
        self.patches = width;
        self.trainable()
    }

    /// Whether a file has such a map.
    pub fn map_is_in(weights: &Weights) -> bool {
        TextMap::is_in(weights)
    }

    /// Whether there is a map behind the projection.
    pub fn is_mapped(&self) -> bool {
        self.map.is_some()
    }

    fn trainable(self) -> Self {
        for (_, tensor) in self.named() {
            let _ = tensor.set_requires_grad(true);
        }
        self
    }

    /// Tokens after the final LayerNorm, [B, T, d_t], computed in `kind`; values after the end of a caption are arbitrary.
    pub fn tokens(&self, captions: &CaptionTokens, kind: Kind) -> Tensor {
        match captions.packed() {
            Some(packed) => self.transform_packed(&packed, kind),
            None => captions.by_length(|ids| self.transform(ids, kind)),
        }
    }

    /// The same in layers that see each token by itself, without tokens after the ends; only attention sees whole captions.
    fn transform_packed(&self, packed: &Packed, kind: Kind) -> Tensor {
        let embedded = Tensor::embedding(&self.token_embedding, &packed.ids, -1, false, false);
        let mut x = (embedded + self.position.index_select(0, &packed.positions)).to_kind(kind);
        for block in &self.blocks {
            x = block.forward_packed(&x, packed);
        }
        packed.spread(&self.norm.forward(&x))
    }

    fn transform(&self, ids: &Tensor, kind: Kind) -> Tensor {
        let length = ids.size()[1];
        let embedded = Tensor::embedding(&self.token_embedding, ids, -1, false, false);
        let mut x = (embedded + self.position.narrow(0, 0, length)).to_kind(kind);
        for block in &self.blocks {
            x = block.forward(&x, true);
        }
        self.norm.forward(&x)
    }

    /// The projection g into the embedding space of the vision tower: [.., d_t] -> [.., d_v], in float32.
    pub fn project(&self, x: &Tensor) -> Tensor {
        self.mapped(&x.to_kind(Kind::Float).matmul(&self.projection))
    }

    /// What the map makes of projected texts; without a map, these themselves.
    pub fn mapped(&self, projected: &Tensor) -> Tensor {
        match &self.map {
            Some(map) => map.forward(projected),
            None => projected.shallow_clone(),
        }
    }

    /// The part of the projection that is compared with patches: [.., d_t] -> [.., d_v], in float32.
    pub fn project_to_patches(&self, x: &Tensor) -> Tensor {
        let output = self.output();
        if self.patches == output || self.map.is_some() {
            return self.project(x);
        }
        x.to_kind(Kind::Float).matmul(&self.projection.narrow(1, output - self.patches, self.patches))
    }

    /// Of embeddings, the part that is compared with patches: [.., output] -> [.., d_v].
    pub fn patch_part(&self, embeddings: &Tensor) -> Tensor {
        embeddings.narrow(-1, self.output() - self.patches, self.patches)
    }

    /// Caption embeddings, unnormalised, [B, output]: the projected end-of-text token of `tokens`.
    pub fn captions(&self, tokens: &Tensor, end: &Tensor) -> Tensor {
        self.mapped(&self.unmapped_captions(tokens, end))
    }

    /// The same before the map, if there is one.
    pub fn unmapped_captions(&self, tokens: &Tensor, end: &Tensor) -> Tensor {
        let rows = Tensor::arange(end.size()[0], (Kind::Int64, end.device()));
        let ends = tokens.index(&[Some(rows), Some(end.shallow_clone())]);
        ends.to_kind(Kind::Float).matmul(&self.projection)
    }

    /// Width of the embedding space shared with the images.
    pub fn output(&self) -> i64 {
        self.map.as_ref().map_or_else(|| self.projection.size()[1], |map| map.output())
    }

    /// Width d_v of the part of an embedding that is compared with patches.
    pub fn patches(&self) -> i64 {
        self.patches
    }

    /// exp of the learned scale of the image-caption logits: a scalar.
    pub fn logit_scale(&self) -> Tensor {
        self.logit_scale.exp()
    }

    /// The activation function of its MLPs.
    pub fn activation(&self) -> Activation {
        self.blocks.first().map_or_else(Activation::default, Block::activation)
    }

    /// The learned bias of the image-caption logits of a sigmoid loss: a scalar.
    pub fn logit_bias(&self) -> Option<&Tensor> {
        self.logit_bias.as_ref()
    }

    /// A copy of the tower with weights of its own, which are not trained.
    ///
    /// # Errors
    /// None that is to be expected: the tensors are those of a tower.
    pub fn averaged(&self) -> Result<Self> {
        let copies = self.named().into_iter().map(|(name, tensor)| (name, tensor.detach().copy()));
        self.averaged_from(Weights::of(Path::new("the averaged text tower"), copies.collect()))
    }

    /// A tower of the same kind as this one from weights that were saved of a copy ([`TextTower::averaged`]).
    pub fn averaged_from(&self, weights: Weights) -> Result<Self> {
        let read = Self::from_weights(weights, self.shape.heads, self.output(), self.activation())?;
        for (_, tensor) in read.named() {
            let _ = tensor.set_requires_grad(false);
        }
        Ok(read.with_patches(self.patches))
    }

    /// Moves a copy towards the tower: `decay` x copy + (1 - `decay`) x tower.
    pub fn average(&self, tower: &Self, decay: f64) {
        tch::no_grad(|| {
            for ((_, copy), (_, weight)) in self.named().into_iter().zip(tower.named()) {
                let _ = copy.shallow_clone().lerp_(&weight, 1.0 - decay);
            }
        });
    }

    /// Clamps the logit scale to [1, 100]; to be called after each step.
    pub fn clamp_logit_scale(&self) {
        tch::no_grad(|| {
            let _ = self.logit_scale.shallow_clone().clamp_(0.0, LOGIT_SCALE_MAX);
        });
    }

    /// All parameters with their state-dict keys in open_clip.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        let mut out: Vec<(String, Tensor)> = [
            ("token_embedding.weight", &self.token_embedding),
            ("positional_embedding", &self.position),
            ("ln_final.weight", &self.norm.weight),
            ("ln_final.bias", &self.norm.bias),
            ("text_projection", &self.projection),
            ("logit_scale", &self.logit_scale),
        ]
        .into_iter()
        .chain(self.logit_bias.as_ref().map(|bias| ("logit_bias", bias)))
        .map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()))
        .collect();
        for (i, block) in self.blocks.iter().enumerate() {
            out.extend(block.named(&format!("transformer.resblocks.{i}."), &OPEN_CLIP));
        }
        out.extend(self.map.iter().flat_map(|map| map.named()));
        out
    }
}
