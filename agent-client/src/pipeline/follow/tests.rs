use metadata_delivery::message::{LOG_BYTES_MAX, LogPosition};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn request(request: u64, wanted: bool) -> LogRequest {
    LogRequest { request, wanted, has: Vec::new() }
}

fn key(id: &str) -> Key {
    (id.into(), 1)
}

fn printed<'r>(id: &str, from: u64, bytes: &[u8], redactor: &'r Redactor) -> Printed<'r> {
    let (name, bytes) = (format!("name of {id}"), bytes.to_vec());
    Printed { key: key(id), name, started_unix_ms: 1, from, bytes, redactor }
}

/// Runs whose whole output is at hand.
struct World {
    follow: Follow,
    now: Instant,
    redactor: Redactor,
    outputs: Vec<(&'static str, Vec<u8>)>,
}

impl World {
    fn new(secret: &str) -> Self {
        let redactor = Redactor::new([("password", &json!(secret))]);
        Self { follow: Follow::new(), now: Instant::now(), redactor, outputs: Vec::new() }
    }

    fn of_one(output: &[u8]) -> Self {
        Self { outputs: vec![("a", output.to_vec())], ..Self::new("") }
    }

    fn print(&mut self, which: usize, bytes: &[u8]) {
        self.outputs[which].1.extend_from_slice(bytes);
        self.follow.news();
    }

    fn at_hand<'r>(
        follow: &Follow,
        id: &str,
        output: &[u8],
        redactor: &'r Redactor,
    ) -> Printed<'r> {
        let from = follow.position(&key(id)).min(output.len() as u64);
        let from = from.max(output.len().saturating_sub(LOG_TEXT_BYTES_MAX) as u64);
        printed(id, from, &output[from as usize..], redactor)
    }

    fn make(&mut self) -> Option<Log> {
        let Self { follow, outputs, redactor, .. } = self;
        let running = outputs.iter().map(|(id, o)| Self::at_hand(follow, id, o, redactor));
        let running = running.collect();
        follow.make(self.now, running)
    }

    fn end(&mut self, which: usize) {
        let (id, output) = self.outputs.remove(which);
        let printed = Self::at_hand(&self.follow, id, &output, &self.redactor);
        self.follow.ended(printed);
    }

    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }
}

fn texts(log: Option<Log>) -> Vec<(u64, u64, String)> {
    let pieces = log.into_iter().flat_map(|log| log.runs);
    pieces.map(|piece| (piece.from, piece.to, piece.text)).collect()
}

#[test]
fn every_transition_is_as_drawn() {
    type Input = (&'static str, fn(&mut World) -> Option<Log>);
    let inputs: [Input; 7] = [
        ("asked", |w| {
            w.follow.asked(&request(1, true));
            None
        }),
        ("asked to stop", |w| {
            w.follow.asked(&request(2, false));
            None
        }),
        ("cut off", |w| {
            w.follow.cut_off();
            None
        }),
        ("news", |w| {
            w.print(0, b"more\n");
            None
        }),
        ("time", |w| {
            w.wait(LOG_INTERVAL_MS);
            w.make()
        }),
        ("taken", |w| {
            w.follow.taken(1);
            None
        }),
        ("another request's taken", |w| {
            w.follow.taken(9);
            None
        }),
    ];
    let reach: [(&str, &[usize]); 4] =
        [("off", &[]), ("asked", &[0]), ("under way", &[0, 4]), ("taken, no news", &[0, 4, 5])];
    let mut table = String::new();
    for (reached, steps) in reach {
        for (name, input) in &inputs {
            let mut world = World::of_one(b"line\n");
            for step in steps {
                inputs[*step].1(&mut world);
            }
            let from = world.follow.state;
            let sent = if input(&mut world).is_some() { ", sends" } else { "" };
            table += &format!("{reached} ({from:?}) + {name}: {:?}{sent}\n", world.follow.state);
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn nothing_is_sent_unasked_and_every_request_is_answered_even_if_nothing_runs() {
    let mut world = World::of_one(b"line\n");
    world.follow.news();
    assert_eq!(world.follow.next_at(world.now), None);
    assert_eq!(world.make(), None);
    world.outputs.clear();
    world.follow.asked(&request(3, true));
    assert_eq!(world.make(), Some(Log { request: 3, runs: vec![] }));
    world.follow.taken(3);
    world.wait(10_000);
    assert_eq!(world.make(), None, "nothing is new");
    world.outputs.push(("a", Vec::new()));
    world.follow.news();
    assert_eq!(texts(world.make()), [(0, 0, String::new())], "a run that has printed nothing yet");
}

#[test]
fn what_is_printed_while_one_is_under_way_goes_with_the_next_however_much_that_is() {
    let mut world = World::of_one(b"one\n");
    world.follow.asked(&request(1, true));
    assert_eq!(texts(world.make()), [(0, 4, "one\n".into())]);
    for line in 0..1000 {
        world.wait(100);
        world.print(0, format!("{line}\n").as_bytes());
        assert_eq!(world.make(), None, "one at a time");
    }
    world.follow.taken(1);
    let [(from, _, text)] = &texts(world.make())[..] else { panic!() };
    assert_eq!((*from, text.lines().count()), (4, 1000));

    world.follow.taken(1);
    world.wait(LOG_INTERVAL_MS);
    world.print(0, &vec![b'x'; 10 * LOG_TEXT_BYTES_MAX]);
    let [(from, to, text)] = &texts(world.make())[..] else { panic!() };
    assert_eq!((to - from, text.len()), (LOG_TEXT_BYTES_MAX as u64, LOG_TEXT_BYTES_MAX));
    assert_eq!(*to, world.outputs[0].1.len() as u64, "the end, and a gap before");
}

#[test]
fn logs_keep_their_distance_also_if_asked_for_again_and_again() {
    let mut world = World::of_one(b"one\n");
    let mut sent = 0;
    for n in 0..1000 {
        world.follow.asked(&request(n, true));
        world.print(0, b"x");
        sent += u64::from(world.make().is_some());
        world.follow.taken(n);
        world.wait(10);
    }
    assert_eq!(sent, 1000 * 10 / LOG_INTERVAL_MS);
}

#[test]
fn a_request_that_says_what_the_server_has_is_answered_with_the_rest() {
    let mut world = World::of_one(b"one\ntwo\n");
    let has = vec![
        LogPosition { config_id: "a".into(), run: 1, to: 4 },
        LogPosition { config_id: "gone".into(), run: 1, to: 9 },
    ];
    world.follow.asked(&LogRequest { has, ..request(1, true) });
    assert_eq!(texts(world.make()), [(4, 8, "two\n".into())]);
}

#[test]
fn the_end_of_a_run_is_sent_whole_and_once() {
    let mut world = World::of_one(b"one\n");
    world.follow.asked(&request(1, true));
    world.make();
    world.print(0, b"no newline \xe2\x82");
    world.end(0);
    world.wait(LOG_INTERVAL_MS);
    assert_eq!(world.make(), None, "the first is still under way");
    world.follow.taken(1);
    let log = world.make().unwrap();
    assert!(log.runs[0].ended);
    assert_eq!(texts(Some(log)), [(4, 17, "no newline \u{fffd}".into())]);
    world.follow.taken(1);
    world.follow.news();
    world.wait(LOG_INTERVAL_MS);
    assert_eq!(world.make(), None);
}

#[test]
fn ends_of_runs_are_kept_only_while_somebody_watches_and_only_so_many() {
    let mut world = World::of_one(b"one\n");
    world.end(0);
    assert!(world.follow.ended.is_empty());
    world.follow.asked(&request(1, true));
    world.make();
    let ids = ["b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];
    for id in ids {
        world.outputs = vec![(id, id.as_bytes().to_vec())];
        world.end(0);
    }
    world.follow.taken(1);
    world.wait(LOG_INTERVAL_MS);
    let sent: Vec<String> = texts(world.make()).into_iter().map(|(_, _, text)| text).collect();
    assert_eq!(sent, ids[ids.len() - ENDED_MAX..]);
    world.follow.cut_off();
    assert!(world.follow.ended.is_empty() && world.follow.has.is_empty());
}

#[test]
fn runs_share_a_log_and_none_is_left_out_for_good() {
    let mut world = World::new("");
    let ids: [&'static str; 4] = ["a", "b", "c", "d"];
    // What JSON makes six times as long.
    world.outputs = ids.map(|id| (id, vec![1; 50_000])).to_vec();
    world.follow.asked(&request(1, true));
    let log = world.make().unwrap();
    assert_eq!(log.runs.len(), 4);
    assert!(log.runs.iter().all(|piece| piece.to == 50_000 && piece.text.len() >= 1024));
    assert!(log.to_document(1).unwrap().body.len() <= LOG_BYTES_MAX);

    let long = |n: usize| format!("{n:04}{}", "x".repeat(1000));
    let pieces: Vec<LogPiece> = (0..100)
        .map(|n| piece(printed(&long(n), 0, b"line\n", &world.redactor), 0, 9, true))
        .collect();
    let (first, later) = fitting(1, pieces.clone());
    assert!(first.to_document(1).is_ok() && !first.runs.is_empty());
    assert_eq!([first.runs, later].concat(), pieces, "in their order");
}

#[test]
fn a_secret_is_hidden_wherever_logs_meet() {
    let secret = "correct-horse";
    for cut in 0..=secret.len() {
        let mut world = World::new(secret);
        world.outputs = vec![("a", [b"it is ", &secret.as_bytes()[..cut]].concat())];
        world.follow.asked(&request(1, true));
        let mut shown: String = texts(world.make()).into_iter().map(|(_, _, text)| text).collect();
        world.follow.taken(1);
        world.wait(LOG_INTERVAL_MS);
        world.print(0, [&secret.as_bytes()[cut..], ", said ä".as_bytes()].concat().as_slice());
        shown.extend(texts(world.make()).into_iter().map(|(_, _, text)| text));
        assert_eq!(shown, "it is (hidden), said ä", "cut at {cut}");
    }
    // Where output is left out, it may begin within a secret.
    let mut world = World::new(secret);
    let after = "x".repeat(LOG_TEXT_BYTES_MAX - 6);
    world.outputs = vec![("a", format!("it is {secret}{after}").into_bytes())];
    world.follow.asked(&request(1, true));
    assert_eq!(texts(world.make())[0].2, format!("(hidden){after}"));
}

#[test]
fn what_only_looks_like_a_secrets_beginning_is_shown_in_the_end() {
    let mut world = World::new(&"y".repeat(2 * HELD_BACK_BYTES_MAX));
    world.outputs = vec![("a", [vec![b'y'; HELD_BACK_BYTES_MAX], b"no".to_vec()].concat())];
    world.follow.asked(&request(1, true));
    assert!(texts(world.make())[0].2.ends_with("no"));
    world.follow.taken(1);
    world.wait(LOG_INTERVAL_MS);
    world.print(0, &[b'y'; 100]);
    assert_eq!(world.make(), None, "it may be the secret");
    world.print(0, b"!");
    assert!(texts(world.make())[0].2.ends_with("y!"));
}

proptest! {
    /// Whatever is printed, in whatever pieces: put together it is what was printed, as text.
    #[test]
    fn logs_put_together_are_the_output(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 1..20),
    ) {
        let mut world = World::of_one(b"");
        world.follow.asked(&request(1, true));
        let (mut shown, mut position) = (String::new(), 0);
        for piece in &pieces {
            world.print(0, piece);
            for (from, to, text) in texts(world.make()) {
                prop_assert_eq!(from, position);
                position = to;
                shown.push_str(&text);
            }
            world.follow.taken(1);
            world.wait(LOG_INTERVAL_MS);
        }
        world.end(0);
        for (from, _, text) in texts(world.make()) {
            prop_assert_eq!(from, position);
            shown.push_str(&text);
        }
        // Bytes that are no text may be replaced one by one, or several at once, depending on where they are cut.
        let plain = |text: &str| text.replace(char::REPLACEMENT_CHARACTER, "");
        prop_assert_eq!(plain(&shown), plain(&String::from_utf8_lossy(&pieces.concat())));
    }
}
