//! SIP is blocked, and the fleet gangs up on what is in its way: those who fit are asked, and nobody else.
//!
//! ```sh
//! cargo run --example gang_up
//! cargo run --example gang_up --features redis -- --redis redis://127.0.0.1
//! ```
//!
//! In one process it is compared with help by everybody, and with help at random: what it costs, what of that is in vain, how long
//! it takes. On Redis the six sessions are in four processes, of which one is killed in mid-help: a helper's, the one that organises
//! help, the one that is blocked.
//!
//! What a session's help is worth is known to the world only ([`world`]), not to whoever chooses; what is printed was computed from
//! the journal, the bus and the ledger.

mod checks;
mod fleet;
mod memory;
#[cfg(feature = "redis")]
mod processes;
mod story;
mod timeline;
mod world;

use std::error::Error;
use std::process::ExitCode;

/// The value that follows an option on the command line.
fn option(name: &str) -> Option<String> {
    std::env::args().skip_while(|arg| arg != name).nth(1)
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let checks = match option("--redis") {
        #[cfg(feature = "redis")]
        Some(url) => match option("--worker") {
            Some(worker) => return processes::work(&url, worker.parse()?).await.map(|()| ExitCode::SUCCESS),
            None => processes::lead(&url).await?,
        },
        #[cfg(not(feature = "redis"))]
        Some(_) => {
            return Err(
                "this was built without Redis: cargo run --example gang_up --features redis -- --redis URL".into()
            );
        }
        None => memory::run().await?,
    };
    Ok(if checks.print() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
