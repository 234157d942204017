//! HTTP on a thread of its own. No client holds it up: there is a limit to how many there are, and to the time that each has.

use std::{convert::Infallible, net::IpAddr, sync::Arc, thread, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    runtime,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    door::{Door, Guard},
    page::Pages,
};
use crate::view::metrics::Format;

/// Clients at a time; who comes on top of that is sent away.
const CLIENTS: usize = 32;
/// Those of one address beyond loopback, so that no other host alone keeps all places.
const OF_ADDRESS: usize = 8;
/// How long a client may take for the TLS handshake, and for the head of its request.
const HEAD: Duration = Duration::from_secs(3);
/// How long a client may take for everything; 5 s of it may pass until there is a page.
const WHOLE: Duration = Duration::from_secs(15);
/// Bytes and lines of a request's head.
const HEAD_BYTES: usize = 16 * 1024;
const HEAD_LINES: usize = 64;
/// The pause after a client that could not be let in.
const BREATH: Duration = Duration::from_millis(100);

const INDEX: &str = concat!(
    "<!DOCTYPE html><title>tcptrace</title><h1>tcptrace ",
    env!("CARGO_PKG_VERSION"),
    "</h1><ul><li><a href=\"/metrics\">metrics</a><li><a href=\"/healthz\">healthz</a>",
    "<li><a href=\"/readyz\">readyz</a></ul>\n"
);

/// Starts it; it ends when there are no more pages to come.
pub(super) fn start(door: Door, pages: Pages) -> std::io::Result<()> {
    let Door { listener, guard, .. } = door;
    listener.set_nonblocking(true)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _within = runtime.enter();
        TcpListener::from_std(listener)?
    };
    let serve = move || runtime.block_on(serve(listener, Arc::new(guard), pages));
    thread::Builder::new().name("tcptrace-http".to_owned()).spawn(serve)?;
    Ok(())
}

async fn serve(listener: TcpListener, guard: Arc<Guard>, pages: Pages) {
    let mut inside: Vec<(IpAddr, JoinHandle<()>)> = Vec::with_capacity(CLIENTS);
    let mut end = pages.clone();
    loop {
        let accepted = tokio::select! {
            () = end.over() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
            Err(error) => {
                log::debug!("a client could not be let in: {error}");
                sleep(BREATH).await;
                continue;
            }
        };
        inside.retain(|(_, task)| !task.is_finished());
        let of_address = inside.iter().filter(|(other, _)| *other == address).count();
        if inside.len() >= CLIENTS || of_address >= OF_ADDRESS && !address.is_loopback() {
            continue;
        }
        let (guard, pages) = (Arc::clone(&guard), pages.clone());
        let task = tokio::spawn(async move {
            // A client that takes too long, or goes away, has had its chance.
            let _ = timeout(WHOLE, admit(stream, &guard, &pages)).await;
        });
        inside.push((address, task));
    }
}

async fn admit(stream: TcpStream, guard: &Guard, pages: &Pages) {
    match &guard.tls {
        None => converse(stream, guard, pages).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = timeout(HEAD, tls.accept(stream)).await {
                converse(stream, guard, pages).await;
            }
        }
    }
}

/// One request, one answer.
async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, guard: &Guard, pages: &Pages) {
    let service = service_fn(|request: Request<Incoming>| async move {
        Ok::<_, Infallible>(
            answer(request.method(), request.uri().path(), request.headers(), guard, pages).await,
        )
    });
    let conversation = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_LINES)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = conversation.await {
        log::debug!("a client was not understood, or went away: {error}");
    }
}

async fn answer(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    guard: &Guard,
    pages: &Pages,
) -> Response<Full<Bytes>> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    let say = |status, text: &'static str| respond(status, PLAIN, text.into());
    if !matches!(*method, Method::GET | Method::HEAD) {
        return with(say(StatusCode::METHOD_NOT_ALLOWED, "GET only\n"), ALLOW, "GET, HEAD");
    }
    match path {
        "/healthz" => say(StatusCode::OK, "it runs\n"),
        "/readyz" if pages.are_there() => say(StatusCode::OK, "it sees\n"),
        "/readyz" => say(StatusCode::SERVICE_UNAVAILABLE, "the sockets that exist are still being read\n"),
        _ if !guard.admits(headers) => {
            with(say(StatusCode::UNAUTHORIZED, "it takes the right token\n"), WWW_AUTHENTICATE, "Bearer")
        }
        "/" => respond(StatusCode::OK, "text/html; charset=utf-8", INDEX.into()),
        "/metrics" => match pages.get().await {
            Ok(page) => {
                let format = wanted(headers);
                respond(StatusCode::OK, format.content_type(), page.text(format))
            }
            Err(why) => say(StatusCode::SERVICE_UNAVAILABLE, why),
        },
        _ => say(StatusCode::NOT_FOUND, "there is /metrics, /healthz and /readyz\n"),
    }
}

/// OpenMetrics for who knows it.
fn wanted(headers: &HeaderMap) -> Format {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if accepted.any(|value| value.contains("application/openmetrics-text")) {
        Format::OpenMetrics
    } else {
        Format::Prometheus
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    with(response, CONTENT_TYPE, content_type)
}

fn with(mut response: Response<Full<Bytes>>, name: HeaderName, value: &'static str) -> Response<Full<Bytes>> {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}
