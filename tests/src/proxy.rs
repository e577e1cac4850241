//! A wire between a process and its server that loses replies: what a script has done is done, and nobody hears of it.

use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::servers::RedisServer;

/// A proxy of a server. Its threads end with its connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    wire: Arc<Wire>,
}

#[derive(Debug, Default)]
struct Wire {
    loses: AtomicBool,
    lost: AtomicUsize,
}

impl Proxy {
    /// A proxy of `server`, as it is reached now.
    ///
    /// # Panics
    ///
    /// When there is no port.
    #[must_use]
    pub fn of(server: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (wire, target) = (Arc::new(Wire::default()), server.port());
        let shared = Arc::clone(&wire);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if let Ok(server) = TcpStream::connect(("127.0.0.1", target)) {
                    connect(client, server, &shared);
                }
            }
        });
        Self { port, wire }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The next reply of a script is lost, and the connection with it.
    pub fn lose_next(&self) {
        self.wire.loses.store(true, Ordering::SeqCst);
    }

    /// Does something whose reply is lost. It is repeated, and its answer is the first one.
    ///
    /// # Panics
    ///
    /// When it fails, or its reply was not lost.
    pub async fn losing<T, E: Debug>(&self, call: impl Future<Output = Result<T, E>>) -> T {
        let before = self.lost();
        self.lose_next();
        let answer = call.await.expect("it is repeated");
        assert_eq!(self.lost(), before + 1, "the reply was not lost");
        answer
    }

    /// How many were lost.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.wire.lost.load(Ordering::SeqCst)
    }
}

/// Passes on what either side says. Only a connection that calls scripts loses what it is told.
fn connect(client: TcpStream, server: TcpStream, wire: &Arc<Wire>) {
    let calls = Arc::new(AtomicBool::new(false));
    let clone = |stream: &TcpStream| stream.try_clone().expect("a stream");
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from, mut to, has_called) = (clone(&client), clone(&server), Arc::clone(&calls));
    thread::spawn(move || {
        pass(&mut from, &mut to, |said| {
            if said.windows(5).any(|word| word == b"FCALL") {
                has_called.store(true, Ordering::SeqCst);
            }
            true
        });
    });
    let wire = Arc::clone(wire);
    let (mut from, mut to) = (server, client);
    thread::spawn(move || {
        pass(&mut from, &mut to, |_| {
            let loses = calls.load(Ordering::SeqCst) && wire.loses.swap(false, Ordering::SeqCst);
            wire.lost.fetch_add(usize::from(loses), Ordering::SeqCst);
            !loses
        });
    });
}

/// Passes on until either end closes, or something is not to be passed on.
fn pass(from: &mut TcpStream, to: &mut TcpStream, mut passes: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if !passes(&buffer[..read]) || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
