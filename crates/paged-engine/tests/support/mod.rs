//! What the tests share: a decoder without an engine around it, files, and where events go.

#![allow(dead_code, reason = "each test file uses what it needs")]

use std::path::PathBuf;
use std::sync::mpsc::Sender;

use gguf::Writer;
use paged_engine::kernels::Kernels;
use paged_engine::kernels::team::Team;
use paged_engine::kv::{KvType, Layout, Pool, Share, Step, Store, Table};
use paged_engine::model::{Batch, Decoder, Workspace};
use paged_engine::weights::Weights;
use paged_engine::{Event, Sink};

/// Tokens that a run holds at most, and the context that models are loaded for.
const CONTEXT: usize = synthetic::cases::CONTEXT as usize;

/// Sends every event on.
pub struct Forward(pub Sender<Event>);

impl Sink for Forward {
    fn send(&mut self, event: Event) -> bool {
        self.0.send(event).is_ok()
    }
    fn is_closed(&self) -> bool {
        false
    }
}

/// A file that is gone with this value.
pub struct TempFile(pub PathBuf);

impl TempFile {
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("paged-engine-{}-{name}.gguf", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub fn decoder(name: &str, writer: &Writer) -> Result<Decoder, paged_engine::Error> {
    let file = TempFile::new(name, &writer.to_bytes());
    let (weights, header) = Weights::open(&file.0)?;
    Decoder::new(weights, &header, CONTEXT)
}

/// One sequence on a decoder.
pub struct Run<'a> {
    decoder: &'a Decoder,
    workspace: Workspace,
    layout: Layout,
    store: Store,
    table: Table,
    length: usize,
}

impl<'a> Run<'a> {
    pub fn new(decoder: &'a Decoder) -> Self {
        let layout = Layout::of(&decoder.config, KvType::F16);
        let share = Share::open(&Pool::new(u64::MAX), layout.block_bytes(), false);
        let (mut table, mut store) = (Table::new(&share), Store::default());
        table.reserve(0, CONTEXT, 0).unwrap();
        store.provide(&layout, table.blocks()).unwrap();
        let workspace = Workspace::new(Team::new(2).unwrap(), Kernels::best());
        Self { decoder, workspace, layout, store, table, length: 0 }
    }

    /// Reads these tokens; the logits after the last.
    pub fn read(&mut self, tokens: &[u32]) -> Vec<f32> {
        let positions = (self.length..self.length + tokens.len()).collect();
        self.length += tokens.len();
        let (sequences, logits) = (vec![0; tokens.len()], vec![tokens.len() - 1]);
        let batch = Batch { tokens: tokens.to_vec(), positions, sequences, logits };
        let mut step = Step::new(&mut self.store, self.layout, vec![self.table.blocks()]);
        self.decoder.forward(&mut self.workspace, &batch, &mut step).to_vec()
    }

    /// The likeliest token, `steps` times, and the logits of each step.
    pub fn greedy(mut self, prompt: &[u32], steps: usize) -> Vec<(u32, Vec<f32>)> {
        let mut logits = self.read(prompt);
        let mut out: Vec<(u32, Vec<f32>)> = Vec::new();
        for _ in 0..steps {
            let chosen = likeliest(&logits);
            let next = self.read(&[chosen]);
            out.push((chosen, std::mem::replace(&mut logits, next)));
        }
        out
    }
}

pub fn likeliest(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).fold(0, |best, at| if logits[at] > logits[best] { at } else { best });
    u32::try_from(best).unwrap()
}
