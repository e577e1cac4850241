//! A real backlog, real outcomes, a real week of a swarm: what would S² have made of them?
//!
//! ```sh
//! cargo run --release --example replay
//! cargo run --release --example replay -- ISSUES.jsonl --outcomes FOLDER
//! cargo run --release --example replay -- --events EVENTS.jsonl --json
//! ```
//!
//! The scheduler, the ledger and the matcher are the real ones; time is virtual, and the sessions only pretend to work. The report
//! says what is synthetic.

use std::process::ExitCode;

use s2_examples::replay::{Arguments, Failure, USAGE, replay};

async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let report = replay(arguments).await?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(wrong) => {
            eprintln!("{wrong}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("replay: {failure}");
            ExitCode::FAILURE
        }
    }
}
