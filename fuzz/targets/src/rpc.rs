//! The RPC of Borg 1.x, both directions.

use crate::bytes::Bytes;
use borg::rpc::{ClientData, Method, ReplyDecoder, Request, ServerDecoder, call};

/// Calls of a client: the pieces they come in change nothing, and what a client of ours would say is read as it was meant.
pub fn calls(data: &[u8]) {
    let read = |pieces: &[&[u8]]| {
        let mut decoder = ServerDecoder::new(4096);
        let (mut seen, mut written) = (Vec::new(), Vec::new());
        for piece in pieces {
            let space = decoder.space(piece.len());
            space[..piece.len()].copy_from_slice(piece);
            decoder.advance(piece.len());
            loop {
                match decoder.next_request() {
                    Ok(Some(Ok(request))) => {
                        seen.push(format!("{request:?}"));
                        written.extend(rewritten(&request).map(|bytes| (bytes, format!("{request:?}"))));
                    }
                    Ok(Some(Err(error))) => {
                        let line = error.to_string();
                        assert!(line.len() < 600 && !line.contains('\n'), "an error is one short line: {line:?}");
                        seen.push(line);
                    }
                    Ok(None) => break,
                    Err(_) => {
                        // Which of two faults is noticed first may depend on how much is here.
                        seen.push("the end".to_owned());
                        return (seen, written);
                    }
                }
            }
        }
        (seen, written)
    };
    let (whole, written) = read(&[data]);
    assert_eq!(whole, read(&Bytes::new(data).pieces()).0);
    for (bytes, meaning) in written {
        assert_eq!(read(&[&bytes]).0, [meaning], "our own call means the same");
    }
}

/// The call as this side would write it, where it has such a call.
fn rewritten(request: &Request<'_>) -> Option<Vec<u8>> {
    let id = request.msgid;
    Some(match &request.method {
        Method::Negotiate { client: ClientData::Version(numbers) } => call::negotiate(id, numbers),
        Method::LoadKey => call::load_key(id),
        Method::SaveKey { keydata } => call::save_key(id, keydata),
        Method::GetFreeNonce => call::get_free_nonce(id),
        Method::CommitNonceReservation { next_unreserved, start_nonce } => {
            call::commit_nonce_reservation(id, *next_unreserved, *start_nonce)
        }
        Method::Get { id: object } => call::get(id, object),
        Method::Put { id: object, data } => {
            // Whose bytes and head go out apart.
            let split = [&call::put_head(id, object, data.len())[..], data].concat();
            assert_eq!(split, call::put(id, object, data));
            split
        }
        Method::Delete { id: object } => call::delete(id, object),
        Method::Rollback => call::rollback(id),
        Method::Len => call::len(id),
        Method::List { limit: Some(limit), marker } => call::list(id, *limit, marker.as_ref()),
        Method::Scan { limit: Some(limit), marker } => call::scan(id, *limit, marker.as_ref()),
        Method::BreakLock => call::break_lock(id),
        Method::Open { path, create, lock_wait: None, lock, exclusive: Some(exclusive), append_only, make_parent_dirs } => {
            let (create, lock, exclusive) = (*create, *lock, *exclusive);
            let (append_only, make_parent_dirs) = (*append_only, *make_parent_dirs);
            call::open(id, &call::Open { path, create, lock_wait: None, lock, exclusive, append_only, make_parent_dirs })
        }
        _ => return None,
    })
}

/// Answers of `borg serve`.
pub fn replies(data: &[u8]) {
    let read = |pieces: &[&[u8]]| {
        let mut decoder = ReplyDecoder::new(4096);
        let mut seen = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            loop {
                match decoder.next_reply() {
                    Ok(Some(reply)) => {
                        if let (Some(ids), Ok(value)) = (reply.ids(), &reply.outcome) {
                            assert_eq!(value.as_array().map(<[_]>::len), Some(ids.len()));
                        }
                        seen.push(format!("{reply:?}"));
                    }
                    Ok(None) => break,
                    Err(_) => {
                        seen.push("the end".to_owned());
                        return seen;
                    }
                }
            }
        }
        seen
    };
    assert_eq!(read(&[data]), read(&Bytes::new(data).pieces()));
}
