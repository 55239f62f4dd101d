//! What a form costs to make and to read: `cargo run --release -p metadata-delivery --features testing --example forms`.
//!
//! Documents of deployments as Heat writes them, and the same with one deployment changed.

use std::time::{Duration, Instant};

use bytes::Bytes;
use metadata_delivery::testing::{End, Pair, bottleneck, heat, name};
use metadata_delivery::{Base, Form};

/// For each figure at least.
const TIME_MIN: Duration = Duration::from_millis(300);
/// Bytes of a document in a full packet of 1,200 bytes, less DTLS and OFFER.
const DATA_BYTES: usize = 1050;

fn main() {
    println!("| document | form | bytes | datagrams | encoding |");
    println!("|---|---|---|---|---|");
    for bytes in [2 << 10, 64 << 10, 1 << 20, 16 << 20] {
        let before = heat::document(bytes);
        let after = heat::with_one_changed(&before);
        let base = Base::new(before);
        report(&after, "as it is", None);
        report(&after, "compressed", Some(None));
        report(&after, "delta", Some(Some(&base)));
    }
    let before = heat::document(64 << 10);
    let delta =
        Form::plain(heat::with_one_changed(&before)).encoded(Some(&Base::new(before.clone())));
    println!(
        "\n64 KiB, one deployment changed, on a fresh connection without loss, 50 ms round trip:"
    );
    for (what, form) in [("as it is", Form::plain(delta.body().clone())), ("delta", delta)] {
        let mut pair = Pair::new(1, bottleneck(0.0));
        pair.side(End::Agent).session.hold(name("metadata"), Base::new(before.clone()));
        pair.run_for(Duration::from_secs(1));
        let (sent, at) = (pair.packets[End::Server as usize], pair.now);
        pair.offer_form(End::Server, &name("metadata"), 1, form);
        pair.run_until(Duration::from_secs(60), |pair| {
            pair.is_stored(End::Server, &name("metadata"), 1)
        });
        let datagrams = pair.packets[End::Server as usize] - sent;
        println!("- {what}: {datagrams} datagrams, confirmed after {:?}", pair.now - at);
    }
}

/// `encoding`: with or without a base; `None`: not at all.
fn report(document: &Bytes, what: &str, encoding: Option<Option<&Base>>) {
    let form = Form::plain(document.clone());
    let began = Instant::now();
    let (mut rounds, mut made) = (0, form.clone());
    while encoding.is_some() && (rounds == 0 || began.elapsed() < TIME_MIN) {
        made = form.clone().encoded(encoding.flatten());
        rounds += 1;
    }
    let took = began.elapsed().checked_div(rounds).unwrap_or_default();
    let bytes = made.encoded_bytes().unwrap_or(document.len());
    let datagrams = bytes.div_ceil(DATA_BYTES);
    println!("| {} | {what} | {bytes} | {datagrams} | {took:.2?} |", document.len());
}
