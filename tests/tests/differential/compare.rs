//! What a pair of implementations may do otherwise than ours with ours, and why.

use std::collections::BTreeMap;

use dtls_channel::Group;

use crate::model::{self, group_number};
use crate::peer::{End, Kind};
use crate::run::Outcome;
use crate::script::{KeyKind, Script, Side};

/// A difference that is understood. Its name stands in `docs/differential.md`.
pub(crate) type Known = &'static str;

/// Why a script says nothing about a pair.
pub(crate) fn not_applicable(script: &Script, kinds: [Kind; 2]) -> Option<Known> {
    for side in Side::BOTH {
        let choices = script.choices(side);
        if choices.key == KeyKind::Ed25519 && kinds.contains(&Kind::Dimpl) {
            return Some("no-ed25519");
        }
        if kinds[side as usize] == Kind::Dimpl && !choices.pins_the_peer {
            return Some("application-pins");
        }
    }
    None
}

/// How an outcome differs from the one of ours with ours.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) what: &'static str,
    pub(crate) expected: String,
    pub(crate) got: String,
    pub(crate) known: Option<Known>,
}

pub(crate) fn differences(
    script: &Script,
    kinds: [Kind; 2],
    reference: &Outcome,
    outcome: &Outcome,
) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut differ = |what, expected: String, got: String, known| {
        if expected != got {
            all.push(Difference { what, expected, got, known });
        }
    };
    let (opened, expected_open) = (outcome.opened, reference.opened);
    let lacks_ems = Side::BOTH
        .into_iter()
        .any(|side| kinds[side as usize] == Kind::OpenSsl && !script.choices(side).has_ems);
    if lacks_ems && kinds.contains(&Kind::Dimpl) {
        let known = (opened == [false; 2]).then_some("extended-master-secret-required");
        differ("opened", format!("{expected_open:?}"), format!("{opened:?}"), known);
        return all;
    }
    let known = if opened != [false; 2] {
        None
    } else if misses_a_curve(script, kinds) {
        Some("certificate-curves")
    } else if kinds[1] == Kind::OpenSsl && script.server.key == KeyKind::Ed25519 {
        Some("server-with-ed25519")
    } else if (0..2).any(|i| kinds[i] == Kind::Dimpl && outcome.cuts_anew[1 - i]) {
        Some("overlapping-fragments")
    } else {
        None
    };
    differ("opened", format!("{expected_open:?}"), format!("{opened:?}"), known);
    if opened != expected_open || opened != [true; 2] {
        return all;
    }
    let mut expected = reference.agreed;
    if let Some(agreed) = &mut expected {
        agreed.ems = !lacks_ems;
    }
    let dimpls = kinds[1] == Kind::Dimpl && is_dimpls_choice(script, outcome);
    let known = if dimpls {
        Some("order-of-preference")
    } else {
        has_narrow_list(script, kinds).then_some("certificate-curves")
    };
    differ("agreed", format!("{expected:?}"), format!("{:?}", outcome.agreed), known);
    differ("right certificates", "true".into(), outcome.right_certificates.to_string(), None);
    differ("ems as agreed", "true".into(), outcome.ems_as_agreed.to_string(), None);
    if let Some(same) = outcome.same_exported_key {
        differ("same exported key", "true".into(), same.to_string(), None);
    }
    for side in Side::BOTH {
        let i = side as usize;
        differ(
            "delivered",
            format!("{:?}", reference.delivered[i]),
            format!("{:?}", outcome.delivered[i]),
            None,
        );
        let said = |end: &Option<End>| match end {
            None => "nothing",
            Some(End::Closed) => "closed",
            Some(End::PeerClosed) => "peer closed",
            Some(End::Failed(_)) => "failed",
        };
        differ("end", said(&reference.ends[i]).into(), said(&outcome.ends[i]).into(), None);
    }
    all
}

/// True if the suite is the first of the client's, as it put them, that the server has, and the
/// group the first in dimpl's own order that both have.
fn is_dimpls_choice(script: &Script, outcome: &Outcome) -> bool {
    let (Some(offered), Some(agreed)) = (&outcome.offered, outcome.agreed) else { return false };
    let has_suite = |n: &u16| script.server.suites.iter().any(|s| s.iana() == *n);
    let suite = offered.suites.iter().copied().find(has_suite);
    let order = [Group::X25519, Group::P256, Group::P384];
    let has_group =
        |g: &Group| script.server.groups.contains(g) && offered.groups.contains(&group_number(*g));
    let group = order.into_iter().find(has_group).map(group_number);
    (suite, group) == (Some(agreed.suite), Some(agreed.group))
}

/// True if a client does not list a curve that ours lists always.
fn has_narrow_list(script: &Script, kinds: [Kind; 2]) -> bool {
    let needed = [Group::P256, Group::P384];
    kinds[0] != Kind::Ours && needed.iter().any(|curve| !script.client.groups.contains(curve))
}

/// The client's list of groups is one of curves of certificates too (RFC 8422 §5.1.1): ours and
/// OpenSSL heed it as servers, and OpenSSL looks into its own list for the peer's as well.
fn misses_a_curve(script: &Script, kinds: [Kind; 2]) -> bool {
    let (client, server) = (&script.client, &script.server);
    let missing = |key: KeyKind, list: &[Group]| key.curve().is_some_and(|c| !list.contains(&c));
    let servers_key = missing(server.key, &client.groups);
    let clients_key = missing(client.key, &server.groups) || missing(client.key, &client.groups);
    let none_in_common = !client.groups.iter().any(|group| server.groups.contains(group));
    match kinds {
        [Kind::OpenSsl | Kind::Dimpl, _] if none_in_common => true,
        [Kind::Ours, Kind::OpenSsl] => missing(client.key, &server.groups),
        [_, Kind::OpenSsl] => servers_key || clients_key,
        [Kind::OpenSsl, _] | [_, Kind::Ours] => servers_key,
        _ => false,
    }
}

/// What a series of scripts came to.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) runs: usize,
    pub(crate) opened: usize,
    pub(crate) messages: usize,
    pub(crate) not_applicable: BTreeMap<Known, usize>,
    pub(crate) known: BTreeMap<Known, usize>,
    pub(crate) unexplained: Vec<String>,
}

impl Report {
    /// Notes what ours did with ours.
    pub(crate) fn add_reference(&mut self, script: &Script, reference: &Outcome) {
        self.unexplained.extend(model::differences(script, reference));
    }

    pub(crate) fn add(
        &mut self,
        script: &Script,
        kinds: [Kind; 2],
        reference: &Outcome,
        outcome: &Outcome,
    ) {
        self.runs += 1;
        self.opened += usize::from(outcome.opened == [true; 2]);
        self.messages += outcome.delivered.iter().map(Vec::len).sum::<usize>();
        for difference in differences(script, kinds, reference, outcome) {
            match difference.known {
                Some(known) => *self.known.entry(known).or_default() += 1,
                None => self.unexplained.push(format!(
                    "seed {}, {kinds:?}: {}: expected {}, got {} (ends {:?})\n  \
                     client {:?}\n  server {:?}",
                    script.seed,
                    difference.what,
                    difference.expected,
                    difference.got,
                    outcome.ends,
                    script.client,
                    script.server,
                )),
            }
        }
    }
}
