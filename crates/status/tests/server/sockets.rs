//! Live events over a WebSocket.

use crate::records::{job, some};
use crate::world::{Control, World};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use wire::control::Event;

/// The answer's head, and the connection behind it.
pub fn open(world: &World, path: &str, more: &str) -> (String, TcpStream) {
    let mut stream = world.connect();
    let host = world.host();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
    .unwrap();
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    (String::from_utf8(head).unwrap(), stream)
}

/// The next frame: type and payload.
pub fn frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert_eq!((head[0] & 0xf0, head[1] & 0x80), (0x80, 0), "whole, unmasked frames");
    let mut length = usize::from(head[1]);
    if length == 126 {
        let mut more = [0; 2];
        stream.read_exact(&mut more).unwrap();
        length = u16::from_be_bytes(more).into();
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).unwrap();
    (head[0] & 0xf, payload)
}

pub fn event(stream: &mut TcpStream, name: &str) -> Value {
    loop {
        let (kind, payload) = frame(stream);
        assert_eq!(kind, 1, "{payload:?}");
        let told: Value = serde_json::from_slice(&payload).unwrap();
        if told["event"] == name {
            return told;
        }
    }
}

/// Text of a viewer, with a mask of zeros.
fn say(stream: &mut TcpStream, length: u16) {
    let [high, low] = length.to_be_bytes();
    stream.write_all(&[0x81, 0x80 | 126, high, low, 0, 0, 0, 0]).unwrap();
    // It may be refused by its length.
    let _ = stream.write_all(&vec![b'x'; length.into()]);
}

const SOCKET: &str = "/api/v1/socket";

#[test]
fn a_socket_tells_what_the_stream_tells() {
    let world = World::filled(some);
    let control = Control::listen(&world, vec![]);
    control.wait();
    world.until("healthy", |world| world.get("/healthz").status == 200);
    let (head, mut stream) = open(&world, SOCKET, &format!("Origin: http://{}\r\n", world.host()));
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    assert_eq!(event(&mut stream, "borgcubed")["data"]["connected"], true);
    let mut viewer = world.events(None);
    viewer.named("borgcubed");
    assert!(world.get("/metrics").text().contains("borgcube_status_viewers 2\n"));
    control.events.send(Event::Job(Box::new(job(7, "new1/all")))).unwrap();
    let (told, same) = (event(&mut stream, "job"), viewer.named("job"));
    assert_eq!((told["id"].as_str(), &told["data"]), (same.id.as_deref(), &same.data));
    // Who was away goes on behind it.
    control.events.send(Event::SchedulesChanged).unwrap();
    event(&mut stream, "schedules");
    let (_, mut back) = open(&world, &format!("{SOCKET}?after={}", told["id"].as_str().unwrap()), "");
    event(&mut back, "borgcubed");
    assert_eq!(serde_json::from_slice::<Value>(&frame(&mut back).1).unwrap()["event"], "schedules");
    // A ping is answered, and a close.
    back.write_all(&[0x89, 0x80, 0, 0, 0, 0]).unwrap();
    assert_eq!(frame(&mut back).0, 10);
    back.write_all(&[0x88, 0x80, 0, 0, 0, 0]).unwrap();
    assert_eq!(frame(&mut back).0, 8);
    drop((back, stream, viewer));
    world.until("their places are free", |world| world.get("/metrics").text().contains("borgcube_status_viewers 0\n"));
}

#[test]
fn pages_of_others_and_those_who_talk_are_refused() {
    let mut world = World::new();
    for (path, origin) in [(SOCKET, "http://evil.example"), (SOCKET, "null"), (SOCKET, "http://localhost:1")] {
        assert!(open(&world, path, &format!("Origin: {origin}\r\n")).0.starts_with("HTTP/1.1 403"), "{origin}");
    }
    let plain = world.get(SOCKET);
    assert_eq!((plain.status, plain.header("upgrade")), (426, "websocket"));
    let (_, mut long) = open(&world, SOCKET, "");
    event(&mut long, "borgcubed");
    say(&mut long, 5000);
    assert_eq!(frame(&mut long).0, 8);
    let (_, mut often) = open(&world, SOCKET, "");
    event(&mut often, "borgcubed");
    for _ in 0..70 {
        say(&mut often, 10);
    }
    assert_eq!(frame(&mut often).0, 8);
    // A stop tells them.
    let (_, mut last) = open(&world, SOCKET, "");
    event(&mut last, "borgcubed");
    assert!(world.stop() < std::time::Duration::from_secs(3));
    assert_eq!(frame(&mut last).0, 8);
}

#[test]
fn sockets_count_as_viewers() {
    let mut world = World::new();
    world.stop();
    world.start(&["--max-viewers", "1"]);
    let (_, mut one) = open(&world, SOCKET, "");
    event(&mut one, "borgcubed");
    assert!(open(&world, SOCKET, "").0.starts_with("HTTP/1.1 503"));
    assert_eq!(world.get("/api/v1/events").status, 503);
}
