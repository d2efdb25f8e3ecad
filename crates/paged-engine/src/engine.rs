//! The engine: one thread that owns every model and gives the cores to one model's batch at a
//! time, the one that was given the fewest tokens so far.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};

use crate::Error;
use crate::grammar::Grammars;
use crate::kernels::team::Team;
use crate::kv::{Layout, Pool, Table};
use crate::model::Decoder;
use crate::run::{Command, run};
use crate::schedule::Limits;
use crate::sequence::{Request, Sequence, Sink};
use crate::shared::{Counts, Shared, Stats};
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;

/// Commands that may wait for the engine's next step.
const COMMANDS: usize = 1024;
/// Tokens of prompts in one step: enough to fill the cores, few enough not to stretch the rhythm
/// of those who decode.
const PROMPT_TOKENS: usize = 64;

/// What the engine may take.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads that compute; 0 for one a core.
    pub threads: usize,
    /// Bytes of keys and values of all models together.
    pub kv_bytes: u64,
}

/// A running engine. Dropping the last handle to it and its models ends its threads.
pub struct Engine {
    commands: SyncSender<Command>,
    pool: Arc<Pool>,
    next_key: AtomicU64,
}

/// For how much use a model is loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Tokens a sequence may hold, prompt and answer together.
    pub context: usize,
    /// Sequences that may run at once.
    pub sequences: usize,
}

/// A loaded model. Dropping it unloads it.
pub struct Model {
    key: u64,
    commands: SyncSender<Command>,
    shared: Arc<Shared>,
    grammars: Grammars,
    layout: Layout,
    context: usize,
    pool_blocks: u64,
    unloaded: AtomicBool,
}

impl Engine {
    /// Starts the engine's threads.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn start(options: Options) -> std::io::Result<Self> {
        let team = Team::new(options.threads)?;
        let (commands, inbox) = mpsc::sync_channel(COMMANDS);
        std::thread::Builder::new().name("paged-engine".into()).spawn(move || run(&inbox, team))?;
        Ok(Self { commands, pool: Pool::new(options.kv_bytes), next_key: AtomicU64::new(0) })
    }

    /// Bytes of keys and values in use, of all models.
    pub fn kv_used(&self) -> u64 {
        self.pool.used()
    }

    /// Maps a model's file and makes it ready to run.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Unsupported`]; [`Error::InvalidRequest`] if the pool cannot hold
    /// one sequence of this context.
    pub fn load(&self, path: &Path, options: LoadOptions) -> Result<Model, Error> {
        let weights = Weights::open(path)?;
        let tokenizer = Tokenizer::of(&weights.header)?;
        let decoder = Decoder::new(weights, options.context)?;
        let (config, layout) = (decoder.config.clone(), Layout::of(&decoder.config));
        let pool_blocks = self.pool.budget() / layout.block_bytes();
        let context = options.context.min(config.context);
        let needed = context.div_ceil(crate::kv::BLOCK) as u64;
        if needed > pool_blocks {
            return Err(Error::InvalidRequest(format!(
                "a context of {context} tokens takes {} bytes of keys and values, the pool has {}",
                needed * layout.block_bytes(),
                self.pool.budget()
            )));
        }
        let shared = Arc::new(Shared { config, tokenizer, counts: Counts::default(), bytes: decoder.bytes() });
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let limits = Limits { sequences: options.sequences.max(1), prompt_tokens: PROMPT_TOKENS };
        let add = Command::Add {
            key,
            decoder: Box::new(decoder),
            shared: Arc::clone(&shared),
            limits,
            pool: Arc::clone(&self.pool),
        };
        self.commands.send(add).map_err(|_| ended())?;
        Ok(Model {
            key,
            commands: self.commands.clone(),
            shared,
            grammars: Grammars::default(),
            layout,
            context,
            pool_blocks,
            unloaded: AtomicBool::new(false),
        })
    }
}

impl Model {
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.shared.tokenizer
    }

    /// Tokens a sequence may hold, prompt and answer together.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Bytes of the file's pages it computes with, and bytes of its own.
    pub fn bytes(&self) -> (u64, u64) {
        self.shared.bytes
    }

    /// Bytes that grammars take, beside those of [`Model::bytes`]: none before the first one.
    pub fn grammar_bytes(&self) -> u64 {
        self.grammars.bytes()
    }

    pub fn stats(&self) -> Stats {
        Stats { pool_blocks: self.pool_blocks, ..self.shared.counts.read() }
    }

    /// Hands a sequence in. Its events go to `sink`, from the engine's thread. A grammar is
    /// understood here, on the caller's thread, and takes milliseconds.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`], [`Error::Grammar`], [`Error::ContextLength`], [`Error::Stopped`] once the model is
    /// unloaded; [`Error::Internal`] if more wait than the engine takes in between two steps.
    pub fn generate(&self, mut request: Request, sink: Box<dyn Sink>) -> Result<(), Error> {
        let (prompt, max_tokens, context) = (request.prompt.len(), request.max_tokens, self.context);
        if self.unloaded.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        if prompt == 0 || max_tokens == 0 {
            let message = if prompt == 0 { "the prompt is empty" } else { "max_tokens must be at least 1" };
            return Err(Error::InvalidRequest(message.into()));
        }
        if prompt.saturating_add(max_tokens) > context {
            return Err(Error::ContextLength { prompt, max_tokens, context });
        }
        request.prompt.iter().try_for_each(|token| self.shared.tokenizer.check(*token))?;
        let tokenizer = &self.shared.tokenizer;
        request.sampling.dry.resolve(tokenizer.size(), |token| tokenizer.bytes(token));
        let grammar = request.grammar.as_ref().map(|grammar| self.grammars.compile(grammar, tokenizer)).transpose()?;
        let sequence = Box::new(Sequence::new(request, grammar, Table::new(self.layout), sink));
        self.commands.try_send(Command::Submit { key: self.key, sequence }).map_err(|error| match error {
            TrySendError::Full(_) => Error::Internal("too many requests between two steps".into()),
            TrySendError::Disconnected(_) => ended(),
        })
    }

    /// Ends the model's sequences with [`Error::Stopped`] and gives its memory back. The receiver
    /// tells when that is done.
    pub fn unload(&self) -> Receiver<()> {
        self.unloaded.store(true, Ordering::Relaxed);
        let (done, told) = mpsc::sync_channel(1);
        // An engine that has ended holds no model: then the receiver is closed at once.
        let _ = self.commands.send(Command::Remove { key: self.key, done: Some(done) });
        told
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        let _ = self.commands.try_send(Command::Remove { key: self.key, done: None });
    }
}

fn ended() -> Error {
    Error::Internal("the engine has ended".into())
}
