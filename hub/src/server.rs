//! Serving HTTP, over TLS or without: small answers at once, slow heads cut off, open requests finished at the end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use forge_contract::FailureCode;
use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::api::problem::{MEDIA_TYPE, Problem};
use crate::api::ticket::Peer;
use crate::tls::Tls;

/// A request's head must arrive within this; an idle connection is closed after it.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// A TLS handshake must be over within this.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Connections served at once.
const CONNECTIONS_MAX: usize = 4096;
/// What open requests get to end in.
const FAREWELL: Duration = Duration::from_secs(10);
/// The first byte of whatever speaks TLS: a handshake record (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;

/// Serves until `stopping`, then lets open requests end.
pub async fn serve(listener: TcpListener, router: Router, tls: Option<Arc<Tls>>, stopping: CancellationToken) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).half_close(true).max_headers(64);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(256).keep_alive_interval(HEAD_TIME);
    let graceful = GracefulShutdown::new();
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let serving = Serving { builder, router, stopping };
    loop {
        let seat = tokio::select! {
            seat = Arc::clone(&seats).acquire_owned() => seat,
            () = serving.stopping.cancelled() => break,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = serving.stopping.cancelled() => break,
        };
        let (Ok(seat), Ok((stream, peer))) = (seat, stream) else {
            // Out of descriptors, most likely: give others time to close theirs.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        prepare(&stream);
        let (serving, tls, watcher) = (serving.clone(), tls.clone(), graceful.watcher());
        tokio::spawn(async move {
            match tls {
                None => serving.attend(stream, peer, watcher).await,
                Some(tls) => serving.attend_tls(&tls, stream, peer, watcher).await,
            }
            drop(seat);
        });
    }
    if tokio::time::timeout(FAREWELL, graceful.shutdown()).await.is_err() {
        tracing::warn!("open requests did not end in time");
    }
}

/// What every connection is served with.
#[derive(Clone)]
struct Serving {
    builder: Builder<TokioExecutor>,
    router: Router,
    stopping: CancellationToken,
}

impl Serving {
    /// Serves a connection to its end.
    async fn attend<S>(&self, stream: S, peer: SocketAddr, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = self.router.clone().map_request(move |request: Request<hyper::body::Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            request
        });
        let service = TowerToHyperService::new(service.map_err(|never: Infallible| match never {}));
        let connection = self.builder.serve_connection(TokioIo::new(stream), service).into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(error = %error, "a connection ended badly");
        }
    }

    /// The same over TLS. Whoever speaks plain HTTP is told so.
    async fn attend_tls(&self, tls: &Tls, mut stream: TcpStream, peer: SocketAddr, watcher: Watcher) {
        let shaken = async {
            let mut first = [0];
            // Nothing at all: the connection is closed.
            if stream.peek(&mut first).await? == 0 {
                return Ok(None);
            }
            if first != [HANDSHAKE_RECORD] {
                refuse_plain(&mut stream).await?;
                return Ok(None);
            }
            tls.accept(stream).await.map(Some)
        };
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(HANDSHAKE_TIME, shaken) => shaken,
            () = self.stopping.cancelled() => return,
        };
        match shaken {
            Ok(Ok(Some(stream))) => self.attend(stream, peer, watcher).await,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::debug!(%error, %peer, "a TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
        }
    }
}

async fn refuse_plain(stream: &mut TcpStream) -> std::io::Result<()> {
    let detail = "this port speaks TLS: use https:// in place of http://";
    let problem = Problem::of(FailureCode::RequestSchema, detail).body(&crate::clock::trace_id());
    // Texts and numbers always have a JSON form.
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await?;
    // What the client still sends is read for a moment: closing at once would take the answer from it.
    let mut sink = [0; 4096];
    for _ in 0..16 {
        if stream.read(&mut sink).await? == 0 {
            break;
        }
    }
    Ok(())
}

fn prepare(stream: &TcpStream) {
    // Answers are small: waiting to fill a packet would only add latency.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY refused");
    }
}
