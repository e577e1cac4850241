//! What goes over the wire: the part that is needed here of the chat completions API that many providers speak.

use s2_governor::Usage;
use serde::{Deserialize, Serialize};

/// What a model is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) model: String,
    pub(crate) messages: Vec<Message>,
    pub(crate) max_completion_tokens: u64,
    /// Whom the provider is to name on its bill.
    pub(crate) user: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) role: String,
    pub(crate) content: String,
}

impl Message {
    pub(crate) fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: content.into() }
    }
}

/// What it answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) choices: Vec<Choice>,
    pub(crate) usage: Tokens,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Choice {
    pub(crate) message: Message,
    pub(crate) finish_reason: String,
}

/// What the call took. Cached tokens are among those of the prompt, as OpenTelemetry has it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Tokens {
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
    pub(crate) prompt_tokens_details: PromptTokens,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct PromptTokens {
    pub(crate) cached_tokens: u64,
}

impl From<Tokens> for Usage {
    fn from(tokens: Tokens) -> Self {
        let usage = Usage::new(tokens.prompt_tokens, tokens.completion_tokens);
        usage.with_cache_read(tokens.prompt_tokens_details.cached_tokens)
    }
}
