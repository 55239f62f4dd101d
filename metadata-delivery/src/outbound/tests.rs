use super::*;
use crate::testing::{body, heat, name};
use crate::wire::{ENCODING_DELTA, ENCODINGS_RAW, frames};
use crate::{Base, Document};

const PEER: PeerLimits = PeerLimits {
    document_bytes_max: 10_000,
    inbound_bytes_max: 20_000,
    inbound_transfers_max: 3,
    encodings: 7,
    repair_symbols_max: 128,
    told: true,
};

fn document(text: &str, version: u64, length: usize) -> Document {
    Document { name: name(text), version, body: body(version, length) }
}

fn offer(outbound: &mut Outbound, document: Document, limits: &Limits) -> Result<(), OfferError> {
    let Document { name, version, body } = document;
    outbound.offer(name, version, Form::plain(body), Urgency::Usual, limits).map(|_| ())
}

fn offering(documents: &[(&str, u64, usize)]) -> Outbound {
    let mut outbound = Outbound::default();
    for (text, version, length) in documents {
        offer(&mut outbound, document(text, *version, *length), &Limits::default()).unwrap();
    }
    outbound
}

/// One packet of 1,000 bytes, as text.
fn packet(outbound: &mut Outbound) -> (String, Vec<SentFrame>) {
    let mut bytes = Vec::new();
    let mut packet = Packet::new(&mut bytes, 1000);
    outbound.fill(&mut packet, Urgency::Background);
    let (_, sent) = packet.finish();
    let text = frames(&bytes).map(|frame| match frame.unwrap() {
        Frame::Offer(offer) => {
            format!("OFFER {} {} v{}", offer.transfer, offer.name, offer.version)
        }
        Frame::Data { transfer, offset, bytes } => {
            format!("DATA {transfer} {offset}..{}", offset + bytes.len() as u64)
        }
        Frame::Cancel { transfer } => format!("CANCEL {transfer}"),
        other => panic!("{other:?}"),
    });
    (text.collect::<Vec<_>>().join(", "), sent)
}

fn text(outbound: &mut Outbound) -> String {
    packet(outbound).0
}

fn lose(outbound: &mut Outbound, sent: Vec<SentFrame>) {
    for frame in sent {
        match frame {
            SentFrame::Offer { transfer } => outbound.offer_lost(transfer),
            SentFrame::Data { transfer, start, end } => outbound.data_lost(transfer, start, end),
            SentFrame::Cancel { transfer } => outbound.cancel_lost(transfer),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn data_travels_with_its_offer_until_that_is_acknowledged() {
    let mut outbound = offering(&[("a", 1, 2500)]);
    outbound.promote(&PEER);
    assert_eq!(text(&mut outbound), "OFFER 0 a v1, DATA 0 0..950");
    assert_eq!(text(&mut outbound), "OFFER 0 a v1, DATA 0 950..1899");
    outbound.offer_acked(0);
    assert_eq!(text(&mut outbound), "DATA 0 1899..2500");
    assert!(!outbound.has_something(Urgency::Background));
}

#[test]
fn progress_is_what_the_peer_has_acknowledged_once_and_ends_with_its_answer() {
    let mut outbound = offering(&[("a", 1, 2500)]);
    assert_eq!(outbound.progress(&name("a")), Some((0, 2500)));
    assert_eq!(outbound.progress(&name("b")), None);
    outbound.promote(&PEER);
    assert_eq!(outbound.progress(&name("a")), Some((0, 2500)));
    outbound.data_acked(0, 0, 950);
    outbound.data_acked(0, 500, 1000);
    assert_eq!(outbound.progress(&name("a")), Some((1000, 2500)));
    outbound.answered(0, None);
    assert_eq!(outbound.progress(&name("a")), None);
}

#[test]
fn what_is_lost_goes_again_before_what_is_new() {
    let mut outbound = offering(&[("a", 1, 5000)]);
    outbound.promote(&PEER);
    let (_, first) = packet(&mut outbound);
    outbound.offer_acked(0);
    text(&mut outbound);
    lose(&mut outbound, first);
    assert_eq!(text(&mut outbound), "DATA 0 0..950, DATA 0 1944..1983");
    assert_eq!(outbound.data_bytes_resent, 950);
}

#[test]
fn what_was_called_lost_and_then_acknowledged_does_not_go_again() {
    let mut outbound = offering(&[("a", 1, 900)]);
    outbound.promote(&PEER);
    let (_, sent) = packet(&mut outbound);
    lose(&mut outbound, sent);
    assert!(outbound.has_something(Urgency::Background));
    outbound.offer_acked(0);
    outbound.data_acked(0, 0, 900);
    assert!(!outbound.has_something(Urgency::Background));
}

#[test]
fn a_small_document_overtakes_a_large_one_which_still_moves() {
    let mut outbound = offering(&[("large", 1, 10_000)]);
    outbound.promote(&PEER);
    text(&mut outbound);
    outbound.offer_acked(0);
    offer(&mut outbound, document("small", 1, 9_000), &Limits::default()).unwrap();
    outbound.promote(&PEER);
    outbound.offer_acked(1);
    let order: Vec<String> = (0..16).map(|_| text(&mut outbound)).collect();
    let large = order.iter().take(9).filter(|packet| packet.contains("DATA 0")).count();
    assert!((1..=2).contains(&large), "{order:#?}");
}

#[test]
fn a_newer_version_replaces_one_that_waits_without_a_trace() {
    let mut outbound = offering(&[("a", 1, 100), ("a", 2, 200), ("a", 3, 300)]);
    assert_eq!(outbound.bytes(), 300);
    outbound.promote(&PEER);
    assert_eq!(text(&mut outbound), "OFFER 0 a v3, DATA 0 0..300");
}

#[test]
fn a_newer_version_cancels_one_that_is_under_way_and_its_answer_means_nothing() {
    let mut outbound = offering(&[("a", 1, 5000)]);
    outbound.promote(&PEER);
    text(&mut outbound);
    offer(&mut outbound, document("a", 2, 100), &Limits::default()).unwrap();
    outbound.promote(&PEER);
    assert_eq!(text(&mut outbound), "CANCEL 0, OFFER 1 a v2, DATA 1 0..100");
    assert_eq!(outbound.answered(0, None), Answered::Nothing);
    assert_eq!(outbound.answered(1, None), Answered::Over(name("a"), 2));
    assert_eq!(outbound.bytes(), 0);
}

#[test]
fn a_place_is_free_only_after_the_peer_has_the_cancel() {
    let mut outbound = offering(&[("a", 1, 1), ("b", 1, 1), ("c", 1, 1), ("d", 1, 1)]);
    outbound.promote(&PEER);
    assert_eq!(outbound.open.len(), 3);
    outbound.withdraw(&name("b"));
    outbound.promote(&PEER);
    assert_eq!(outbound.open.len(), 2);
    let (sent_text, sent) = packet(&mut outbound);
    assert!(sent_text.starts_with("CANCEL 1, "), "{sent_text}");
    lose(&mut outbound, sent);
    assert!(text(&mut outbound).starts_with("CANCEL 1, "));
    outbound.cancel_acked(1);
    outbound.promote(&PEER);
    assert_eq!(outbound.open.len(), 3);
}

#[test]
fn the_peers_limits_are_kept() {
    let mut outbound = offering(&[("a", 1, 9000), ("b", 1, 9500), ("c", 1, 10_000)]);
    assert!(outbound.promote(&PEER).is_empty());
    assert_eq!(outbound.open.len(), 2, "the third would exceed 20,000 bytes");
    outbound.answered(0, None);
    outbound.promote(&PEER);
    assert_eq!(outbound.open.len(), 2);

    // A newer version needs no more room than the older one leaves, at once.
    offer(&mut outbound, document("b", 2, 9900), &Limits::default()).unwrap();
    outbound.promote(&PEER);
    assert_eq!(outbound.open.len(), 2);
}

#[test]
fn before_the_peer_has_spoken_one_small_document_may_go() {
    let early = PeerLimits {
        document_bytes_max: 4096,
        inbound_bytes_max: 4096,
        inbound_transfers_max: 1,
        encodings: ENCODINGS_RAW,
        repair_symbols_max: 0,
        told: false,
    };
    let mut outbound = offering(&[("a", 1, 50_000), ("hello", 1, 500)]);
    assert!(outbound.promote(&early).is_empty(), "too large is not said before it is known");
    assert_eq!(text(&mut outbound), "OFFER 0 hello v1, DATA 0 0..500");
    outbound.answered(0, None);
    outbound.promote(&early);
    assert_eq!(text(&mut outbound), "");
    let refused = outbound.promote(&PEER);
    assert_eq!(refused[0].2, refusal::TOO_LARGE);
    assert_eq!(refused[0].3, "50000 bytes, the peer accepts documents of at most 10000");
    assert_eq!(outbound.bytes(), 0);
}

#[test]
fn offers_that_make_no_sense_or_exceed_a_limit_of_ours_are_errors() {
    let limits =
        Limits { outbound_bytes_max: 1000, outbound_documents_max: 2, ..Limits::default() };
    let mut outbound = Outbound::default();
    let mut offer = |version, length, text: &str| {
        offer(&mut outbound, document(text, version, length), &limits)
    };
    offer(5, 600, "a").unwrap();
    assert!(matches!(offer(4, 1, "a"), Err(OfferError::Stale { version: 4, newest: 5, .. })));
    assert!(matches!(offer(5, 1, "a"), Err(OfferError::Conflict { version: 5, .. })));
    offer(5, 600, "a").unwrap();
    assert!(matches!(
        offer(1, 401, "b"),
        Err(OfferError::NoBytesLeft { bytes: 401, free: 400, .. })
    ));
    offer(6, 1000, "a").unwrap();
    offer(1, 0, "b").unwrap();
    assert!(matches!(offer(1, 0, "c"), Err(OfferError::TooMany { max: 2 })));
    assert!(matches!(offer(1 << 62, 0, "b"), Err(OfferError::VersionTooLarge { .. })));
}

/// What the owner of a document can see of it.
fn state(outbound: &Outbound, transfer: u64) -> String {
    let waiting =
        outbound.waiting.values().next().map(|waiting| format!("v{} waits", waiting.version));
    let open = outbound.open.get(&transfer).map(|open| {
        let offer = match open.offer {
            Delivery::Due => "offer due",
            Delivery::InFlight => "offered",
            Delivery::Acknowledged => "offer known",
        };
        format!("v{} {offer}, {} bytes to send", open.version, open.unsent())
    });
    let cancel = outbound
        .cancels
        .get(&transfer)
        .map(|cancel| if cancel.due { "cancel due".to_owned() } else { "cancelled".to_owned() });
    let parts: Vec<String> = [open, cancel, waiting].into_iter().flatten().collect();
    if parts.is_empty() { "over".to_owned() } else { parts.join("; ") }
}

type Step = fn(&mut Outbound);

#[test]
fn transitions_of_a_transfer() {
    let steps: [(&str, Step); 10] = [
        ("promote", |outbound| drop(outbound.promote(&PEER))),
        ("fill a packet", |outbound| drop(packet(outbound))),
        ("offer acknowledged", |outbound| outbound.offer_acked(0)),
        ("data acknowledged", |outbound| outbound.data_acked(0, 0, 100)),
        ("packet lost", |outbound| {
            outbound.offer_lost(0);
            outbound.data_lost(0, 0, 100);
            outbound.cancel_lost(0);
        }),
        ("newer version", |outbound| {
            offer(outbound, document("a", 2, 200), &Limits::default()).unwrap();
        }),
        ("withdraw", |outbound| outbound.withdraw(&name("a"))),
        ("cancel acknowledged", |outbound| outbound.cancel_acked(0)),
        ("answered", |outbound| drop(outbound.answered(0, None))),
        ("session ends", Outbound::clear),
    ];
    let waits: &[Step] = &[];
    let promoted: &[Step] = &[steps[0].1];
    let sent: &[Step] = &[steps[0].1, steps[1].1];
    let known: &[Step] = &[steps[0].1, steps[1].1, steps[2].1];
    let lost: &[Step] = &[steps[0].1, steps[1].1, steps[4].1];
    let cancelling: &[Step] = &[steps[0].1, steps[1].1, steps[6].1];
    let cancelled: &[Step] = &[steps[0].1, steps[1].1, steps[6].1, steps[1].1];
    let mut table = String::new();
    for path in [waits, promoted, sent, known, lost, cancelling, cancelled] {
        let start = || {
            let mut outbound = offering(&[("a", 1, 100)]);
            path.iter().for_each(|step| step(&mut outbound));
            outbound
        };
        let before = state(&start(), 0);
        table.push_str(&format!("{before}\n"));
        for (what, step) in steps {
            let mut outbound = start();
            step(&mut outbound);
            let after = state(&outbound, 0);
            if after != before {
                table.push_str(&format!("    {what:<20} -> {after}\n"));
            }
        }
    }
    insta::assert_snapshot!(table);
}

/// A document of deployments, also as a delta to another, of which only the digest matters here.
fn delta() -> Form {
    let base = heat::document(8 << 10);
    Form::plain(heat::with_one_changed(&base)).encoded(Some(&Base::new(base)))
}

#[test]
fn a_delta_takes_its_own_length_of_the_peers_room_and_says_what_it_builds_on() {
    let mut outbound = Outbound::default();
    let form = delta();
    let bytes = form.body().len() as u64;
    outbound.offer(name("a"), 1, form.clone(), Urgency::Usual, &Limits::default()).unwrap();
    outbound.promote(&PeerLimits { inbound_bytes_max: bytes - 1, ..PEER });
    let open = outbound.open.get(&0).unwrap();
    assert!(open.length() < 200, "{} bytes", open.length());
    let offer = open.offer_frame(0);
    assert_eq!(offer.encoding, ENCODING_DELTA);
    assert_eq!(offer.base, form.chosen(7).base);
    assert_eq!((offer.plain_length, offer.sha256), (bytes, form.sha256().0));
    assert_eq!(outbound.bytes() as u64, bytes);

    let mut outbound = Outbound::default();
    outbound.offer(name("a"), 1, form, Urgency::Usual, &Limits::default()).unwrap();
    outbound.promote(&PeerLimits { document_bytes_max: bytes - 1, ..PEER });
    assert!(outbound.open.is_empty(), "the document itself is too long");
}

#[test]
fn a_form_that_the_peer_cannot_read_is_followed_by_the_document_itself_once() {
    for code in [refusal::BASE, refusal::DIGEST, refusal::ENCODING] {
        let mut outbound = Outbound::default();
        let form = delta();
        let bytes = form.body().len();
        outbound.offer(name("a"), 1, form, Urgency::Usual, &Limits::default()).unwrap();
        outbound.promote(&PEER);
        assert_eq!(outbound.answered(0, Some(code)), Answered::Again);
        assert_eq!(outbound.bytes(), bytes);
        outbound.promote(&PEER);
        assert_eq!(outbound.open.get(&1).unwrap().chosen.encoding, ENCODING_RAW);
        assert_eq!(outbound.open.get(&1).unwrap().length(), bytes as u64);
        assert_eq!(outbound.answered(1, Some(code)), Answered::Over(name("a"), 1));
        assert_eq!(outbound.bytes(), 0);
    }
    let mut outbound = Outbound::default();
    outbound.offer(name("a"), 1, delta(), Urgency::Usual, &Limits::default()).unwrap();
    outbound.promote(&PEER);
    let answered = outbound.answered(0, Some(refusal::APPLICATION_FIRST));
    assert_eq!(answered, Answered::Over(name("a"), 1), "that was not about the form");
}

/// Two transfers: 0 in the background, 1 as any other.
fn beside_background(usual_bytes: usize) -> Outbound {
    let mut outbound = Outbound::default();
    let background = Form::plain(body(1, 5000));
    let limits = Limits::default();
    outbound.offer(name("log"), 1, background, Urgency::Background, &limits).unwrap();
    outbound.promote(&PEER);
    offer(&mut outbound, document("result", 1, usual_bytes), &limits).unwrap();
    outbound.promote(&PEER);
    outbound
}

#[test]
fn what_is_sent_in_the_background_has_no_turn_while_anything_else_is_to_be_sent() {
    let mut outbound = beside_background(9000);
    outbound.offer_acked(0);
    outbound.offer_acked(1);
    // More packets than there are turns until the one that waited longest has its own.
    let sent: Vec<String> = (0..9).map(|_| text(&mut outbound)).collect();
    assert!(sent.iter().all(|packet| packet.starts_with("DATA 1 ")), "{sent:?}");
    assert_eq!(text(&mut outbound), "DATA 1 8947..9000, DATA 0 0..936");
    outbound.data_lost(1, 0, 900);
    assert_eq!(text(&mut outbound), "DATA 1 0..900, DATA 0 936..1025");
}

#[test]
fn what_is_sent_in_the_background_opens_last_and_waits_where_it_is_told_to() {
    let mut outbound = Outbound::default();
    let limits = Limits::default();
    let form = Form::plain(body(1, 10));
    outbound.offer(name("log"), 1, form, Urgency::Background, &limits).unwrap();
    for text in ["a", "b", "c"] {
        offer(&mut outbound, document(text, 1, 5000), &limits).unwrap();
    }
    outbound.promote(&PEER);
    assert_eq!(outbound.open.values().map(|open| open.urgency).max(), Some(Urgency::Usual));
    let mut outbound = beside_background(10);
    let mut bytes = Vec::new();
    let mut packet = Packet::new(&mut bytes, 1000);
    outbound.fill(&mut packet, Urgency::Usual);
    assert_eq!(frames(&bytes).count(), 2, "the other alone");
    assert!(!outbound.has_something(Urgency::Usual));
    assert!(outbound.has_something(Urgency::Background));
}
