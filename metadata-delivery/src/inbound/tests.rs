use super::*;
use crate::Form;
use crate::message::Hex32;
use crate::testing::{body, heat, name};
use crate::wire::{ENCODING_DELTA, frames};

fn limits() -> Limits {
    Limits {
        document_bytes_max: 1000,
        inbound_bytes_max: 2000,
        inbound_transfers_max: 3,
        ..Limits::default()
    }
}

/// The peer's side of one transfer.
#[derive(Clone)]
struct Sent {
    transfer: u64,
    name: &'static str,
    version: u64,
    body: Vec<u8>,
    announced: Option<u64>,
    encoding: u64,
    sha256: [u8; 32],
}

fn sent(transfer: u64, name: &'static str, version: u64, length: usize) -> Sent {
    let body = body(version, length).to_vec();
    let sha256 = Hex32::sha256_of(&body).0;
    Sent { transfer, name, version, body, announced: None, encoding: ENCODING_RAW, sha256 }
}

impl Sent {
    fn offer(&self, inbound: &mut Inbound) -> Result<Taken, PacketError> {
        let length = self.announced.unwrap_or(self.body.len() as u64);
        let offer = Offer {
            transfer: self.transfer,
            version: self.version,
            encoding: self.encoding,
            plain_length: length,
            encoded_length: length,
            sha256: self.sha256,
            name: self.name,
            base: None,
        };
        inbound.on_offer(&offer, &limits())
    }

    fn data(&self, inbound: &mut Inbound) -> Result<Taken, PacketError> {
        inbound.on_data(self.transfer, 0, &self.body)
    }

    /// OFFER and DATA; expects the document.
    fn deliver(&self, inbound: &mut Inbound) {
        assert_eq!(self.offer(inbound), Ok(Taken::Quietly));
        assert_eq!(self.data(inbound), Ok(Taken::Document(self.document())));
    }

    fn document(&self) -> Document {
        let body = self.body.clone().into();
        Document { name: name(self.name), version: self.version, body }
    }
}

/// The answers that are due, as text.
fn answers(inbound: &mut Inbound) -> String {
    let mut bytes = Vec::new();
    let mut packet = Packet::new(&mut bytes, 1000);
    inbound.fill(&mut packet);
    drop(packet);
    let text = frames(&bytes).map(|frame| match frame.unwrap() {
        Frame::Stored { transfer, .. } => format!("STORED {transfer}"),
        Frame::Refused { transfer, code, reason } => format!("REFUSED {transfer} {code}: {reason}"),
        other => panic!("{other:?}"),
    });
    text.collect::<Vec<_>>().join(", ")
}

#[test]
fn a_document_is_delivered_once_and_confirmed_once_stored() {
    let mut inbound = Inbound::default();
    let sent = sent(0, "a", 1, 500);
    sent.deliver(&mut inbound);
    assert_eq!(sent.offer(&mut inbound), Ok(Taken::Quietly));
    assert_eq!(sent.data(&mut inbound), Ok(Taken::Quietly));
    assert_eq!(answers(&mut inbound), "");
    inbound.decide(&name("a"), 1, None);
    assert_eq!(answers(&mut inbound), "STORED 0");
    assert_eq!(answers(&mut inbound), "");
    inbound.answer_lost(0);
    assert_eq!(answers(&mut inbound), "STORED 0");
    inbound.answer_acked(0);
    inbound.answer_lost(0);
    assert_eq!(answers(&mut inbound), "", "an old copy was lost, another had arrived");
    inbound.decide(&name("a"), 1, Some((7, "late".into())));
    assert_eq!(answers(&mut inbound), "", "the first verdict stands");
}

#[test]
fn a_version_offered_again_is_confirmed_again_without_a_second_delivery() {
    let mut inbound = Inbound::default();
    sent(0, "a", 1, 500).deliver(&mut inbound);
    inbound.decide(&name("a"), 1, None);
    assert_eq!(answers(&mut inbound), "STORED 0");
    assert_eq!(sent(1, "a", 1, 500).offer(&mut inbound), Ok(Taken::Quietly));
    assert_eq!(answers(&mut inbound), "STORED 1");

    sent(2, "b", 1, 500).deliver(&mut inbound);
    inbound.decide(&name("b"), 1, Some((300, "disk full".into())));
    assert_eq!(answers(&mut inbound), "REFUSED 2 300: disk full");
    assert_eq!(sent(3, "b", 1, 500).offer(&mut inbound), Ok(Taken::Quietly));
    assert_eq!(answers(&mut inbound), "REFUSED 3 300: disk full");
}

#[test]
fn a_version_offered_again_while_the_application_thinks_is_answered_under_its_new_number() {
    let mut inbound = Inbound::default();
    sent(0, "a", 1, 500).deliver(&mut inbound);
    assert_eq!(sent(1, "a", 1, 500).offer(&mut inbound), Ok(Taken::Quietly));
    inbound.decide(&name("a"), 1, None);
    assert_eq!(answers(&mut inbound), "STORED 1");
}

#[test]
fn an_older_version_is_answered_as_superseded_whatever_the_newer_one_has_reached() {
    let mut inbound = Inbound::default();
    let newer = sent(1, "a", 7, 500);
    newer.offer(&mut inbound).unwrap();
    let refused = |transfer| format!("REFUSED {transfer} 6: version 7 came before");
    sent(0, "a", 6, 500).offer(&mut inbound).unwrap();
    assert_eq!(answers(&mut inbound), refused(0));
    assert_eq!(newer.data(&mut inbound), Ok(Taken::Document(newer.document())));
    sent(2, "a", 6, 500).offer(&mut inbound).unwrap();
    assert_eq!(answers(&mut inbound), refused(2));
    inbound.decide(&name("a"), 7, None);
    sent(3, "a", 6, 500).offer(&mut inbound).unwrap();
    assert_eq!(answers(&mut inbound), format!("STORED 1, {}", refused(3)));
}

#[test]
fn a_newer_version_drops_what_there_is_of_the_older_one() {
    let mut inbound = Inbound::default();
    let older = sent(0, "a", 1, 1000);
    older.offer(&mut inbound).unwrap();
    inbound.on_data(0, 0, &older.body[..900]).unwrap();
    assert_eq!(inbound.held_bytes(), 900);
    sent(1, "a", 2, 100).offer(&mut inbound).unwrap();
    assert_eq!(inbound.held_bytes(), 0);
    assert_eq!(inbound.on_data(0, 900, &older.body[900..]), Ok(Taken::Quietly));
    assert_eq!(older.offer(&mut inbound), Ok(Taken::Quietly), "settled, however late");
    assert_eq!(inbound.open.len(), 1);
}

#[test]
fn wrong_bytes_are_refused_and_the_right_ones_may_come_again() {
    let mut inbound = Inbound::default();
    let mut wrong = sent(0, "a", 1, 500);
    wrong.sha256[0] ^= 1;
    wrong.offer(&mut inbound).unwrap();
    assert_eq!(wrong.data(&mut inbound), Ok(Taken::Quietly));
    assert_eq!(answers(&mut inbound), "REFUSED 0 5: the bytes do not have the announced SHA-256");
    assert!(inbound.names.is_empty());
    sent(1, "a", 1, 500).deliver(&mut inbound);
}

#[test]
fn what_is_not_acceptable_is_refused_before_a_byte_is_held() {
    let mut inbound = Inbound::default();
    let stranger = Limits::stranger();
    let offer = |inbound: &mut Inbound, transfer, name, encoding, plain_length, encoded_length| {
        let offer = Offer {
            transfer,
            version: 1,
            encoding,
            plain_length,
            encoded_length,
            sha256: [0; 32],
            name,
            base: None,
        };
        assert_eq!(inbound.on_offer(&offer, &stranger), Ok(Taken::Quietly));
        answers(inbound)
    };
    assert_eq!(
        offer(&mut inbound, 0, "metadata", 0, 1, 1),
        "REFUSED 0 2: documents named metadata are not accepted"
    );
    assert_eq!(
        offer(&mut inbound, 1, "hello", 0, 4097, 4097),
        "REFUSED 1 1: 4097 bytes, at most 4096 are accepted"
    );
    assert_eq!(
        offer(&mut inbound, 2, "hello", 9, 1, 1),
        "REFUSED 2 4: encoding 9 is not understood"
    );
    assert_eq!(
        offer(&mut inbound, 3, "hello", 0, 1, 2),
        "REFUSED 3 4: raw documents have one length"
    );
    assert_eq!(
        offer(&mut inbound, 4, "hello", 1, 100, 50),
        "REFUSED 4 4: encoding 1 is not understood",
        "nothing of a stranger is decompressed"
    );
    assert!(inbound.open.is_empty() && inbound.names.is_empty());
    assert_eq!(offer(&mut inbound, 4, "hello", 0, 4096, 4096), "");
}

#[test]
fn more_transfers_or_bytes_at_once_than_allowed_are_refused() {
    let mut inbound = Inbound::default();
    sent(0, "a", 1, 1000).offer(&mut inbound).unwrap();
    sent(1, "b", 1, 900).offer(&mut inbound).unwrap();
    sent(2, "c", 1, 101).offer(&mut inbound).unwrap();
    assert_eq!(answers(&mut inbound), "REFUSED 2 3: at most 3 transfers and 2000 bytes at once");
    sent(3, "c", 1, 100).offer(&mut inbound).unwrap();
    sent(4, "d", 1, 0).offer(&mut inbound).unwrap();
    assert_eq!(answers(&mut inbound), "REFUSED 4 3: at most 3 transfers and 2000 bytes at once");
    // A newer version takes the place of the older one.
    sent(5, "a", 2, 1000).offer(&mut inbound).unwrap();
    assert_eq!(answers(&mut inbound), "");
    assert_eq!(inbound.open.len(), 3);
}

#[test]
fn broken_rules_are_errors() {
    let mut inbound = Inbound::default();
    let first = sent(0, "a", 1, 500);
    first.offer(&mut inbound).unwrap();
    assert_eq!(first.offer(&mut inbound), Ok(Taken::Quietly), "the same again is fine");
    let mut changed = first.clone();
    changed.announced = Some(501);
    assert_eq!(changed.offer(&mut inbound), Err(PacketError::OfferChanged { transfer: 0 }));
    assert_eq!(
        inbound.on_data(0, 400, &[0; 101]),
        Err(PacketError::DataBeyondEnd { transfer: 0, end: 501, length: 500 })
    );
}

#[test]
fn numbers_far_apart_are_an_error_before_they_cost_memory() {
    let mut inbound = Inbound::default();
    let error = (0..1000).find_map(|n| inbound.on_cancel(2 * n).err());
    let max = TRANSFERS_CEILING;
    assert_eq!(error, Some(PacketError::TransferGaps { transfer: 2 * (max as u64 + 1), max }));
}

#[test]
fn a_peer_that_never_acknowledges_answers_runs_out_of_room() {
    let mut inbound = Inbound::default();
    for transfer in 0..ANSWERS_MAX as u64 {
        let refused = sent(transfer, "a", 1, 1001);
        assert_eq!(refused.offer(&mut inbound), Ok(Taken::Quietly));
    }
    let next = sent(ANSWERS_MAX as u64, "a", 1, 1);
    assert_eq!(next.offer(&mut inbound), Ok(Taken::NoRoom));
    assert_eq!(inbound.answers.len(), ANSWERS_MAX);
    inbound.answer_acked(0);
    assert_eq!(next.offer(&mut inbound), Ok(Taken::Quietly));
}

#[test]
fn names_are_forgotten_longest_settled_first() {
    let mut inbound = Inbound::default();
    let text = |n: usize| -> &'static str { Box::leak(format!("n/{n}").into_boxed_str()) };
    for n in 0..NAMES_REMEMBERED_MAX + 10 {
        sent(n as u64, text(n), 1, 10).deliver(&mut inbound);
        inbound.decide(&name(text(n)), 1, None);
        answers(&mut inbound);
        inbound.answer_acked(n as u64);
    }
    assert!(inbound.names.len() <= NAMES_REMEMBERED_MAX + 1);
    assert!(inbound.names.get(&name("n/0")).is_none());
    assert!(inbound.names.get(&name("n/100")).is_some());
    assert_eq!(inbound.settled.range_count(), 1);
    assert_eq!(inbound.open.len() + inbound.answers.len(), 0);
}

/// What is known of document "a" and its transfer 1.
fn state(inbound: &mut Inbound) -> String {
    let open = match inbound.open.get(&1) {
        Some(Open::Receiving(receiving)) => {
            format!("receiving v{}", receiving.version)
        }
        Some(Open::Delivered) => "with the application".to_owned(),
        None if inbound.settled.contains(1) => "settled".to_owned(),
        None => "unknown".to_owned(),
    };
    let newest = inbound.names.get(&name("a")).and_then(|state| state.delivered.as_ref());
    let newest = newest.map_or_else(
        || "none delivered".to_owned(),
        |delivered| {
            let verdict = match &delivered.verdict {
                Verdict::Awaited(Some(_)) => "verdict awaited",
                Verdict::Awaited(None) => "verdict awaited, nobody asks",
                Verdict::Stored => "stored",
                Verdict::Refused(..) => "refused",
            };
            format!("v{} delivered, {verdict}", delivered.version)
        },
    );
    let due = answers(inbound);
    let due = if due.is_empty() { String::new() } else { format!(" [{due}]") };
    format!("{open}; {newest}{due}")
}

type Step = fn(&mut Inbound);

#[test]
fn transitions_of_a_transfer() {
    let steps: [(&str, Step); 10] = [
        ("OFFER", |inbound| drop(sent(1, "a", 2, 100).offer(inbound).unwrap())),
        ("all DATA", |inbound| drop(sent(1, "a", 2, 100).data(inbound).unwrap())),
        ("wrong DATA", |inbound| drop(inbound.on_data(1, 0, &[9; 100]).unwrap())),
        ("CANCEL", |inbound| inbound.on_cancel(1).unwrap()),
        ("OFFER of older", |inbound| drop(sent(2, "a", 1, 100).offer(inbound).unwrap())),
        ("OFFER of same", |inbound| drop(sent(2, "a", 2, 100).offer(inbound).unwrap())),
        ("OFFER of newer", |inbound| drop(sent(2, "a", 3, 100).offer(inbound).unwrap())),
        ("app stored", |inbound| _ = inbound.decide(&name("a"), 2, None)),
        ("app refused", |inbound| _ = inbound.decide(&name("a"), 2, Some((256, "no".into())))),
        ("answer lost", |inbound| inbound.answer_lost(1)),
    ];
    let unknown: &[Step] = &[];
    let receiving: &[Step] = &[steps[0].1];
    let delivered: &[Step] = &[steps[0].1, steps[1].1];
    let abandoned: &[Step] = &[steps[0].1, steps[1].1, steps[3].1];
    let stored: &[Step] = &[steps[0].1, steps[1].1, steps[7].1];
    let refused: &[Step] = &[steps[0].1, steps[1].1, steps[8].1];
    let corrupt: &[Step] = &[steps[0].1, steps[2].1];
    let cancelled: &[Step] = &[steps[3].1];
    let mut table = String::new();
    for path in [unknown, receiving, delivered, abandoned, stored, refused, corrupt, cancelled] {
        let start = || {
            let mut inbound = Inbound::default();
            path.iter().for_each(|step| step(&mut inbound));
            answers(&mut inbound);
            inbound
        };
        let before = state(&mut start());
        table.push_str(&format!("{before}\n"));
        for (what, step) in steps {
            let mut inbound = start();
            step(&mut inbound);
            let after = state(&mut inbound);
            if after != before {
                table.push_str(&format!("    {what:<15} -> {after}\n"));
            }
        }
    }
    insta::assert_snapshot!(table);
}

/// A delta of version 2 of "a", its base, and the document.
fn delta() -> (Sent, [u8; 32], Base, Bytes) {
    let before = heat::document(8 << 10);
    let base = Base::new(before.clone());
    let form = Form::plain(heat::with_one_changed(&before)).encoded(Some(&base));
    let chosen = form.chosen(u64::MAX);
    let sent = Sent {
        transfer: 0,
        name: "a",
        version: 2,
        body: chosen.bytes.to_vec(),
        announced: None,
        encoding: chosen.encoding,
        sha256: form.sha256().0,
    };
    (sent, chosen.base.unwrap(), base, form.body().clone())
}

fn offer_delta(inbound: &mut Inbound, sent: &Sent, base: [u8; 32], plain_length: usize) -> String {
    let offer = Offer {
        transfer: sent.transfer,
        version: sent.version,
        encoding: sent.encoding,
        plain_length: plain_length as u64,
        encoded_length: sent.body.len() as u64,
        sha256: sent.sha256,
        name: sent.name,
        base: Some(base),
    };
    assert_eq!(sent.encoding, ENCODING_DELTA);
    inbound.on_offer(&offer, &Limits::default()).unwrap();
    answers(inbound)
}

#[test]
fn a_delta_is_taken_on_the_base_it_was_made_for_and_on_no_other() {
    let (sent, base_sha256, base, document) = delta();
    let mut inbound = Inbound::default();
    let refused = "REFUSED 0 7: the base of this delta is not held here";
    assert_eq!(offer_delta(&mut inbound, &sent, base_sha256, document.len()), refused);
    inbound.hold(name("a"), Base::new(body(1, 5000)));
    inbound.hold(name("b"), base.clone());
    let again = Sent { transfer: 1, ..sent.clone() };
    let refused = refused.replace("REFUSED 0", "REFUSED 1");
    assert_eq!(offer_delta(&mut inbound, &again, base_sha256, document.len()), refused);

    inbound.hold(name("a"), base);
    let third = Sent { transfer: 2, ..sent };
    assert_eq!(offer_delta(&mut inbound, &third, base_sha256, document.len()), "");
    // Whatever comes to be held meanwhile.
    inbound.hold(name("a"), Base::new(body(2, 5000)));
    let taken = third.data(&mut inbound).unwrap();
    assert_eq!(taken, Taken::Document(Document { name: name("a"), version: 2, body: document }));
}

#[test]
fn a_delta_that_says_something_else_than_announced_is_refused_and_delivers_nothing() {
    let (sent, base_sha256, base, document) = delta();
    for (what, change, length) in [
        ("another digest", 0, document.len()),
        ("another byte", 1, document.len()),
        ("shorter", 2, document.len() - 1),
        ("longer", 2, document.len() + 1),
    ] {
        let mut inbound = Inbound::default();
        inbound.hold(name("a"), base.clone());
        let mut sent = sent.clone();
        match change {
            0 => sent.sha256[0] ^= 1,
            1 => sent.body[20] ^= 1,
            _ => {}
        }
        assert_eq!(offer_delta(&mut inbound, &sent, base_sha256, length), "");
        assert_eq!(sent.data(&mut inbound), Ok(Taken::Quietly), "{what}");
        let refused = "REFUSED 0 5: the bytes do not have the announced SHA-256";
        assert_eq!(answers(&mut inbound), refused, "{what}");
        assert!(inbound.names.is_empty());
    }
}

#[test]
fn a_delta_to_a_document_beyond_the_limit_is_refused_before_a_byte_is_held() {
    let (sent, base_sha256, base, _) = delta();
    let mut inbound = Inbound::default();
    inbound.hold(name("a"), base);
    let refused = offer_delta(&mut inbound, &sent, base_sha256, (16 << 20) + 1);
    assert_eq!(refused, "REFUSED 0 1: 16777217 bytes, at most 16777216 are accepted");
}
