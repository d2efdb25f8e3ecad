//! A deterministic engine without weights: for tests, for faults on purpose and for measuring the
//! gateway alone. It must be asked for by name and shows under that name in every status.
//!
//! Its tokens are bytes. Greedily it answers `<model>: <prompt>`; the likeliest byte always leads
//! the others by the same margin, so every sampling parameter has the effect it has on a real
//! model.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use decoding::grammar::{Matcher, TokenText, Vocabulary};
use decoding::{AnswerText, Chooser, GrammarError, Matched};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{
    Capabilities, Engine, Error, FinishReason, Footprint, GenerateRequest, Grammar, LoadSpec, LoadedModel, Message,
    Piece, Prompt, Released, Stats, Support, Timings, TokenEvent, TokenLogprobs, TokenSink, TokenStream, Usage,
    token_channel,
};
use crate::domain::ModelId;

/// The name the registry file asks for it by.
pub const NAME: &str = "fake";
/// One token for each byte, and the end.
const VOCABULARY: usize = 257;
const END: u32 = 256;
const END_NAME: &str = "<end>";
/// The texts of all tokens but the end.
const BYTES: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut at = 0;
    while at < 256 {
        bytes[at] = at as u8;
        at += 1;
    }
    bytes
};
/// How far the answer's next byte leads, in logits.
const LEAD: f32 = 3.0;

/// How a fake model behaves. The default is instant and takes a megabyte.
#[derive(Clone, Debug)]
pub struct Script {
    pub load_time: Duration,
    pub prefill_time: Duration,
    pub token_time: Duration,
    pub footprint: Footprint,
    /// Every load fails with this.
    pub load_error: Option<Error>,
    /// Every sequence fails with this after so many tokens.
    pub token_error: Option<(u32, Error)>,
    /// Unloading says that the memory did not come back.
    pub keeps_memory: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            load_time: Duration::ZERO,
            prefill_time: Duration::ZERO,
            token_time: Duration::ZERO,
            footprint: Footprint { weights_private: 1 << 20, ..Footprint::default() },
            load_error: None,
            token_error: None,
            keeps_memory: false,
        }
    }
}

/// The engine; every model follows the default script unless it has one of its own.
#[derive(Clone, Debug, Default)]
pub struct Fake {
    default: Script,
    scripts: HashMap<ModelId, Script>,
}

impl Fake {
    pub fn new(default: Script) -> Self {
        Self { default, scripts: HashMap::new() }
    }

    /// Gives one model a script of its own.
    #[must_use]
    pub fn script(mut self, model: &str, script: Script) -> Self {
        self.scripts.insert(model.into(), script);
        self
    }

    fn script_of(&self, model: &ModelId) -> &Script {
        self.scripts.get(model).unwrap_or(&self.default)
    }
}

#[async_trait]
impl Engine for Fake {
    fn name(&self) -> &'static str {
        NAME
    }

    fn supports(&self, _model: &gguf::Summary) -> Support {
        Support::Yes
    }

    fn estimate(&self, spec: &LoadSpec) -> Footprint {
        self.script_of(&spec.model).footprint
    }

    async fn load(&self, spec: LoadSpec) -> Result<Arc<dyn LoadedModel>, Error> {
        let script = self.script_of(&spec.model).clone();
        pause(script.load_time).await;
        match &script.load_error {
            Some(error) => Err(error.clone()),
            None => Ok(Arc::new(Model {
                slots: Arc::new(Semaphore::new(spec.sequences as usize)),
                counts: Arc::default(),
                stopped: CancellationToken::new(),
                sequences: TaskTracker::new(),
                script,
                spec,
            })),
        }
    }
}

struct Model {
    spec: LoadSpec,
    script: Script,
    slots: Arc<Semaphore>,
    counts: Arc<Counts>,
    /// Cancelled by unload: sequences end, new ones are refused.
    stopped: CancellationToken,
    sequences: TaskTracker,
}

#[derive(Default)]
struct Counts {
    running: AtomicU32,
    waiting: AtomicU32,
}

/// Adds one to a counter while it lives.
struct Counted<'a>(&'a AtomicU32);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicU32) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl LoadedModel for Model {
    fn footprint(&self) -> Footprint {
        self.script.footprint
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            context: self.spec.context,
            sequences: self.spec.sequences,
            chat: true,
            logprobs: true,
            grammar: true,
        }
    }

    fn tokenize(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn detokenize(&self, tokens: &[u32]) -> Result<String, Error> {
        let bytes = tokens
            .iter()
            .filter(|token| **token != END)
            .map(|token| u8::try_from(*token))
            .collect::<Result<Vec<u8>, _>>()
            .map_err(|_| Error::invalid("a token id is outside the vocabulary of 257", "tokens"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn render_chat(&self, messages: &[Message]) -> Result<String, Error> {
        Ok(messages.iter().map(|message| message.text.as_str()).collect::<Vec<_>>().join("\n"))
    }

    async fn generate(&self, mut request: GenerateRequest) -> Result<TokenStream, Error> {
        if self.stopped.is_cancelled() {
            return Err(Error::Stopped);
        }
        let prompt = match &request.prompt {
            Prompt::Chat(messages) => self.tokenize(&self.render_chat(messages)?)?,
            Prompt::Text(text) => self.tokenize(text)?,
            Prompt::Tokens(tokens) => tokens.clone(),
        };
        let max_tokens = answer_room(prompt.len(), request.max_tokens, self.spec.context)?;
        let answer = format!("{}: {}", self.spec.model, self.detokenize(&prompt)?);
        request.sampling.dry.resolve(END, |token| BYTES.get(token as usize..=token as usize).unwrap_or_default());
        let grammar = request.grammar.as_ref().map(understood).transpose()?;
        let chooser = Chooser::new(request.sampling.clone(), &prompt, request.logprobs, grammar);
        let (sink, stream) = token_channel(max_tokens);
        let (answer, script) = (answer.into_bytes(), self.script.clone());
        let sequence = Sequence { prompt, answer, max_tokens, request, chooser, script };
        let (slots, counts, stopped) = (self.slots.clone(), self.counts.clone(), self.stopped.clone());
        self.sequences.spawn(async move {
            let turn = {
                let _waiting = Counted::new(&counts.waiting);
                tokio::select! {
                    permit = slots.acquire() => permit.ok(),
                    () = sink.closed() => None,
                    () = stopped.cancelled() => None,
                }
            };
            let _running = turn.as_ref().map(|_| Counted::new(&counts.running));
            tokio::select! {
                () = sequence.run(&sink), if turn.is_some() => {}
                () = sink.closed() => {}
                () = stopped.cancelled() => { let _ = sink.send(Err(Error::Stopped)); }
            }
        });
        Ok(stream)
    }

    fn stats(&self) -> Stats {
        Stats {
            running: self.counts.running.load(Ordering::Relaxed),
            waiting: self.counts.waiting.load(Ordering::Relaxed),
            ..Stats::default()
        }
    }

    async fn unload(&self) -> Released {
        self.stopped.cancel();
        self.sequences.close();
        self.sequences.wait().await;
        match self.script.keeps_memory {
            true => Released::No("the script says so".into()),
            false => Released::Yes,
        }
    }
}

/// The number of tokens an answer may have, or why there can be none.
fn answer_room(prompt: usize, max_tokens: Option<u32>, context: u32) -> Result<u32, Error> {
    if prompt == 0 {
        return Err(Error::InvalidRequest { message: "the prompt is empty".into(), param: None });
    }
    if max_tokens == Some(0) {
        return Err(Error::invalid("max_tokens must be at least 1", "max_tokens"));
    }
    let (prompt, wanted) = (prompt as u64, u64::from(max_tokens.unwrap_or(1)));
    if prompt + wanted > u64::from(context) {
        return Err(Error::ContextLength { prompt, max_tokens: wanted, context: context.into() });
    }
    Ok(max_tokens.unwrap_or(context - prompt as u32))
}

/// A grammar over the fake vocabulary.
fn understood(grammar: &Grammar) -> Result<Matcher, Error> {
    static TOKENS: OnceLock<Result<Vocabulary, GrammarError>> = OnceLock::new();
    let tokens = || BYTES.chunks(1).map(TokenText::Bytes).chain([TokenText::Special(END_NAME)]);
    let vocabulary = TOKENS.get_or_init(|| Vocabulary::new(tokens(), &[END]));
    let compiled = vocabulary.as_ref().map_err(GrammarError::clone).and_then(|known| known.compile(grammar));
    compiled.map_err(|error| Error::invalid(error.to_string(), "response_format"))
}

fn piece(token: u32) -> Piece {
    u8::try_from(token).map_or_else(|_| Piece::Special(END_NAME.into()), |byte| Piece::Text(vec![byte]))
}

struct Sequence {
    prompt: Vec<u32>,
    answer: Vec<u8>,
    max_tokens: u32,
    request: GenerateRequest,
    chooser: Chooser,
    script: Script,
}

impl Sequence {
    async fn run(mut self, sink: &TokenSink) {
        let started = Instant::now();
        pause(self.script.prefill_time).await;
        let tokens = self.prompt.len() as u32;
        if !sink.send(Ok(TokenEvent::Prefill { tokens, cached: 0 })) {
            return;
        }
        let first = Instant::now();
        let last = self.decode(sink).await;
        let timings = Timings { prefill: first - started, decode: first.elapsed() };
        let _ = sink.send(last.map(|(reason, text, completion)| TokenEvent::Finished {
            reason,
            text,
            usage: Usage { prompt: tokens, cached: 0, completion },
            timings,
        }));
    }

    /// Sends the answer's tokens; how it ended, the text still held back, and the token count.
    async fn decode(&mut self, sink: &TokenSink) -> Result<(FinishReason, String, u32), Error> {
        let mut answer = AnswerText::new(&self.request.stop);
        for count in 0..self.max_tokens {
            if let Some((after, error)) = &self.script.token_error
                && count >= *after
            {
                return Err(error.clone());
            }
            pause(self.script.token_time).await;
            let mut logits = self.logits(count as usize);
            let chosen = self.chooser.next(&mut logits).map_err(|error| Error::Internal(error.to_string()))?;
            let id = chosen.token;
            let ends = id == END || self.request.stop_tokens.contains(&id);
            let (text, stopped) = match answer.push(if ends { &[] } else { &BYTES[id as usize..=id as usize] }) {
                Matched::Text(text) => (text, false),
                Matched::Stop(text) => (text, true),
            };
            let logprobs = chosen.logprobs.map(|told| Box::new(TokenLogprobs::new(id, &told, piece)));
            if !sink.send(Ok(TokenEvent::Token { id, text, logprobs })) {
                return Err(Error::Stopped);
            }
            if ends || stopped || chosen.complete {
                let rest = if stopped { String::new() } else { answer.finish() };
                return Ok((FinishReason::Stop, rest, count + 1));
            }
        }
        Ok((FinishReason::Length, answer.finish(), self.max_tokens))
    }

    fn logits(&self, position: usize) -> Vec<f32> {
        let next = self.answer.get(position).map_or(END as usize, |byte| usize::from(*byte));
        let mut logits = vec![f32::NEG_INFINITY; VOCABULARY];
        logits[usize::from(b' ')..=usize::from(b'~')].fill(0.0);
        logits[next] = LEAD;
        logits
    }
}

/// A sleep of no time would still take a millisecond.
async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}
