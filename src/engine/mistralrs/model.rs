//! A loaded model: the face that mistral.rs shows to the house.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use decoding::{AnswerText, Sampler};
use mistralrs::core::{MistralRs, Request};
use tokio::sync::mpsc;

use super::load::{PipelineLock, Running, SEQUENCES};
use super::prompt::Prompts;
use super::pump::{self, Gate, Job};
use super::release::release;
use super::sequence::Parts;
use crate::engine::{
    Capabilities, Error, Footprint, GenerateRequest, LoadedModel, Message, Prompt, Released, Stats, TokenStream,
    token_channel,
};

pub struct Model {
    footprint: Footprint,
    capabilities: Capabilities,
    end_tokens: Arc<[u32]>,
    gate: Arc<Gate>,
    pipeline: Weak<PipelineLock>,
    /// What keeps memory, apart from sequences. `None` once the model is unloaded.
    held: Mutex<Option<Held>>,
}

struct Held {
    _engine: Arc<MistralRs>,
    requests: mpsc::Sender<Request>,
    prompts: Arc<Prompts>,
}

impl Model {
    pub fn new(running: Running, prompts: Prompts, footprint: Footprint) -> Self {
        Self {
            footprint,
            capabilities: Capabilities {
                context: prompts.context,
                sequences: SEQUENCES,
                chat: prompts.chat.is_ok(),
                logprobs: false,
                grammar: false,
            },
            end_tokens: running.end_tokens.into(),
            gate: Arc::new(Gate::new()),
            pipeline: running.pipeline,
            held: Mutex::new(Some(Held {
                _engine: running.engine,
                requests: running.requests,
                prompts: Arc::new(prompts),
            })),
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prompts(&self) -> Result<Arc<Prompts>, Error> {
        self.held().as_ref().map(|held| Arc::clone(&held.prompts)).ok_or(Error::Stopped)
    }

    fn requests(&self) -> Result<mpsc::Sender<Request>, Error> {
        self.held().as_ref().map(|held| held.requests.clone()).ok_or(Error::Stopped)
    }

    fn job(&self, mut request: GenerateRequest, prompts: &Prompts, prompt: Vec<u32>) -> Result<Job, Error> {
        let max_tokens = prompts.room(prompt.len(), request.max_tokens)?;
        let tokens = u32::try_from(prompts.vocabulary.len()).unwrap_or(u32::MAX);
        request.sampling.dry.resolve(tokens, |token| prompts.vocabulary.bytes(token));
        let sampler = Sampler::new(request.sampling, &prompt);
        let text = AnswerText::new(&request.stop);
        let vocabulary = Arc::clone(&prompts.vocabulary);
        let end_tokens = match request.stop_tokens.is_empty() {
            true => Arc::clone(&self.end_tokens),
            false => self.end_tokens.iter().copied().chain(request.stop_tokens).collect(),
        };
        // `room` has seen that the prompt fits a context that is a u32.
        let prompt_tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        Ok(Job {
            prompt,
            end_token: self.end_tokens.first().copied().unwrap_or_default(),
            max_tokens,
            requests: self.requests()?,
            parts: Box::new(move |sink| Parts {
                sink,
                sampler,
                text,
                vocabulary,
                end_tokens,
                prompt_tokens,
                max_tokens,
            }),
        })
    }
}

impl Drop for Model {
    /// Without an unload the sequences in flight still get an error of the right kind.
    fn drop(&mut self) {
        self.gate.stopping.cancel();
    }
}

#[async_trait]
impl LoadedModel for Model {
    fn footprint(&self) -> Footprint {
        self.footprint
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn tokenize(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.prompts()?.encode(text)
    }

    fn detokenize(&self, tokens: &[u32]) -> Result<String, Error> {
        self.prompts()?.decode(tokens)
    }

    fn render_chat(&self, messages: &[Message]) -> Result<String, Error> {
        self.prompts()?.render(messages)
    }

    async fn generate(&self, mut request: GenerateRequest) -> Result<TokenStream, Error> {
        self.gate.check()?;
        self.capabilities.admit(&request)?;
        let prompts = self.prompts()?;
        let prompt = std::mem::replace(&mut request.prompt, Prompt::Tokens(Vec::new()));
        let for_thread = Arc::clone(&prompts);
        // A long prompt takes milliseconds to tokenize.
        let tokens = tokio::task::spawn_blocking(move || for_thread.tokens(&prompt))
            .await
            .map_err(|error| Error::Internal(format!("tokenizing failed: {error}")))??;
        let job = self.job(request, &prompts, tokens)?;
        let (sink, stream) = token_channel(job.max_tokens);
        let waiting = self.gate.waiting();
        self.gate.tasks.spawn(pump::run(Arc::clone(&self.gate), job, sink, waiting));
        Ok(stream)
    }

    fn stats(&self) -> Stats {
        self.gate.stats()
    }

    async fn unload(&self) -> Released {
        release(&self.gate, &self.pipeline, || self.held().take()).await
    }
}
