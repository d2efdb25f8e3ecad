//! One sequence: its tokens, its blocks, its sampler and the text that goes out.

use std::time::{Duration, Instant};

use decoding::grammar::Matcher;
use decoding::{AnswerText, Chooser, Chosen, Grammar, GrammarError, Matched, Sampling, TokenLogprobs};

use crate::Error;
use crate::kv::{BLOCK, BlockId, Table};
use crate::schedule::Standing;
use crate::tokenizer::Tokenizer;

/// What to generate.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub prompt: Vec<u32>,
    pub max_tokens: usize,
    pub sampling: Sampling,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Tokens that end the answer and are not part of it, beside the model's own.
    pub stop_tokens: Vec<u32>,
    /// Tell each token's log probability, and those of so many of the likeliest tokens.
    pub logprobs: Option<u32>,
    /// What the answer must look like.
    pub grammar: Option<Grammar>,
}

/// What happens to a sequence: prefill, tokens, then exactly one of the other two.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The prompt was computed, `cached` tokens of it for an earlier sequence.
    Prefill {
        tokens: usize,
        cached: usize,
    },
    /// One token; its text may be empty while a character or a stop text is undecided.
    Token {
        id: u32,
        text: String,
        /// If they were asked for.
        logprobs: Option<TokenLogprobs>,
    },
    /// The end, with the text that was still held back.
    Finished {
        reason: Reason,
        text: String,
        tokens: usize,
        timings: Timings,
    },
    Failed(Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The model ended its answer, or a stop text, a stop token or the grammar did.
    Stop,
    /// `max_tokens` were generated.
    Length,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From acceptance to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
}

/// Where events go. Called on the engine's thread: it must not wait.
pub trait Sink: Send {
    /// `false` means that nobody listens: the sequence ends.
    fn send(&mut self, event: Event) -> bool;
    /// Whether nobody listens any more.
    fn is_closed(&self) -> bool;
}

pub struct Sequence {
    /// Prompt and answer.
    tokens: Vec<u32>,
    prompt: usize,
    /// How many of the tokens are in the table.
    computed: usize,
    /// How many of the prompt were found in the cache.
    cached: usize,
    /// How many tokens it had when it last gave way, and how often it has.
    gave_way_at: Option<usize>,
    preemptions: u32,
    max_tokens: usize,
    pub table: Table,
    chooser: Chooser,
    stop_tokens: Vec<u32>,
    text: AnswerText,
    sink: Box<dyn Sink>,
    accepted: Instant,
    first_token: Option<Instant>,
}

/// What a sequence was let in with.
#[derive(Debug)]
pub struct Admitted {
    /// Its known tokens, and how many of them need not be computed.
    pub asked: usize,
    pub found: usize,
    /// Blocks whose numbers must be copied (from, to) before its first step.
    pub copies: Vec<(BlockId, BlockId)>,
}

impl Sequence {
    /// `grammar` is what became of the request's.
    pub fn new(request: Request, grammar: Option<Matcher>, table: Table, sink: Box<dyn Sink>) -> Self {
        Self {
            chooser: Chooser::new(request.sampling, &request.prompt, request.logprobs, grammar),
            stop_tokens: request.stop_tokens,
            prompt: request.prompt.len(),
            tokens: request.prompt,
            computed: 0,
            cached: 0,
            gave_way_at: None,
            preemptions: 0,
            max_tokens: request.max_tokens,
            table,
            text: AnswerText::new(&request.stop),
            sink,
            accepted: Instant::now(),
            first_token: None,
        }
    }

    pub fn standing(&self) -> Standing {
        let pending = self.tokens.len() - self.computed;
        Standing {
            pending,
            decoding: pending == 1 && self.first_token.is_some(),
            started: !self.table.blocks().is_empty(),
            protected: self.gave_way_at.is_some_and(|had| self.tokens.len() < had + BLOCK),
            preemptions: self.preemptions,
            held: false,
        }
    }

    /// Takes blocks for every known token, those of the longest prefix that is there first, if
    /// `spare` would be left: what is cached, or `live`, the table of one that runs and how many
    /// tokens of it are computed and the same. Who gave way before gets one more block: it must come
    /// further before it needs another. `None` if there is no room.
    pub fn admit(&mut self, spare: usize, live: Option<(Table, usize)>) -> Option<Admitted> {
        let further = if self.gave_way_at.is_some() { BLOCK } else { 0 };
        let room = (self.tokens.len() + further).min(self.prompt + self.max_tokens);
        let mut found = self.table.adopt(&self.tokens);
        if let Some((table, common)) = live.filter(|(_, common)| *common > found) {
            (self.table, found) = (table, common);
        }
        let Some(copies) = self.table.reserve(found, room, spare) else {
            self.table.clear();
            return None;
        };
        self.computed = found;
        if self.first_token.is_none() {
            self.cached = found;
        }
        Some(Admitted { asked: self.tokens.len(), found, copies })
    }

    /// How many tokens of `other`, which waits, are the same here: those it could have at once, and
    /// those it could have when all that is known here is computed. Never all of them: its last
    /// token must be computed for its logits.
    pub fn in_common(&self, other: &Self) -> (usize, usize) {
        let most = other.tokens.len().saturating_sub(1);
        let same = self.tokens.iter().zip(&other.tokens[..most]).take_while(|(a, b)| a == b).count();
        (same.min(self.computed), same)
    }

    /// A table of its first `tokens` tokens, with the same blocks.
    pub fn fork(&self, tokens: usize) -> Table {
        self.table.fork(tokens.div_ceil(BLOCK))
    }

    /// Room for `count` more tokens; the blocks to copy before, as [`Table::reserve`] gives them.
    pub fn reserve(&mut self, count: usize) -> Option<Vec<(BlockId, BlockId)>> {
        self.table.reserve(self.computed, self.computed + count, 0)
    }

    /// The next `count` tokens to compute and the place of the first.
    pub fn next(&self, count: usize) -> (&[u32], usize) {
        (&self.tokens[self.computed..self.computed + count], self.computed)
    }

    /// Its blocks, up to the last that the next `count` tokens are written to.
    pub fn blocks_of_next(&self, count: usize) -> &[BlockId] {
        &self.table.blocks()[..(self.computed + count).div_ceil(BLOCK)]
    }

    /// Whether computing `count` more reaches the last known token, so that logits are wanted.
    pub fn completes(&self, count: usize) -> bool {
        self.computed + count == self.tokens.len()
    }

    /// A step has computed `count` more: other sequences may use its full blocks.
    pub fn computed(&mut self, count: usize) {
        let full = self.computed / BLOCK;
        self.computed += count;
        if self.computed / BLOCK > full {
            self.table.publish(&self.tokens[..self.computed]);
        }
    }

    /// Gives the blocks back; everything is computed again later, to the same numbers.
    pub fn preempt(&mut self) {
        debug_assert!(!self.standing().protected, "it gives way twice in a row");
        self.table.clear();
        self.computed = 0;
        self.gave_way_at = Some(self.tokens.len());
        self.preemptions += 1;
    }

    pub fn is_abandoned(&self) -> bool {
        self.sink.is_closed()
    }

    pub fn fail(mut self, error: Error) {
        self.table.clear();
        self.sink.send(Event::Failed(error));
    }

    /// Chooses the next token by the logits behind the last, which are changed in place.
    pub fn choose(&mut self, logits: &mut [f32]) -> Result<Chosen, GrammarError> {
        self.chooser.next(logits)
    }

    /// Takes the token that was chosen, and tells of it. `false` once the sequence is over.
    pub fn advance(&mut self, chosen: Result<Chosen, GrammarError>, tokenizer: &Tokenizer) -> bool {
        if self.first_token.is_none() {
            self.first_token = Some(Instant::now());
            if !self.sink.send(Event::Prefill { tokens: self.prompt, cached: self.cached }) {
                return false;
            }
        }
        let chosen = match chosen {
            Ok(chosen) => chosen,
            Err(error) => {
                self.table.clear();
                self.sink.send(Event::Failed(Error::Internal(error.to_string())));
                return false;
            }
        };
        self.tokens.push(chosen.token);
        let generated = self.tokens.len() - self.prompt;
        let (text, end) = self.read(chosen.token, generated, chosen.complete, tokenizer);
        if !self.sink.send(Event::Token { id: chosen.token, text, logprobs: chosen.logprobs }) {
            return false;
        }
        let Some((reason, text)) = end else { return true };
        let now = Instant::now();
        let first = self.first_token.unwrap_or(now);
        let timings = Timings { prefill: first - self.accepted, decode: now - first };
        // Whoever learns of the end may count on the blocks being back.
        self.table.clear();
        self.sink.send(Event::Finished { reason, text, tokens: generated, timings });
        false
    }

    /// The text that may go out with a token and, at the end, why and what was held back.
    fn read(
        &mut self,
        token: u32,
        generated: usize,
        complete: bool,
        tokenizer: &Tokenizer,
    ) -> (String, Option<(Reason, String)>) {
        if tokenizer.is_end(token) || self.stop_tokens.contains(&token) {
            return (String::new(), Some((Reason::Stop, self.text.finish())));
        }
        match self.text.push(tokenizer.bytes(token)) {
            Matched::Stop(text) => (text, Some((Reason::Stop, String::new()))),
            Matched::Text(text) if complete => (text, Some((Reason::Stop, self.text.finish()))),
            Matched::Text(text) if generated >= self.max_tokens => (text, Some((Reason::Length, self.text.finish()))),
            Matched::Text(text) => (text, None),
        }
    }
}
