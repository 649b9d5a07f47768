//! The control socket of `borgcubed`: NUL-framed JSON, one call after the other.

use crate::bytes::Bytes;
use queue::daemon::request::{Unusable, parse};
use wire::json::Decoder;

/// The pieces a connection's bytes come in change nothing; a call that is understood is written again with the same meaning, and
/// one that is not gets an error of Varlink's form.
pub fn calls(data: &[u8]) {
    let documents = |pieces: &[&[u8]]| {
        let (mut decoder, mut documents) = (Decoder::default(), Vec::new());
        for piece in pieces {
            decoder.push(piece);
            while let Some(document) = decoder.next_document().expect("no document is too long here") {
                documents.push(document);
            }
        }
        documents
    };
    let whole = documents(&[data]);
    assert_eq!(whole, documents(&Bytes::new(data).pieces()));
    let expected: Vec<_> = data.split(|byte| *byte == 0).collect();
    assert_eq!(whole, expected[..expected.len() - 1]);
    for document in expected {
        call(document);
    }
}

fn call(document: &[u8]) {
    match parse(document) {
        Ok(asked) => {
            let request = wire::control::Request { call: asked.call.clone(), more: asked.more };
            let text = serde_json::to_vec(&request).expect("a call can be written");
            let again = parse(&text).unwrap_or_else(|e| panic!("{e:?}: {}", String::from_utf8_lossy(&text)));
            assert_eq!(
                (again.call, again.more, again.oneway),
                (asked.call.clone(), asked.more, false),
                "{}",
                String::from_utf8_lossy(&text)
            );
            if let wire::control::Call::AddConfig { config } = &asked.call {
                crate::text::assert_arguments(config);
            }
        }
        Err(Unusable::Answer { reply, .. }) => {
            let error = reply.error.as_deref().expect("an error has a name");
            assert!(error.starts_with("org.varlink.service.") && !reply.continues);
            let bytes = wire::json::encode(&reply).expect("a reply can be written");
            assert_eq!(bytes.iter().filter(|byte| **byte == 0).count(), 1, "one document, one NUL");
            assert!(bytes.len() < document.len() * 8 + 4096, "an answer of {} bytes to {}", bytes.len(), document.len());
        }
        Err(Unusable::Garbage(why)) => assert!(!why.is_empty()),
    }
}
