//! What a script must come to with ours and ours, worked out without any DTLS: otherwise all could
//! agree on something wrong.

use std::collections::HashSet;

use dtls_channel::Group;

use crate::peer::End;
use crate::run::Outcome;
use crate::script::{Fate, Script, Side};
use crate::wire::Agreed;

/// Its number in IANA's registry.
pub(crate) fn group_number(group: Group) -> u16 {
    match group {
        Group::P256 => 23,
        Group::P384 => 24,
        Group::X25519 => 29,
    }
}

/// How ours with ours differs from what the script says; nothing if it does not.
pub(crate) fn differences(script: &Script, reference: &Outcome) -> Vec<String> {
    let agreed = agreed(script);
    let opens = agreed.is_some() && script.client.pins_the_peer && script.server.pins_the_peer;
    let mut all = Vec::new();
    let mut differ = |what: &str, expected: String, got: String| {
        if expected != got {
            all.push(format!("seed {}: {what}: expected {expected}, got {got}", script.seed));
        }
    };
    differ("opened", format!("{:?}", [opens; 2]), format!("{:?}", reference.opened));
    if opens {
        differ("agreed", format!("{agreed:?}"), format!("{:?}", reference.agreed));
        let delivered = delivered(script);
        differ("delivered", format!("{delivered:?}"), format!("{:?}", reference.delivered));
        let end = |side| if side == script.closes { End::Closed } else { End::PeerClosed };
        let ends = Side::BOTH.map(|side| Some(end(side)));
        differ("ends", format!("{ends:?}"), format!("{:?}", reference.ends));
        differ(
            "same exported key",
            "Some(true)".into(),
            format!("{:?}", reference.same_exported_key),
        );
    }
    differ("right certificates", "true".into(), reference.right_certificates.to_string());
    differ("ems as agreed", "true".into(), reference.ems_as_agreed.to_string());
    all
}

/// The first of the server's that the client lists, which does list P-256 and P-384 always.
fn agreed(script: &Script) -> Option<Agreed> {
    let (client, server) = (&script.client, &script.server);
    let suite = server.suites.iter().find(|suite| client.suites.contains(suite))?;
    let listed = |g: &&Group| **g != Group::X25519 || client.groups.contains(g);
    let group = server.groups.iter().find(listed)?;
    Some(Agreed { suite: suite.iana(), group: group_number(*group), ems: true })
}

/// Each message once, in the order in which the first good copies arrive: to the client, to the
/// server.
fn delivered(script: &Script) -> [Vec<usize>; 2] {
    let mut later: Vec<(usize, usize)> = Vec::new();
    let mut arrivals = Vec::new();
    for (n, step) in script.steps.iter().enumerate() {
        arrivals.extend(later.extract_if(.., |(at, _)| *at <= n).map(|(_, message)| message));
        match step.fate {
            Fate::Arrives | Fate::Repeated(_) | Fate::Forged => arrivals.push(n),
            Fate::Lost | Fate::Bent(_) | Fate::Cut(_) => {}
            Fate::Late(steps) => later.push((n + usize::from(steps), n)),
            Fate::Replayed(steps) => {
                later.push((n + usize::from(steps), n));
                arrivals.push(n);
            }
        }
    }
    arrivals.extend(later.into_iter().map(|(_, message)| message));
    let mut seen = HashSet::new();
    arrivals.retain(|message| seen.insert(*message));
    Side::BOTH.map(|to| arrivals.iter().copied().filter(|n| script.steps[*n].from != to).collect())
}
