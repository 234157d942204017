//! Clients that mean harm, or are broken: they get nothing, and everybody else gets what they asked for.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use socket2::Socket;

use crate::support::{
    PATIENCE,
    host::{sockets, sysctl},
    netns::{Netns, scenario},
    process::await_that,
    serve::{Serve, answer_of},
    tcp::{LOCALHOST, close_in_order, pair, stream_socket},
};

/// Serves, lets something be done to it, and then watches a connection as if nothing had been.
fn goes_on_after(harm: impl Fn(&Netns, &Serve) + Sync) {
    scenario(|net| {
        let serve = Serve::of(net, &[]);
        harm(net, &serve);
        let pair = pair();
        let port = pair.ends.listener.lport.to_string();
        close_in_order(pair.client, pair.server);
        let closed = [("port", port.as_str()), ("role", "server")];
        await_that("it lets somebody in", || serve.ask("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").is_some());
        serve.until("the connection", |metrics| {
            metrics.sum("tcptrace_connections_closed_total", &closed) == 1
        });
        serve.stop();
    });
}

/// Whether the other side closed the connection, in whatever way.
fn is_closed(stream: &mut TcpStream) -> bool {
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
    }
}

#[test]
fn who_sends_its_request_slowly_or_nothing_is_cut_off() {
    goes_on_after(|_, serve| {
        let mut silent = serve.dial();
        let mut slow: Vec<TcpStream> = (0..16).map(|_| serve.dial()).collect();
        for stream in &mut slow {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nX-A: ").unwrap();
            stream.set_nonblocking(true).unwrap();
        }
        // Others are served meanwhile.
        assert_eq!(serve.get("/metrics").status, 200);
        // However often it sends a byte.
        await_that("all are cut off", || {
            slow.retain_mut(|stream| {
                let _ = stream.write(b"x");
                !is_closed(stream)
            });
            slow.is_empty()
        });
        assert!(is_closed(&mut silent));
    });
}

#[test]
fn garbage_is_answered_with_an_error_or_not_at_all() {
    goes_on_after(|_, serve| {
        let noise: Vec<u8> =
            (0..4096_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let lines = b"\r\n\r\n\r\n\0\0\0\0GET\r\n\r\n";
        let smuggled = b"POST /metrics HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n";
        for bytes in
            [&noise[..], hello, preface, lines, smuggled, b"GET /metrics HTTP/9.9\r\n\r\n", b"GET  /\r\n\r\n"]
        {
            let mut stream = serve.dial();
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            let answer = String::from_utf8_lossy(&answer);
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4"),
                "{answer}"
            );
        }
    });
}

#[test]
fn heads_that_are_too_large_are_refused() {
    goes_on_after(|_, serve| {
        let long = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
        let many = format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(1_000));
        let path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20));
        for request in [long, many, path] {
            let mut stream = serve.dial();
            // It does not read on.
            let _ = stream.write_all(request.as_bytes());
            // The answer may be lost to the RST that what was not read brings.
            if let Some(answer) = answer_of(&mut stream) {
                assert!(matches!(answer.status, 400 | 414 | 431), "{answer:?}");
            }
        }
    });
}

/// How many connections at a port of this network namespace its process has not closed.
fn open_at(port: u16) -> usize {
    // 1 is ESTABLISHED.
    sockets().iter().filter(|socket| socket.lport == port && socket.state == 1).count()
}

#[test]
fn who_does_not_read_the_answer_is_cut_off() {
    goes_on_after(|_, serve| {
        // The kernel must not take all of the answer: there is much of it, and little room.
        sysctl("ipv4/tcp_wmem", "4096 16384 16384");
        let listeners: Vec<TcpListener> =
            (8_001..=8_150).map(|port| TcpListener::bind((LOCALHOST, port)).unwrap()).collect();
        serve.until("the listeners", |metrics| {
            metrics.sum("tcptrace_sockets", &[("state", "LISTEN")]) > listeners.len() as u64
        });
        assert!(serve.get("/metrics").body.len() > 100_000);
        let mut lazy: Vec<TcpStream> = (0..8)
            .map(|_| {
                let socket: Socket = stream_socket(LOCALHOST);
                socket.set_recv_buffer_size(4_096).unwrap();
                socket.connect(&serve.address().into()).unwrap();
                TcpStream::from(socket)
            })
            .collect();
        for stream in &mut lazy {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            assert_eq!(stream.peek(&mut [0]).unwrap(), 1);
        }
        // Others are served meanwhile.
        assert_eq!(serve.get("/metrics").status, 200);
        assert!(open_at(serve.address().port()) >= lazy.len());
        await_that("all are cut off", || open_at(serve.address().port()) == 0);
        for stream in &mut lazy {
            assert!(answer_of(stream).is_none(), "it came whole");
        }
    });
}

/// Who goes away in the middle, again and again.
#[test]
fn who_goes_away_leaves_nothing_behind() {
    goes_on_after(|_, serve| {
        let files = || fs::read_dir(format!("/proc/{}/fd", serve.process().pid())).unwrap().count();
        assert_eq!(serve.get("/metrics").status, 200);
        let before = files();
        for number in 0..200 {
            let mut stream = serve.dial();
            let request: &[u8] =
                if number % 2 == 0 { b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" } else { b"GET /me" };
            let _ = stream.write_all(request);
            crate::support::tcp::abort(stream);
        }
        await_that("no more descriptors than before", || files() <= before);
    });
}
