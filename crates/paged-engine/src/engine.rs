//! The engine: one thread that owns every model and gives the cores to one model's batch at a
//! time, the one that was given the fewest tokens so far.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};

use crate::Error;
use crate::chat::Chat;
use crate::device::Cpu;
use crate::grammar::Grammars;
use crate::kernels::Kernels;
use crate::kernels::team::Team;
use crate::kv::{BLOCK, KvType, Layout, Pool, Share, Table, Use};
use crate::model::Decoder;
use crate::resident::Resident;
use crate::run::{Command, Models};
use crate::sequence::{Request, Sequence, Sink};
use crate::shared::{Counts, Shared, Stats};
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;

/// Commands that may wait for the engine's next step.
const COMMANDS: usize = 1024;

/// What the engine may take.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads that compute; 0 for one a physical core.
    pub threads: usize,
    /// Bytes of keys and values of all models together.
    pub kv_bytes: u64,
    /// What multiplies.
    pub kernels: Kernels,
}

impl Default for Options {
    /// A thread a physical core, a gibibyte of keys and values, the fastest kernels of this processor.
    fn default() -> Self {
        Self { threads: 0, kv_bytes: 1 << 30, kernels: Kernels::best() }
    }
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
    /// What keys and values are kept as.
    pub kv: KvType,
    /// Whether blocks are kept for prompts that begin alike.
    pub prefix_cache: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { context: 2048, sequences: 20, kv: KvType::F16, prefix_cache: true }
    }
}

/// A loaded model. Dropping it unloads it.
pub struct Model {
    key: u64,
    commands: SyncSender<Command>,
    shared: Arc<Shared>,
    grammars: Grammars,
    share: Arc<Share>,
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
        let pool = Pool::new(options.kv_bytes);
        let models = Models::new(Arc::clone(&pool), Box::new(Cpu::new(team, options.kernels)));
        let run = move || models.run(&inbox);
        std::thread::Builder::new().name("paged-engine".into()).spawn(run)?;
        Ok(Self { commands, pool, next_key: AtomicU64::new(0) })
    }

    /// Bytes of keys and values that sequences of all models use.
    pub fn kv_used(&self) -> u64 {
        self.pool.bytes().used
    }

    /// Bytes kept for prefixes that may come again; given up as soon as a sequence needs them.
    pub fn kv_cached(&self) -> u64 {
        self.pool.bytes().cached
    }

    /// Maps a model's file and makes it ready to run.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Unsupported`]; [`Error::InvalidRequest`] if the pool cannot hold
    /// one sequence of this context.
    pub fn load(&self, path: &Path, options: LoadOptions) -> Result<Model, Error> {
        let (weights, header) = Weights::open(path)?;
        let tokenizer = Tokenizer::of(&header)?;
        let chat = Chat::of(&header, &tokenizer);
        let decoder = Decoder::new(weights, &header, options.context)?;
        drop(header);
        let (config, layout) = (decoder.config.clone(), Layout::of(&decoder.config, options.kv));
        let context = options.context.min(config.context);
        let pool_blocks = self.room_for(context, layout)?;
        let share = Share::open(&self.pool, layout.block_bytes(), options.prefix_cache);
        let (counts, dropped, bytes) = (Counts::default(), AtomicBool::new(false), decoder.bytes());
        let shared = Arc::new(Shared { config, tokenizer, chat, counts, dropped, bytes });
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let most = options.sequences.max(1);
        let model = Resident::new(key, Arc::clone(&shared), Arc::clone(&share), most, options.prefix_cache);
        let (model, decoder) = (Box::new(model), Box::new(decoder));
        self.commands.send(Command::Add { key, model, decoder, layout }).map_err(|_| ended())?;
        let (commands, unloaded) = (self.commands.clone(), AtomicBool::new(false));
        let grammars = Grammars::default();
        Ok(Model { key, commands, shared, grammars, share, context, pool_blocks, unloaded })
    }

    /// How many blocks of this layout the pool can hold: at least those of one context.
    fn room_for(&self, context: usize, layout: Layout) -> Result<u64, Error> {
        let (bytes, budget) = (layout.block_bytes(), self.pool.budget());
        let needed = context.div_ceil(BLOCK) as u64 * bytes;
        if needed <= budget {
            return Ok(budget / bytes);
        }
        Err(Error::InvalidRequest(format!(
            "a context of {context} tokens takes {needed} bytes of keys and values, the pool has {budget}"
        )))
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

    /// What the file says of chats.
    pub fn chat(&self) -> &Chat {
        &self.shared.chat
    }

    /// Bytes of tables, beside those of [`Model::bytes`]: of the tokenizer and the chat template.
    pub fn table_bytes(&self) -> u64 {
        self.shared.tokenizer.bytes_held() + self.shared.chat.bytes_held()
    }

    /// Bytes of the tables that grammars need: none before the first one.
    pub fn grammar_bytes(&self) -> u64 {
        self.grammars.bytes()
    }

    pub fn stats(&self) -> Stats {
        let Use { used: blocks, cached: cached_blocks } = self.share.blocks();
        Stats { blocks, cached_blocks, pool_blocks: self.pool_blocks, ..self.shared.counts.read() }
    }

    /// Hands a sequence in. Its events go to `sink`, from the engine's thread. A grammar is
    /// understood here, on the caller's thread, and takes milliseconds.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`], [`Error::Grammar`], [`Error::ContextLength`], [`Error::Stopped`] once
    /// the model is unloaded; [`Error::Internal`] if more wait than the engine takes in between two steps.
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
        let sequence = Box::new(Sequence::new(request, grammar, Table::new(&self.share), sink));
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
        let _ = self.commands.send(Command::Remove { key: self.key, done });
        told
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.shared.dropped.store(true, Ordering::Release);
        // An engine with so many commands that this one finds no place is awake.
        let _ = self.commands.try_send(Command::Wake);
    }
}

fn ended() -> Error {
    Error::Internal("the engine has ended".into())
}
