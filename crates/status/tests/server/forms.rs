//! Records as forms: who may, what comes back when something is wrong, and that nothing that was typed is lost.

use crate::hostile::{self, CORPUS};
use crate::records::{self, some};
use crate::schema;
use crate::world::{Answer, World};
use model::token::Token;
use model::web_user::{Role, SignIn, TokenHash, WebUser};
use model::{Connection, Timestamp};
use serde_json::{Value, json};
use std::io::{BufReader, Write};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use store::Store;
use wire::control::{ControlError, ErrorKind, Reply};

/// Every form and every question, with the act behind it.
const FORMS: &[(&str, &str)] = &[
    ("/clients/new", "add-client"),
    ("/clients/web2/edit", "edit-client"),
    ("/clients/web2/remove", "remove-client"),
    ("/clients/web1/configs/new", "add-config"),
    ("/clients/web1/configs/etc/edit", "edit-config"),
    ("/clients/web1/configs/etc/remove", "remove-config"),
    ("/schedules/new", "add-schedule"),
    ("/schedules/nightly/edit", "edit-schedule"),
    ("/schedules/nightly/remove", "remove-schedule"),
    ("/policies/new", "add-policy"),
    ("/policies/standard/edit", "edit-policy"),
    ("/policies/standard/remove", "remove-policy"),
    ("/check-configs/new", "add-check-config"),
    ("/check-configs/weekly/edit", "edit-check-config"),
    ("/check-configs/weekly/remove", "remove-check-config"),
];

fn token(byte: u8) -> Token {
    Token::from_random([byte; 32])
}

/// A viewer (1), an operator (2), an administrator (3), and a client that is reached by SSH.
fn people(store: &Store) {
    some(store);
    let user = |name: &str, role, byte| WebUser {
        name: name.parse().unwrap(),
        role,
        sign_in: SignIn::Token { hash: TokenHash::of(&token(byte)) },
        enabled: true,
        created: Timestamp::now(),
        expires: None,
        comment: String::new(),
    };
    let users = [user("vera", Role::Viewer, 1), user("otto", Role::Operator, 2), user("adam", Role::Administrator, 3)];
    let ssh = model::client::SshConnection {
        remote: "root@web2".into(),
        server: "borgcube-ssh@backup".into(),
        rsh_options: vec!["-4".into()],
        ..Default::default()
    };
    let client = model::Client { connection: Connection::Ssh(ssh), ..records::client("web2") };
    store
        .write("users", "root", |w| {
            users.iter().try_for_each(|user| w.web_users().insert(user))?;
            w.clients().insert(&client)
        })
        .unwrap();
}

fn cookie(byte: u8) -> String {
    format!("Cookie: borgcube-session={}\r\n", token(byte).to_hex())
}

fn look(world: &World, path: &str, headers: &str) -> Answer {
    world.raw(format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n", world.host()).as_bytes())
}

fn send(world: &World, path: &str, headers: &str, body: &str) -> Answer {
    let (host, length) = (world.host(), body.len());
    world.raw(
        format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}").as_bytes(),
    )
}

/// What is in a form, as programs get it.
fn fields(world: &World, path: &str) -> Value {
    let answer = look(world, &format!("/api/v1{path}"), &cookie(3));
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

fn csrf(world: &World, byte: u8) -> String {
    let me: Value = serde_json::from_slice(&look(world, "/api/v1/me", &cookie(byte)).body).unwrap();
    me["user"]["csrf"].as_str().unwrap().to_owned()
}

/// Sends the form of a page as a browser does that has changed these fields.
fn fill(world: &World, path: &str, changes: &[(&str, &str)]) -> Answer {
    let form = fields(world, path);
    let mut pairs: Vec<(String, String)> = vec![("csrf".into(), csrf(world, 3))];
    for hidden in form["hidden"].as_array().unwrap() {
        pairs.push((hidden[0].as_str().unwrap().into(), hidden[1].as_str().unwrap().into()));
    }
    for field in form["sections"].as_array().into_iter().flatten().flat_map(|section| section["fields"].as_array().unwrap()) {
        pairs.push((field["name"].as_str().unwrap().into(), field["value"].as_str().unwrap().replace('\n', "\r\n")));
    }
    pairs.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let body: Vec<String> = pairs.iter().map(|(name, value)| format!("{}={}", hostile::form(name), hostile::form(value))).collect();
    send(world, &format!("/do/{}", form["act"].as_str().unwrap()), &cookie(3), &body.join("&"))
}

/// Speaks as borgcubed does to who wants something done; it refuses what is called `refused`.
struct Borgcubed(Arc<Mutex<Vec<Value>>>);

impl Borgcubed {
    fn listen(world: &World) -> Borgcubed {
        let listener = UnixListener::bind(world.layout().control_socket()).unwrap();
        let asked = Arc::new(Mutex::new(vec![]));
        let kept = Arc::clone(&asked);
        // They end with the process of the test.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    while let Ok(asked) = wire::json::read::<Value>(&mut reader) {
                        if !asked["method"].as_str().is_some_and(|method| method.ends_with(".OnBehalf")) {
                            continue;
                        }
                        let reply = match asked.to_string().contains("refused") {
                            true => ControlError::new(ErrorKind::PermissionDenied, "<i>that</i> is not done").to_reply(),
                            false => Reply::new(&json!({ "warnings": ["<i>mind</i>"] })),
                        };
                        kept.lock().unwrap().push(asked["parameters"].clone());
                        (&stream).write_all(&wire::json::encode(&reply).unwrap()).unwrap();
                    }
                });
            }
        });
        Borgcubed(asked)
    }

    fn asked(&self) -> Vec<Value> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[test]
fn forms_are_for_administrators() {
    let world = World::filled(people);
    let borgcubed = Borgcubed::listen(&world);
    for (path, act) in FORMS {
        let nobody = world.get(path);
        assert_eq!(nobody.status, 303, "{path}");
        assert!(nobody.header("location").starts_with("/sign-in?next="), "{path}");
        for (byte, role) in [(1, "a viewer"), (2, "an operator")] {
            let refused = look(&world, path, &cookie(byte));
            assert_eq!(refused.status, 403, "{path}");
            assert!(refused.text().contains(&format!("is {role}; this takes the role administrator")), "{}", refused.text());
            let body = format!("csrf={}&name=x&record=web2", csrf(&world, byte));
            assert_eq!(send(&world, &format!("/do/{act}"), &cookie(byte), &body).status, 403, "{act}");
        }
        let nobody = send(&world, &format!("/do/{act}"), "", "name=x");
        assert!(nobody.status == 303 && nobody.header("location").starts_with("/sign-in"), "{act}: {}", nobody.status);
        // A form of somebody else, and one that brings nothing along.
        for wrong in [String::new(), "csrf=&".into(), format!("csrf={}&", csrf(&world, 2)), "csrf=x&".into()] {
            assert_eq!(send(&world, &format!("/do/{act}"), &cookie(3), &format!("{wrong}name=x&record=web2")).status, 403, "{act}");
        }
        let elsewhere = format!("{}Origin: http://evil.example\r\n", cookie(3));
        assert_eq!(send(&world, &format!("/do/{act}"), &elsewhere, &format!("csrf={}", csrf(&world, 3))).status, 403, "{act}");
        assert_eq!(look(&world, &format!("/do/{act}"), &cookie(3)).status, 405);
    }
    assert_eq!(borgcubed.asked(), Vec::<Value>::new(), "nothing of this came to borgcubed");
    for path in ["/clients", "/clients/web1", "/schedules", "/policies", "/policies/standard", "/check-configs"] {
        let (seen, unseen) = (look(&world, path, &cookie(3)).text(), look(&world, path, &cookie(2)).text());
        assert!(seen.contains("/edit\"") || seen.contains("class=\"button\""), "{path}");
        assert!(!unseen.contains("/edit\"") && !unseen.contains("class=\"button\""), "{path}");
    }
    for missing in ["/clients/none/edit", "/clients/none/configs/new", "/schedules/none/remove", "/policies/-/edit"] {
        assert_eq!(look(&world, missing, &cookie(3)).status, 404, "{missing}");
    }
}

#[test]
fn every_field_has_its_label_and_what_describes_it() {
    let world = World::filled(people);
    let control = regex::Regex::new(r#"<(input|select|textarea) [^>]*>"#).unwrap();
    let attribute = |tag: &str, name: &str| {
        let found = regex::Regex::new(&format!(" {name}=\"([^\"]*)\"")).unwrap().captures(tag).map(|found| found[1].to_owned());
        found.unwrap_or_default()
    };
    let document = world.api("/openapi.json");
    for (path, act) in FORMS {
        let page = look(&world, path, &cookie(3));
        assert_eq!(page.status, 200, "{path}: {}", page.text());
        let wrong = fill(
            &world,
            path,
            &[("name", "\u{e4}"), ("paths", "etc"), ("at", "x"), ("zone", "x"), ("promise_hours", "x"), ("remote", "-")],
        );
        for page in [page.text(), wrong.text()] {
            assert_eq!(page.matches("<h1>").count(), 1, "{path}");
            for tag in control.find_iter(&page).map(|found| found.as_str()).filter(|tag| !tag.contains("type=\"hidden\"")) {
                let id = attribute(tag, "id");
                assert!(page.contains(&format!(" for=\"{id}\"")), "{path}: no label for {tag}");
                assert_eq!(page.matches(&format!(" id=\"{id}\"")).count(), 1, "{path}: {id}");
                for described in attribute(tag, "aria-describedby").split_whitespace() {
                    assert!(page.contains(&format!(" id=\"{described}\"")), "{path}: {tag}");
                }
                assert_eq!(tag.contains("aria-invalid"), page.contains(&format!("id=\"{id}-error\"")), "{path}: {tag}");
            }
        }
        // Programs get the same form, as it is described.
        let template = document["paths"].as_object().unwrap().keys().find(|template| {
            let (a, b): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a == b || a.starts_with('{')) && a.last() == b.last()
        });
        let get = &document["paths"][template.unwrap_or_else(|| panic!("{path} is not described"))]["get"];
        let described = &get["responses"]["200"]["content"]["application/json"]["schema"];
        let form = fields(&world, path);
        assert!(form["sections"].as_array().is_none_or(|sections| !sections.is_empty()));
        assert_eq!(form["act"], *act);
        assert!(document["paths"][format!("/do/{act}")]["post"].is_object(), "{act} is not described");
        // Alternatives of words and objects are beyond our measure of schemas.
        let mut plain = form.clone();
        plain.as_object_mut().unwrap().remove("sections");
        plain.as_object_mut().unwrap().remove("hidden");
        let mut schema = document.pointer(described["$ref"].as_str().unwrap().trim_start_matches('#')).unwrap().clone();
        schema["required"].as_array_mut().unwrap().retain(|name| name != "sections" && name != "hidden");
        schema::check(&document, &schema, &plain, path).unwrap();
    }
}

#[test]
fn what_is_wrong_is_said_beside_its_field_and_everything_stays() {
    let world = World::filled(people);
    let borgcubed = Borgcubed::listen(&world);
    let typed = [
        ("name", "all"),
        ("repository", "main"),
        ("paths", "etc\r\n/srv/ä b"),
        ("excludes", "*/.cache"),
        ("compression", "zstd,99"),
        ("one_file_system", "yes"),
        ("target_age_hours", "soon"),
    ];
    let answer = fill(&world, "/clients/web1/configs/new", &typed);
    let page = answer.text();
    assert_eq!(answer.status, 422);
    let summary = page.find("id=\"errors\"").unwrap();
    assert!(summary < page.find("<form method=\"post\" action=\"/do/add-config\"").unwrap());
    for field in ["paths", "compression", "target_age_hours"] {
        assert!(
            page[summary..].contains(&format!("href=\"#f-{field}\"")) && page.contains(&format!("id=\"f-{field}-error\"")),
            "{field}: {page}"
        );
    }
    for kept in ["value=\"all\"", "etc\n/srv/ä b</textarea>", "*/.cache</textarea>", "value=\"zstd,99\"", "value=\"soon\"", " checked"] {
        assert!(page.contains(kept), "{kept}: {page}");
    }
    assert!(borgcubed.asked().is_empty());
    // Programs get the sentence, and the form.
    let body = json!({ "csrf": csrf(&world, 3), "client": "web1", "name": "etc", "repository": "main", "paths": ["/a"] }).to_string();
    let answer = send(&world, "/api/v1/do/add-config", &format!("{}Content-Type: application/json\r\n", cookie(3)), &body);
    let error: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (answer.status, error["error"]["message"].as_str().unwrap().contains("name: there is a backup config web1/etc")),
        (422, true),
        "{error}"
    );
    assert_eq!(error["form"]["errors"][0]["field"], "name");
}

#[test]
fn what_is_right_goes_to_borgcubed_with_what_it_was_before() {
    let world = World::filled(people);
    // Nobody is there: that is said, and nothing is lost.
    let answer = fill(&world, "/clients/web1/configs/etc/edit", &[("paths", "/etc\r\n/srv")]);
    assert_eq!(answer.status, 422);
    assert!(answer.text().contains("borgcubed does not answer") && answer.text().contains("/etc\n/srv</textarea>"), "{}", answer.text());
    let borgcubed = Borgcubed::listen(&world);
    let answer = fill(&world, "/clients/web1/configs/etc/edit", &[("paths", "/etc\r\n/srv"), ("extra_options", "--rs=evil")]);
    assert_eq!(answer.status, 303, "{}", answer.text());
    let page = look(&world, answer.header("location"), &cookie(3)).text();
    assert!(page.contains("Changed backup config web1/etc.") && page.contains("&#60;i&#62;mind"), "{page}");
    let before = world.store.read(|r| r.configs().get(&"web1/etc".parse().unwrap())).unwrap().unwrap();
    let after = model::BackupConfig { paths: vec!["/etc".into(), "/srv".into()], ..before.clone() };
    let expected = json!({
        "credential": { "kind": "token", "token": token(3).to_hex() },
        "call": { "method": "org.borgcube.Control.UpdateConfig", "parameters": { "previous": before, "config": after } },
    });
    assert_eq!(borgcubed.asked(), [expected]);
    // It says no: the sentence is above the form, and what was typed is in it.
    let typed = [("name", "new2"), ("remote", "root@new2"), ("server", "b@backup"), ("description", "refused ü")];
    let answer = fill(&world, "/clients/new", &typed);
    let page = answer.text();
    assert!(answer.status == 422 && page.contains("&#60;i&#62;that") && page.contains("value=\"refused ü\""), "{page}");
    let added = &borgcubed.asked()[0]["call"];
    assert_eq!(
        (&added["method"], &added["parameters"]["client"]["connection"]["rsh"]),
        (&"org.borgcube.Control.AddClient".into(), &Value::Null)
    );
    assert_eq!(fill(&world, "/schedules/nightly/remove", &[]).status, 303);
    assert_eq!(borgcubed.asked()[0]["call"]["parameters"], json!({ "name": "nightly" }));
    // What is as it was is not written once more.
    let answer = fill(&world, "/policies/standard/edit", &[]);
    assert!(answer.status == 422 && answer.text().contains("nothing is different"), "{}", answer.text());
    assert!(borgcubed.asked().is_empty());
    // More rows, without a look at what is in them.
    let answer = fill(&world, "/schedules/new", &[("of-2", "x"), ("more", "yes")]);
    assert!(
        answer.status == 200 && answer.text().contains("id=\"f-of-5\"") && !answer.text().contains("id=\"errors\""),
        "{}",
        answer.text()
    );
}

#[test]
fn a_form_that_somebody_else_overtook_is_refused_once() {
    let world = World::filled(people);
    let borgcubed = Borgcubed::listen(&world);
    let change = || {
        let update = |w: &mut store::Write<'_>| {
            w.policies().update(&"standard".parse().unwrap(), |policy| {
                policy.description = "somebody else's <b>".into();
                Ok(())
            })
        };
        world.store.write("meanwhile", "root", update).unwrap();
    };
    let old = fields(&world, "/policies/standard/edit")["hidden"][1][1].as_str().unwrap().to_owned();
    change();
    let answer = fill(&world, "/policies/standard/edit", &[("version", &old), ("description", "mine"), ("grace_hours", "200")]);
    let page = answer.text();
    assert_eq!(answer.status, 422);
    for said in
        ["was changed by somebody else since this form was filled", "value=\"mine\"", "value=\"200\"", "somebody else&#39;s &#60;b&#62;"]
    {
        assert!(page.contains(said), "{said}: {page}");
    }
    assert_eq!(page.matches("Stored now").count(), 2, "{page}");
    assert!(borgcubed.asked().is_empty());
    let new = fields(&world, "/policies/standard/edit")["hidden"][1][1].as_str().unwrap().to_owned();
    assert!(new != old && page.contains(&new) && !page.contains(&old));
    assert_eq!(fill(&world, "/policies/standard/edit", &[("description", "mine"), ("grace_hours", "200")]).status, 303);
    assert_eq!(borgcubed.asked()[0]["call"]["parameters"]["previous"]["description"], "somebody else's <b>");
    // The question is asked once more, too.
    let answer = fill(&world, "/policies/standard/remove", &[("version", &old)]);
    assert!(answer.status == 422 && answer.text().contains("look at it again"), "{}", answer.text());
    // What was removed can be added anew as it was typed.
    let body = format!("csrf={}&record=gone1&version={new}&remote=root%40gone1&server=b%40c&description=typed", csrf(&world, 3));
    let answer = send(&world, "/do/edit-client", &cookie(3), &body);
    let page = answer.text();
    assert!(answer.status == 422 && page.contains("was removed by somebody else") && page.contains("action=\"/do/add-client\""), "{page}");
    assert!(page.contains("value=\"gone1\"") && page.contains("value=\"typed\""), "{page}");
    assert!(borgcubed.asked().is_empty());
}

#[test]
fn a_policy_is_shown_before_it_is_stored() {
    let world = World::filled(people);
    let borgcubed = Borgcubed::listen(&world);
    // Two days keep the newest of each; three archives are there, and one day keeps fewer.
    let answer = fill(&world, "/policies/standard/edit", &[("keep_daily", "1")]);
    let page = answer.text();
    assert_eq!(answer.status, 200, "{page}");
    assert!(page.contains("Nothing is saved yet") && page.contains("web1/etc in main") && page.contains("goes"), "{page}");
    assert!(page.contains("web1-etc-2") && borgcubed.asked().is_empty(), "{page}");
    let seen = page.split("name=\"previewed\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    // Something else than was shown is shown first.
    assert_eq!(fill(&world, "/policies/standard/edit", &[("keep_daily", "9"), ("previewed", seen)]).status, 200);
    assert!(borgcubed.asked().is_empty());
    assert_eq!(fill(&world, "/policies/standard/edit", &[("keep_daily", "1"), ("previewed", seen)]).status, 303);
    assert_eq!(borgcubed.asked()[0]["call"]["parameters"]["policy"]["keep"], json!({ "daily": 1 }));
    // What decides nothing needs no preview, and programs ask for one if they want it.
    assert_eq!(fill(&world, "/policies/standard/edit", &[("description", "x")]).status, 303);
    let version = fields(&world, "/policies/standard/edit")["hidden"][1][1].clone();
    let mut body = json!({ "csrf": csrf(&world, 3), "record": "standard", "version": version, "keep_daily": 1, "preview": true });
    let json = format!("{}Content-Type: application/json\r\n", cookie(3));
    let shown: Value = serde_json::from_slice(&send(&world, "/api/v1/do/edit-policy", &json, &body.to_string()).body).unwrap();
    let group = &shown["preview"][0];
    assert_eq!(
        (group["config"].as_str(), group["changed"][0]["fate"].as_str(), group["changed"][0]["before"].as_str()),
        (Some("web1/etc"), Some("goes"), Some("kept"))
    );
    body.as_object_mut().unwrap().remove("preview");
    // A mistake in writing is not a value that was left out.
    let mut misspelt = body.clone();
    misspelt["keep_montly"] = json!(12);
    let answer = send(&world, "/api/v1/do/edit-policy", &json, &misspelt.to_string());
    assert!(answer.status == 400 && answer.text().contains("keep_montly"), "{}", answer.text());
    assert_eq!(send(&world, "/api/v1/do/edit-policy", &json, &body.to_string()).status, 200);
}

#[test]
fn a_record_with_the_name_of_a_form_is_found_all_the_same() {
    let world = World::filled(|store| {
        people(store);
        store.write("new", "root", |w| w.clients().insert(&records::client("new"))).unwrap();
    });
    assert!(look(&world, "/clients/new", &cookie(3)).text().contains("<h1>Client new</h1>"));
    assert!(look(&world, "/clients/new?form=add", &cookie(3)).text().contains("action=\"/do/add-client\""));
    assert!(look(&world, "/clients/new/edit", &cookie(3)).text().contains("action=\"/do/edit-client\""));
    assert!(look(&world, "/policies/new", &cookie(3)).text().contains("action=\"/do/add-policy\""));
}

#[test]
fn what_others_write_is_text_in_forms() {
    let world = World::filled(people);
    for evil in CORPUS {
        world
            .store
            .write("evil", "root", |w| {
                let text = evil.replace('\0', "\u{fffd}");
                w.clients().update(&"web2".parse().unwrap(), |client| {
                    client.description = text.clone();
                    Ok(())
                })?;
                w.configs().update(&"web1/etc".parse().unwrap(), |config| {
                    config.paths = vec![text.clone()];
                    config.excludes = vec![text.clone()];
                    Ok(())
                })?;
                w.schedules().update(&"nightly".parse().unwrap(), |schedule| {
                    let actions = |client: &str, label: &str| model::Action::RunConfigs { client: client.into(), label: label.into() };
                    schedule.actions = vec![actions(&text, &text), actions("web.*", ".*")];
                    Ok(())
                })?;
                w.policies().update(&"standard".parse().unwrap(), |policy| {
                    policy.description = text.clone();
                    policy.applies.push(model::retention::Scope::Configs { client: text.clone(), label: text.clone() });
                    Ok(())
                })
            })
            .unwrap();
        for (path, act) in FORMS {
            let page = look(&world, path, &cookie(3));
            assert_eq!(page.status, 200, "{path}: {}", page.text());
            hostile::check(path, &page.text(), evil);
            // Into every field at once; every one of them is wrong, and comes back.
            let form = fields(&world, path);
            let names = form["sections"].as_array().into_iter().flatten().flat_map(|section| section["fields"].as_array().unwrap());
            let names: Vec<String> = names.map(|field| field["name"].as_str().unwrap().to_owned()).collect();
            let typed: Vec<(&str, &str)> =
                names.iter().map(|name| (name.as_str(), *evil)).chain([("version", *evil), ("preview", "x")]).collect();
            hostile::check(act, &fill(&world, path, &typed).text(), evil);
            let typed: Vec<(&str, &str)> = typed.into_iter().filter(|(name, _)| *name != "version").collect();
            hostile::check(act, &fill(&world, path, &typed).text(), evil);
        }
        let query = hostile::form(evil);
        let body = format!("csrf={}&record={query}&client={query}&version=x", csrf(&world, 3));
        for (_, act) in FORMS {
            hostile::check(act, &send(&world, &format!("/do/{act}"), &cookie(3), &body).text(), evil);
        }
    }
}
