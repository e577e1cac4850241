//! Errors say what is wrong.

use crate::{ORDERS, event, said};
use s2_coordinator::{Error, EventBusExt, RedisStore, SwarmId};
use s2_tests::redis::unique_name;
use s2_tests::servers::RedisServer;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::time::Duration;
use std::time::Instant;

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("a port").port()
}

async fn refusal(url: &str) -> Error {
    RedisStore::connect(url, unique_name()).await.err().unwrap_or_else(|| panic!("connected to {url}"))
}

#[tokio::test]
async fn what_is_no_url_of_redis_is_said() {
    for url in ["", "127.0.0.1:6379", "http://127.0.0.1:6379", "redis://127.0.0.1:port", "redis://127.0.0.1/first"] {
        let error = refusal(url).await;
        let text = said(&error);
        assert!(matches!(error, Error::Backend { retryable: false, .. }), "{url}: {text}");
        // It need not say which: there may be a password in it, where nobody expects one.
        assert!(text.contains("is not a Redis URL"), "{url}: {text}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_at_once() {
    let port = free_port();
    let begun = Instant::now();
    let error = refusal(&format!("redis://127.0.0.1:{port}")).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let text = said(&error);
    assert!(matches!(error, Error::Backend { retryable: true, .. }), "{text}");
    assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("refused"), "{text}");
}

#[tokio::test]
async fn a_server_that_stands_still_is_said_before_long() {
    let server = RedisServer::start_volatile();
    server.stop();
    let begun = Instant::now();
    let error = refusal(&server.url()).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(matches!(error, Error::Backend { retryable: true, .. }), "{}", said(&error));
    assert!(said(&error).contains(&format!("127.0.0.1:{}", server.port())), "{}", said(&error));
}

#[tokio::test]
async fn a_password_is_never_shown() {
    let server = RedisServer::start_volatile();
    let (served, free, mut shown) = (server.port(), free_port(), Vec::new());
    for url in [
        format!("redis://:hunter2@127.0.0.1:{free}"),
        format!("redis://ann:hunter2@127.0.0.1:{free}/0"),
        format!("redis://ann:hunter2@127.0.0.1:{served}"),
        "redis://:hunter2@nowhere.invalid".to_owned(),
        "redis://ann:hunter2@127.0.0.1:port".to_owned(),
        "redis://ann:hunter2@127.0.0.1/first".to_owned(),
        "redis://ann:hunter2/@127.0.0.1".to_owned(),
        "redis://ann:hunter2".to_owned(),
        "http://ann:hunter2@127.0.0.1".to_owned(),
        "redis:/ann:hunter2@127.0.0.1".to_owned(),
        "ann:hunter2@127.0.0.1:6379".to_owned(),
        ":hunter2@127.0.0.1".to_owned(),
        "unix:///tmp/none.sock?pass=hunter2".to_owned(),
        "unix:///tmp/none.sock?db=first&pass=hunter2".to_owned(),
    ] {
        let text = said(&refusal(&url).await);
        if text.contains("hunter2") {
            shown.push(format!("{url}: {text}"));
        }
    }
    assert_eq!(shown, Vec::<String>::new());
    assert_eq!(server.command(&["CONFIG", "SET", "requirepass", "hunter3"]), "OK");
    let text = said(&refusal(&format!("redis://:hunter2@127.0.0.1:{served}")).await);
    assert!(text.contains("WRONGPASS") && !text.contains("hunter2"), "{text}");
    let text = said(&refusal(&server.url()).await);
    assert!(text.contains("NOAUTH"), "{text}");
    let url = format!("redis://:hunter3@127.0.0.1:{served}");
    let store = RedisStore::connect(&url, unique_name()).await.expect("the right password");
    let text = format!("{store:?} {:?}", store.bus());
    assert!(!text.contains("hunter3"), "{text}");
}

#[tokio::test]
async fn a_server_that_may_drop_work_is_refused() {
    for policy in ["allkeys-lru", "volatile-ttl"] {
        let server = RedisServer::start_with(&[("maxmemory-policy", policy)]);
        let error = refusal(&server.url()).await;
        let text = said(&error);
        assert!(matches!(error, Error::Backend { retryable: false, .. }), "{text}");
        assert!(text.contains("maxmemory-policy") && text.contains(policy) && text.contains("noeviction"), "{text}");
        assert_eq!(server.command(&["DBSIZE"]), "0", "nothing was written");
    }
}

#[test]
fn a_fleet_is_a_hash_tag() {
    for name in ["a{b", "a}b", "{}"] {
        assert!(SwarmId::new(name).is_err(), "{name} would have two hash tags or none");
    }
}

#[tokio::test]
async fn another_layout_is_refused() {
    let (server, name) = (RedisServer::start_volatile(), unique_name());
    let meta = format!("s2:{{{name}}}:meta");
    let store = RedisStore::connect(&server.url(), name.clone()).await.expect("a fleet");
    store.bus().publish_one(&event(ORDERS)).await.expect("published");
    assert_eq!(server.command(&["HSET", &meta, "layout", "999"]), "0");
    let mismatch = |error: Error| match error {
        Error::LayoutMismatch { found, expected } => (found, expected),
        other => panic!("{other:?}"),
    };
    let refused = RedisStore::connect(&server.url(), name.clone()).await.expect_err("another layout");
    assert_eq!(mismatch(refused).0, "999");
    let refused = store.bus().publish_one(&event(ORDERS)).await.expect_err("another layout");
    let (found, layout) = mismatch(refused);
    assert_eq!(found, "999");
    assert_eq!(server.command(&["XLEN", &format!("s2:{{{name}}}:e:orders")]), "1", "nothing was written");
    assert_eq!(server.command(&["HSET", &meta, "layout", layout]), "0");
    store.bus().publish_one(&event(ORDERS)).await.expect("published");
}

/// Functions and channels are those of a server: fleets of the same name in two databases would meet.
#[tokio::test]
async fn another_database_is_refused() {
    let server = RedisServer::start_volatile();
    let url = format!("redis://127.0.0.1:{}/1", server.port());
    let error = RedisStore::connect(&url, SwarmId::from_static("fleet")).await.expect_err("database 1");
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(cause.contains("only database 0 will do"), "{cause}");
}
