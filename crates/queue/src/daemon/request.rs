//! From the bytes of a Varlink call to a typed one, or to the error reply that it deserves. Pure.

use serde_json::{Value, json};
use wire::control::{Call, DESCRIPTION, INTERFACE, Reply, Request};

/// Varlink's own interface.
pub const SERVICE: &str = "org.varlink.service";

/// What `GetInterfaceDescription` says of it.
pub const SERVICE_DESCRIPTION: &str = "# What every Varlink service can be asked.
interface org.varlink.service

method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)
method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
error PermissionDenied ()
error ExpectedMore ()
";

/// A call as it is carried out.
#[derive(Debug, PartialEq)]
pub struct Asked {
    /// What.
    pub call: Call,
    /// Several replies are welcome.
    pub more: bool,
    /// No reply at all is wanted.
    pub oneway: bool,
}

/// Why a call is not carried out.
#[derive(Debug, PartialEq)]
pub enum Unusable {
    /// No Varlink at all: there is nothing to answer, and no telling where the next call begins.
    Garbage(String),
    /// A call that gets this answer.
    Answer {
        /// The error.
        reply: Reply,
        /// No reply at all is wanted.
        oneway: bool,
    },
}

/// Reads one document.
pub fn parse(document: &[u8]) -> Result<Asked, Unusable> {
    let garbage = |why: String| Unusable::Garbage(why);
    let mut value: Value = serde_json::from_slice(document).map_err(|e| garbage(format!("it is not JSON: {e}")))?;
    let Some(object) = value.as_object_mut() else {
        return Err(garbage("it is not an object".into()));
    };
    let Some(method) = object.get("method").and_then(Value::as_str).map(str::to_owned) else {
        return Err(garbage("it names no method".into()));
    };
    let flag = |name: &str| object.get(name).and_then(Value::as_bool).unwrap_or(false);
    let (more, oneway) = (flag("more"), flag("oneway"));
    // Varlink lets a call without parameters leave them out.
    if object.get("parameters").is_none_or(Value::is_null) {
        object.insert("parameters".into(), json!({}));
    }
    object.insert("more".into(), Value::Bool(more));
    if let Some(reply) = unknown(&method) {
        return Err(Unusable::Answer { reply, oneway });
    }
    match serde_json::from_value::<Request>(value) {
        Ok(Request { call, .. }) if only_with_more(&call) && !more => {
            Err(Unusable::Answer { reply: service_error("ExpectedMore", json!({ "message": "call it with \"more\": true" })), oneway })
        }
        Ok(request) => Ok(Asked { call: request.call, more, oneway }),
        Err(e) => Err(Unusable::Answer { reply: invalid_parameter(&e.to_string()), oneway }),
    }
}

/// Methods that go on answering.
fn only_with_more(call: &Call) -> bool {
    matches!(call, Call::Watch { .. } | Call::GetJobLog { follow: true, .. })
}

fn unknown(method: &str) -> Option<Reply> {
    let Some((interface, name)) = method.rsplit_once('.') else {
        return Some(service_error("MethodNotFound", json!({ "method": method })));
    };
    let description = match interface {
        SERVICE => SERVICE_DESCRIPTION,
        INTERFACE => DESCRIPTION,
        _ => return Some(service_error("InterfaceNotFound", json!({ "interface": interface }))),
    };
    let known = description.lines().filter_map(|line| line.strip_prefix("method ")?.split('(').next()).any(|known| known == name);
    if known { None } else { Some(service_error("MethodNotFound", json!({ "method": method }))) }
}

fn invalid_parameter(why: &str) -> Reply {
    // serde names the field in backquotes where it knows it.
    let parameter = why.split('`').nth(1).unwrap_or("parameters");
    service_error("InvalidParameter", json!({ "parameter": parameter, "message": why }))
}

/// One of Varlink's own errors.
pub fn service_error(name: &str, parameters: Value) -> Reply {
    Reply { parameters, continues: false, error: Some(format!("{SERVICE}.{name}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> (String, Value) {
        match parse(text.as_bytes()) {
            Err(Unusable::Answer { reply, .. }) => (reply.error.unwrap(), reply.parameters),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn calls_are_read_with_and_without_parameters() {
        let asked = parse(br#"{"method":"org.borgcube.Control.GetStatus"}"#).unwrap();
        assert_eq!(asked, Asked { call: Call::GetStatus {}, more: false, oneway: false });
        let asked = parse(br#"{"method":"org.borgcube.Control.GetStatus","parameters":null,"oneway":true}"#).unwrap();
        assert!(asked.oneway);
        let asked = parse(br#"{"method":"org.borgcube.Control.Watch","parameters":{"job":3},"more":true}"#).unwrap();
        assert_eq!(asked.call, Call::Watch { job: Some(3) });
        assert!(asked.more);
    }

    #[test]
    fn every_method_of_the_description_is_one_of_ours() {
        for line in DESCRIPTION.lines().chain(SERVICE_DESCRIPTION.lines()) {
            let Some(name) = line.strip_prefix("method ").and_then(|l| l.split('(').next()) else { continue };
            let interface = if SERVICE_DESCRIPTION.contains(line) { SERVICE } else { INTERFACE };
            let call = json!({"method": format!("{interface}.{name}"), "more": true});
            // Known: either it needs no parameters, or the complaint is about them.
            match parse(call.to_string().as_bytes()) {
                Ok(_) => {}
                Err(Unusable::Answer { reply, .. }) => {
                    assert_eq!(reply.error.as_deref(), Some("org.varlink.service.InvalidParameter"), "{name}")
                }
                Err(e) => panic!("{name}: {e:?}"),
            }
        }
    }

    #[test]
    fn unknown_things_are_named() {
        assert_eq!(
            error(r#"{"method":"org.borgcube.Control.Nonsense"}"#),
            ("org.varlink.service.MethodNotFound".into(), json!({"method": "org.borgcube.Control.Nonsense"}))
        );
        assert_eq!(error(r#"{"method":"Nonsense"}"#).0, "org.varlink.service.MethodNotFound");
        assert_eq!(
            error(r#"{"method":"com.example.Get"}"#),
            ("org.varlink.service.InterfaceNotFound".into(), json!({"interface": "com.example"}))
        );
        // Not a prefix of one either.
        assert_eq!(error(r#"{"method":"org.borgcube.Control.GetJo"}"#).0, "org.varlink.service.MethodNotFound");
    }

    #[test]
    fn wrong_parameters_are_explained() {
        let (name, parameters) = error(r#"{"method":"org.borgcube.Control.CancelJob","parameters":{"job":"x"}}"#);
        assert_eq!(name, "org.varlink.service.InvalidParameter");
        assert!(parameters["message"].as_str().unwrap().contains("u64"), "{parameters}");
        let (_, parameters) = error(r#"{"method":"org.borgcube.Control.CancelJob","parameters":{}}"#);
        assert_eq!(parameters["parameter"], "job");
        let (_, parameters) = error(r#"{"method":"org.borgcube.Control.RemoveClient","parameters":{"name":"-x"}}"#);
        assert!(parameters["message"].as_str().unwrap().contains("must begin with a letter"), "{parameters}");
    }

    #[test]
    fn streams_need_more() {
        assert_eq!(error(r#"{"method":"org.borgcube.Control.Watch"}"#).0, "org.varlink.service.ExpectedMore");
        assert_eq!(
            error(r#"{"method":"org.borgcube.Control.GetJobLog","parameters":{"job":1,"follow":true}}"#).0,
            "org.varlink.service.ExpectedMore"
        );
        assert!(parse(br#"{"method":"org.borgcube.Control.GetJobLog","parameters":{"job":1}}"#).is_ok());
    }

    #[test]
    fn garbage_gets_no_answer() {
        for bad in [&b""[..], b"GET / HTTP/1.1", b"[]", b"{}", b"{\"method\":5}", b"\xff\xfe", b"{\"method\":\"x\""] {
            assert!(matches!(parse(bad), Err(Unusable::Garbage(_))), "{bad:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(parse(deep.as_bytes()), Err(Unusable::Garbage(_))));
    }
}
