use super::*;
use crate::ecn::EcnCounts;

fn write(frame: &Frame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    frame.write(&mut out);
    out
}

fn read(packet: &[u8]) -> Result<Vec<Frame<'_>>, PacketError> {
    frames(packet).collect()
}

const HELLO: Hello = Hello {
    version_max: 1,
    version_min: 1,
    generation: 2,
    ack_delay_max_us: 10_000,
    document_bytes_max: 4096,
    inbound_bytes_max: 16 << 20,
    inbound_transfers_max: 16,
    encodings: ENCODINGS_RAW,
    repair_symbols_max: 128,
    abilities: 1,
};

const OFFER: Offer<'_> = Offer {
    transfer: 3,
    version: 300,
    encoding: ENCODING_RAW,
    plain_length: 70_000,
    encoded_length: 70_000,
    sha256: [0xab; 32],
    name: "metadata",
    base: None,
};

/// Every frame with its bytes, field by field.
fn vectors() -> Vec<(Frame<'static>, Vec<u8>)> {
    let cat = |parts: &[&[u8]]| parts.concat();
    vec![
        (Frame::Padding, vec![0x00, 0x40, 0x00]),
        (Frame::Ping, vec![0x01, 0x40, 0x00]),
        (
            Frame::Hello(HELLO),
            cat(&[
                &[0x03, 0x40, 0x10],       // type, length 16
                &[0x01, 0x01],             // versions: newest, oldest
                &[0x02],                   // generation
                &[0x67, 0x10],             // ack delay 10,000 us
                &[0x50, 0x00],             // document bytes: 4,096
                &[0x81, 0x00, 0x00, 0x00], // inbound bytes: 16 MiB
                &[0x10],                   // transfers
                &[0x01],                   // encodings: raw
                &[0x40, 0x80],             // repair of up to 128 symbols
                &[0x01],                   // congestion marks are counted
            ]),
        ),
        (
            Frame::Offer(OFFER),
            cat(&[
                &[0x04, 0x40, 0x36],       // type, length 54
                &[0x03],                   // transfer
                &[0x41, 0x2c],             // version 300
                &[0x00, 0x00],             // reserved, encoding
                &[0x80, 0x01, 0x11, 0x70], // plain length 70,000
                &[0x80, 0x01, 0x11, 0x70], // encoded length
                &[0xab; 32],               // SHA-256
                &[0x08],                   // name length
                b"metadata",
            ]),
        ),
        (
            Frame::Offer(Offer { encoding: ENCODING_DELTA, base: Some([0xba; 32]), ..OFFER }),
            cat(&[
                &[0x04, 0x40, 0x56],       // type, length 86
                &[0x03],                   // transfer
                &[0x41, 0x2c],             // version 300
                &[0x00, 0x02],             // reserved, encoding
                &[0x80, 0x01, 0x11, 0x70], // plain length 70,000
                &[0x80, 0x01, 0x11, 0x70], // encoded length
                &[0xab; 32],               // SHA-256
                &[0x08],                   // name length
                b"metadata",
                &[0xba; 32], // SHA-256 of the base
            ]),
        ),
        (
            Frame::Data { transfer: 3, offset: 1000, bytes: b"abc" },
            cat(&[&[0x05, 0x40, 0x06], &[0x03], &[0x43, 0xe8], b"abc"]),
        ),
        (Frame::Stored { transfer: 3, quiet: false }, vec![0x06, 0x40, 0x01, 0x03]),
        (Frame::Stored { transfer: 3, quiet: true }, vec![0x06, 0x40, 0x02, 0x03, 0x01]),
        (
            Frame::Refused { transfer: 64, code: 256, reason: "full" },
            cat(&[&[0x07, 0x40, 0x09], &[0x40, 0x40], &[0x41, 0x00], &[0x04], b"full"]),
        ),
        (Frame::Cancel { transfer: 9 }, vec![0x08, 0x40, 0x01, 0x09]),
        (
            Frame::Close { code: 17, reason: "no" },
            cat(&[&[0x09, 0x40, 0x04], &[0x11], &[0x02], b"no"]),
        ),
        (
            Frame::Repair { transfer: 3, offset: 1000, nth: 64, symbol: b"abc" },
            cat(&[&[0x0a, 0x40, 0x08], &[0x03], &[0x43, 0xe8], &[0x40, 0x40], b"abc"]),
        ),
    ]
}

#[test]
fn every_frame_is_written_and_read_as_documented() {
    for (frame, bytes) in vectors() {
        assert_eq!(write(&frame), bytes, "{frame:?}");
        assert_eq!(read(&bytes), Ok(vec![frame]));
    }
}

#[test]
fn an_ack_is_written_and_read_as_documented() {
    // Received: 100..=100, 95..=97, 10..=10.
    let ranges = [(100, 100), (95, 97), (10, 10)];
    let mut bytes = Vec::new();
    assert_eq!(write_ack(&mut bytes, 1000, 250, None, ranges.into_iter()), Some(100));
    let expected = [
        &[0x02, 0x40, 0x0b][..], // type, length 11
        &[0x40, 0x64],           // largest 100
        &[0x40, 0xfa],           // delay 250 us
        &[0x02],                 // two more ranges
        &[0x00],                 // first range: 100 alone
        &[0x01, 0x02],           // gap of 98..=99, then 97 down to 95
        &[0x40, 0x53, 0x00],     // gap of 11..=94, then 10 alone
    ]
    .concat();
    assert_eq!(bytes, expected);
    let frames = read(&bytes).unwrap();
    let [Frame::Ack(ack)] = frames[..] else { panic!("{frames:?}") };
    assert_eq!((ack.largest, ack.delay_us), (100, 250));
    assert_eq!(ack.ranges().collect::<Vec<_>>(), ranges);
    assert_eq!(write(&Frame::Ack(ack)), bytes);
}

#[test]
fn an_ack_tells_of_marks_behind_its_ranges_where_older_readers_do_not_look() {
    let ranges = [(100, 100), (95, 97)];
    let ecn = Some(EcnCounts { ect0: 300, ect1: 0, ce: 7 });
    let (mut plain, mut bytes) = (Vec::new(), Vec::new());
    assert_eq!(write_ack(&mut plain, 1000, 250, None, ranges.into_iter()), Some(100));
    assert_eq!(write_ack(&mut bytes, 1000, 250, ecn, ranges.into_iter()), Some(100));
    assert_eq!(bytes[HEADER_BYTES..plain.len()], plain[HEADER_BYTES..]);
    assert_eq!(bytes[plain.len()..], [0x41, 0x2c, 0x00, 0x07]);
    let frames = read(&bytes).unwrap();
    let [Frame::Ack(ack)] = frames[..] else { panic!("{frames:?}") };
    assert_eq!((ack.ecn, ack.ranges().collect::<Vec<_>>()), (ecn, ranges.to_vec()));
    assert_eq!(write(&Frame::Ack(ack)), bytes);
    // Some of the counts, and more than them.
    let body = &bytes[HEADER_BYTES..];
    for cut in plain.len() - HEADER_BYTES + 1..body.len() {
        let mut short = Vec::new();
        framed(&mut short, kind::ACK, |out| out.extend_from_slice(&body[..cut]));
        assert!(matches!(read(&short), Err(PacketError::Malformed { frame: "ACK", .. })), "{cut}");
    }
    let mut long = Vec::new();
    framed(&mut long, kind::ACK, |out| out.extend_from_slice(&[body, b"later"].concat()));
    assert_eq!(read(&long), Ok(vec![Frame::Ack(ack)]));
}

#[test]
fn an_ack_of_a_few_bytes_tells_of_marks_or_is_not_written() {
    let ranges: Vec<(u64, u64)> =
        (0..50).rev().map(|n| ((1 << 23) + n * 1000, (1 << 23) + n * 1000 + 900)).collect();
    let ecn = Some(EcnCounts { ect0: 1 << 24, ect1: 0, ce: 1 << 24 });
    for room in 0..100 {
        let mut bytes = Vec::new();
        let written = write_ack(&mut bytes, room, 1_000_000, ecn, ranges.iter().copied());
        assert!(bytes.len() <= room && written.is_some() != bytes.is_empty());
        assert!(room < SHORT_ACK_BYTES || written.is_some(), "{room} bytes are enough");
        for frame in read(&bytes).unwrap() {
            assert!(matches!(frame, Frame::Ack(ack) if ack.ecn == ecn));
        }
    }
}

#[test]
fn an_ack_leaves_out_the_oldest_ranges_when_room_is_short() {
    let ranges: Vec<(u64, u64)> = (0..50).rev().map(|n| (n * 100, n * 100 + 3)).collect();
    for room in 0..300 {
        let mut bytes = Vec::new();
        let largest = write_ack(&mut bytes, room, 0, None, ranges.iter().copied());
        assert!(bytes.len() <= room);
        let Some(largest) = largest else {
            assert!(room < 11, "one range fits {room} bytes");
            continue;
        };
        assert_eq!(largest, 4903);
        let frames = read(&bytes).unwrap();
        let [Frame::Ack(ack)] = frames[..] else { panic!("{frames:?}") };
        let told: Vec<_> = ack.ranges().collect();
        assert_eq!(told[..], ranges[..told.len()]);
    }
    assert_eq!(write_ack(&mut Vec::new(), 100, 0, None, std::iter::empty()), None);
}

#[test]
fn a_frame_cut_at_any_length_is_an_error() {
    for (frame, bytes) in vectors() {
        for cut in 1..bytes.len() {
            let result = read(&bytes[..cut]);
            assert!(matches!(result, Err(PacketError::Malformed { .. })), "{frame:?} cut at {cut}");
        }
    }
}

/// The length says less than the fields need. DATA may be of any length once its two fields
/// are there, and PADDING and PING have no fields.
#[test]
fn a_body_cut_at_any_length_is_an_error() {
    for (frame, bytes) in vectors() {
        let body = &bytes[HEADER_BYTES..];
        let needed = match frame {
            Frame::Data { bytes, .. } => body.len() - bytes.len(),
            Frame::Repair { symbol, .. } => body.len() - symbol.len(),
            // What follows may be absent.
            Frame::Stored { quiet: true, .. } => body.len() - 1,
            _ => body.len(),
        };
        // The last two fields of HELLO, of two bytes and one here, may be absent.
        let is_hello = matches!(frame, Frame::Hello(_));
        let whole = |cut| is_hello && [needed - 3, needed - 1].contains(&cut);
        for cut in (0..needed).filter(|cut| !whole(*cut)) {
            let mut short = Vec::new();
            framed(&mut short, u64::from(bytes[0]), |out| out.extend_from_slice(&body[..cut]));
            let result = read(&short);
            assert!(matches!(result, Err(PacketError::Malformed { .. })), "{frame:?} cut at {cut}");
        }
    }
}

#[test]
fn flipping_any_byte_never_panics() {
    for (_, bytes) in vectors() {
        for at in 0..bytes.len() {
            for flip in 1..=255 {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                if let Ok(frames) = read(&changed) {
                    assert!(!frames.is_empty());
                }
            }
        }
    }
}

#[test]
fn unknown_frames_and_unknown_trailing_fields_are_skipped() {
    let mut packet = Vec::new();
    framed(&mut packet, 0x1234, |out| out.extend_from_slice(b"of the future"));
    framed(&mut packet, kind::STORED, |out| out.extend_from_slice(&[5, 99, 98]));
    framed(&mut packet, kind::PING, |out| out.extend_from_slice(&[1]));
    assert_eq!(
        read(&packet),
        Ok(vec![Frame::Unknown, Frame::Stored { transfer: 5, quiet: false }, Frame::Ping])
    );
    assert!(Frame::Unknown.is_ack_eliciting());
}

#[test]
fn nonsense_is_called_by_its_name() {
    let malformed = |packet: &[u8]| match read(packet) {
        Err(PacketError::Malformed { frame, what }) => format!("{frame}: {what}"),
        other => panic!("{other:?}"),
    };
    // ACK: largest 1, first range reaches below 0.
    assert_eq!(malformed(&[2, 4, 1, 0, 0, 2]), "ACK: a range below packet number 0");
    // ACK: largest 5, one more range, gap 4 needs number -1.
    assert_eq!(malformed(&[2, 6, 5, 0, 1, 0, 4, 0]), "ACK: a range below packet number 0");
    // ACK that claims more ranges than it has.
    assert_eq!(malformed(&[2, 4, 5, 0, 9, 0]), "ACK: ends inside a field");
    // HELLO with versions 1 down to 2.
    assert_eq!(
        malformed(&[3, 8, 1, 2, 0, 0, 0, 0, 0, 1]),
        "HELLO: oldest version above the newest"
    );
    // OFFER with a space in its name.
    let mut offer = write(&Frame::Offer(OFFER));
    let last = offer.len() - 1;
    offer[last] = b' ';
    assert_eq!(malformed(&offer), "OFFER: name is not allowed");
    // CLOSE with a code of 65,536, and with a reason that is no text.
    assert_eq!(malformed(&[9, 5, 0x80, 1, 0, 0, 0]), "CLOSE: code above 65535");
    assert_eq!(malformed(&[9, 3, 0, 1, 0xff]), "CLOSE: reason is not UTF-8");
}

#[test]
fn a_hello_without_a_word_on_repair_reads_none() {
    let hello = read(&[3, 8, 1, 1, 0, 0, 0, 0, 0, 1]).unwrap();
    assert!(
        matches!(hello[..], [Frame::Hello(Hello { repair_symbols_max: 0, abilities: 0, .. })]),
        "{hello:?}"
    );
    assert!(read(&[3, 9, 1, 1, 0, 0, 0, 0, 0, 1, 0x40]).is_err(), "half a number");
}

#[test]
fn a_symbol_of_the_length_that_surely_fits_fits_beside_a_short_ack() {
    for (transfer, offset) in [(0, 0), (64, 100), (20_000, 1 << 20), (1 << 40, 1 << 31)] {
        for room in 100..164 {
            let symbol = vec![7; repair_room(room, transfer, offset)];
            let frame = Frame::Repair { transfer, offset, nth: 127, symbol: &symbol };
            assert_eq!(write(&frame).len(), room - SHORT_ACK_BYTES);
        }
    }
}

#[test]
fn data_room_is_exactly_what_fits() {
    for (transfer, offset) in [(0, 0), (64, 100), (20_000, 1 << 20), (1 << 40, 1 << 31)] {
        for room in 0..64 {
            let bytes = vec![7; data_room(room, transfer, offset)];
            let frame = Frame::Data { transfer, offset, bytes: &bytes };
            if bytes.is_empty() {
                assert!(room <= HEADER_BYTES + 16);
            } else {
                assert_eq!(write(&frame).len(), room);
            }
        }
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_panic_and_ranges_descend(
        packet in proptest::collection::vec(0u8.., 0..200),
    ) {
        for frame in frames(&packet).flatten() {
            if let Frame::Ack(ack) = frame {
                let mut above = u64::MAX;
                for (low, high) in ack.ranges() {
                    assert!(low <= high && high < above);
                    above = low;
                }
            }
        }
    }
}
