//! An engine that breaks its word: what it takes along, and what it must not.

use std::sync::Arc;

use async_trait::async_trait;
use pensieve::engine::fake::Fake;
use pensieve::engine::{
    Capabilities, Engine, Error, Footprint, GenerateRequest, LoadSpec, LoadedModel, Message, Prompt, Released, Stats,
    Support, TokenStream, token_channel,
};

use crate::support::sse::text;
use crate::support::{Setup, TestServer, ask, envelope, refusal, said};

/// The fake engine, until it is told to go wrong.
struct Faulty(Fake);

struct FaultyModel(Arc<dyn LoadedModel>);

#[async_trait]
impl Engine for Faulty {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn supports(&self, model: &gguf::Summary) -> Support {
        self.0.supports(model)
    }

    fn estimate(&self, spec: &LoadSpec) -> Footprint {
        self.0.estimate(spec)
    }

    async fn load(&self, spec: LoadSpec) -> Result<Arc<dyn LoadedModel>, Error> {
        assert_ne!(spec.model.as_str(), "panics", "a panic on purpose");
        Ok(Arc::new(FaultyModel(self.0.load(spec).await?)))
    }
}

#[async_trait]
impl LoadedModel for FaultyModel {
    fn footprint(&self) -> Footprint {
        self.0.footprint()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn tokenize(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.0.tokenize(text)
    }

    fn detokenize(&self, tokens: &[u32]) -> Result<String, Error> {
        self.0.detokenize(tokens)
    }

    fn render_chat(&self, messages: &[Message]) -> Result<String, Error> {
        self.0.render_chat(messages)
    }

    async fn generate(&self, request: GenerateRequest) -> Result<TokenStream, Error> {
        let Prompt::Chat(messages) = &request.prompt else { return Err(Error::Stopped) };
        match messages[0].text.as_str() {
            "panic" => panic!("a panic on purpose"),
            // The sink is gone, and never said a word.
            "hang up" => Ok(token_channel(1).1),
            _ => self.0.generate(request).await,
        }
    }

    fn stats(&self) -> Stats {
        self.0.stats()
    }

    async fn unload(&self) -> Released {
        self.0.unload().await
    }
}

async fn server(models: &[&str]) -> TestServer {
    Setup::new(models).defaults("queue: { timeout: 3s }").start_on(Arc::new(Faulty(Fake::default()))).await
}

#[tokio::test]
async fn a_panic_while_loading_fails_that_model_only() {
    let server = server(&["panics: { preload: true }", "b: {}"]).await;
    server.until_state("panics", "failed").await;
    assert_eq!(said(server.chat(&ask("b", "hi")).await).await, "b: hi");
    let error = refusal(server.chat(&ask("panics", "hi")).await, 503).await;
    assert!(error["message"].as_str().unwrap().contains("panicked"), "{error}");
}

#[tokio::test]
async fn a_panic_over_one_request_does_not_take_the_model_from_the_next() {
    let server = server(&["a: {}"]).await;
    let error = server.chat(&ask("a", "panic")).await;
    assert!(error.status().is_server_error(), "{error:?}");
    assert_eq!(said(server.chat(&ask("a", "hi")).await).await, "a: hi");
    server.until_quiet().await;
}

#[tokio::test]
async fn an_engine_that_hangs_up_without_a_word_is_an_error_and_no_bare_end() {
    let server = server(&["a: {}"]).await;
    let frames = server.stream(&ask("a", "hang up")).await.rest().await;
    let (last, before) = frames.split_last().unwrap();
    assert_eq!(text(before), "");
    assert_eq!(envelope(last.json())["code"], "model_stopped");
    assert_eq!(refusal(server.chat(&ask("a", "hang up")).await, 503).await["code"], "model_stopped");
    assert_eq!(server.metric("pensieve_requests_failed_total", &[("model", "a")]).await, 2.0);
    server.until_quiet().await;
}
