//! The adapter to `crates/paged-engine`: many sequences of any length on each step, keys and values
//! from one pool for all models.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use paged_engine::kernels::Kernels;
use paged_engine::kv::Layout;
use paged_engine::{Chat, Event, LoadOptions, Options, Reason, Request, Sink};

use super::chat_template::ChatTemplate;
use super::{
    Capabilities, Engine, Error, FinishReason, Footprint, GenerateRequest, KvBlocks, KvType, LoadSpec, LoadedModel,
    Message, Piece, Prompt, Released, Stats, Support, Timings, TokenEvent, TokenLogprobs, TokenSink, TokenStream,
    Usage, Work, token_channel,
};

/// The name the registry file and the status pages use.
pub const NAME: &str = "paged";
/// A step ends within seconds; a model that is not gone by then is stuck.
const UNLOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// All models of this engine share its threads and its pool.
pub struct Paged {
    engine: Arc<paged_engine::Engine>,
}

impl Paged {
    /// `kv_bytes` is what keys and values of all models may take together.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn start(kv_bytes: u64) -> std::io::Result<Self> {
        Self::with(kv_bytes, Kernels::best())
    }

    /// The same with kernels that somebody chose.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn with(kv_bytes: u64, kernels: Kernels) -> std::io::Result<Self> {
        let engine = paged_engine::Engine::start(Options { kv_bytes, kernels, ..Options::default() })?;
        Ok(Self { engine: Arc::new(engine) })
    }
}

#[async_trait]
impl Engine for Paged {
    fn name(&self) -> &'static str {
        NAME
    }

    fn supports(&self, model: &gguf::Summary) -> Support {
        paged_engine::model::supported(model).map_or_else(Support::No, |()| Support::Yes)
    }

    /// Keys and values are not on a model's page: they come from the pool, which is one for all.
    fn estimate(&self, spec: &LoadSpec) -> Footprint {
        let Some(model) = &spec.summary else { return Footprint::default() };
        let (weights_mapped, weights_private) = paged_engine::model::estimate(model);
        Footprint {
            weights_mapped,
            weights_private,
            kv: 0,
            scratch: scratch(model, u64::from(spec.sequences)).saturating_add(grammars(model)),
            tables: paged_engine::tokenizer::estimate(model),
        }
    }

    fn pooled_per_token(&self, spec: &LoadSpec) -> u64 {
        let layout = |model: &Arc<gguf::Summary>| {
            let [layers, kv_heads, head] = [model.layers, model.kv_heads, model.key_length]
                .map(|number| usize::try_from(number).unwrap_or(usize::MAX));
            Layout { kind: kind(spec.kv_type), layers, kv_heads, head }
        };
        spec.summary.as_ref().map_or(0, |model| layout(model).token_bytes())
    }

    async fn load(&self, spec: LoadSpec) -> Result<Arc<dyn LoadedModel>, Error> {
        let estimate = self.estimate(&spec);
        let engine = self.engine.clone();
        let loading = tokio::task::spawn_blocking(move || {
            let (context, sequences) = (spec.context as usize, spec.sequences as usize);
            let options = LoadOptions { context, sequences, kv: kind(spec.kv_type), ..LoadOptions::default() };
            let model = engine.load(&spec.source, options).map_err(load_error)?;
            let Chat { template, start, end } = model.chat();
            let chat = ChatTemplate::given(template.as_deref(), start, end);
            let scratch = estimate.scratch;
            Ok(Model { model: Arc::new(model), chat: Arc::new(chat), scratch, sequences: spec.sequences })
        });
        let model: Model = loading.await.map_err(|error| Error::Load(format!("loading panicked: {error}")))??;
        Ok(Arc::new(model))
    }
}

fn kind(asked: KvType) -> paged_engine::KvType {
    match asked {
        KvType::F16 => paged_engine::KvType::F16,
        KvType::Q8_0 => paged_engine::KvType::Q8_0,
    }
}

/// Activations of a full step: the widest rows of a layer, and the logits of every sequence.
fn scratch(model: &gguf::Summary, sequences: u64) -> u64 {
    let rows = sequences.saturating_add(paged_engine::MOST_PROMPT_TOKENS as u64);
    let row = model.embedding.max(model.heads.saturating_mul(model.key_length)).saturating_mul(24).saturating_mul(4);
    rows.saturating_mul(row).saturating_add(sequences.saturating_mul(model.vocabulary).saturating_mul(8))
}

/// What grammars may take, which is not known before the first one comes: by then the model serves,
/// and nobody can refuse it the bytes. They move to the tables when they are taken.
fn grammars(model: &gguf::Summary) -> u64 {
    decoding::grammar::bytes_at_most(model.vocabulary, model.token_bytes)
}

struct Model {
    model: Arc<paged_engine::Model>,
    /// Or why there is none.
    chat: Arc<Result<ChatTemplate, String>>,
    /// Reserved for steps and grammars.
    scratch: u64,
    sequences: u32,
}

#[async_trait]
impl LoadedModel for Model {
    fn footprint(&self) -> Footprint {
        let (weights_mapped, weights_private) = self.model.bytes();
        let grammars = self.model.grammar_bytes();
        let tables = self.model.table_bytes().saturating_add(grammars);
        Footprint { weights_mapped, weights_private, kv: 0, scratch: self.scratch.saturating_sub(grammars), tables }
    }

    fn capabilities(&self) -> Capabilities {
        let context = u32::try_from(self.model.context()).unwrap_or(u32::MAX);
        Capabilities { context, sequences: self.sequences, chat: self.chat.is_ok(), logprobs: true, grammar: true }
    }

    fn tokenize(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(self.model.tokenizer().encode(text))
    }

    fn detokenize(&self, tokens: &[u32]) -> Result<String, Error> {
        self.model.tokenizer().decode(tokens).map_err(request_error)
    }

    fn render_chat(&self, messages: &[Message]) -> Result<String, Error> {
        render(&self.chat, messages)
    }

    async fn generate(&self, request: GenerateRequest) -> Result<TokenStream, Error> {
        let (model, chat) = (self.model.clone(), self.chat.clone());
        // A long prompt takes milliseconds to render and tokenize, and a grammar to understand.
        let starting = tokio::task::spawn_blocking(move || start(&model, &chat, request));
        starting.await.map_err(|error| Error::Internal(format!("starting a sequence failed: {error}")))?
    }

    fn stats(&self) -> Stats {
        let stats = self.model.stats();
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        Stats {
            running: small(stats.running),
            waiting: small(stats.waiting),
            kv: KvBlocks { used: stats.blocks, cached: stats.cached_blocks, total: stats.pool_blocks },
            work: Work {
                prefix_query_tokens: stats.prefix_query_tokens,
                prefix_hit_tokens: stats.prefix_hit_tokens,
                preemptions: stats.preemptions,
                steps: stats.steps,
                tokens: stats.tokens,
            },
        }
    }

    async fn unload(&self) -> Released {
        let model = self.model.clone();
        let gone = tokio::task::spawn_blocking(move || model.unload().recv_timeout(UNLOAD_TIMEOUT).is_ok()).await;
        match gone {
            Ok(true) => Released::Yes,
            _ => Released::No("the engine's step does not end: restart the server".into()),
        }
    }
}

fn start(
    model: &Arc<paged_engine::Model>,
    chat: &Result<ChatTemplate, String>,
    request: GenerateRequest,
) -> Result<TokenStream, Error> {
    let prompt = match request.prompt {
        Prompt::Chat(messages) => model.tokenizer().encode(&render(chat, &messages)?),
        Prompt::Text(text) => model.tokenizer().encode(&text),
        Prompt::Tokens(tokens) => tokens,
    };
    let room = model.context().saturating_sub(prompt.len()).max(1);
    let max_tokens = request.max_tokens.map_or(room, |most| most as usize);
    let (sink, stream) = token_channel(u32::try_from(max_tokens.min(room)).unwrap_or(u32::MAX));
    let length = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
    let sink = Forward { sink, prompt: length, cached: 0, model: Arc::downgrade(model) };
    let request = Request {
        prompt,
        max_tokens,
        sampling: request.sampling,
        stop: request.stop,
        stop_tokens: request.stop_tokens,
        logprobs: request.logprobs,
        grammar: request.grammar,
    };
    model.generate(request, Box::new(sink)).map_err(request_error)?;
    Ok(stream)
}

fn render(chat: &Result<ChatTemplate, String>, messages: &[Message]) -> Result<String, Error> {
    match chat {
        Ok(template) => template.render(messages),
        Err(why) => Err(Error::invalid(why.clone(), "messages")),
    }
}

/// From the engine's events to the seam's.
struct Forward {
    sink: TokenSink,
    prompt: u32,
    /// Tokens of it that came from an earlier request; known once it was read.
    cached: u32,
    /// For the texts of tokens.
    model: Weak<paged_engine::Model>,
}

impl Forward {
    fn logprobs(&self, id: u32, told: &decoding::TokenLogprobs) -> Option<Box<TokenLogprobs>> {
        let model = self.model.upgrade()?;
        let piece = |id| match model.tokenizer().bytes(id) {
            [] => Piece::Special(model.tokenizer().name(id).unwrap_or_default().to_owned()),
            bytes => Piece::Text(bytes.to_vec()),
        };
        Some(Box::new(TokenLogprobs::new(id, told, piece)))
    }
}

impl Sink for Forward {
    fn send(&mut self, event: Event) -> bool {
        self.sink.send(match event {
            Event::Prefill { tokens, cached } => {
                self.cached = small(cached);
                Ok(TokenEvent::Prefill { tokens: small(tokens), cached: self.cached })
            }
            Event::Token { id, text, logprobs } => {
                let logprobs = logprobs.and_then(|told| self.logprobs(id, &told));
                Ok(TokenEvent::Token { id, text, logprobs })
            }
            Event::Finished { reason, text, tokens, timings } => Ok(TokenEvent::Finished {
                reason: match reason {
                    Reason::Stop => FinishReason::Stop,
                    Reason::Length => FinishReason::Length,
                },
                text,
                usage: Usage { prompt: self.prompt, cached: self.cached, completion: small(tokens) },
                timings: Timings { prefill: timings.prefill, decode: timings.decode },
            }),
            Event::Failed(error) => Err(request_error(error)),
        })
    }

    fn is_closed(&self) -> bool {
        self.sink.is_closed()
    }
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn load_error(error: paged_engine::Error) -> Error {
    match error {
        paged_engine::Error::Unsupported(why) => Error::Unsupported(why),
        other => Error::Load(other.to_string()),
    }
}

fn request_error(error: paged_engine::Error) -> Error {
    use paged_engine::Error as E;
    match error {
        E::Grammar(message) => Error::invalid(message, "response_format"),
        E::InvalidRequest(message) => Error::InvalidRequest { message, param: None },
        E::ContextLength { prompt, max_tokens, context } => {
            Error::ContextLength { prompt: prompt as u64, max_tokens: max_tokens as u64, context: context as u64 }
        }
        E::OutOfMemory(message) => Error::OutOfMemory(message),
        E::Stopped => Error::Stopped,
        E::Internal(message) | E::File(message) | E::Unsupported(message) => Error::Internal(message),
    }
}
