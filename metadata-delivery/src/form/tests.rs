use proptest::prelude::*;

use super::*;
use crate::testing::{body, heat};

fn round_trip(form: &Form, base: Option<&Base>) -> usize {
    let bytes = &form.encoded.as_ref().expect("it pays").bytes;
    assert_eq!(decode(bytes, base, form.plain.len()).as_deref(), Ok(&form.plain[..]));
    bytes.len()
}

#[test]
fn documents_of_deployments_shrink_and_a_change_of_one_costs_next_to_nothing() {
    for (bytes, compressed_max, delta_max) in
        [(4 << 10, 2 << 10, 200), (64 << 10, 10 << 10, 200), (2 << 20, 200 << 10, 2000)]
    {
        let before = heat::document(bytes);
        let base = Base::new(before.clone());
        let after = Form::plain(heat::with_one_changed(&before));
        let compressed = round_trip(&after.clone().encoded(None), None);
        let delta = round_trip(&after.encoded(Some(&base)), Some(&base));
        println!("{} bytes: {compressed} compressed, delta of {delta}", before.len());
        assert!(compressed <= compressed_max && delta <= delta_max, "{compressed}, {delta}");
    }
}

#[test]
fn what_would_not_shrink_by_an_eighth_is_sent_as_it_is() {
    let short = Form::plain(vec![b' '; ENCODED_BYTES_MIN - 1].into()).encoded(None);
    assert_eq!(short.encoded_bytes(), None, "one datagram either way");
    let random = Form::plain(body(1, 100_000)).encoded(None);
    assert_eq!(random.encoded_bytes(), None);
    let other = Base::new(body(2, 100_000));
    assert_eq!(Form::plain(body(1, 100_000)).encoded(Some(&other)).encoded_bytes(), None);
}

#[test]
fn a_peer_gets_only_what_it_reads() {
    let document = heat::document(8 << 10);
    let base = Base::new(document.clone());
    let form = Form::plain(heat::with_one_changed(&document));
    let delta = form.clone().encoded(Some(&base));
    let compressed = form.encoded(None);
    for (form, encodings, expected) in [
        (&delta, encodings(true), ENCODING_DELTA),
        (&delta, ENCODINGS_RAW | 1 << ENCODING_ZSTD, ENCODING_RAW),
        (&compressed, ENCODINGS_RAW | 1 << ENCODING_ZSTD, ENCODING_ZSTD),
        (&compressed, encodings(false), ENCODING_RAW),
        (&delta.clone().stripped(), encodings(true), ENCODING_RAW),
    ] {
        assert_eq!(form.chosen(encodings).encoding, expected);
    }
}

#[test]
fn no_more_than_the_announced_length_is_ever_written() {
    let bomb = Form::plain(vec![0; 16 << 20].into()).encoded(None);
    let bytes = bomb.encoded.unwrap().bytes;
    assert!(bytes.len() < 4096, "{}", bytes.len());
    for length in [0, 1, 4096, (16 << 20) - 1, (16 << 20) + 1] {
        assert_eq!(decode(&bytes, None, length), Err(Undecodable), "{length}");
    }
    assert!(decode(&bytes, None, 16 << 20).is_ok());
}

#[test]
fn what_is_shown_of_a_form_holds_nothing_of_the_document() {
    let secret = Bytes::from("hunter2 ".repeat(200));
    let form = Form::plain(secret.clone());
    assert_eq!(format!("{form:?}"), "Form(1600 bytes)");
    let shown = format!("{:?} {:?}", form.encoded(None), Base::new(secret));
    assert!(shown.contains("compressed") && !shown.contains("hunter"), "{shown}");
}

/// A document and one made of it by a few edits.
fn edited() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let edit =
        (any::<prop::sample::Index>(), 0usize..200, prop::collection::vec(any::<u8>(), 0..60));
    (0usize..9000, prop::collection::vec(edit, 0..6), any::<bool>()).prop_map(
        |(length, edits, text)| {
            let length = length + ENCODED_BYTES_MIN;
            let before = if text { heat::document(length) } else { body(length as u64, length) };
            let mut after = before.to_vec();
            for (at, removed, added) in edits {
                let at = at.index(after.len() + 1);
                let end = (at + removed).min(after.len());
                after.splice(at..end, added);
            }
            (before.to_vec(), after)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_edit_of_every_document_comes_out_as_it_went_in((before, after) in edited()) {
        let base = Base::new(before.into());
        let form = Form::plain(after.into());
        let delta = form.clone().encoded(Some(&base));
        if let Some(encoded) = &delta.encoded {
            prop_assert_eq!(decode(&encoded.bytes, Some(&base), form.plain.len()).unwrap(), &form.plain[..]);
        }
        if let Some(encoded) = &form.clone().encoded(None).encoded {
            prop_assert_eq!(decode(&encoded.bytes, None, form.plain.len()).unwrap(), &form.plain[..]);
        }
    }
}
