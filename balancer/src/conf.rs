//! nginx.conf: characters → tokens → blocks → typed [`Settings`]. Everything is resolved here, at load: a request
//! parses no text, hashes no name that is fixed and allocates nothing for a constant. No sockets are opened here.

pub mod listen;
pub mod location;
pub mod map;
pub mod proxy;
pub mod settings;
pub mod template;
pub mod upstream;
pub mod variables;

pub use settings::Settings;
