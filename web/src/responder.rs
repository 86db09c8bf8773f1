//! Who answers in a chat: the built-in responder, or any endpoint that speaks OpenAI's chat completions.

mod builtin;
mod openai;

use std::sync::Arc;

use anyhow::Context as _;
use chassis::settings::Values;
use futures_util::stream::BoxStream;

use crate::logic::message::Role;
use crate::logic::sse_in::BadStream;

pub use builtin::Builtin;
pub use openai::OpenAi;

/// What an answer is made from.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// The last messages of the session, oldest first; the question is the last of them.
    pub turns: Vec<Turn>,
    /// Tokens of this answer that are known already: a replica that takes over need not pace them again.
    pub known_len: usize,
}

#[derive(Debug, Clone)]
pub struct Turn {
    pub role: Role,
    pub content: String,
}

/// Why there is no answer, or no whole one.
#[derive(Debug, thiserror::Error)]
pub enum ResponderError {
    #[error("the responder cannot be reached: {0}")]
    Unreachable(String),
    #[error("the responder answered with status {0}")]
    Refused(u16),
    #[error("the responder did not go on in time")]
    TimedOut,
    #[error("the responder's stream broke off: {0}")]
    BrokenOff(String),
    #[error(transparent)]
    BadStream(#[from] BadStream),
    #[error("the responder gave an empty answer")]
    Empty,
}

/// Pieces of text as they are made.
pub type Pieces = BoxStream<'static, Result<String, ResponderError>>;

/// Somebody who answers. Dropping the stream stops the work.
pub trait Respond: Send + Sync {
    fn answer(&self, prompt: Prompt) -> Pieces;

    /// Whether the same prompt gives the same answer, so that another replica can finish it.
    fn is_repeatable(&self) -> bool;
}

pub type Responder = Arc<dyn Respond>;

/// The responder that the operator chose.
///
/// # Errors
/// A sentence that names the setting.
pub fn from_settings(values: &Values) -> anyhow::Result<Responder> {
    match values.text("RESPONDER") {
        "openai" => {
            let url = values.opt("RESPONDER_URL").context(
                "RESPONDER_URL: unset; with RESPONDER=openai, name an endpoint such as https://api.openai.com/v1",
            )?;
            let endpoint = openai::Endpoint {
                url,
                key: values.opt("RESPONDER_API_KEY"),
                model: values.text("RESPONDER_MODEL"),
                idle_timeout: values.duration("RESPONDER_TIMEOUT"),
            };
            Ok(Arc::new(OpenAi::new(endpoint).map_err(anyhow::Error::msg)?))
        }
        _ => Ok(Arc::new(Builtin::new(values.duration("RESPONDER_PACE")))),
    }
}
