//! Sockets.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{PATIENCE, story::End};

/// 127.0.0.1
pub(crate) const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A connection and the listener that it came from.
pub(crate) struct Pair {
    pub(crate) listener: TcpListener,
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
    pub(crate) ends: Ends,
}

/// The ends of a [`Pair`].
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) listener: End,
    pub(crate) client: End,
    pub(crate) server: End,
}

/// Connects to a port of its own.
pub(crate) fn pair() -> Pair {
    let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
    let (client, server) = connect(&listener);
    let ends = ends_of(&client);
    Pair { listener, client, server, ends }
}

/// One more connection to a listener.
pub(crate) fn connect(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = dial(listener);
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    (client, server)
}

/// A client's end of one more, which the listener does not accept yet.
pub(crate) fn dial(listener: &TcpListener) -> TcpStream {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// The ends of a client's connection.
pub(crate) fn ends_of(client: &TcpStream) -> Ends {
    let (local, peer) = (client.local_addr().unwrap().port(), client.peer_addr().unwrap().port());
    let client = End::new(local, peer);
    Ends { listener: End::listener(peer), client, server: client.peer() }
}

/// A TCP socket that is nowhere yet.
pub(crate) fn stream_socket(addr: IpAddr) -> Socket {
    let domain = if addr.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).unwrap()
}

/// A TCP socket that has a port. Nobody else listens there as long as it lives.
pub(crate) fn bound_socket() -> (Socket, u16) {
    let socket = stream_socket(LOCALHOST);
    socket.bind(&SocketAddr::new(LOCALHOST, 0).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

/// Reads to the end of what the peer sent: until its FIN has been received.
pub(crate) fn read_to_end(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Waits until the peer's RST has been received.
pub(crate) fn await_reset(mut stream: &TcpStream) {
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
}

/// Closes the client's half, then the server's end, then the client's: nothing is left to chance.
pub(crate) fn close_in_order(client: TcpStream, server: TcpStream) {
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&server), b"");
    drop(server);
    assert_eq!(read_to_end(&client), b"");
    drop(client);
}

/// Sends so many bytes.
pub(crate) fn send(mut stream: &TcpStream, count: usize) {
    stream.write_all(&vec![b'x'; count]).unwrap();
}

/// Receives so many bytes.
pub(crate) fn receive(mut stream: &TcpStream, count: usize) {
    stream.read_exact(&mut vec![0; count]).unwrap();
}

/// Waits until so many bytes wait to be read, without reading them.
pub(crate) fn await_unread(stream: &TcpStream, count: usize) {
    let mut bytes = vec![0; count];
    while stream.peek(&mut bytes).unwrap() < count {}
}

/// Closes with a RST instead of a FIN.
pub(crate) fn abort(stream: TcpStream) {
    set_linger_zero(&stream);
    drop(stream);
}

/// Lets close() send a RST instead of a FIN.
pub(crate) fn set_linger_zero(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
}
