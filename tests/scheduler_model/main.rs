//! The scheduler against a model that anybody can check by eye: random histories, the same answers.
//!
//! The model keeps a list of tasks and looks through all of it for every answer; the scheduler keeps indices. Whatever an
//! index gets wrong, some history shows. The same histories are played in memory and on Redis; there, their journals agree, too.

mod model;
mod step;
mod world;

use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use s2_tests::counts;
use s2_tests::servers::RedisServer;

use crate::step::{Step, step};
use crate::world::World;

const SECOND: u64 = 1_000_000;

async fn play(mut world: World, steps: &[Step]) -> World {
    for step in steps {
        world.run(step.clone()).await;
        world.model.conclude();
        world.check(step).await;
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: counts(400, 20_000), ..ProptestConfig::default() })]

    #[test]
    fn the_scheduler_answers_as_the_model_does(steps in prop::collection::vec(step(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(play(World::in_memory(), &steps));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: counts(100, 2_000), ..ProptestConfig::default() })]

    #[test]
    fn on_redis_it_answers_likewise_and_journals_the_same(steps in prop::collection::vec(step(), 1..120)) {
        static SERVER: OnceLock<Arc<RedisServer>> = OnceLock::new();
        let server = SERVER.get_or_init(|| Arc::new(RedisServer::start_volatile()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let memory = play(World::in_memory(), &steps).await.journal().await;
            let redis = play(World::on_redis(Arc::clone(server)).await, &steps).await.journal().await;
            prop_assert_eq!(memory, redis);
            Ok(())
        })?;
    }
}
