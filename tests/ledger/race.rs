//! Everybody wants the last dollar.

use s2_coordinator::MemoryStore;
use s2_governor::{BudgetLedger, BudgetLedgerExt, Denial, MemoryLedger, NanoUsd, RedisLedger};
use s2_tests::servers::RedisServer;

use crate::{SESSION, ask, cents, set_limit, store};

const THREADS: usize = 64;

/// A thousand calls of $0.10 each on $5.00: fifty are admitted, whatever they cost up to that, and nothing overruns.
async fn fifty_are_admitted<L: BudgetLedger + Clone>(ledger: L) {
    set_limit(&ledger, NanoUsd::from_dollars(5)).await;
    let mut tasks = tokio::task::JoinSet::new();
    for nth in 0..THREADS {
        let ledger = ledger.clone();
        tasks.spawn(async move {
            let calls = 1_000 / THREADS + usize::from(nth < 1_000 % THREADS);
            let mut admitted = 0;
            for _ in 0..calls {
                match ask(&ledger, cents(10)).await {
                    Ok(held) => {
                        tokio::task::yield_now().await;
                        ledger.settle(&held, cents(10)).await.expect("no error");
                        admitted += 1;
                    }
                    Err(denied) => assert!(denied.reason != Denial::Frozen, "{denied}"),
                }
            }
            (calls, admitted)
        });
    }
    let (calls, admitted) =
        tasks.join_all().await.into_iter().fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
    let balance = ledger.balance(&SESSION).await.expect("no error");
    assert_eq!((calls, admitted), (1_000, 50));
    assert_eq!(
        (balance.spent, balance.held, balance.overrun()),
        (NanoUsd::from_dollars(5), NanoUsd::ZERO, NanoUsd::ZERO)
    );
}

#[test]
fn sixty_four_threads_spend_five_dollars_and_not_a_cent_more() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    let runtime = runtime.expect("a runtime");
    for _ in 0..s2_tests::counts(5, 200) {
        runtime.block_on(runtime.spawn(fifty_are_admitted(MemoryLedger::new(&MemoryStore::new())))).expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_sessions_spend_five_dollars_on_redis_and_not_a_cent_more() {
    let server = RedisServer::start_volatile();
    fifty_are_admitted(RedisLedger::new(&store(&server.url()).await)).await;
}
