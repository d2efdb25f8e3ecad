//! What the system says this process holds: weights once however often they are loaded, and no more
//! after many models have come and gone.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};

use decoding::Sampling;
use gguf::TensorType;
use paged_engine::{Engine, Event, LoadOptions, Model, Options, Request};
use support::{Forward, TempFile};
use synthetic::{Quant, Shape};

const MIB: u64 = 1 << 20;

/// Two tests at once would count each other's memory.
static ALONE: Mutex<()> = Mutex::new(());

/// What the system counts for one mapping or for all of them, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    resident: u64,
    /// Pages divided by the number of mappings that share them.
    proportional: u64,
    /// Not of a file, or written since.
    anonymous: u64,
}

/// The fields of an entry of `smaps`: <https://docs.kernel.org/filesystems/proc.html>.
fn held(entry: &str) -> Held {
    let field = |name: &str| {
        let line = entry.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    };
    Held { resident: field("Rss:"), proportional: field("Pss:"), anonymous: field("Anonymous:") }
}

fn process() -> Held {
    held(&std::fs::read_to_string("/proc/self/smaps_rollup").unwrap())
}

/// Every mapping of this file.
fn mappings(file: &Path) -> Vec<Held> {
    let (all, name) = (std::fs::read_to_string("/proc/self/smaps").unwrap(), file.to_str().unwrap());
    let starts = all.match_indices(name).map(|(at, _)| at);
    // An entry ends with its flags.
    starts.map(|at| held(all[at..].split("VmFlags:").next().unwrap())).collect()
}

fn engine() -> Engine {
    Engine::start(Options { threads: 2, kv_bytes: 64 * MIB, ..Options::default() }).unwrap()
}

/// A model whose every matrix one token reads.
fn file(name: &str, shape: Shape) -> TempFile {
    let shape = Shape { tied: true, ..shape };
    TempFile::new(name, &synthetic::model(&shape, Quant::Plain(TensorType::Q8_0)).to_bytes())
}

fn submit(model: &Model, prompt: Vec<u32>) -> Receiver<Event> {
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    let (sender, events) = channel();
    let request = Request { prompt, max_tokens: 4, sampling, ..Request::default() };
    model.generate(request, Box::new(Forward(sender))).unwrap();
    events
}

fn finish(events: &Receiver<Event>) {
    let last = events.iter().last();
    assert!(matches!(last, Some(Event::Finished { .. })), "{last:?}");
}

#[test]
fn two_loads_of_a_file_compute_from_the_same_pages_and_copy_none() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let shape = Shape { layers: 8, hidden: 512, head: 128, feed_forward: 2048, ..Shape::default() };
    let file = file("shared-pages", shape);
    let (engine, before) = (engine(), process());
    let models = [0, 1].map(|_| engine.load(&file.0, LoadOptions { context: 256, ..LoadOptions::default() }).unwrap());
    models.iter().for_each(|model| finish(&submit(model, vec![104; 16])));

    let (weights, mapped) = (models[0].bytes().0, mappings(&file.0));
    assert_eq!(mapped.len(), 2, "one mapping a model");
    for mapping in &mapped {
        assert!(mapping.resident >= weights, "all of {weights} bytes was read: {mapping:?}");
        assert_eq!(mapping.anonymous, 0, "no page was written");
    }
    let together: u64 = mapped.iter().map(|mapping| mapping.proportional).sum();
    assert!(together < weights + weights / 8, "{weights} bytes are there once, not twice: {together}");
    let own = process().anonymous.saturating_sub(before.anonymous);
    assert!(own < weights / 4, "{weights} bytes of weights, and {own} beside them");
}

/// What one model made of the process's memory.
struct Cycle {
    /// Bytes of keys and values that the engine kept until it was unloaded.
    kept: u64,
    /// Bytes of no file, before it was unloaded and after.
    loaded: u64,
    unloaded: u64,
}

/// Loads, computes two thousand tokens, unloads.
fn cycle(engine: &Engine, file: &Path) -> Cycle {
    let model = engine.load(file, LoadOptions { context: 512, ..LoadOptions::default() }).unwrap();
    let prompt = |own: u32| (0..500).map(|at| 97 + (own + at * 7) % 26).collect();
    let events: Vec<_> = (0..4).map(|own| submit(&model, prompt(own))).collect();
    events.iter().for_each(finish);
    let (kept, loaded) = (engine.kv_cached(), process().anonymous);
    assert!(kept > 7 * MIB, "too little to be seen: {kept}");
    model.unload().recv().unwrap();
    assert_eq!((engine.kv_used(), engine.kv_cached()), (0, 0));
    Cycle { kept, loaded, unloaded: process().anonymous }
}

fn cycles(name: &str, count: usize) -> Vec<Cycle> {
    let file = file(name, Shape { layers: 4, kv_heads: 4, head: 64, ..Shape::default() });
    let engine = engine();
    (0..count).map(|_| cycle(&engine, &file.0)).collect()
}

#[test]
fn fifty_models_that_come_and_go_take_no_more_than_five() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let held: Vec<u64> = cycles("fifty", 50).iter().map(|cycle| cycle.unloaded).collect();
    assert!(held[49] <= held[4] + 2 * MIB, "grows from {} to {}: {held:?}", held[4], held[49]);
}

#[test]
fn keys_and_values_go_back_to_the_system_when_their_model_is_unloaded() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for Cycle { kept, loaded, unloaded } in cycles("given-back", 3) {
        let back = loaded.saturating_sub(unloaded);
        assert!(back > kept - kept / 8, "of {kept} bytes of keys and values {back} came back");
    }
}
