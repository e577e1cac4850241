//! The event bus, in one process or over several.
//!
//! ```sh
//! cargo run --example event_bus
//! cargo run --example event_bus --features redis -- --redis redis://127.0.0.1
//! ```

mod memory;
#[cfg(feature = "redis")]
mod processes;

use std::error::Error;

/// The value that follows an option on the command line.
fn option(name: &str) -> Option<String> {
    std::env::args().skip_while(|arg| arg != name).nth(1)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    match option("--redis") {
        #[cfg(feature = "redis")]
        Some(url) => match option("--worker") {
            Some(name) => processes::work(&url, &name).await,
            None => processes::lead(&url).await,
        },
        #[cfg(not(feature = "redis"))]
        Some(_) => {
            Err("this was built without Redis: cargo run --example event_bus --features redis -- --redis URL".into())
        }
        None => memory::run().await,
    }
}
