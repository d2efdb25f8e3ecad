//! The loop against fake models, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Catalog;
use crate::domain::ModelId;
use crate::engine::fake::{Fake, Script};
use crate::engine::{Engines, Error as EngineError, Footprint};
use crate::registry::{Error, Handle, State, Strategy, start};
use crate::telemetry::Metrics;

const SECOND: Duration = Duration::from_secs(1);

struct House {
    registry: Handle,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

fn weighing(bytes: u64) -> Script {
    let footprint = Footprint { weights_private: bytes, ..Footprint::default() };
    Script { footprint, load_time: SECOND, ..Script::default() }
}

/// A registry with a budget of 100 bytes over models `a`, `b`, `c`, each with the given keys.
fn house(fake: Fake, keys: [&str; 3]) -> House {
    let directory = TempDir::new().unwrap();
    let [a, b, c] = keys;
    let yaml = format!(
        "version: 1\nmemory: {{ budget: 100B }}\ndefaults: {{ engine: fake, drain_timeout: 10s }}\n\
         models:\n  a: {{ {a} }}\n  b: {{ {b} }}\n  c: {{ {c} }}\n"
    );
    let file = directory.path().join("registry.yaml");
    std::fs::write(&file, yaml).unwrap();
    let catalog = Catalog::read(&file, &Engines::new(vec![Arc::new(fake)])).unwrap();
    let (metrics, tasks, shutdown) = (Arc::new(Metrics::new().unwrap()), TaskTracker::new(), CancellationToken::new());
    let registry = start(&catalog, metrics.clone(), &tasks, shutdown.clone());
    House { registry, metrics, tasks, shutdown }
}

fn id(name: &str) -> ModelId {
    name.into()
}

impl House {
    fn state(&self, name: &str) -> State {
        self.registry.view().model(&id(name)).unwrap().state.clone()
    }

    async fn until(&self, name: &str, state: State) {
        let mut changes = self.registry.changes();
        changes.wait_for(|view| view.model(&id(name)).unwrap().state == state).await.unwrap();
    }

    fn used(&self) -> u64 {
        self.registry.view().used
    }
}

#[tokio::test(start_paused = true)]
async fn many_who_want_one_model_share_one_load() {
    let house = house(Fake::new(weighing(10)), ["", "", ""]);
    let a = id("a");
    let leases = futures::future::join_all((0..20).map(|_| house.registry.lease(&a))).await;
    assert!(leases.iter().all(Result::is_ok));
    let loads = house.metrics.load_seconds.with_label_values(&["a", "loaded"]);
    assert_eq!(loads.get_sample_count(), 1);
    assert_eq!(house.registry.view().model(&a).unwrap().leases(), 20);
    drop(leases);
    assert_eq!(house.registry.view().model(&a).unwrap().leases(), 0);
}

#[tokio::test(start_paused = true)]
async fn preloaded_models_become_ready_by_themselves() {
    let house = house(Fake::new(weighing(10)), ["preload: true", "", "preload: true"]);
    house.until("c", State::Ready).await;
    assert_eq!((house.state("a"), house.state("b")), (State::Ready, State::Unloaded));
    assert_eq!(house.registry.view().not_ready().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_model_makes_room_and_a_leased_one_is_waited_for() {
    let house = house(Fake::new(weighing(60)), ["", "", ""]);
    let lease = house.registry.lease(&id("a")).await.unwrap();
    let waits = timeout(5 * SECOND, house.registry.lease(&id("b"))).await;
    assert!(waits.is_err(), "a is in use and holds the room");
    drop(lease);
    let _b = house.registry.lease(&id("b")).await.unwrap();
    assert_eq!((house.state("a"), house.used()), (State::Unloaded, 60));
    assert_eq!(house.metrics.unloads.with_label_values(&["a", "evicted"]).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_least_recently_used_goes_first() {
    let house = house(Fake::new(weighing(40)), ["", "", ""]);
    for name in ["a", "b", "a"] {
        drop(house.registry.lease(&id(name)).await.unwrap());
    }
    drop(house.registry.lease(&id("c")).await.unwrap());
    assert_eq!((house.state("a"), house.state("b")), (State::Ready, State::Unloaded));
}

#[tokio::test(start_paused = true)]
async fn a_pinned_model_is_never_evicted_and_the_refusal_has_numbers() {
    let house = house(Fake::new(weighing(60)), ["pin: true", "", ""]);
    house.registry.load(&id("a"), true).await.unwrap();
    let error = house.registry.lease(&id("b")).await.unwrap_err();
    assert_eq!(error, Error::NeverFits { model: id("b"), needed: 60, free_at_most: 40, budget: 100 });
    assert_eq!(house.state("a"), State::Ready);
}

#[tokio::test(start_paused = true)]
async fn unloading_waits_for_the_requests_and_gives_the_bytes_back() {
    let house = house(Fake::new(weighing(60)), ["", "", ""]);
    let lease = house.registry.lease(&id("a")).await.unwrap();
    let (registry, a) = (house.registry.clone(), id("a"));
    let unload = registry.unload(&a);
    tokio::pin!(unload);
    assert!(timeout(SECOND, &mut unload).await.is_err());
    assert_eq!((house.state("a"), house.used()), (State::Draining, 60));
    drop(lease);
    unload.await.unwrap();
    assert_eq!((house.state("a"), house.used()), (State::Unloaded, 0));
    let again = house.registry.unload(&a).await.unwrap_err();
    assert_eq!(again, Error::Illegal { model: id("a"), state: State::Unloaded, wish: "be unloaded" });
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_with_its_timeout() {
    let house = house(Fake::new(weighing(60)), ["", "", ""]);
    let _lease = house.registry.lease(&id("a")).await.unwrap();
    timeout(11 * SECOND, house.registry.unload(&id("a"))).await.unwrap().unwrap();
    assert_eq!(house.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_load_says_why_and_can_be_tried_again() {
    let broken = Script { load_error: Some(EngineError::Load("no weights".into())), ..weighing(10) };
    let house = house(Fake::new(weighing(10)).script("a", broken), ["preload: true", "", ""]);
    house.until("a", State::Failed("loading failed: no weights".into())).await;
    assert_eq!(house.used(), 0);
    let failed = Error::Failed { model: id("a"), reason: "loading failed: no weights".into() };
    assert_eq!(house.registry.lease(&id("a")).await.unwrap_err(), failed);
    assert_eq!(house.registry.load(&id("a"), true).await.unwrap_err(), failed);
    assert!(house.registry.lease(&id("b")).await.is_ok(), "the others serve on");
}

#[tokio::test(start_paused = true)]
async fn a_load_over_its_timeout_fails_and_its_bytes_return_when_it_ends() {
    let slow = Script { load_time: 60 * SECOND, ..weighing(60) };
    let house = house(Fake::new(slow), ["load_timeout: 5s", "", ""]);
    let error = house.registry.load(&id("a"), true).await.unwrap_err();
    assert!(error.to_string().contains("not loaded within 5s"), "{error}");
    assert_eq!(house.used(), 60, "the load goes on and holds memory");
    let again = house.registry.load(&id("a"), true).await.unwrap_err();
    assert!(again.to_string().contains("still taken"), "{again}");
    house.registry.changes().wait_for(|view| view.used == 0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn memory_that_does_not_come_back_stays_on_the_books() {
    let sticky = Script { keeps_memory: true, ..weighing(60) };
    let house = house(Fake::new(weighing(60)).script("a", sticky), ["", "", ""]);
    house.registry.load(&id("a"), true).await.unwrap();
    assert!(matches!(house.registry.unload(&id("a")).await, Err(Error::Failed { .. })));
    assert_eq!(house.used(), 60);
    assert!(matches!(house.registry.lease(&id("b")).await, Err(Error::NeverFits { free_at_most: 40, .. })));
}

#[tokio::test(start_paused = true)]
async fn who_stops_waiting_causes_no_load() {
    let house = house(Fake::new(weighing(60)), ["", "", ""]);
    let lease = house.registry.lease(&id("a")).await.unwrap();
    assert!(timeout(SECOND, house.registry.lease(&id("b"))).await.is_err());
    drop(lease);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((house.state("a"), house.state("b")), (State::Ready, State::Unloaded));
}

#[tokio::test(start_paused = true)]
async fn a_swap_loads_first_when_both_fit() {
    let house = house(Fake::new(weighing(50)), ["", "", ""]);
    house.registry.load(&id("a"), true).await.unwrap();
    let swapped = house.registry.swap(&id("a"), &id("b")).await.unwrap();
    assert_eq!(swapped.strategy, Strategy::LoadFirst);
    assert_eq!((house.state("a"), house.state("b"), house.used()), (State::Unloaded, State::Ready, 50));
}

#[tokio::test(start_paused = true)]
async fn a_swap_drains_first_when_only_one_fits() {
    let house = house(Fake::new(weighing(60)), ["", "", ""]);
    let lease = house.registry.lease(&id("a")).await.unwrap();
    let (registry, a, b) = (house.registry.clone(), id("a"), id("b"));
    let swap = registry.swap(&a, &b);
    tokio::pin!(swap);
    assert!(timeout(5 * SECOND, &mut swap).await.is_err(), "a request runs on the old one");
    assert_eq!(house.registry.swap(&a, &b).await.unwrap_err(), Error::SwapRunning);
    drop(lease);
    assert_eq!(swap.await.unwrap().strategy, Strategy::DrainFirst);
    assert_eq!((house.state("a"), house.state("b")), (State::Unloaded, State::Ready));
}

#[tokio::test(start_paused = true)]
async fn a_swap_that_fails_leaves_the_old_one_serving() {
    let broken = Script { load_error: Some(EngineError::Load("no weights".into())), ..weighing(60) };
    let house = house(Fake::new(weighing(60)).script("b", broken), ["", "", ""]);
    house.registry.load(&id("a"), true).await.unwrap();
    let error = house.registry.swap(&id("a"), &id("b")).await.unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert_eq!(house.state("a"), State::Ready);
    let unknown = house.registry.swap(&id("a"), &id("x")).await.unwrap_err();
    assert_eq!(unknown, Error::UnknownModel("x".into()));
    assert!(matches!(house.registry.swap(&id("c"), &id("b")).await, Err(Error::Illegal { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_unloads_everything_and_ends() {
    let house = house(Fake::new(weighing(10)), ["preload: true", "", ""]);
    house.until("a", State::Ready).await;
    house.shutdown.cancel();
    house.tasks.close();
    timeout(SECOND, house.tasks.wait()).await.unwrap();
    assert_eq!(house.registry.lease(&id("a")).await.unwrap_err(), Error::ShuttingDown);
}
