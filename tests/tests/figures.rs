//! Every figure that a page shows, beside the same figure of the API, of the metrics, and what stock borg says of the repository.
//!
//! Nothing here is made up: the records are those of real backups.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use testkit::borgs::Borg;
use testkit::system::TestSystem;
use testkit::tree::{Random, Spec, make};
use testkit::world::BorgWorld;
use tests::web::{api, get, page};
use tests::{number, text};

/// Original, compressed, and newly stored bytes.
type Sums = [u64; 3];
const SIZES: [&str; 3] = ["original_size", "compressed_size", "deduplicated_size"];

fn sums(sizes: &Value) -> Sums {
    SIZES.map(|figure| number(sizes, figure))
}

fn sum(all: impl Iterator<Item = Sums>) -> Sums {
    all.fold([0; 3], |sum, one| [sum[0] + one[0], sum[1] + one[1], sum[2] + one[2]])
}

/// What stands in a cell, without markup.
fn plain(html: &str) -> String {
    let mut text = String::new();
    let mut inside = true;
    for c in html.chars() {
        match c {
            '<' => inside = false,
            '>' => inside = true,
            c if inside => text.push(c),
            _ => {}
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The cells of a row by their labels; the row is told by the link in its first cell.
#[track_caller]
fn row(page: &str, link: &str) -> BTreeMap<String, String> {
    let is_it = |row: &&str| row.split("</th>").next().is_some_and(|head| head.contains(&format!("href=\"{link}\"")));
    let row = page.split("<tr").skip(1).find(is_it).unwrap_or_else(|| panic!("no row of {link} in {page}"));
    let row = row.split("</tr>").next().unwrap();
    let cells = row.split("<td data-label=\"").skip(1);
    cells
        .map(|cell| {
            let (label, rest) = cell.split_once('"').unwrap();
            (label.to_owned(), plain(rest.split_once('>').unwrap().1.split("</td>").next().unwrap()))
        })
        .collect()
}

/// The pairs of all lists of terms.
fn facts(page: &str) -> BTreeMap<String, String> {
    let pairs = page.split("<dt>").skip(1).filter_map(|pair| pair.split_once("</dt>"));
    pairs.map(|(term, rest)| (term.to_owned(), plain(rest.split("</dd>").next().unwrap()))).collect()
}

/// As the pages write bytes.
fn bytes(size: u64) -> String {
    status::text::bytes(&size)
}

/// As the pages write numbers.
fn count(number: u64) -> String {
    plain(&status::text::number(&number))
}

/// Samples by name and labels.
fn metrics(system: &TestSystem) -> BTreeMap<String, f64> {
    let text = get(system, "/metrics").1;
    let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    samples.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

/// What stock borg says of an archive.
struct Stock {
    id: String,
    files: u64,
    sums: Sums,
}

struct Scene {
    system: TestSystem,
    world: BorgWorld,
    borg: Borg,
    repository: PathBuf,
}

impl Scene {
    /// Two clients with mostly the same files; three configs, one of which is gone while its archive is still there; and a client without any. Gives
    /// what stock borg says of each archive, the oldest first.
    fn new() -> (Scene, Vec<Stock>) {
        let system = TestSystem::start();
        let repository = system.add_repository("main", "none", None);
        let source = system.join("source");
        make(&source, Spec::default());
        let world = BorgWorld::new();
        let borg = Borg::judges().into_iter().next().expect("a borg to judge");
        for (client, label) in [("one", "all"), ("one", "gone"), ("two", "all")] {
            if label == "all" {
                system.add_local_client(client);
            }
            system.add_config(client, label, "main", &[], &[&source]);
        }
        system.add_local_client("new");
        let mut stock = vec![];
        let mut before = [0; 2];
        for (at, config) in ["one/all", "one/gone", "two/all"].into_iter().enumerate() {
            fs::write(source.join("own"), Random::new(at as u64).bytes(200_000)).unwrap();
            system.run_ok(config);
            system.settle();
            let info = borg.info_json(&world, &repository, Some(text(&tests::newest_archive(&system), "name"))).unwrap();
            let archive = &info["archives"][0];
            // What the whole repository takes now: all chunks once, and as often as they are in archives.
            let now = ["unique_csize", "total_csize"].map(|figure| number(&info["cache"]["stats"], figure));
            let [stored, compressed] = [0, 1].map(|at| now[at] - before[at]);
            stock.push(Stock {
                id: text(archive, "id").to_owned(),
                files: number(&archive["stats"], "nfiles"),
                sums: [number(&archive["stats"], SIZES[0]), compressed, stored],
            });
            before = now;
        }
        system.cli_ok(&["config", "remove", "one/gone"]);
        let nowhere = ["--remote", "root@127.0.0.1", "--server", "x@127.0.0.1", "--rsh-option=-p", "--rsh-option=1"];
        system.cli_ok(&[&["client", "add", "away"][..], &nowhere].concat());
        system.add_config("away", "all", "main", &[], &[&source]);
        assert!(!system.run("away/all").status.success());
        (Scene { system, world, borg, repository }, stock)
    }
}

/// Bytes of the files below a directory.
fn size(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().unwrap().len() }).sum()
}

/// What the repository `main` takes up: what is recorded, and so on its page, in the API, in the metrics and on the command line, beside its files and
/// what stock borg says of it. Gives its segment files, what of them can be freed, and what is unique, in bytes.
///
/// `more`: a file's chunk is in the repository with so many bytes more than the lists of files say, from which stock borg knows its size. They are written
/// by clients, which encrypt nothing.
#[track_caller]
fn compare_space(system: &TestSystem, borg: &Borg, world: &BorgWorld, repository: &Path, more: u64) -> [u64; 3] {
    let stats = borg.info_json(world, repository, None).unwrap()["cache"]["stats"].clone();
    let archives = borg.archives(world, repository).unwrap();
    let lists = || archives.iter().flat_map(|archive| borg.item_chunks(world, repository, archive).unwrap());
    let chunks = number(&stats, "total_unique_chunks");
    let of_files = if more == 0 { 0 } else { chunks - archives.len() as u64 - lists().collect::<BTreeSet<_>>().len() as u64 };
    let unique = number(&stats, "unique_csize") + more * of_files;
    let segments = size(&repository.join("data"));

    let page = api(system, "/repositories/main");
    let space = &page["repository"]["space"];
    assert_eq!([number(space, "segment_bytes"), number(space, "unique_bytes"), number(space, "chunks")], [segments, unique, chunks]);
    assert_eq!(page["space_history"].as_array().unwrap().last(), Some(space));
    let freeable = number(space, "freeable_bytes");
    // Everything in the files is one of these: see `repository::Usage`. How many files there are, and how long the manifest is, is left.
    let rest = segments - freeable - unique - 41 * (chunks + 1);
    assert!((100..5_000).contains(&rest), "{rest} bytes of {segments}: {space}");
    let shown = facts(&tests::web::page(system, "/repositories/main"));
    assert_eq!(shown["On disk"], format!("{}, of which {} can be freed by a compact", bytes(segments), bytes(freeable)));
    assert_eq!(shown["Unique"], format!("{} in {} chunks", bytes(unique), count(chunks)));
    let cells = row(&tests::web::page(system, "/repositories"), "/repositories/main");
    assert_eq!([&cells["On disk"], &cells["Unique"]], [&bytes(segments), &bytes(unique)]);
    let original = number(&page["repository"]["sizes"], "original_size");
    assert_eq!(cells["Saved"], status::text::saved(&original, &unique).unwrap());
    let metrics = metrics(system);
    for (metric, value) in [("segment_bytes", segments), ("freeable_bytes", freeable), ("unique_bytes", unique), ("chunks", chunks)] {
        assert_eq!(metrics[&format!("borgcube_repository_{metric}{{repository=\"main\"}}")], value as f64, "{metric}");
    }
    let told = system.cli_json(&["repository", "show", "main"]);
    let figures = ["segments", "freeable", "unique", "chunks"].map(|figure| number(&told["space"], figure));
    assert_eq!(figures, [segments, freeable, unique, chunks]);
    assert_eq!(number(&told["archives"], "count"), archives.len() as u64);
    assert_eq!(number(&told["archives"], "original_size"), original);
    assert_eq!(told["archives"]["compressed_size"], page["repository"]["sizes"]["compressed_size"]);
    assert!((told["ratio"].as_f64().unwrap() - original as f64 / unique as f64).abs() < 1e-9, "{told}");
    let card = system.cli_ok(&["repository", "show", "main"]);
    assert!(card.contains(&format!("{}, of which a compact can free {}", bytes(segments), bytes(freeable))), "{card}");
    assert!(card.contains(&format!("{} in {chunks} chunks", bytes(unique))), "{card}");
    [segments, freeable, unique]
}

/// Deletes an archive and gives its space back, and compares after each. `unique`: what it was before.
#[track_caller]
fn compare_after_deletion(system: &TestSystem, borg: &Borg, world: &BorgWorld, repository: &Path, archive: &str, unique: u64, more: u64) {
    system.cli_ok(&["archive", "delete", archive, "--now", "--yes"]);
    system.settle();
    let [segments, freeable, left] = compare_space(system, borg, world, repository, more);
    assert!(left + 200_000 < unique && freeable > 200_000, "{left} of {unique}, {freeable}");
    system.cli_ok(&["repository", "compact", "main", "--threshold", "1"]);
    system.settle();
    let [compacted, rest, same] = compare_space(system, borg, world, repository, more);
    assert!(same == left && compacted + 200_000 < segments && rest < 10_000, "{compacted} of {segments}, {rest}");
}

#[test]
fn encrypted_repositories_are_as_large_as_stock_borg_says() {
    // What a chunk of a file has before its content: how it is encrypted; and then also 32 bytes against changes, and 8 that are used once.
    for (mode, overhead) in [("repokey-blake2", 41), ("authenticated-blake2", 1)] {
        let system = TestSystem::start();
        let repository = system.add_repository("main", mode, Some("correct horse battery staple"));
        let world = BorgWorld::with_passphrase("correct horse battery staple");
        let borg = Borg::judges().into_iter().next_back().expect("a borg to judge");
        let source = system.join("source");
        make(&source, Spec::default());
        system.add_local_client("one");
        system.add_config("one", "all", "main", &[], &[&source]);
        let mut before = 0;
        let mut names = vec![];
        for seed in 0..2 {
            fs::write(source.join("own"), Random::new(seed).bytes(200_000)).unwrap();
            system.run_ok("one/all");
            system.settle();
            let [_, _, unique] = compare_space(&system, &borg, &world, &repository, overhead - 1);
            let archive = tests::newest_archive(&system);
            assert_eq!(number(&archive["statistics"], "deduplicated_size"), unique - before, "{mode}: {archive}");
            before = unique;
            names.push(text(&archive, "name").to_owned());
            tests::wait_for_another_second();
            if overhead == 1 {
                break;
            }
        }
        if let [first, _] = &names[..] {
            compare_after_deletion(&system, &borg, &world, &repository, first, before, overhead - 1);
        }
    }
}

#[test]
fn pages_api_metrics_and_stock_borg_agree() {
    let (scene, stock) = Scene::new();
    let system = &scene.system;
    let metrics = metrics(system);
    let whole = sum(stock.iter().map(|stock| stock.sums));

    // Each archive: in the list, on its own page, and its job.
    let listed = api(system, "/archives")["archives"].as_array().unwrap().clone();
    assert_eq!(listed.len(), stock.len());
    let mut of: BTreeMap<&str, Vec<Sums>> = BTreeMap::new();
    let (archives, jobs) = (page(system, "/archives"), page(system, "/jobs"));
    for (archive, stock) in listed.iter().rev().zip(&stock) {
        let (id, job) = (text(archive, "id"), number(archive, "job"));
        let statistics = &archive["statistics"];
        let (files, figures) = (stock.files, stock.sums);
        assert_eq!((id, number(statistics, "nfiles"), sums(statistics)), (stock.id.as_str(), files, figures));
        let address = format!("/archives/main/{id}");
        assert_eq!(&api(system, &address)["archive"], archive);
        let job_record = api(system, &format!("/jobs/{job}"))["job"].clone();
        assert_eq!(&job_record["statistics"], statistics);
        let took = status::text::duration(&archive["duration"].as_f64().unwrap());
        let [original, compressed, new] = figures.map(bytes);
        let cells = row(&archives, &address);
        assert_eq!([&cells["Size"], &cells["Compressed"], &cells["New"]], [&original, &compressed, &new]);
        assert_eq!((&cells["Files"], &cells["Took"]), (&count(files), &took));
        let shown = page(system, &address);
        let shown_facts = facts(&shown);
        assert_eq!([&shown_facts["Size"], &shown_facts["Compressed"], &shown_facts["Newly stored"]], [&original, &compressed, &new]);
        assert_eq!(shown_facts["Files"], count(files));
        for figure in figures {
            assert!(shown.contains(&format!("title=\"{figure} bytes\"")), "{figure} is not on {address}");
        }
        let shown = facts(&page(system, &format!("/jobs/{job}")));
        assert_eq!((&shown["Size"], &shown["Newly stored"]), (&format!("{original}, compressed {compressed}"), &new));
        assert_eq!(shown["Files"], count(files));
        let cells = row(&jobs, &format!("/jobs/{job}"));
        assert_eq!((&cells["Size"], &cells["New"]), (&original, &new));
        assert_eq!(cells["Took"], status::text::duration(&job_record["duration"].as_f64().unwrap()));
        of.entry(if text(archive, "client") == "one" { "one" } else { "two" }).or_default().push(figures);
    }

    // The repository: its sums, and what it takes, are stock borg's.
    let repository = api(system, "/repositories/main")["repository"].clone();
    assert_eq!(sums(&repository["sizes"]), whole);
    assert_eq!(number(&repository["sizes"], "archives"), 3);
    assert_eq!(api(system, "/repositories")["repositories"][0], repository);
    let cells = row(&page(system, "/repositories"), "/repositories/main");
    let [original, compressed, new] = whole.map(bytes);
    assert_eq!([&cells["Size"], &cells["Compressed"], &cells["Archives"]], [&original, &compressed, &count(3)]);
    // As long as nothing was deleted, this is the same.
    assert_eq!(cells["Unique"], new);
    let shown = facts(&page(system, "/repositories/main"));
    assert_eq!(shown["Size of their files"], format!("{original}, compressed {compressed}"));
    assert_eq!((&shown["Newly stored for them"], &shown["Archives"]), (&new, &count(3)));
    for (at, figure) in ["original", "compressed", "deduplicated"].into_iter().enumerate() {
        assert_eq!(metrics[&format!("borgcube_repository_{figure}_bytes{{repository=\"main\"}}")], whole[at] as f64, "{figure}");
    }
    assert_eq!(metrics["borgcube_repository_archives{repository=\"main\"}"], 3.0);

    // Clients and their configs.
    let clients = api(system, "/clients")["clients"].clone();
    let list = page(system, "/clients");
    for client in clients.as_array().unwrap() {
        let name = text(client, "name");
        let archives = of.get(name).cloned().unwrap_or_default();
        let sum = sum(archives.iter().copied());
        assert_eq!((number(&client["sizes"], "archives"), sums(&client["sizes"])), (archives.len() as u64, sum), "{name}");
        let one = api(system, &format!("/clients/{name}"));
        assert_eq!(&one["client"], client);
        assert_eq!(one["archives"].as_array().unwrap().len(), archives.len());
        let cells = row(&list, &format!("/clients/{name}"));
        assert_eq!([&cells["Archives"], &cells["Size"], &cells["Stored"]], [&count(archives.len() as u64), &bytes(sum[0]), &bytes(sum[2])]);
        assert_eq!(cells["Configs"], count(number(client, "configs")));
        let shown = facts(&page(system, &format!("/clients/{name}")));
        assert_eq!(shown["Archives"], format!("{}, {}, stored {}", count(archives.len() as u64), bytes(sum[0]), bytes(sum[2])));
        for config in one["configs"].as_array().unwrap() {
            let label = text(config, "label");
            let mine = |archive: &&Value| archive["client"] == name && archive["label"] == label;
            let newest = listed.iter().find(mine);
            let sizes: Vec<Sums> = listed.iter().filter(mine).map(|archive| sums(&archive["statistics"])).collect();
            let counted = (number(&config["sizes"], "archives"), sums(&config["sizes"]));
            assert_eq!(counted, (sizes.len() as u64, self::sum(sizes.into_iter())), "{name}/{label}");
            assert_eq!(config["last_good"], newest.map_or(Value::Null, |newest| newest["end"].clone()));
            let metric = |metric: &str| {
                metrics.get(&format!("borgcube_{metric}{{client=\"{name}\",label=\"{label}\",repository=\"main\"}}")).copied()
            };
            assert_eq!(metric("config_archives"), Some(number(&config["sizes"], "archives") as f64));
            assert_eq!(metric("target_age_seconds"), Some(number(config, "target_age_hours") as f64 * 3600.0));
            assert_eq!(metric("target_age_exceeded"), Some(if config["overdue"] == true { 1.0 } else { 0.0 }));
            assert_eq!(metric("last_job_failed"), Some(if name == "away" { 1.0 } else { 0.0 }));
            let of_newest = |figure: &str| newest.map(|newest| number(&newest["statistics"], figure) as f64);
            assert_eq!(metric("last_backup_original_bytes"), of_newest(SIZES[0]));
            assert_eq!(metric("last_backup_deduplicated_bytes"), of_newest(SIZES[2]));
            assert_eq!(metric("last_backup_duration_seconds"), newest.map(|newest| newest["duration"].as_f64().unwrap()));
            assert_eq!(metric("last_success_timestamp_seconds"), newest.map(|newest| number(newest, "end") as f64 / 1e6));
        }
    }

    // The dashboard adds it all up.
    let totals = api(system, "/dashboard")["totals"].clone();
    let shown = facts(&page(system, "/"));
    let about = api(system, "/about");
    let counted = [
        ("archives", "Archives", "borgcube_archives", 3),
        ("clients", "Clients", "borgcube_clients", 4),
        ("repositories", "Repositories", "", 1),
        ("configs", "", "", 3),
        ("running", "", "borgcube_jobs_running", 0),
        ("queued", "", "borgcube_jobs_queued", 0),
    ];
    for (figure, term, metric, value) in counted {
        assert_eq!(number(&totals, figure), value, "{figure}");
        assert!(term.is_empty() || shown[term] == count(value), "{term}: {shown:?}");
        assert!(metric.is_empty() || metrics[metric] == value as f64, "{metric}");
    }
    for (figure, term, metric, value) in
        [("total_data", "Total data", "borgcube_original_bytes", whole[0]), ("stored", "Stored", "borgcube_deduplicated_bytes", whole[2])]
    {
        assert_eq!((number(&totals, figure), &shown[term], metrics[metric]), (value, &bytes(value), value as f64), "{figure}");
    }
    // Midnight may come between two looks.
    let today = number(&totals, "backups_today");
    assert!(today <= 3 && number(&api(system, "/dashboard")["totals"], "backups_today") <= today);
    assert!(shown["Backups today"] == count(today) || today < 3, "{shown:?}");
    assert_eq!((number(&about, "archives"), number(&about, "jobs")), (3, 4));
    let shown = facts(&page(system, "/about"));
    assert!(shown["Records"].starts_with("4 jobs, 3 archives, "), "{shown:?}");
    assert_eq!(number(&about, "transactions"), api(system, "/log?limit=1")["entries"][0]["transaction"].as_u64().unwrap());

    // Last, because it changes all that.
    let Scene { world, borg, repository, .. } = &scene;
    let [_, _, unique] = compare_space(system, borg, world, repository, 0);
    let second = api(system, "/archives")["archives"][1].clone();
    compare_after_deletion(system, borg, world, repository, text(&second, "name"), unique, 0);
}
