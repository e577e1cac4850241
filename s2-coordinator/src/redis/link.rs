//! The connection of a process: made when it is needed, made anew when it breaks.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, ProtocolVersion, PushInfo, PushKind, RedisError, Value};
use tokio::time::Instant;

use crate::redis::failure::{Cure, Failure, cure};
use crate::redis::post::Post;
use crate::redis::reply::Reply;
use crate::redis::script::{Library, Script};
use crate::redis::scripts::all;

/// How patient a process is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For how long a connection may take to be made.
    pub(super) connecting: Duration,
    /// For how long one answer may take.
    pub(super) answering: Duration,
    /// For how long a call is tried again.
    pub(super) trying: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connecting: seconds(2), answering: seconds(5), trying: seconds(30) }
    }
}

/// The shortest pause between two attempts to reach the server.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// The longest pause between two attempts to reach the server.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Two connections: what is pushed must not share the limits that the server sets to those who listen with what is answered.
#[derive(Clone)]
struct Open {
    connection: MultiplexedConnection,
    /// Held, so that it stays.
    _listener: MultiplexedConnection,
    generation: u64,
}

#[derive(Default)]
struct Line {
    open: Option<Open>,
    /// When the last attempt to connect failed, and why: those who ask at the same time need not try themselves.
    failed: Option<(Instant, String)>,
}

/// The connection of one process to the server of its fleet.
pub(super) struct Link {
    client: Client,
    address: String,
    /// Where this process listens, but for the number of its connection; and where everybody does.
    channels: [String; 2],
    /// The number of the latest connection.
    generation: AtomicU64,
    patience: Patience,
    library: Library,
    line: tokio::sync::Mutex<Line>,
    /// Libraries of hosts, by the name and the body of their only script.
    foreign: Mutex<HashMap<(&'static str, &'static str), Arc<Library>>>,
    post: Arc<Post>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Link {
    /// A connection to be, for a process that listens on `channels`: its own, and that of everybody.
    pub(super) fn new(url: &str, channels: [String; 2], patience: Patience, post: Arc<Post>) -> Result<Self, Failure> {
        let client =
            Client::open(url).map_err(|error| Failure::Address { address: hide(url), reason: error.to_string() })?;
        let info = client.get_connection_info().clone();
        if info.redis_settings().db() != 0 {
            let reason =
                "only database 0 will do: functions and channels are those of a server, and clusters have no other";
            return Err(Failure::Address { address: hide(url), reason: reason.to_owned() });
        }
        let address = info.addr().to_string();
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let info = info.set_redis_settings(settings).set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client =
            Client::open(info).map_err(|error| Failure::Address { address: hide(url), reason: error.to_string() })?;
        let (library, line) = (Library::new(all()), tokio::sync::Mutex::default());
        let (generation, foreign) = (AtomicU64::new(0), Mutex::default());
        Ok(Self { client, address, channels, generation, patience, library, line, foreign, post })
    }

    /// Connects, and checks that the server can be trusted with work.
    pub(super) async fn connect(&self) -> Result<(), Failure> {
        self.open().await.map(drop)
    }

    async fn open(&self) -> Result<Open, Failure> {
        let mut line = self.line.lock().await;
        if let Some(open) = &line.open {
            return Ok(open.clone());
        }
        if let Some((at, reason)) = &line.failed
            && at.elapsed() < SHORTEST_PAUSE
        {
            return Err(self.unreachable(reason.clone()));
        }
        let limit = self.patience.connecting + self.patience.answering;
        let generation = self.generation() + 1;
        let dialled = tokio::time::timeout(limit, self.dial(generation)).await;
        let dialled = dialled.unwrap_or_else(|_| Err(self.unreachable(format!("no answer within {limit:?}"))));
        match dialled {
            Ok((connection, listener)) => {
                self.generation.store(generation, Ordering::Release);
                let open = Open { connection, _listener: listener, generation };
                (line.open, line.failed) = (Some(open.clone()), None);
                self.post.connected();
                Ok(open)
            }
            Err(failure) => {
                if let Failure::Unreachable { reason, .. } = &failure {
                    line.failed = Some((Instant::now(), reason.clone()));
                }
                Err(failure)
            }
        }
    }

    /// The number of the latest connection: what is pushed to an older one reaches nobody.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn unreachable(&self, reason: String) -> Failure {
        Failure::Unreachable { address: self.address.clone(), reason }
    }

    async fn dial(&self, generation: u64) -> Result<(MultiplexedConnection, MultiplexedConnection), Failure> {
        let post = Arc::clone(&self.post);
        let [own, everybody] = self.channels.clone();
        let listen = move |push: PushInfo| {
            deliver(&post, push, &everybody, generation);
            Ok::<(), Infallible>(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.patience.connecting))
            .set_response_timeout(Some(self.patience.answering));
        let failed = |error: RedisError| self.unreachable(error.to_string());
        let connect = |config| async move { self.client.get_multiplexed_async_connection_with_config(&config).await };
        let mut connection = connect(config.clone()).await.map_err(failed)?;
        let server = info(&mut connection, "server").await.map_err(failed)?;
        let memory = info(&mut connection, "memory").await.map_err(failed)?;
        let version = field(&server, "redis_version");
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < 7) {
            return Err(Failure::TooOld { address: self.address.clone(), version });
        }
        let policy = field(&memory, "maxmemory_policy");
        if policy != "noeviction" {
            return Err(Failure::Evicts { address: self.address.clone(), policy });
        }
        let mut listener = connect(config.set_push_sender(listen)).await.map_err(failed)?;
        let channels = [format!("{own}:{generation}"), self.channels[1].clone()];
        listener.subscribe(&channels).await.map_err(failed)?;
        Ok((connection, listener))
    }

    /// Gives a connection up, unless there is another by now.
    pub(super) async fn close(&self, generation: u64) {
        let mut line = self.line.lock().await;
        if line.open.as_ref().is_some_and(|open| open.generation == generation) {
            line.open = None;
        }
    }

    /// Runs a script. Tries again as long as patience lasts, so the script must be one that may be repeated.
    pub(super) async fn run(&self, script: &'static Script, call: &Pushing) -> Result<Reply, Failure> {
        let begun = Instant::now();
        let mut pause = SHORTEST_PAUSE;
        loop {
            let reason = match self.open().await {
                Ok(open) => match self.run_on(&open, script, call).await {
                    Ok(reply) => return Ok(reply),
                    Err(error) => {
                        let cure = cure(&error);
                        if cure == Cure::Nothing {
                            let (script, reason) = (script.name(), error.to_string());
                            return Err(if error.code() == Some("OOM") {
                                Failure::Full { script, reason }
                            } else {
                                Failure::Refused { script, reason }
                            });
                        }
                        if cure == Cure::Reconnect {
                            self.close(open.generation).await;
                        }
                        error.to_string()
                    }
                },
                Err(failure @ (Failure::TooOld { .. } | Failure::Evicts { .. })) => return Err(failure),
                Err(failure) => failure.to_string(),
            };
            if begun.elapsed() >= self.patience.trying {
                return Err(Failure::Silent { patience: self.patience.trying, reason });
            }
            tracing::debug!(script = script.name(), reason, "trying again");
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    async fn run_on(&self, open: &Open, script: &'static Script, call: &Pushing) -> Result<Reply, RedisError> {
        let mut connection = open.connection.clone();
        match call.send(&mut connection).await {
            Err(error) if cure(&error) == Cure::Load => {
                match self.foreign(script) {
                    None => load(&mut connection, &self.library).await?,
                    Some(library) => load(&mut connection, &library).await?,
                }
                call.send(&mut connection).await
            }
            answer => answer,
        }
        .map(Reply::from)
    }

    /// Runs a call if there is a connection, and only once.
    pub(super) async fn run_once(&self, make: impl FnOnce() -> Pushing) -> Option<Reply> {
        let mut connection = self.open().await.ok()?.connection;
        make().send(&mut connection).await.ok().map(Reply::from)
    }

    /// Asks something once.
    pub(super) async fn ask(&self, command: &Cmd) -> Option<Reply> {
        let mut connection = self.open().await.ok()?.connection;
        connection.req_packed_command(command).await.ok().map(Reply::from)
    }

    /// The beginning of a call.
    pub(super) fn call(&self, script: &'static Script) -> Cmd {
        let mut call = redis::cmd("FCALL");
        call.arg(self.foreign(script).map_or_else(|| self.library.function(script), |own| own.function(script)));
        call
    }

    /// The library of a host's script.
    fn foreign(&self, script: &'static Script) -> Option<Arc<Library>> {
        if script.is_own() {
            return None;
        }
        let mut foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        let library = foreign.entry((script.name(), script.body()));
        Some(Arc::clone(library.or_insert_with(|| Arc::new(Library::new([script].into_iter())))))
    }
}

/// A call, behind a command that does nothing if it may push something: since the server writes last to whom it had something
/// to say first, what the call pushes goes out before its reply. Whoever waits for an event does not wait for its publisher
/// to be answered.
pub(super) struct Pushing(Pipeline);

impl Pushing {
    pub(super) fn new(call: Cmd, pushes: bool) -> Self {
        let mut pipeline = Pipeline::with_capacity(2);
        if pushes {
            pipeline.cmd("PING");
        }
        pipeline.add_command(call);
        Self(pipeline)
    }

    async fn send(&self, connection: &mut MultiplexedConnection) -> Result<Value, RedisError> {
        let answers = connection.req_packed_commands(&self.0, self.0.len() - 1, 1).await?;
        answers.into_iter().next().unwrap_or(Value::Nil).extract_error()
    }
}

async fn load(connection: &mut MultiplexedConnection, library: &Library) -> Result<(), RedisError> {
    let mut load = redis::cmd("FUNCTION");
    load.arg("LOAD").arg(&library.source);
    match connection.req_packed_command(&load).await.and_then(Value::extract_error) {
        // Another process was quicker.
        Err(error) if error.to_string().contains("already exists") => Ok(()),
        loaded => loaded.map(drop),
    }
}

async fn info(connection: &mut MultiplexedConnection, section: &str) -> Result<String, RedisError> {
    redis::cmd("INFO").arg(section).query_async(connection).await
}

fn field(info: &str, name: &str) -> String {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned);
    info.lines().find_map(value).unwrap_or_default()
}

/// Delivers what arrived without being asked for.
fn deliver(post: &Post, push: PushInfo, everybody: &str, generation: u64) {
    if push.kind == PushKind::Disconnection {
        return post.disconnected(generation);
    }
    let mut data = push.data.into_iter();
    if let (PushKind::Message, Some(Value::BulkString(channel)), Some(Value::BulkString(message))) =
        (push.kind, data.next(), data.next())
    {
        if channel == everybody.as_bytes() { post.woken(&message) } else { post.deliver(message) }
    }
}

/// What may be told of a URL that is none: where the password stands in it, nobody knows.
fn hide(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, _)) if scheme.len() < 16 => format!("{scheme}://…"),
        _ => "what was given".to_owned(),
    }
}
