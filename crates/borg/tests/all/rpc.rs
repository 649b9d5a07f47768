use borg::Id;
use borg::msgpack::{OwnedValue, Value, Writer};
use borg::rpc::reply::{self, Exception};
use borg::rpc::{
    ClientData, MAX_MESSAGE, Method, RemoteException, Reply, ReplyDecoder, RequestError, RequestErrorKind, SERVER_VERSION, ServerDecoder,
    StreamError, call,
};
use proptest::prelude::*;

const ID: Id = Id([7; 32]);

/// Feeds one message to a fresh decoder and looks at what comes out.
fn decode<T>(message: &[u8], look: impl FnOnce(Result<(u64, Method<'_>), RequestError>) -> T) -> T {
    let mut decoder = ServerDecoder::new(MAX_MESSAGE);
    decoder.push(message);
    let request = decoder.next_request().expect("well-formed").expect("complete");
    look(request.map(|request| (request.msgid, request.method)))
}

fn kind(message: &[u8]) -> RequestErrorKind {
    decode(message, |request| request.expect_err("refused").kind)
}

fn raw(text: &str) -> Value<'_> {
    Value::Raw(text.as_bytes())
}

/// A call in map form with arguments as given.
fn message(method: &str, arguments: &[(&str, Value<'_>)]) -> Vec<u8> {
    let arguments = arguments.iter().map(|(name, value)| (raw(name), value.clone())).collect();
    let parts = vec![(raw("i"), Value::Int(3)), (raw("m"), raw(method)), (raw("a"), Value::Map(arguments))];
    Writer::packed(|writer| Value::Map(parts).write(writer))
}

#[test]
fn every_call_we_make_is_understood() {
    let open = call::Open {
        path: b"/./x",
        create: false,
        lock_wait: Some(1),
        lock: true,
        exclusive: true,
        append_only: false,
        make_parent_dirs: true,
    };
    let expected = Method::Open {
        path: b"/./x",
        create: false,
        lock_wait: Some(1.0),
        lock: true,
        exclusive: Some(true),
        append_only: false,
        make_parent_dirs: true,
    };
    let version = ClientData::Version(vec![1, 4, 5, -1]);
    let commit = Method::Commit { save_space: false, compact: false, threshold: 0.1, cleanup_commits: false };
    for (bytes, method) in [
        (call::negotiate(5, &[1, 4, 5, -1]), Method::Negotiate { client: version }),
        (call::open(5, &open), expected),
        (call::load_key(5), Method::LoadKey),
        (call::save_key(5, b"key"), Method::SaveKey { keydata: b"key" }),
        (call::get_free_nonce(5), Method::GetFreeNonce),
        (
            call::commit_nonce_reservation(5, u64::MAX, None),
            Method::CommitNonceReservation { next_unreserved: u64::MAX, start_nonce: None },
        ),
        (call::commit_nonce_reservation(5, 9, Some(8)), Method::CommitNonceReservation { next_unreserved: 9, start_nonce: Some(8) }),
        (call::get(5, &ID), Method::Get { id: ID }),
        (call::put(5, &ID, b"data"), Method::Put { id: ID, data: b"data" }),
        (call::delete(5, &ID), Method::Delete { id: ID }),
        (call::commit(5, false, 0.1, false), commit),
        (call::rollback(5), Method::Rollback),
        (call::len(5), Method::Len),
        (call::list(5, 100_000, None), Method::List { limit: Some(100_000), marker: None }),
        (call::scan(5, 100, Some(&ID)), Method::Scan { limit: Some(100), marker: Some(ID) }),
        (call::check(5, true), Method::Check { repair: true, save_space: false, max_duration: 0.0 }),
        (call::break_lock(5), Method::BreakLock),
    ] {
        decode(&bytes, |request| assert_eq!(request, Ok((5, method))));
    }
}

#[test]
fn what_stock_clients_send() {
    // 1.1: commit with one argument, exclusive as nil; manifest put and open with `wait`.
    let defaults = Method::Commit { save_space: false, compact: true, threshold: 0.1, cleanup_commits: false };
    decode(&message("commit", &[("save_space", Value::Bool(false))]), |request| {
        assert_eq!(request, Ok((3, defaults)));
    });
    let put = [("id", Value::Raw(&ID.0)), ("data", raw("x")), ("wait", Value::Bool(true))];
    decode(&message("put", &put), |request| assert_eq!(request, Ok((3, Method::Put { id: ID, data: b"x" }))));
    let open = [("path", raw("/r")), ("exclusive", Value::Nil), ("lock_wait", Value::Nil), ("lock", Value::Bool(false))];
    decode(&message("open", &open), |request| {
        let Ok((3, Method::Open { path: b"/r", lock_wait: None, lock: false, exclusive: None, .. })) = request else {
            panic!("{request:?}")
        };
    });
    decode(&message("destroy", &[]), |request| assert_eq!(request, Ok((3, Method::Destroy))));
    let inject = [("kind", raw("divide"))];
    decode(&message("inject_exception", &inject), |request| {
        assert_eq!(request, Ok((3, Method::InjectException { kind: b"divide" })));
    });
}

#[test]
fn negotiation_in_all_its_forms() {
    let version = Value::Array(vec![Value::Int(1), Value::Int(2), Value::Int(4), Value::Int(-1)]);
    let data = Value::Map(vec![(raw("client_version"), version.clone()), (raw("future"), Value::Nil)]);
    let positional = |data: Value<'_>| {
        let parts = vec![Value::Int(1), Value::Int(1), raw("negotiate"), Value::Array(vec![data])];
        Writer::packed(|writer| Value::Array(parts).write(writer))
    };
    let client = ClientData::Version(vec![1, 2, 4, -1]);
    decode(&positional(data.clone()), |request| {
        assert_eq!(request, Ok((1, Method::Negotiate { client: client.clone() })));
    });
    decode(&message("negotiate", &[("client_data", data)]), |request| {
        assert_eq!(request, Ok((3, Method::Negotiate { client })));
    });
    decode(&positional(Value::Int(2)), |request| {
        assert_eq!(request, Ok((1, Method::Negotiate { client: ClientData::Legacy(2) })));
    });
    for wrong in [
        Value::Nil,
        Value::Map(vec![]),
        Value::Map(vec![(raw("client_version"), Value::Int(1))]),
        Value::Map(vec![(raw("client_version"), Value::Array(vec![]))]),
        Value::Map(vec![(raw("client_version"), Value::Array(vec![Value::Int(1); 9]))]),
        Value::Map(vec![(raw("client_version"), Value::Array(vec![raw("1")]))]),
        Value::Map(vec![(raw("client_version"), version.clone()), (raw("client_version"), version)]),
    ] {
        decode(&positional(wrong), |request| assert!(request.is_err(), "{request:?}"));
    }
}

#[test]
fn the_positional_form_is_for_negotiate_only() {
    let parts = vec![Value::Int(1), Value::Int(9), raw("get"), Value::Array(vec![Value::Raw(&ID.0)])];
    let bytes = Writer::packed(|writer| Value::Array(parts).write(writer));
    let expected = RequestError { msgid: Some(9), method: Some("get".to_owned()), kind: RequestErrorKind::Positional };
    decode(&bytes, |request| assert_eq!(request, Err(expected)));
    assert_eq!(kind(&[0x91, 0]), RequestErrorKind::Shape);
    assert_eq!(kind(&[0xc0]), RequestErrorKind::Shape);
    assert_eq!(kind(b"\xa5hello"), RequestErrorKind::Shape);
}

#[test]
fn unknown_methods_come_back_by_name() {
    decode(&message("get_manifest", &[("anything", Value::Nil)]), |request| {
        assert_eq!(request, Ok((3, Method::Unknown(b"get_manifest"))));
    });
}

#[test]
fn wrong_calls_are_refused_by_name() {
    let id = ("id", Value::Raw(&ID.0));
    let unknown = |name: &str| RequestErrorKind::UnknownArgument(name.to_owned());
    assert_eq!(kind(&message("get", &[id.clone(), ("evil", Value::Nil)])), unknown("evil"));
    assert_eq!(kind(&message("load_key", &[("x", Value::Nil)])), unknown("x"));
    assert_eq!(kind(&message("get", &[])), RequestErrorKind::Missing("id"));
    assert_eq!(kind(&message("put", std::slice::from_ref(&id))), RequestErrorKind::Missing("data"));
    assert_eq!(kind(&message("get", &[id.clone(), id])), RequestErrorKind::Duplicate("id".to_owned()));
    for length in [0usize, 31, 33, 64] {
        let bytes = vec![0; length];
        let expected = RequestErrorKind::Id { name: "id".to_owned(), length };
        assert_eq!(kind(&message("delete", &[("id", Value::Raw(&bytes))])), expected);
    }
    let marker = RequestErrorKind::Id { name: "marker".to_owned(), length: 1 };
    assert_eq!(kind(&message("list", &[("marker", raw("x"))])), marker);
    for (method, argument, value) in [
        ("get", "id", Value::Int(1)),
        ("put", "id", Value::Nil),
        ("open", "path", Value::Nil),
        ("list", "limit", Value::Int(-1)),
        ("list", "limit", raw("10")),
        ("commit", "save_space", Value::Int(0)),
        ("commit", "threshold", raw("0.1")),
        ("commit_nonce_reservation", "next_unreserved", Value::Int(-1)),
        ("check", "repair", Value::Array(vec![])),
    ] {
        match kind(&message(method, &[(argument, value)])) {
            RequestErrorKind::Argument { name, .. } => assert_eq!(name, argument),
            other => panic!("{method} {argument}: {other:?}"),
        }
    }
}

#[test]
fn wrong_messages_are_refused() {
    let build = |parts: &[(&str, Value<'_>)]| {
        let parts = parts.iter().map(|(name, value)| (raw(name), value.clone())).collect();
        Writer::packed(|writer| Value::Map(parts).write(writer))
    };
    let (i, m, a) = (("i", Value::Int(3)), ("m", raw("rollback")), ("a", Value::Map(vec![])));
    decode(&build(&[a.clone(), m.clone(), i.clone()]), |request| assert_eq!(request, Ok((3, Method::Rollback))));
    assert_eq!(kind(&build(&[m.clone(), a.clone()])), RequestErrorKind::Missing("i"));
    assert_eq!(kind(&build(&[i.clone(), a.clone()])), RequestErrorKind::Missing("m"));
    assert_eq!(kind(&build(&[i.clone(), m.clone()])), RequestErrorKind::Missing("a"));
    for part in [&i, &m, &a] {
        let twice = build(&[i.clone(), m.clone(), a.clone(), part.clone()]);
        assert_eq!(kind(&twice), RequestErrorKind::Duplicate(part.0.to_owned()));
    }
    let extra = build(&[i.clone(), m.clone(), a.clone(), ("x", Value::Nil)]);
    assert_eq!(kind(&extra), RequestErrorKind::UnknownPart("x".to_owned()));
    for (part, value) in [("i", Value::Int(-1)), ("i", raw("3")), ("m", Value::Int(1)), ("a", Value::Array(vec![]))] {
        match kind(&build(&[(part, value), m.clone(), a.clone(), i.clone()])) {
            RequestErrorKind::Part { name, .. } => assert_eq!(name, part),
            RequestErrorKind::Duplicate(name) => assert!(part != "i" && name == part),
            other => panic!("{part}: {other:?}"),
        }
    }
    // The number is known for the reply although something else is wrong.
    decode(&build(&[i, a]), |request| assert_eq!(request.expect_err("refused").msgid, Some(3)));
}

#[test]
fn names_from_enemies_are_fit_for_a_log() {
    let name = format!("a\nb\x1b[2J{}", "c".repeat(10_000));
    let error = decode(&message("get", &[(&name, Value::Nil)]), |request| request.expect_err("refused"));
    let shown = error.to_string();
    assert!(shown.len() < 500 && !shown.contains('\n') && !shown.contains('\x1b'), "{shown}");
}

#[test]
fn the_largest_object_passes_and_what_is_larger_does_not() {
    let mut decoder = ServerDecoder::new(MAX_MESSAGE);
    let data = vec![5; borg::MAX_OBJECT];
    for piece in call::put(2, &ID, &data).chunks(65_536) {
        decoder.push(piece);
    }
    let request = decoder.next_request().expect("within the limit").expect("complete").expect("a put");
    assert_eq!(request.method, Method::Put { id: ID, data: &data });

    decoder.push(&call::put_head(3, &ID, MAX_MESSAGE));
    assert!(decoder.next_request().is_err(), "refused when announced, before it is received");
}

#[test]
fn a_stream_that_is_no_msgpack_is_an_end() {
    for bytes in [&b"\xc1"[..], b"\xd4\x00\x00", &[0x91; 100], b"\xdd\xff\xff\xff\xff", b"\x81\xa1i\xc7\x00\x00"] {
        let mut decoder = ServerDecoder::new(MAX_MESSAGE);
        decoder.push(bytes);
        assert!(matches!(decoder.next_request(), Err(StreamError(_))), "{bytes:?}");
    }
}

#[test]
fn reading_into_the_decoders_own_space() {
    let stream = [call::put(2, &ID, &vec![1; 100_000]), call::get(3, &ID), call::put(4, &ID, &vec![2; 300_000])].concat();
    let mut decoder = ServerDecoder::new(MAX_MESSAGE);
    let mut rest = stream.as_slice();
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let space = decoder.space(1);
        let count = space.len().min(rest.len()).min(70_000);
        space[..count].copy_from_slice(&rest[..count]);
        decoder.advance(count);
        rest = &rest[count..];
        while let Some(request) = decoder.next_request().expect("well-formed") {
            let request = request.expect("calls");
            match request.method {
                Method::Put { data, .. } => seen.push((request.msgid, data.len())),
                _ => seen.push((request.msgid, 0)),
            }
        }
    }
    assert_eq!(seen, [(2, 100_000), (3, 0), (4, 300_000)]);
    assert_eq!(decoder.buffered(), 0);
    decoder.push(&call::get(5, &ID)[..9]);
    assert!(decoder.next_request().expect("so far").is_none());
    assert_eq!(decoder.buffered(), 9, "the stream would end inside a call");
}

fn replies(bytes: &[u8], piece: usize) -> Vec<(u64, Result<OwnedValue, RemoteException>)> {
    let mut decoder = ReplyDecoder::new(MAX_MESSAGE);
    let mut seen = Vec::new();
    for piece in bytes.chunks(piece) {
        decoder.push(piece);
        while let Some(Reply { msgid, outcome }) = decoder.next_reply().expect("well-formed") {
            seen.push((msgid, outcome.map(|value| value.to_owned())));
        }
    }
    assert_eq!(decoder.buffered(), 0);
    seen
}

#[test]
fn replies_go_both_ways() {
    let refusal = Exception::refusal("JobRevoked", "this job was cancelled");
    let stream = [
        reply::negotiated(1, &SERVER_VERSION),
        reply::raw(2, &[9; 32]),
        reply::nil(3),
        reply::int(4, u64::MAX),
        reply::bool(5, true),
        reply::ids(6, &[Id::MANIFEST, ID]),
        reply::exception(7, &refusal),
        reply::exception(8, &Exception::object_not_found(&ID, "repo")),
        reply::exception(9, &Exception::invalid_method("get_manifest")),
        reply::raw(1 << 40, b""),
    ]
    .concat();
    for piece in [1, 7, 10_000] {
        let seen = replies(&stream, piece);
        let value = |n: usize| seen[n].1.as_ref().expect("a result").as_value();
        let error = |n: usize| seen[n].1.as_ref().expect_err("an exception");
        assert_eq!(seen.iter().map(|reply| reply.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 1 << 40]);
        let version = [1, 2, 8, -1].map(Value::Int).to_vec();
        assert_eq!(value(0).get(b"server_version"), Some(&Value::Array(version)));
        assert_eq!(value(1), Value::Raw(&[9; 32]));
        assert_eq!(value(2), Value::Nil);
        assert_eq!(value(3), Value::UInt(u64::MAX));
        assert_eq!(value(4), Value::Bool(true));
        assert_eq!(value(5), Value::Array(vec![Value::Raw(&[0; 32]), Value::Raw(&[7; 32])]));
        assert_eq!((error(6).class.as_str(), error(6).short.as_slice()), ("JobRevoked", &refusal.short[..]));
        assert_eq!(error(6).to_string(), "JobRevoked: this job was cancelled");
        assert_eq!((error(7).class.as_str(), error(7).args[0].clone()), ("ObjectNotFound", ID.to_hex()));
        assert_eq!((error(8).class.as_str(), error(8).args[0].as_str()), ("InvalidRPCMethod", "get_manifest"));
    }
    assert_eq!(Reply { msgid: 1, outcome: Ok(Value::Array(vec![Value::Raw(&[7; 32])])) }.ids(), Some(vec![ID]));
    assert_eq!(Reply { msgid: 1, outcome: Ok(Value::Array(vec![Value::Raw(&[7; 31])])) }.ids(), None);
    assert_eq!(Reply { msgid: 1, outcome: Ok(Value::Nil) }.ids(), None);
}

#[test]
fn replies_contain_no_new_style_strings() {
    let bytes = reply::raw(2, &[1; 200]);
    assert_eq!(&bytes[..9], b"\x82\xa1i\x02\xa1r\xda\x00\xc8");
    let bytes = reply::ids(2, &[ID]);
    assert_eq!(&bytes[6..10], b"\x91\xda\x00\x20");
    let head = reply::raw_head(2, 70_000);
    assert_eq!(&head[6..], b"\xdb\x00\x01\x11\x70");
}

#[test]
fn a_list_of_a_hundred_thousand_ids_is_read() {
    let bytes = reply::ids(2, &vec![ID; 100_000]);
    let mut decoder = ReplyDecoder::new(MAX_MESSAGE);
    decoder.push(&bytes);
    let reply = decoder.next_reply().expect("well-formed").expect("complete");
    assert_eq!(reply.ids().map(|ids| ids.len()), Some(100_000));
}

#[test]
fn replies_without_content_are_refused() {
    for bytes in [&b"\x81\xa1i\x02"[..], b"\x81\xa1r\xc0", b"\x80", b"\xc0", b"\x93\x01\x01\xc0", b"\x82\xa1i\xff\xa1r\xc0"] {
        let mut decoder = ReplyDecoder::new(MAX_MESSAGE);
        decoder.push(bytes);
        assert!(decoder.next_reply().is_err(), "{bytes:?}");
    }
    // The form of Borg 1.0 for errors, and the least of all exceptions.
    assert!(replies(b"\x94\x01\x05\xa5Error\xc0", 100)[0].1.is_err());
    assert!(replies(b"\x82\xa1i\x05\xafexception_class\xa5Error", 100)[0].1.is_err());
}

proptest! {
    #[test]
    fn damaged_calls_are_survived(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        which in 0usize..6,
        piece in 1usize..40,
    ) {
        let mut bytes = [
            call::negotiate(1, &[1, 4, 5, -1]),
            call::put(2, &ID, &[3; 100]),
            call::get(2, &ID),
            call::list(3, 5, Some(&ID)),
            call::commit(4, true, 0.5, false),
            reply::exception(5, &Exception::refusal("A", "b")),
        ][which].clone();
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let mut server = ServerDecoder::new(1000);
        let mut client = ReplyDecoder::new(1000);
        for piece in bytes.chunks(piece) {
            server.push(piece);
            client.push(piece);
            while let Ok(Some(_)) = server.next_request() {}
            while let Ok(Some(_)) = client.next_reply() {}
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut server = ServerDecoder::new(1000);
        let mut client = ReplyDecoder::new(1000);
        server.push(&bytes);
        client.push(&bytes);
        while let Ok(Some(_)) = server.next_request() {}
        while let Ok(Some(_)) = client.next_reply() {}
    }
}
