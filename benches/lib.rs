//! What several benchmarks need. They live beside this file; each is a program of its own.

#![expect(clippy::missing_panics_doc, reason = "a benchmark that cannot go on ends")]

use std::time::{Duration, Instant};

use s2_tests::servers::RedisServer;

/// Of an even number of values, the higher one in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median and the 99th percentile of so many times, in µs.
pub fn percentiles(times: impl IntoIterator<Item = Duration>) -> (f64, f64) {
    let mut times: Vec<Duration> = times.into_iter().collect();
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    (at(50), at(99))
}

/// Seconds of CPU that a server has used.
#[must_use]
pub fn cpu(server: &RedisServer) -> f64 {
    let field = |name| server.info(name).parse::<f64>().expect("seconds");
    field("used_cpu_user") + field("used_cpu_sys")
}

/// What so many bare `EVALSHA` that do nothing take one after the other: median and 99th percentile, in µs.
pub async fn bare_trips(server: &RedisServer, trips: usize) -> (f64, f64) {
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let load = redis::cmd("SCRIPT").arg("LOAD").arg("return 1").to_owned();
    let hash: String = load.query_async(&mut connection).await.expect("a hash");
    let bare = redis::cmd("EVALSHA").arg(hash).arg(0).to_owned();
    let mut times = Vec::with_capacity(1_000);
    for _ in 0..1_000 {
        let begun = Instant::now();
        for _ in 0..trips {
            let answer: i64 = bare.query_async(&mut connection).await.expect("an answer");
            assert_eq!(answer, 1);
        }
        times.push(begun.elapsed());
    }
    percentiles(times)
}
