//! Watching what an agent's hooks print.

use metadata_delivery::message::{LOG_REQUEST, Log, LogPiece, LogPosition, LogRequest};

use super::*;
use crate::hub::agent_log::{AgentLog, Seen, Standing};

fn piece(from: u64, text: &str) -> LogPiece {
    LogPiece {
        config_id: "x".into(),
        name: "n".into(),
        run: 1,
        started_unix_ms: 1,
        from,
        to: from + text.len() as u64,
        text: text.into(),
        ended: false,
    }
}

fn log(request: u64, runs: Vec<LogPiece>) -> Log {
    Log { request, runs }
}

/// What a peer was asked for.
fn asked(actions: &[Action]) -> Vec<(u64, LogRequest)> {
    let requests = actions.iter().filter_map(|action| match action {
        Action::Offer(peer, document) if document.name.as_str() == LOG_REQUEST => {
            let request = LogRequest::from_body(&document.body).unwrap();
            assert_eq!(request.request, document.version);
            Some((peer.0, request))
        }
        _ => None,
    });
    requests.collect()
}

fn request(request: u64, wanted: bool) -> LogRequest {
    LogRequest { request, wanted, has: Vec::new() }
}

/// What is shown last.
fn shown(actions: &[Action]) -> Arc<AgentLog> {
    let logs = actions.iter().filter_map(|action| match action {
        Action::ShowLog(_, log) => Some(log.clone()),
        _ => None,
    });
    logs.last().unwrap_or_else(|| panic!("nothing shown: {actions:#?}"))
}

fn text(log: &AgentLog) -> String {
    log.news(&mut Seen::default()).into_iter().map(|news| news.text).collect()
}

fn refused(peer: u64, version: u64) -> Input {
    Input::PeerRefused {
        peer: PeerId(peer),
        name: Name::new(LOG_REQUEST).unwrap(),
        version,
        code: refusal::NAME,
        reason: "no".into(),
    }
}

#[test]
fn an_agent_is_asked_once_while_anybody_watches_and_told_when_nobody_does_any_more() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.connect(1, 1, "a");
    let first = bench.give(Input::Followed(agent("a")));
    assert_eq!(asked(&first), [(1, request(1, true))]);
    assert_eq!(shown(&first).standing, Standing::Asked);
    let second = bench.give(Input::Followed(agent("a")));
    assert_eq!((asked(&second), shown(&second).standing), (vec![], Standing::Asked));

    let log = log(1, vec![piece(0, "hello\n")]);
    let actions = bench.say(1, &log, 1);
    assert_eq!(
        (text(&shown(&actions)), shown(&actions).standing),
        ("hello\n".into(), Standing::Answered)
    );
    assert!(actions.contains(&Action::Confirm(PeerId(1), log.name(), 1)), "at once");

    assert_eq!(bench.give(Input::Unfollowed(agent("a"))), [], "one still does");
    let last = bench.give(Input::Unfollowed(agent("a")));
    assert_eq!(asked(&last), [(1, request(2, false))]);
    assert!(last.contains(&Action::HideLog(agent("a"))));
    assert_eq!(bench.give(Input::Unfollowed(agent("a"))), []);
    // What was under way is confirmed, and kept nowhere.
    let late = bench.say(1, &log, 2);
    assert_eq!(late, [Action::Confirm(PeerId(1), log.name(), 2)]);
}

#[test]
fn nobody_is_asked_unless_somebody_watches() {
    let mut bench = Bench::with_pins(&[(1, "a"), (2, "b")]);
    bench.give(Input::Followed(agent("a")));
    bench.begin(1, 1, "a");
    assert_eq!(asked(&bench.load(1, LoadedDocument::None)), [(1, request(1, true))]);
    bench.begin(2, 2, "b");
    assert_eq!(asked(&bench.load(2, LoadedDocument::None)), []);
    // Unasked, it is confirmed and not even read.
    let name = Name::new("log").unwrap();
    let unasked = Document { name: name.clone(), version: 1, body: Bytes::from_static(b"rubbish") };
    let actions = bench.give(Input::Received(PeerId(2), unasked));
    assert_eq!(actions, [Action::Confirm(PeerId(2), name, 1)]);
}

#[test]
fn an_agent_that_comes_back_is_asked_for_the_rest() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    let away = bench.give(Input::Followed(agent("a")));
    assert_eq!((asked(&away), shown(&away).standing), (vec![], Standing::Away));
    bench.begin(1, 1, "a");
    bench.load(1, LoadedDocument::None);
    bench.say(1, &log(1, vec![piece(0, "one\n")]), 1);
    let gone = bench.give(Input::Gone(PeerId(1), "lost".into()));
    assert_eq!((text(&shown(&gone)), shown(&gone).standing), ("one\n".into(), Standing::Away));
    bench.begin(2, 1, "a");
    let back = bench.load(2, LoadedDocument::None);
    let has = vec![LogPosition { config_id: "x".into(), run: 1, to: 4 }];
    assert_eq!(asked(&back), [(2, LogRequest { has, ..request(2, true) })]);
    let stale = bench.say(2, &log(1, vec![piece(0, "one\n")]), 1);
    assert!(matches!(stale[..], [Action::Confirm(..)]), "of an earlier request: {stale:#?}");
    let actions = bench.say(2, &log(2, vec![piece(4, "two\n")]), 2);
    assert_eq!(text(&shown(&actions)), "one\ntwo\n");
}

#[test]
fn an_agent_of_an_older_release_is_said_to_be_unable_and_asked_again_on_another_connection() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.connect(1, 1, "a");
    bench.give(Input::Followed(agent("a")));
    let actions = bench.give(refused(1, 1));
    assert_eq!(shown(&actions).standing, Standing::Unable);
    assert!(!actions.iter().any(|action| matches!(action, Action::Tell(_) | Action::Close(..))));
    let last = bench.give(Input::Unfollowed(agent("a")));
    assert_eq!(last, [Action::HideLog(agent("a"))], "there is nothing to stop");
    bench.give(Input::Followed(agent("a")));
    assert_eq!(bench.give(refused(1, 1)), [], "of the request before");
    bench.give(Input::Gone(PeerId(1), "lost".into()));
    bench.begin(2, 1, "a");
    assert_eq!(asked(&bench.load(2, LoadedDocument::None)).len(), 1);
}

#[test]
fn what_is_no_log_is_refused_while_somebody_watches() {
    let mut bench = Bench::with_pins(&[(1, "a")]);
    bench.connect(1, 1, "a");
    bench.give(Input::Followed(agent("a")));
    let name = Name::new("log").unwrap();
    let rubbish = Document { name, version: 1, body: Bytes::from_static(b"rubbish") };
    let actions = bench.give(Input::Received(PeerId(1), rubbish));
    assert!(actions.iter().any(|a| matches!(a, Action::Refuse { .. })), "{actions:#?}");
}

#[test]
fn those_who_watch_are_limited_in_number() {
    let mut bench = Bench::with_pins(&[]);
    for n in 0..FOLLOWED_AGENTS_MAX {
        bench.core.may_follow(&agent(&format!("a{n}"))).unwrap();
        bench.give(Input::Followed(agent(&format!("a{n}"))));
    }
    assert_eq!(bench.core.may_follow(&agent("more")), Err(NotFollowed::TooManyAgents));
    for _ in 1..FOLLOWERS_PER_AGENT_MAX {
        bench.core.may_follow(&agent("a0")).unwrap();
        bench.give(Input::Followed(agent("a0")));
    }
    assert_eq!(bench.core.may_follow(&agent("a0")), Err(NotFollowed::TooManyFollowers));
    bench.give(Input::Unfollowed(agent("a0")));
    bench.give(Input::Unfollowed(agent("a1")));
    bench.core.may_follow(&agent("a0")).unwrap();
    bench.core.may_follow(&agent("more")).unwrap();
}

/// Every standing against everything that may happen.
#[test]
fn the_standings_of_a_watched_agent_are_these() {
    type Step = fn(&mut Bench) -> Vec<Action>;
    let steps: [(&str, Step); 7] = [
        ("connected", |bench| {
            bench.begin(1, 1, "a");
            bench.load(1, LoadedDocument::None)
        }),
        ("answers", |bench| {
            let request = bench.core.follows_request(&agent("a"));
            bench.say(1, &log(request, vec![]), 1)
        }),
        ("answers an older request", |bench| bench.say(1, &log(0, vec![]), 2)),
        ("refuses", |bench| {
            let version = bench.core.follows_request(&agent("a"));
            bench.give(refused(1, version))
        }),
        ("is gone", |bench| bench.give(Input::Gone(PeerId(1), "lost".into()))),
        ("one more watches", |bench| bench.give(Input::Followed(agent("a")))),
        ("nobody watches", |bench| bench.give(Input::Unfollowed(agent("a")))),
    ];
    let reach: [&[usize]; 4] = [&[], &[0], &[0, 1], &[0, 3]];
    let mut table = String::new();
    for path in reach {
        for (name, step) in &steps {
            let mut bench = Bench::with_pins(&[(1, "a")]);
            bench.give(Input::Followed(agent("a")));
            for step in path {
                steps[*step].1(&mut bench);
            }
            let before = bench.core.follows_standing(&agent("a"));
            if before != Some(Standing::Away) && *name == "connected" {
                continue;
            }
            let actions = step(&mut bench);
            let wanted: Vec<bool> = asked(&actions).iter().map(|(_, asked)| asked.wanted).collect();
            let after = bench.core.follows_standing(&agent("a"));
            table += &format!("{before:?} + {name}: {after:?}, asks {wanted:?}\n");
        }
    }
    insta::assert_snapshot!(table);
}
