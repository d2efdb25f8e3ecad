//! A GGUF file into a running mistral.rs engine, without network and without its dummy run.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use mistralrs::core::{
    AdapterPaths, DefaultSchedulerMethod, DeviceMapSetting, GGUFLoaderBuilder, GGUFSpecificConfig, LocalModelPaths,
    MistralRs, MistralRsBuilder, ModelPaths, Pipeline, Request, SchedulerConfig,
};
use mistralrs::{DType, Device};
use tokio::sync::mpsc;

use super::memory;
use super::prompt::Encode;
use crate::engine::Error;

/// Keys, values and attention in F32. F16 would halve the KV cache, but the CPU attention of 0.8.1
/// converts each element by itself: a demo model decodes 503 tokens a second behind 900 tokens with
/// F32 and 366 with F16, 1023 and 740 behind four.
pub const DTYPE: DType = DType::F32;

/// Sequences in the engine at once. More than one decode wrongly together on a CPU: its attention
/// keeps scratch for one sequence, and each gets the last one's result.
pub const SEQUENCES: u32 = 1;

pub type PipelineLock = tokio::sync::Mutex<dyn Pipeline>;

/// A model in an engine of its own.
pub struct Running {
    /// Dropping the last one tells the engine's thread to end.
    pub engine: Arc<MistralRs>,
    /// The way into the engine, taken once. Asking the engine for it again restarts an engine that
    /// has died, around the same weights and locks, where it fails for good.
    pub requests: mpsc::Sender<Request>,
    /// Dead when the weights are gone.
    pub pipeline: Weak<PipelineLock>,
    /// Where mistral.rs ends a sequence; at least one.
    pub end_tokens: Vec<u32>,
}

/// What a load gives.
pub struct Loaded {
    pub running: Running,
    pub encode: Encode,
    /// Bytes by which the process grew; `None` where the system does not tell.
    pub growth: Option<u64>,
}

/// Loads the file at `source`. Blocks, and may panic where mistral.rs does: for the loader's thread
/// only ([`super::loader`]).
///
/// # Errors
/// [`Error::Load`] with mistral.rs's reason.
pub fn load(name: &str, source: PathBuf) -> Result<Loaded, Error> {
    let before = memory::anonymous_resident();
    let pipeline = read(name, source)?;
    let (encode, end_tokens) = inspect(&pipeline)?;
    let weak = Arc::downgrade(&pipeline);
    let engine = start(name, pipeline)?;
    let requests = engine.get_sender(None).map_err(|error| Error::Load(error.to_string()))?;
    let growth = memory::anonymous_resident().zip(before).map(|(after, before)| after.saturating_sub(before));
    Ok(Loaded { running: Running { engine, requests, pipeline: weak, end_tokens }, encode, growth })
}

/// The file, straight from disk: this road touches neither the Hub nor its cache directory.
fn read(name: &str, source: PathBuf) -> Result<Arc<PipelineLock>, Error> {
    let from_gguf = PathBuf::new();
    let paths: Box<dyn ModelPaths> = Box::new(LocalModelPaths {
        tokenizer_filename: from_gguf.clone(),
        config_filename: from_gguf,
        template_filename: None,
        filenames: vec![source],
        adapter_paths: AdapterPaths::None,
        gen_conf: None,
        preprocessor_config: None,
        processor_config: None,
        chat_template_json_filename: None,
    });
    let config = GGUFSpecificConfig::default();
    let loader = GGUFLoaderBuilder::new(None, None, name.to_owned(), Vec::new(), config, false, None).build();
    // No in-situ quantization and no PagedAttention: that of 0.8.1 preempts all sequences but those
    // of one length, and can read blocks that were never written.
    let (quantization, paged_attention, silent) = (None, None, true);
    let map = DeviceMapSetting::dummy();
    let loaded = loader.load_model_from_path(&paths, &DTYPE, &Device::Cpu, silent, map, quantization, paged_attention);
    loaded.map(|pipeline| pipeline as Arc<PipelineLock>).map_err(|error| Error::Load(format!("{error:#}")))
}

/// What we need of the pipeline, taken before the engine owns its lock.
fn inspect(pipeline: &Arc<PipelineLock>) -> Result<(Encode, Vec<u32>), Error> {
    let pipeline = pipeline.try_lock().map_err(|_| Error::Load("the new pipeline is in use".into()))?;
    // With such a template mistral.rs fetches an encoding from the network at the first request.
    if pipeline.get_chat_template().is_some_and(|template| template.is_harmony_format()) {
        return Err(Error::Unsupported("mistral.rs runs harmony chat templates only with network access".into()));
    }
    let tokenizer = pipeline.tokenizer().ok_or_else(|| Error::Load("the model has no tokenizer".into()))?;
    let encode: Encode = Box::new(move |text| match tokenizer.encode_fast(text, false) {
        Ok(encoding) => Ok(encoding.get_ids().to_vec()),
        Err(error) => Err(error.to_string()),
    });
    let metadata = pipeline.get_metadata();
    // See `read`: whoever turns it on must have a newer mistral.rs.
    if metadata.cache_config.is_some() {
        return Err(Error::Unsupported("PagedAttention of mistral.rs 0.8.1 gives wrong results".into()));
    }
    if metadata.eos_tok.is_empty() {
        return Err(Error::Unsupported("the model names no end token (`tokenizer.ggml.eos_token_id`)".into()));
    }
    Ok((encode, metadata.eos_tok.clone()))
}

/// One `MistralRs` for each model: removing a model from a shared one panics inside a runtime and
/// poisons the registry of all others.
fn start(name: &str, pipeline: Arc<PipelineLock>) -> Result<Arc<MistralRs>, Error> {
    let one = std::num::NonZeroUsize::MIN;
    let scheduler = SchedulerConfig::DefaultScheduler { method: DefaultSchedulerMethod::Fixed(one) };
    let throughput_logging = false;
    let builder = MistralRsBuilder::new(pipeline, scheduler, throughput_logging, None)
        .with_model_id(name)
        // On a CPU its prefix cache never gives anything back.
        .with_no_prefix_cache(true);
    Ok(futures::executor::block_on(builder.build()))
}
