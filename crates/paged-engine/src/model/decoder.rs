//! A loaded decoder: its tensors, and what it costs.

use super::Config;
use gguf::{Header, Summary};

use super::layer::{Layer, Linear};
use super::rope::{self, Rope};
use crate::Error;
use crate::weights::{Loader, Tensor, Weights};

/// A loaded decoder model.
#[derive(Debug)]
pub struct Decoder {
    pub config: Config,
    pub(super) weights: Weights,
    pub(super) embedding: Tensor,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Box<[f32]>,
    pub(super) head: Linear,
    pub(super) rope: Rope,
    /// The rotation of layers with a window, where it is another.
    pub(super) local_rope: Option<Rope>,
    mapped: u64,
}

impl Decoder {
    /// A decoder of a mapped file with this header, for sequences of up to `context` tokens: some
    /// models have other positions for long texts.
    ///
    /// # Errors
    /// As [`Config::of`] and [`Loader::matrix`]; [`Error::Unsupported`] names a tensor that this
    /// engine would have to leave out.
    pub fn new(weights: Weights, header: &Header, context: usize) -> Result<Self, Error> {
        let config = Config::of(header)?;
        let (hidden, vocabulary) = (config.hidden, config.vocabulary);
        let mut loader = Loader::new(&weights, header);
        let embedding = loader.matrix("token_embd.weight", vocabulary, hidden)?;
        let head = match loader.has("output.weight") {
            true => loader.matrix("output.weight", vocabulary, hidden)?,
            false => embedding.clone(),
        };
        let head = Linear { weight: head, bias: loader.optional_vector("output.bias", vocabulary)? };
        let norm = loader.vector("output_norm.weight", hidden)?;
        let factors = rope::factors(&mut loader, &config.rope, context.min(config.context))?;
        let layers = (0..config.layers).map(|at| Layer::new(&mut loader, &config, at)).collect::<Result<_, _>>()?;
        let mapped = loader.finish()?;
        let pairing = config.architecture.pairing;
        let local = config.architecture.local_rope_base.filter(|_| config.windows.iter().any(Option::is_some));
        Ok(Self {
            rope: Rope::new(&config.rope, pairing, &factors),
            local_rope: local.map(|base| Rope::new(&config.rope.unscaled(base), pairing, &[])),
            embedding,
            head,
            layers,
            norm,
            mapped,
            config,
            weights,
        })
    }

    /// Bytes of the file's pages it computes with, and bytes of its own.
    pub fn bytes(&self) -> (u64, u64) {
        let head = size_of_val(&*self.norm) + self.head.bias.as_deref().map_or(0, size_of_val);
        let ropes = self.rope.bytes() + self.local_rope.as_ref().map_or(0, Rope::bytes);
        let layers: usize = self.layers.iter().map(|layer| size_of::<Layer>() + layer.bytes()).sum();
        (self.mapped, (head + ropes + layers) as u64)
    }
}

/// What [`Decoder::bytes`] will be at most, from the header's summary alone.
pub fn estimate(model: &Summary) -> (u64, u64) {
    let layers = model.layers.saturating_mul(size_of::<Layer>() as u64);
    // Two rotations, each with an angle for two numbers of a head.
    let ropes = model.key_length;
    let vectors = model.vector_elements.saturating_add(ropes).saturating_mul(size_of::<f32>() as u64);
    (model.tensor_bytes().saturating_sub(model.vector_bytes), vectors.saturating_add(layers))
}
