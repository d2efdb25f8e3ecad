//! The engine of mistral.rs 0.8.1, one whole instance for each model, on the CPU.
//!
//! Only here may `mistralrs::` be written: it is a large crate with its own idea of a server, and
//! this module is the list of what we take from it and what we do not. Taken: reading GGUF files,
//! tokenizing, the forward pass, its engine loop. Not taken, because of faults or gaps in 0.8.1:
//!
//! * more than one sequence at a time: on a CPU they get each other's attention ([`pump`]);
//! * PagedAttention and the prefix cache: wrong results, and memory never given back ([`load`]);
//! * sampling: no seed, no bias ([`processor`]); its chunks and stop texts ([`sequence`]);
//! * requests that are not streamed, `remove_model`, restarts: each can take the engine down;
//! * its view of the file's special tokens ([`vocabulary`]).
//!
//! What cannot be avoided: each load leaves one sleeping thread behind for good (its throughput
//! logger), and each engine brings a tokio runtime with a worker for each core, bounded by
//! `TOKIO_WORKER_THREADS`.

mod estimate;
mod load;
mod loader;
mod memory;
mod model;
mod processor;
mod prompt;
mod pump;
mod release;
mod sequence;
mod support;
mod vocabulary;

use std::sync::Arc;

use async_trait::async_trait;
use gguf::{Header, Summary, Value};

use self::load::Loaded;
use self::loader::Loader;
use self::model::Model;
use self::prompt::Prompts;
use self::vocabulary::Vocabulary;
use super::chat_template::ChatTemplate;
use super::{Engine, Error, Footprint, LoadSpec, LoadedModel, Support};

/// Loads models into mistral.rs, one after the other.
pub struct MistralRs {
    loader: Loader,
}

impl MistralRs {
    /// # Errors
    /// The system gives no thread to load on.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { loader: Loader::start()? })
    }
}

#[async_trait]
impl Engine for MistralRs {
    fn name(&self) -> &'static str {
        "mistralrs"
    }

    fn supports(&self, model: &Summary) -> Support {
        support::supports(model)
    }

    fn estimate(&self, spec: &LoadSpec) -> Footprint {
        let context = u64::from(spec.context);
        match (header(spec), &spec.summary) {
            (Ok((header, summary)), _) => estimate::estimate(&header, &summary, context),
            (Err(_), Some(summary)) => estimate::estimate_coarsely(summary, context),
            // Not even a summary: the load will say what is wrong with the file.
            (Err(_), None) => Footprint::default(),
        }
    }

    async fn load(&self, spec: LoadSpec) -> Result<Arc<dyn LoadedModel>, Error> {
        let model = self.loader.run(move || load_model(&spec)).await?;
        Ok(Arc::new(model))
    }
}

fn load_model(spec: &LoadSpec) -> Result<Model, Error> {
    let (header, summary) = header(spec)?;
    if let Support::No(reason) = support::supports(&summary) {
        return Err(Error::Unsupported(reason));
    }
    support::check_header(&header, &summary).map_err(Error::Unsupported)?;
    let vocabulary = Arc::new(Vocabulary::of(&header).map_err(Error::Load)?);
    let Loaded { running, encode, growth } = load::load(spec.model.as_str(), spec.source.clone())?;
    let usable = u32::try_from(support::usable_context(&summary)).unwrap_or(u32::MAX);
    let context = spec.context.min(usable);
    let chat = ChatTemplate::of(&header);
    if let (Err(reason), true) = (&chat, summary.has_chat_template) {
        tracing::warn!(model.id = %spec.model, reason, "model serves no chat");
    }
    let footprint = footprint(&header, &summary, context, growth);
    let prompts = Prompts { encode, vocabulary, chat, bos: bos(&header), context };
    Ok(Model::new(running, prompts, footprint))
}

fn header(spec: &LoadSpec) -> Result<(Header, Summary), Error> {
    let told = |error: gguf::Error| Error::Load(format!("{}: {error}", spec.source.display()));
    let header = Header::read(&spec.source).map_err(told)?;
    let summary = Summary::of(&header).map_err(told)?;
    Ok((header, summary))
}

/// The token to put before a text, where the model says that it wants one.
fn bos(header: &Header) -> Option<u32> {
    let wanted = header.metadata.get("tokenizer.ggml.add_bos_token").and_then(Value::as_bool)?;
    wanted.then(|| header.u64("tokenizer.ggml.bos_token_id").ok()).flatten().and_then(|id| u32::try_from(id).ok())
}

/// The estimate, put right by the growth of the process. Weights and rope tables are known exactly,
/// so the rest of the growth is the tokenizer's and the grammar's. Where the process grew by less
/// than what is known, the load found pages that an earlier model had left to the allocator; then,
/// and where the system does not tell, the estimate stands. KV and scratch are estimates always:
/// they are not allocated before the first request.
fn footprint(header: &Header, summary: &Summary, context: u32, growth: Option<u64>) -> Footprint {
    let estimate = estimate::estimate(header, summary, u64::from(context));
    let measured = growth.and_then(|growth| growth.checked_sub(estimate.weights_private));
    let tables = measured.filter(|tables| *tables >= estimate::rope(header, summary)).unwrap_or(estimate.tables);
    Footprint { tables, ..estimate }
}
