//! Which deployment a word on the command line means.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::control::message::{Refusal, RefusalCode};
use crate::document::{ConfigId, Document};
use crate::journal::{State, States};

/// Candidates named when a word means several.
pub const CANDIDATES_MAX: usize = 20;

/// A deployment by which a word may be meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Id of its config.
    pub id: String,
    /// Its name; empty where it has none or the journal does not know it.
    pub name: String,
    /// Whether the document in force asks for it.
    pub in_force: bool,
}

/// Everything that has an id: what the document in force asks for, in its order, then what else the journal
/// remembers.
pub fn candidates(document: Option<&Document>, states: &States) -> Vec<Candidate> {
    let entries = document.iter().flat_map(|document| &document.entries);
    let mut known = BTreeSet::new();
    let mut all = Vec::new();
    for entry in entries {
        known.insert(&entry.id);
        all.push(Candidate { id: entry.id.to_string(), name: entry.name.clone(), in_force: true });
    }
    for (id, state) in states.iter().filter(|(id, _)| !known.contains(id)) {
        let name = name(state).to_owned();
        all.push(Candidate { id: id.to_string(), name, in_force: false });
    }
    all
}

fn name(state: &State) -> &str {
    match state {
        State::Received(received) | State::Started { received, .. } => &received.name,
        State::Finished(finished) => &finished.result.name,
        State::Signalled(done) => &done.name,
    }
}

/// The one that `word` means: an exact id; else an exact name, of the document in force before others; else
/// the only id that begins so.
///
/// # Errors
/// There is none, or there are several.
pub fn resolve(word: &str, all: &[Candidate]) -> Result<ConfigId, Refusal> {
    let of = |fits: &dyn Fn(&Candidate) -> bool| -> Vec<&Candidate> {
        all.iter().filter(|candidate| fits(candidate)).collect()
    };
    let found = [
        of(&|c| c.id == word),
        of(&|c| c.name == word && c.in_force),
        of(&|c| c.name == word),
        of(&|c| c.id.starts_with(word)),
    ];
    let none = || Err(never_heard_of(word));
    if word.is_empty() {
        return none();
    }
    match found.iter().find(|found| !found.is_empty()).map(Vec::as_slice) {
        None | Some([]) => none(),
        Some([one]) => ConfigId::new(&one.id).or_else(|_| none()),
        Some(several) => Err(ambiguous(word, several)),
    }
}

fn never_heard_of(word: &str) -> Refusal {
    Refusal::new(
        RefusalCode::NeverHeardOf,
        format!(
            "never heard of {word:?}: neither the document in force nor the journal has such an id or name"
        ),
        "agent-client status lists what is in force; the server's side: metadata-server agents",
    )
}

fn ambiguous(word: &str, several: &[&Candidate]) -> Refusal {
    let candidates = several.iter().take(CANDIDATES_MAX).map(|c| (*c).clone()).collect();
    Refusal {
        candidates,
        ..Refusal::new(
            RefusalCode::Ambiguous,
            format!("{word:?} may be any of {} deployments", several.len()),
            "a whole id, or more of it",
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::journal::tests_support::{finished, received, signalled};

    fn all() -> Vec<Candidate> {
        let entry =
            |id: &str, name: &str| json!({"id": id, "name": name, "group": "script", "inputs": []});
        let body = json!({"deployments": [
            entry("11aa", "web"), entry("11ab", "db"), entry("22", "twin"), entry("33", "twin"),
            entry("web2", "11aa")]});
        let document = Document::parse(4, body.to_string().as_bytes()).unwrap();
        let mut states = States::default();
        // The journal's have the name "n".
        for record in
            [received("22"), received("gone"), finished("gone"), signalled("gone"), received("99")]
        {
            states.apply(&record).unwrap();
        }
        candidates(Some(&document), &states)
    }

    #[test]
    fn an_id_a_name_or_the_beginning_of_an_id_is_enough_and_the_exact_thing_wins() {
        let all = all();
        let id = |word: &str| resolve(word, &all).unwrap().to_string();
        assert_eq!(id("11aa"), "11aa", "an id before a name");
        assert_eq!(id("web"), "11aa", "a name before the beginning of an id");
        assert_eq!(id("11ab"), "11ab");
        assert_eq!(id("go"), "gone", "also what only the journal remembers");
        assert_eq!(id("2"), "22");
    }

    #[test]
    fn what_means_several_is_answered_with_all_of_them() {
        let all = all();
        let several = |word: &str| {
            let refusal = resolve(word, &all).unwrap_err();
            assert_eq!(refusal.code, RefusalCode::Ambiguous);
            refusal.candidates.into_iter().map(|c| c.id).collect::<Vec<_>>()
        };
        assert_eq!(several("11"), ["11aa", "11ab"]);
        assert_eq!(several("twin"), ["22", "33"]);
        assert_eq!(several("n"), ["99", "gone"]);
        let many: Vec<Candidate> = (0..100)
            .map(|n| Candidate { id: format!("x{n}"), name: String::new(), in_force: true })
            .collect();
        let refusal = resolve("x", &many).unwrap_err();
        assert_eq!(refusal.candidates.len(), CANDIDATES_MAX);
        assert!(refusal.text.contains("100 deployments"));
    }

    #[test]
    fn what_was_never_heard_of_is_said_so() {
        for word in ["zz", "", "11aaX"] {
            let refusal = resolve(word, &all()).unwrap_err();
            assert_eq!(refusal.code, RefusalCode::NeverHeardOf, "{word:?}");
            assert!(refusal.hint.is_some());
        }
    }
}
