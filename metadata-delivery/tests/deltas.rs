//! What a change costs on the wire, and what happens when a delta cannot be used.

use std::time::Duration;

use dtls_channel::testing::LinkConfig;
use metadata_delivery::testing::{
    self,
    End::{Agent, Server},
    Pair, heat, lossy, name,
};
use metadata_delivery::{Base, Form, Limits, Name, SessionConfig};

const LIMIT: Duration = Duration::from_secs(60);

fn metadata() -> Name {
    name("metadata")
}

/// An agent and its server on a path without loss, packets of at most 1,150 bytes.
fn connected(loss: f64) -> Pair {
    let agent = SessionConfig { limits: Limits::agent(), ..SessionConfig::default() };
    let server = SessionConfig {
        limits: Limits { outbound_bytes_max: 64 << 20, ..Limits::server() },
        ..SessionConfig::default()
    };
    let link = if loss > 0.0 {
        lossy(loss)
    } else {
        LinkConfig { delay: Duration::from_millis(25), ..LinkConfig::default() }
    };
    Pair::with(7, link, [agent, server])
}

fn push(pair: &mut Pair, version: u64, form: Form) {
    pair.offer_form(Server, &metadata(), version, form);
    pair.run_until(LIMIT, |pair| pair.is_stored(Server, &metadata(), version));
    pair.run_for(Duration::from_secs(1));
}

/// The agent holds a document, and both ends know that the path loses nothing: what may be lost is
/// repeated, whatever it is.
fn in_use(document: &[u8]) -> Pair {
    let mut pair = connected(0.0);
    for version in 1..=60 {
        pair.offer(Agent, testing::document("progress", version, 100));
        pair.run_for(Duration::from_millis(200));
    }
    push(&mut pair, 1, Form::plain(document.to_vec().into()));
    pair.side(Agent).session.hold(metadata(), Base::new(document.to_vec().into()));
    pair
}

#[test]
fn a_change_of_one_deployment_in_64_kib_costs_at_most_two_datagrams() {
    let before = heat::document(64 << 10);
    let after = heat::with_one_changed(&before);
    assert!(before.len() >= 64 << 10 && before != after);
    let mut pair = in_use(&before);
    let (sent, data) =
        (pair.packets[Server as usize], pair.sides[1].session.stats().data_bytes_sent);
    let data_packets = pair.data_packets[Server as usize];
    push(&mut pair, 2, Form::plain(after).encoded(Some(&Base::new(before))));
    let sent = pair.packets[Server as usize] - sent;
    let data = pair.sides[1].session.stats().data_bytes_sent - data;
    let data_packets = pair.data_packets[Server as usize] - data_packets;
    println!("{sent} datagrams, {data_packets} of them with data: {data} bytes of delta");
    // The other one acknowledges that the agent has stored it.
    assert!(sent <= 2 && data_packets == 1, "{sent} datagrams, {data} bytes");
}

#[test]
fn the_same_change_costs_at_most_two_datagrams_on_a_fresh_connection() {
    let before = heat::document(64 << 10);
    let after = heat::with_one_changed(&before);
    let mut pair = connected(0.0);
    // Hello and welcome, as after any reconnect: the agent says what it holds.
    pair.side(Agent).session.hold(metadata(), Base::new(before.clone()));
    pair.offer(Agent, testing::document("hello", 1, 300));
    pair.run_until(LIMIT, |pair| pair.received(Server).len() == 1);
    let data_packets = pair.data_packets[Server as usize];
    push(&mut pair, 2, Form::plain(after).encoded(Some(&Base::new(before))));
    let data_packets = pair.data_packets[Server as usize] - data_packets;
    // The path is not known to lose nothing: one of the two is a copy, or a repair symbol.
    println!("{data_packets} datagrams with data");
    assert!(data_packets <= 2, "{data_packets} datagrams");
    assert_eq!(pair.sides[1].session.stats().forms_unread, 0);
}

#[test]
fn a_document_compressed_is_a_few_datagrams() {
    let document = heat::document(64 << 10);
    let mut pair = connected(0.0);
    push(&mut pair, 1, Form::plain(document).encoded(None));
    let stats = pair.sides[1].session.stats();
    println!("{} bytes", stats.data_bytes_sent - stats.data_bytes_resent);
    assert!(stats.data_bytes_sent - stats.data_bytes_resent < 10_000);
    assert_eq!(stats.forms_unread, 0);
}

#[test]
fn without_the_base_the_document_follows_as_it_is() {
    let before = heat::document(64 << 10);
    let delta = |base: &[u8]| {
        Form::plain(heat::with_one_changed(&before)).encoded(Some(&Base::new(base.to_vec().into())))
    };
    // It holds nothing; it holds something else.
    for held in [None, Some(heat::document(4 << 10))] {
        let mut pair = connected(0.3);
        if let Some(held) = held {
            pair.side(Agent).session.hold(metadata(), Base::new(held));
        }
        push(&mut pair, 2, delta(&before));
        assert_eq!(pair.sides[1].session.stats().forms_unread, 1);
        assert_eq!(pair.received(Agent), [(metadata(), 2)]);
    }
}

#[test]
fn a_peer_that_reads_no_deltas_gets_documents_as_they_are() {
    let before = heat::document(8 << 10);
    let mut pair = connected(0.0);
    let limits = Limits { compressed: false, ..Limits::agent() };
    let now = pair.now;
    pair.side(Agent).session.set_limits(now, limits);
    pair.side(Agent).session.hold(metadata(), Base::new(before.clone()));
    let after = heat::with_one_changed(&before);
    let bytes = after.len() as u64;
    push(&mut pair, 2, Form::plain(after).encoded(Some(&Base::new(before))));
    let stats = pair.sides[1].session.stats();
    assert_eq!(stats.data_bytes_sent - stats.data_bytes_resent, bytes);
    assert_eq!(stats.forms_unread, 0);
}

#[test]
fn versions_in_a_row_as_deltas_to_what_was_stored_arrive_at_thirty_percent_loss() {
    let mut pair = connected(0.3);
    let mut newest = heat::document(64 << 10);
    push(&mut pair, 1, Form::plain(newest.clone()).encoded(None));
    for version in 2..=20 {
        let base = Base::new(newest.clone());
        pair.side(Agent).session.hold(metadata(), base.clone());
        // One that is never finished comes before.
        let abandoned = heat::with_one_changed(&heat::document(32 << 10));
        let abandoned = Form::plain(abandoned).encoded(Some(&base));
        pair.offer_form(Server, &metadata(), version * 2, abandoned);
        newest = [&newest[..], b" "].concat().into();
        push(&mut pair, version * 2 + 1, Form::plain(newest.clone()).encoded(Some(&base)));
    }
    let stats = pair.sides[1].session.stats();
    assert_eq!(stats.forms_unread, 0);
    println!("{} bytes for 20 versions of 64 KiB", stats.data_bytes_sent);
}
