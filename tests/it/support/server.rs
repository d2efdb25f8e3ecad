//! A whole server in the test's process, on ports of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join;
use pensieve::app::App;
use pensieve::config::Catalog;
use pensieve::engine::fake::{Fake, Script};
use pensieve::engine::{Engine, Engines};
use pensieve::shutdown::Signals;
use reqwest::{Client, Response};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::sse::Frames;
use super::{DEADLINE, Exposition};

/// How often a state is looked at while a test waits for it.
const LOOK: Duration = Duration::from_millis(2);

/// A server to be: models on the fake engine, under a registry file of a few lines.
pub struct Setup {
    budget: String,
    defaults: String,
    models: String,
    fake: Fake,
    drain: Duration,
}

impl Setup {
    /// Each of `models` is an entry of the registry file, for example `a: { preload: true }`.
    pub fn new(models: &[&str]) -> Self {
        Self {
            budget: "1GiB".into(),
            defaults: String::new(),
            models: models.iter().map(|model| format!("  {model}\n")).collect(),
            fake: Fake::default(),
            drain: DEADLINE,
        }
    }

    pub fn budget(self, budget: &str) -> Self {
        Self { budget: budget.into(), ..self }
    }

    /// More keys of `defaults:`, for example `sequences: 1`.
    pub fn defaults(self, defaults: &str) -> Self {
        Self { defaults: format!(", {defaults}"), ..self }
    }

    pub fn script(self, model: &str, script: Script) -> Self {
        Self { fake: self.fake.script(model, script), ..self }
    }

    /// How long a shutdown waits for running answers.
    pub fn drain(self, drain: Duration) -> Self {
        Self { drain, ..self }
    }

    pub async fn start(self) -> TestServer {
        let fake = Arc::new(self.fake.clone());
        self.start_on(fake).await
    }

    /// With an engine of the test's own, which calls itself `fake`.
    pub async fn start_on(self, engine: Arc<dyn Engine>) -> TestServer {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("registry.yaml");
        let yaml = format!(
            "version: 1\nmemory: {{ budget: {} }}\ndefaults: {{ engine: fake{} }}\nmodels:\n{}",
            self.budget, self.defaults, self.models
        );
        std::fs::write(&file, yaml).unwrap();
        TestServer::start(&file, &Engines::new(vec![engine]), self.drain).await
    }
}

/// A running server. Dropping it ends it without a word.
pub struct TestServer {
    pub client: Client,
    public: String,
    admin: String,
    stops: mpsc::Sender<()>,
    task: JoinSet<()>,
}

impl TestServer {
    /// Serves the registry file `file`.
    pub async fn start(file: &Path, engines: &Engines, drain: Duration) -> Self {
        let catalog = Catalog::read(file, engines).unwrap_or_else(|problems| panic!("{problems}"));
        let any_port = || TcpListener::bind("127.0.0.1:0");
        let (public, admin) = join(any_port(), any_port()).await;
        let (public, admin) = (public.unwrap(), admin.unwrap());
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let addresses = (address(&public), address(&admin));
        let (stops, signals) = mpsc::channel(2);
        let app = App::start(Arc::new(catalog)).unwrap();
        let mut task = JoinSet::new();
        task.spawn(app.serve(public, admin, Signals::Channel(signals), drain));
        let client = Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
        Self { client, public: addresses.0, admin: addresses.1, stops, task }
    }

    /// The URL of a route of the public listener.
    pub fn api(&self, path: &str) -> String {
        format!("{}{path}", self.public)
    }

    /// The URL of a route of the admin listener.
    pub fn admin(&self, path: &str) -> String {
        format!("{}{path}", self.admin)
    }

    pub async fn get(&self, url: String) -> Response {
        self.client.get(url).send().await.unwrap()
    }

    pub async fn post(&self, url: String, body: &Value) -> Response {
        self.client.post(url).json(body).send().await.unwrap()
    }

    /// POST /v1/chat/completions.
    pub async fn chat(&self, body: &Value) -> Response {
        self.post(self.api("/v1/chat/completions"), body).await
    }

    /// The same, on a task of its own.
    pub fn begin(&self, body: &Value) -> Pending {
        let request = self.client.post(self.api("/v1/chat/completions")).json(body);
        let mut task = JoinSet::new();
        task.spawn(async move { request.send().await.unwrap() });
        Pending(task)
    }

    /// The same, streamed.
    pub async fn stream(&self, body: &Value) -> Frames {
        let body = super::with(body.clone(), serde_json::json!({"stream": true}));
        Frames::of(self.chat(&body).await)
    }

    /// POST /admin/v1/models/{model}/{action}.
    pub async fn manage(&self, model: &str, action: &str) -> Response {
        let url = self.admin(&format!("/admin/v1/models/{model}/{action}"));
        self.client.post(url).send().await.unwrap()
    }

    /// GET /admin/v1/status.
    pub async fn status(&self) -> Value {
        self.get(self.admin("/admin/v1/status")).await.json().await.unwrap()
    }

    /// One model of the status.
    pub async fn model(&self, id: &str) -> Value {
        self.get(self.admin(&format!("/admin/v1/models/{id}"))).await.json().await.unwrap()
    }

    /// Looks at the status until `reached` holds for it.
    pub async fn until(&self, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
        let looking = async {
            loop {
                let status = self.status().await;
                if reached(&status) {
                    return status;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(DEADLINE, looking).await {
            Ok(status) => status,
            Err(_) => panic!("never: {what}: {:#}", self.status().await),
        }
    }

    /// Waits until a model is in `state`.
    pub async fn until_state(&self, id: &str, state: &str) {
        let reached = |status: &Value| {
            let mut models = status["models"].as_array().unwrap().iter();
            models.any(|model| model["id"] == id && model["state"] == state)
        };
        self.until(&format!("{id} is {state}"), reached).await;
    }

    pub async fn metrics(&self) -> Exposition {
        Exposition::parse(&self.get(self.admin("/metrics")).await.text().await.unwrap())
    }

    /// The sum of the series with this name and these labels; 0 if there is none.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().await.sum(name, labels)
    }

    /// Looks at a metric until it has this value.
    pub async fn until_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let looking = async {
            while self.metric(name, labels).await != value {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(DEADLINE, looking).await.is_err() {
            panic!("never {value}: {name} {labels:?}, which is {}", self.metric(name, labels).await);
        }
    }

    pub async fn until_running(&self, model: &str, sequences: u32) {
        self.until_metric("vllm:num_requests_running", &[("model_name", model)], sequences.into()).await;
    }

    pub async fn until_waiting(&self, model: &str, requests: u32) {
        self.until_metric("vllm:num_requests_waiting", &[("model_name", model)], requests.into()).await;
    }

    /// Waits until no request is in the house: none runs, none waits, no model is in use.
    pub async fn until_quiet(&self) {
        self.until_metric("vllm:num_requests_running", &[], 0.0).await;
        self.until_metric("vllm:num_requests_waiting", &[], 0.0).await;
        let quiet = |status: &Value| status["models"].as_array().unwrap().iter().all(|model| model["in_use"] == 0);
        self.until("no model is in use", quiet).await;
    }

    /// Tells the server to stop; the second time, at once.
    pub async fn tell_to_stop(&self) {
        self.stops.send(()).await.unwrap();
    }

    /// Waits until the server has ended.
    pub async fn ended(&mut self) {
        let end = tokio::time::timeout(DEADLINE, self.task.join_next()).await.expect("the server does not end");
        end.unwrap().unwrap();
    }

    /// Tells the server to stop and waits until it has.
    pub async fn stop(mut self) {
        self.tell_to_stop().await;
        self.ended().await;
    }
}

/// A request under way; dropping it is a client who leaves.
pub struct Pending(JoinSet<Response>);

impl Pending {
    pub async fn answer(mut self) -> Response {
        self.0.join_next().await.unwrap().unwrap()
    }
}
