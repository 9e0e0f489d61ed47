//! Random histories of nodes and people, on every store, against the reference model.

use std::io;

use cap_model_tests::history::play;
use cap_model_tests::memory::Memory;
use cap_model_tests::postgres::Server;
use cap_model_tests::run::cases;
use cap_model_tests::sqlite::File;
use cap_model_tests::step::history;
use tokio::runtime::{Builder, Runtime};

fn runtime(paused: bool) -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().start_paused(paused).build()
}

#[test]
fn memory_does_what_the_model_does() {
    let judged = cases(3000, &history(50), |steps| {
        runtime(true)?.block_on(async { play(&Memory::default(), &steps).await })
    });
    judged.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn sqlite_does_what_the_model_does() {
    let runtime = runtime(false).expect("a runtime starts");
    let file = runtime.block_on(File::new()).expect("a file can be made");
    let judged = cases(150, &history(40), |steps| {
        runtime.block_on(async {
            file.clear().await.expect("the file is still there");
            play(&file, &steps).await
        })
    });
    runtime.block_on(file.remove()).expect("the file is deleted");
    judged.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn postgres_does_what_the_model_does() {
    let runtime = runtime(false).expect("a runtime starts");
    let server = runtime.block_on(Server::new()).expect("PostgreSQL is there");
    let judged = cases(150, &history(40), |steps| {
        runtime.block_on(async {
            server.clear().await.expect("PostgreSQL is still there");
            play(&server, &steps).await
        })
    });
    runtime.block_on(server.remove()).expect("the schema is dropped");
    judged.unwrap_or_else(|failure| panic!("{failure}"));
}
