//! Documents on their way out: what is in memory for whom, and what is encoded when. Sans-IO.
//!
//! A document becomes a [`Form`], often a delta to what the agent holds, once for all agents for which
//! both are the same: ten thousand agents that get one document cost one encoding and one copy. Making a form
//! reads the store and takes milliseconds, so it is a [`Job`] for another thread. What is asked for is
//! a digest and a length; bytes are in memory from the job on, until the last agent has stored
//! them. That memory is bounded: beyond [`FORMS_BYTES_MAX`], documents wait in the store.
//!
//! Large documents never stand in the way of small ones: each class has makers of its own, large ones
//! have a share of the memory that they cannot exceed, and small ones a reserve. Whoever takes a document and never
//! stores it is hung up on once others wait for the memory.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use certs::AgentId;
use metadata_delivery::Form;
use metadata_delivery::message::Hex32;

use super::by_peer::PeerMap;
use super::core::PeerId;

/// Bytes of documents and their encoded forms in memory, for all agents together. A single document
/// that is larger goes when there is no other.
pub(super) const FORMS_BYTES_MAX: usize = 512 << 20;
/// Of these, what large documents may take.
pub(super) const LARGE_FORMS_BYTES_MAX: usize = FORMS_BYTES_MAX / 4 * 3;
/// A large document has so many bytes.
pub(super) const LARGE_BYTES_MIN: usize = 1 << 20;
/// A small document has so many bytes at most.
pub(super) const SMALL_BYTES_MAX: usize = 64 << 10;
/// Bytes that small documents may take on top, however full the memory is.
pub(super) const SMALL_FORMS_RESERVE_BYTES: usize = 16 << 20;
/// A document may be under way so long without progress while others wait for its memory.
pub(super) const STALLED_TIME_MAX: Duration = Duration::from_secs(600);
/// How often it is looked how far documents are.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Progress is so great a part of a document, so that the odd byte does not count for ever.
pub(super) const PROGRESS_PARTS: u64 = 16;
/// Bytes of forms that are kept although no agent waits for them at present.
pub(super) const UNUSED_FORMS_BYTES_MAX: usize = 32 << 20;
/// The classes: small documents, others, large ones.
const SMALL: usize = 0;
const MEDIUM: usize = 1;
const LARGE: usize = 2;
const CLASSES: usize = 3;
/// Jobs at a time that make forms, by class.
const MAKERS_MAX: [usize; CLASSES] = [2, 1, 1];

/// What a form is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    /// SHA-256 of what the agent holds.
    pub(super) base: Option<Hex32>,
    /// SHA-256 of what it is to hold.
    pub(super) document: Hex32,
}

/// A form to be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) key: Key,
    /// An agent that has, or had, both documents.
    pub(super) agent: AgentId,
    /// Its association, and the version that the document is there.
    pub(super) peer: PeerId,
    version: u64,
}

/// What a session is to be told.
#[derive(Debug)]
pub(super) enum Order {
    /// Offer this document.
    Offer { peer: PeerId, version: u64, form: Form },
    /// Stop sending what was offered: a newer one is to come once there is room.
    Withdraw(PeerId),
    /// Hang up: nothing has moved for [`STALLED_TIME_MAX`], and others wait for the memory.
    HangUp(PeerId),
}

#[derive(Debug)]
struct Offer {
    peer: PeerId,
    version: u64,
    form: Form,
}

/// A document asked for.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) peer: PeerId,
    pub(super) agent: AgentId,
    pub(super) version: u64,
    pub(super) key: Key,
    /// Its length in bytes.
    pub(super) bytes: usize,
}

/// What becomes of a form.
#[derive(Debug)]
enum State {
    /// For room, or for a maker.
    Waiting,
    Making,
    Made(Form),
}

#[derive(Debug)]
struct Entry {
    state: State,
    class: usize,
    /// Bytes in memory, or that will be.
    bytes: usize,
    /// Who is to have it, or is having it sent.
    users: PeerMap<AgentId>,
    /// When it was last asked for, by [`Pushes::clock`].
    used_at: u64,
}

/// How far a document was when that last changed.
#[derive(Debug, Clone, Copy)]
struct Sending {
    since: Instant,
    /// Of [`PROGRESS_PARTS`].
    parts: u64,
}

/// See the module's text. Arrays are by class.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    entries: HashMap<Key, Entry>,
    /// What each agent is to have: one document, the newest, and the version that it is there.
    peers: PeerMap<(Key, u64)>,
    /// Who is being sent its document.
    sending: PeerMap<Sending>,
    /// In the order of asking.
    waiting: [VecDeque<Key>; CLASSES],
    making: [usize; CLASSES],
    /// In memory, or about to be.
    bytes: [usize; CLASSES],
    /// Made, and used by nobody; the one asked for longest ago first.
    unused: BTreeSet<(u64, Key)>,
    unused_bytes: usize,
    clock: u64,
    /// Of those to withdraw and to hang up.
    urgent: VecDeque<Order>,
    offers: VecDeque<Offer>,
}

impl Pushes {
    /// A peer is to have a document, in place of any other. `form`: the document, where it is at hand
    /// and need not be encoded.
    pub(super) fn push(&mut self, push: Push, form: Option<Form>) {
        let Push { peer, agent, version, key, bytes } = push;
        if self.peers.get(&peer).is_some_and(|(before, _)| *before != key) {
            // At once: the newer one may wait long for room, and what is sent meanwhile is sent in vain.
            self.forget(peer);
            self.urgent.push_back(Order::Withdraw(peer));
        }
        self.peers.insert(peer, (key, version));
        self.clock += 1;
        if !self.entries.contains_key(&key) {
            let class = match bytes {
                ..=SMALL_BYTES_MAX => SMALL,
                LARGE_BYTES_MIN.. => LARGE,
                _ => MEDIUM,
            };
            let state = match form.filter(|_| self.make_room(class, bytes)) {
                Some(form) => {
                    self.bytes[class] += bytes;
                    State::Made(form)
                }
                None => {
                    self.waiting[class].push_back(key);
                    State::Waiting
                }
            };
            let entry = Entry { state, class, bytes, users: PeerMap::default(), used_at: 0 };
            self.entries.insert(key, entry);
        }
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if self.unused.remove(&(entry.used_at, key)) {
            self.unused_bytes -= entry.bytes;
        }
        entry.used_at = self.clock;
        entry.users.insert(peer, agent);
        if let State::Made(form) = &entry.state {
            self.offers.push_back(Offer { peer, version, form: form.clone() });
        }
    }

    /// A peer has its document, will not take it, or is gone.
    pub(super) fn forget(&mut self, peer: PeerId) {
        let Some((key, _)) = self.peers.remove(&peer) else { return };
        self.sending.remove(&peer);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.users.remove(&peer);
        if !entry.users.is_empty() {
            return;
        }
        match entry.state {
            State::Waiting => {
                self.waiting[entry.class].retain(|waiting| *waiting != key);
                self.entries.remove(&key);
            }
            // Its end is awaited: somebody may ask again until then.
            State::Making => {}
            State::Made(_) => {
                self.unused.insert((entry.used_at, key));
                self.unused_bytes += entry.bytes;
                self.drop_unused(UNUSED_FORMS_BYTES_MAX);
            }
        }
    }

    /// The version that a peer is to have, if it does not have it.
    pub(super) fn version(&self, peer: PeerId) -> Option<u64> {
        self.peers.get(&peer).map(|(_, version)| *version)
    }

    /// What to make now. Answer with [`Pushes::made`].
    pub(super) fn next_job(&mut self) -> Option<Job> {
        for (class, makers_max) in MAKERS_MAX.into_iter().enumerate() {
            let Some(&key) = self.waiting[class].front() else { continue };
            let Some(bytes) = self.entries.get(&key).map(|entry| entry.bytes) else { continue };
            if self.making[class] >= makers_max || !self.make_room(class, bytes) {
                continue;
            }
            self.waiting[class].pop_front();
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            let Some((&peer, agent)) = entry.users.iter().next() else { continue };
            let Some((_, version)) = self.peers.get(&peer) else { continue };
            let job = Job { key, agent: agent.clone(), peer, version: *version };
            entry.state = State::Making;
            self.making[class] += 1;
            self.bytes[class] += bytes;
            return Some(job);
        }
        None
    }

    /// A job is done. Without a form, there is none for the agent of the job: it is given up, unless it
    /// has come to be due another version meanwhile, and the others have it made from what they have.
    pub(super) fn made(&mut self, job: &Job, form: Option<Form>) {
        let key = job.key;
        let Some(entry) = self.entries.get_mut(&key) else { return };
        self.making[entry.class] -= 1;
        self.bytes[entry.class] -= entry.bytes;
        let Some(form) = form else {
            if self.peers.get(&job.peer) == Some(&(key, job.version)) {
                entry.users.remove(&job.peer);
                self.peers.remove(&job.peer);
            }
            if entry.users.is_empty() {
                self.entries.remove(&key);
            } else {
                entry.state = State::Waiting;
                self.waiting[entry.class].push_front(key);
            }
            return;
        };
        entry.bytes = form.held_bytes();
        self.bytes[entry.class] += entry.bytes;
        let first = self.offers.len();
        for &peer in entry.users.keys() {
            let Some(&(_, version)) = self.peers.get(&peer) else { continue };
            self.offers.push_back(Offer { peer, version, form: form.clone() });
        }
        // Those that have been connected for longest go first.
        self.offers.make_contiguous()[first..].sort_unstable_by_key(|offer| offer.peer);
        entry.state = State::Made(form);
        if entry.users.is_empty() {
            self.unused.insert((entry.used_at, key));
            self.unused_bytes += entry.bytes;
        }
        self.drop_unused(UNUSED_FORMS_BYTES_MAX);
    }

    /// Whether nobody is to have anything: then there is nothing to look at.
    pub(super) fn is_idle(&self) -> bool {
        self.peers.is_empty()
    }

    /// Looks how far documents are, which `parts` says, of [`PROGRESS_PARTS`]. While others wait for memory,
    /// those are hung up on where nothing has moved for [`STALLED_TIME_MAX`], for the longest time first.
    pub(super) fn look(&mut self, now: Instant, parts: impl Fn(PeerId) -> u64) {
        let entries = &self.entries;
        let is_sent = |key| entries.get(key).is_some_and(|e| matches!(e.state, State::Made(_)));
        for (&peer, _) in self.peers.iter().filter(|(_, (key, _))| is_sent(key)) {
            let parts = parts(peer);
            let sending = self.sending.entry(peer).or_insert(Sending { since: now, parts });
            if sending.parts != parts {
                *sending = Sending { since: now, parts };
            }
        }
        while self.is_short_of_memory() {
            let longest = self.sending.iter().min_by_key(|(peer, sending)| (sending.since, **peer));
            let Some((&peer, _)) = longest.filter(|(_, s)| s.since + STALLED_TIME_MAX <= now)
            else {
                return;
            };
            self.sending.remove(&peer);
            self.forget(peer);
            self.urgent.push_back(Order::HangUp(peer));
        }
    }

    fn is_short_of_memory(&mut self) -> bool {
        (0..CLASSES).any(|class| {
            let first = self.waiting[class].front().and_then(|key| self.entries.get(key));
            let bytes = first.map(|entry| entry.bytes);
            bytes.is_some_and(|bytes| !self.make_room(class, bytes))
        })
    }

    /// What to tell a session now: what ends something at once, offers if there is room for one.
    pub(super) fn poll_order(&mut self, may_offer: bool) -> Option<Order> {
        if let Some(order) = self.urgent.pop_front() {
            return Some(order);
        }
        // An offer that was overtaken is not worth making.
        while may_offer && let Some(Offer { peer, version, form }) = self.offers.pop_front() {
            if self.version(peer) == Some(version) {
                return Some(Order::Offer { peer, version, form });
            }
        }
        None
    }

    /// Bytes in memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.iter().sum()
    }

    /// Whether so many more bytes may be in memory. Forgets forms that nobody uses, if need be.
    fn make_room(&mut self, class: usize, bytes: usize) -> bool {
        let fits = |pushes: &Self| {
            let (own, all) = (pushes.bytes[class], pushes.held_bytes());
            let in_all = all + bytes <= FORMS_BYTES_MAX;
            match class {
                SMALL => in_all || own + bytes <= SMALL_FORMS_RESERVE_BYTES,
                LARGE => own == 0 || in_all && own + bytes <= LARGE_FORMS_BYTES_MAX,
                _ => in_all,
            }
        };
        while !fits(self) && self.drop_oldest() {}
        fits(self)
    }

    fn drop_unused(&mut self, bytes_max: usize) {
        while self.unused_bytes > bytes_max && self.drop_oldest() {}
    }

    fn drop_oldest(&mut self) -> bool {
        let Some((_, key)) = self.unused.pop_first() else { return false };
        if let Some(entry) = self.entries.remove(&key) {
            self.unused_bytes -= entry.bytes;
            self.bytes[entry.class] -= entry.bytes;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: u8) -> Hex32 {
        Hex32([byte; 32])
    }

    fn key(base: u8, document: u8) -> Key {
        Key { base: Some(digest(base)), document: digest(document) }
    }

    fn agent(peer: u64) -> AgentId {
        format!("agent-{peer}").parse().unwrap()
    }

    fn push(pushes: &mut Pushes, peer: u64, key: Key, bytes: usize) {
        let version = u64::from(key.document.0[0]);
        pushes.push(Push { peer: PeerId(peer), agent: agent(peer), version, key, bytes }, None);
    }

    fn jobs(pushes: &mut Pushes) -> Vec<Key> {
        std::iter::from_fn(|| pushes.next_job()).map(|job| job.key).collect()
    }

    /// The job that some agent's push of this key has become.
    fn made(pushes: &mut Pushes, key: Key, form: Option<Form>) {
        let job = Job { key, agent: agent(0), peer: PeerId(u64::MAX), version: 0 };
        pushes.made(&job, form);
    }

    /// A form of so many bytes.
    fn form(bytes: usize) -> Option<Form> {
        Some(Form::with_digest(vec![0; bytes].into(), digest(0)))
    }

    fn peer_of(order: &Order) -> u64 {
        let (Order::Offer { peer, .. } | Order::Withdraw(peer) | Order::HangUp(peer)) = order;
        peer.0
    }

    fn orders(pushes: &mut Pushes) -> Vec<Order> {
        std::iter::from_fn(|| pushes.poll_order(true)).collect()
    }

    fn ready(pushes: &mut Pushes) -> Vec<(u64, u64)> {
        let offered = |order| match order {
            Order::Offer { peer, version, .. } => Some((peer.0, version)),
            Order::Withdraw(_) | Order::HangUp(_) => None,
        };
        orders(pushes).into_iter().filter_map(offered).collect()
    }

    /// Who is told to stop sending.
    fn withdrawn(pushes: &mut Pushes) -> Vec<u64> {
        let withdrawn = |order: &Order| matches!(order, Order::Withdraw(_));
        orders(pushes).iter().filter(|o| withdrawn(o)).map(peer_of).collect()
    }

    #[test]
    fn ten_thousand_agents_with_the_same_documents_cost_one_form() {
        let mut pushes = Pushes::default();
        for peer in 0..10_000 {
            push(&mut pushes, peer, key(1, 2), 64 << 10);
        }
        assert_eq!(jobs(&mut pushes), [key(1, 2)]);
        made(&mut pushes, key(1, 2), form(64 << 10));
        assert_eq!(ready(&mut pushes).len(), 10_000);
        assert_eq!(pushes.held_bytes(), 64 << 10);
        push(&mut pushes, 10_000, key(1, 2), 64 << 10);
        assert_eq!(jobs(&mut pushes), []);
        assert_eq!(ready(&mut pushes), [(10_000, 2)], "who comes later finds it there");
        // Another base makes another form.
        push(&mut pushes, 10_001, key(3, 2), 64 << 10);
        assert_eq!(jobs(&mut pushes), [key(3, 2)]);
    }

    #[test]
    fn an_agent_is_offered_the_newest_document_alone() {
        let mut pushes = Pushes::default();
        push(&mut pushes, 1, key(1, 2), 100);
        push(&mut pushes, 1, key(1, 3), 100);
        assert_eq!(jobs(&mut pushes), [key(1, 3)], "the older one is not even made");
        push(&mut pushes, 1, key(1, 4), 100);
        assert_eq!(jobs(&mut pushes), [key(1, 4)]);
        made(&mut pushes, key(1, 4), form(100));
        made(&mut pushes, key(1, 3), form(100));
        assert_eq!(ready(&mut pushes), [(1, 4)]);
        assert_eq!(pushes.version(PeerId(1)), Some(4));
        pushes.forget(PeerId(1));
        assert_eq!(pushes.version(PeerId(1)), None);
    }

    #[test]
    fn one_that_is_gone_is_offered_nothing() {
        let mut pushes = Pushes::default();
        push(&mut pushes, 1, key(1, 2), 100);
        push(&mut pushes, 2, key(1, 3), 100);
        pushes.forget(PeerId(2));
        assert_eq!(jobs(&mut pushes), [key(1, 2)]);
        made(&mut pushes, key(1, 2), form(100));
        pushes.forget(PeerId(1));
        assert_eq!(ready(&mut pushes), []);
    }

    #[test]
    fn large_documents_have_a_maker_of_their_own() {
        let mut pushes = Pushes::default();
        for n in 0..10 {
            push(&mut pushes, n, key(1, n as u8), 16 << 20);
        }
        assert_eq!(jobs(&mut pushes), [key(1, 0)]);
        for n in 10..20 {
            push(&mut pushes, n, key(1, n as u8), 2 << 10);
        }
        assert_eq!(jobs(&mut pushes), [key(1, 10), key(1, 11)]);
        made(&mut pushes, key(1, 0), form(16 << 20));
        assert_eq!(jobs(&mut pushes), [key(1, 1)], "in their order");
    }

    #[test]
    fn slow_agents_with_large_documents_leave_memory_for_others() {
        let mut pushes = Pushes::default();
        let (large, small) = (16 << 20, 64 << 10);
        let mut started = 0;
        for n in 0..100 {
            push(&mut pushes, n, key(1, n as u8), large);
            for job in jobs(&mut pushes) {
                // As deltas and compressed forms come on top, the bound is one of both.
                made(&mut pushes, job, form(large));
                started += 1;
            }
            assert!(pushes.held_bytes() <= LARGE_FORMS_BYTES_MAX);
        }
        assert_eq!(started, LARGE_FORMS_BYTES_MAX / large, "the others wait in the store");
        push(&mut pushes, 1000, key(2, 200), small);
        assert_eq!(jobs(&mut pushes), [key(2, 200)], "which a small one does not");
        // One that is stored makes room for the next; unused, it is the first to go.
        pushes.forget(PeerId(0));
        let next = jobs(&mut pushes);
        assert_eq!(next, [key(1, started as u8)]);
        assert!(pushes.held_bytes() <= LARGE_FORMS_BYTES_MAX + small);
    }

    #[test]
    fn small_documents_wait_in_the_store_as_well_once_memory_is_full() {
        let mut pushes = Pushes::default();
        let bytes = 512 << 10;
        let fit = FORMS_BYTES_MAX / bytes;
        for n in 0..2 * fit as u64 {
            let mut key = key(1, 7);
            key.document.0[..8].copy_from_slice(&n.to_be_bytes());
            let at_hand = form(bytes);
            let push = Push { peer: PeerId(n), agent: agent(n), version: 1, key, bytes };
            pushes.push(push, at_hand);
        }
        assert_eq!(ready(&mut pushes).len(), fit);
        assert_eq!(pushes.held_bytes(), FORMS_BYTES_MAX);
        assert_eq!(jobs(&mut pushes), []);
        pushes.forget(PeerId(0));
        assert_eq!(jobs(&mut pushes).len(), 1);
    }

    #[test]
    fn a_superseded_document_is_withdrawn_at_once_while_the_newer_one_waits_for_room() {
        let mut pushes = Pushes::default();
        let large = 16 << 20;
        let fit = LARGE_FORMS_BYTES_MAX / large;
        assert_eq!(full(&mut pushes), fit as u64);
        // Two agents share a document, of which one gets another: that takes no room away.
        push(&mut pushes, 100, key(1, 0), large);
        assert_eq!(ready(&mut pushes), [(100, 0)]);
        push(&mut pushes, 0, key(1, 200), large);
        assert_eq!(jobs(&mut pushes), [], "memory is full");
        assert_eq!(withdrawn(&mut pushes), [0]);
        // The other agent, too: now there is room, and one of them goes.
        push(&mut pushes, 100, key(1, 201), large);
        assert_eq!(withdrawn(&mut pushes), [100]);
        assert_eq!(jobs(&mut pushes), [key(1, 200)]);
        // What one has is not withdrawn when it is pushed again, and what was never begun need not be.
        push(&mut pushes, 1, key(1, 1), large);
        assert!(withdrawn(&mut pushes).is_empty());
        pushes.forget(PeerId(2));
        push(&mut pushes, 2, key(1, 202), large);
        assert!(withdrawn(&mut pushes).is_empty());
    }

    /// Fills what large documents may take with as many as fit, one for each peer from 0 on.
    fn full(pushes: &mut Pushes) -> u64 {
        let large = 16 << 20;
        let fit = (LARGE_FORMS_BYTES_MAX / large) as u64;
        for n in 0..fit {
            push(pushes, n, key(1, n as u8), large);
            for job in jobs(pushes) {
                made(pushes, job, form(large));
            }
        }
        assert_eq!(ready(pushes).len() as u64, fit);
        fit
    }

    #[test]
    fn what_is_overtaken_stops_at_once_although_offers_wait_for_room() {
        let mut pushes = Pushes::default();
        for (peer, document) in [(1, 1), (2, 2)] {
            push(&mut pushes, peer, key(0, document), 10);
        }
        jobs(&mut pushes);
        made(&mut pushes, key(0, 1), form(10));
        made(&mut pushes, key(0, 2), form(10));
        assert!(matches!(pushes.poll_order(true), Some(Order::Offer { peer: PeerId(1), .. })));
        push(&mut pushes, 1, key(0, 2), 10);
        assert!(matches!(pushes.poll_order(false), Some(Order::Withdraw(PeerId(1)))));
        assert!(pushes.poll_order(false).is_none());
        assert_eq!(ready(&mut pushes), [(2, 2), (1, 2)]);
    }

    fn hung_up_on(pushes: &mut Pushes) -> Vec<u64> {
        let hung_up = |order: &Order| matches!(order, Order::HangUp(_));
        orders(pushes).iter().filter(|o| hung_up(o)).map(peer_of).collect()
    }

    #[test]
    fn an_agent_that_never_stores_its_document_is_hung_up_on_once_others_wait_for_the_memory() {
        let mut pushes = Pushes::default();
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let limit = STALLED_TIME_MAX.as_secs();
        let fit = full(&mut pushes);
        // All but two of them move, if slowly.
        let moving = |now: u64| move |peer: PeerId| if peer.0 < 2 { 15 } else { now / 300 % 16 };
        pushes.look(at(0), |peer| if peer.0 == 1 { 14 } else { moving(0)(peer) });
        pushes.look(at(60), moving(60));
        for s in (120..=3 * limit).step_by(60) {
            pushes.look(at(s), moving(s));
        }
        assert!(hung_up_on(&mut pushes).is_empty(), "nobody waits");
        push(&mut pushes, 500, key(2, 200), 16 << 20);
        assert_eq!(jobs(&mut pushes), []);
        pushes.look(at(3 * limit), moving(3 * limit));
        assert_eq!(hung_up_on(&mut pushes), [0], "as many as need be, the oldest first");
        assert_eq!(jobs(&mut pushes), [key(2, 200)]);
        made(&mut pushes, key(2, 200), form(16 << 20));
        push(&mut pushes, 501, key(2, 201), 16 << 20);
        push(&mut pushes, 502, key(2, 202), 16 << 20);
        pushes.look(at(3 * limit + 60), moving(3 * limit + 60));
        assert_eq!(hung_up_on(&mut pushes), [1], "those that move are not");
        assert_eq!(pushes.peers.len() as u64, fit - 2 + 3);
        assert_eq!(pushes.sending.len() as u64, fit - 2 + 1);
    }

    #[test]
    fn a_peer_that_is_given_another_document_begins_anew() {
        let mut pushes = Pushes::default();
        let start = Instant::now();
        full(&mut pushes);
        pushes.look(start, |_| 0);
        let now = start + STALLED_TIME_MAX;
        for n in 0..=(LARGE_FORMS_BYTES_MAX / (16 << 20)) as u64 {
            push(&mut pushes, n, key(3, n as u8), 16 << 20);
            for job in jobs(&mut pushes) {
                made(&mut pushes, job, form(16 << 20));
            }
        }
        pushes.look(now, |_| 0);
        assert!(hung_up_on(&mut pushes).is_empty());
    }

    #[test]
    fn small_documents_find_room_however_full_the_memory_is() {
        let mut pushes = Pushes::default();
        full(&mut pushes);
        let medium = 512 << 10;
        for n in 0..(FORMS_BYTES_MAX / medium) as u64 {
            let mut key = key(2, 7);
            key.document.0[..8].copy_from_slice(&n.to_be_bytes());
            push(&mut pushes, 100 + n, key, medium);
            for job in jobs(&mut pushes) {
                made(&mut pushes, job, form(medium));
            }
        }
        assert_eq!(pushes.held_bytes(), FORMS_BYTES_MAX);
        let fit = SMALL_FORMS_RESERVE_BYTES / SMALL_BYTES_MAX;
        for n in 0..2 * fit as u64 {
            let mut key = key(4, 7);
            key.document.0[..8].copy_from_slice(&n.to_be_bytes());
            push(&mut pushes, 10_000 + n, key, SMALL_BYTES_MAX);
            for job in jobs(&mut pushes) {
                made(&mut pushes, job, form(SMALL_BYTES_MAX));
            }
        }
        assert_eq!(pushes.held_bytes(), FORMS_BYTES_MAX + SMALL_FORMS_RESERVE_BYTES);
    }

    #[test]
    fn a_document_beyond_every_bound_goes_when_it_is_alone() {
        let mut pushes = Pushes::default();
        push(&mut pushes, 1, key(1, 1), FORMS_BYTES_MAX + 1);
        assert_eq!(jobs(&mut pushes), [key(1, 1)]);
    }

    #[test]
    fn what_nobody_uses_is_kept_within_its_bound() {
        let mut pushes = Pushes::default();
        for n in 0..100 {
            push(&mut pushes, n, key(1, n as u8), 900 << 10);
            for job in jobs(&mut pushes) {
                made(&mut pushes, job, form(900 << 10));
            }
            pushes.forget(PeerId(n));
            assert!(pushes.held_bytes() <= UNUSED_FORMS_BYTES_MAX);
        }
        assert_eq!(pushes.held_bytes() / (900 << 10), UNUSED_FORMS_BYTES_MAX / (900 << 10));
        push(&mut pushes, 1, key(1, 99), 900 << 10);
        assert_eq!(ready(&mut pushes), [(1, 99)], "the newest of them are");
    }

    #[test]
    fn a_job_without_a_form_gives_up_its_own_agent_and_no_other() {
        let mut pushes = Pushes::default();
        for peer in 1..=3 {
            push(&mut pushes, peer, key(1, 2), 100);
        }
        let given_up = pushes.next_job().unwrap();
        pushes.made(&given_up, None);
        assert_eq!((pushes.held_bytes(), pushes.version(given_up.peer)), (0, None));
        let job = pushes.next_job().unwrap();
        assert_ne!(job.peer, given_up.peer, "from what another has");
        pushes.made(&job, form(100));
        let others: Vec<_> = (1..=3).filter(|n| *n != given_up.peer.0).map(|n| (n, 2)).collect();
        assert_eq!(ready(&mut pushes), others);

        push(&mut pushes, 4, key(1, 5), 100);
        let job = pushes.next_job().unwrap();
        pushes.made(&job, None);
        assert_eq!(jobs(&mut pushes), []);
        assert!(!pushes.entries.contains_key(&key(1, 5)));
    }

    #[test]
    fn a_document_that_was_in_force_before_and_is_again_is_not_given_up() {
        let mut pushes = Pushes::default();
        let again = |pushes: &mut Pushes, version, key| {
            let push = Push { peer: PeerId(1), agent: agent(1), version, key, bytes: 100 };
            pushes.push(push, None);
        };
        again(&mut pushes, 1, key(0, 7));
        let job = pushes.next_job().unwrap();
        // While the store is read, which finds the one between.
        again(&mut pushes, 2, key(0, 8));
        again(&mut pushes, 3, key(0, 7));
        pushes.made(&job, None);
        let job = pushes.next_job().unwrap();
        assert_eq!((job.key, job.version), (key(0, 7), 3));
        pushes.made(&job, form(100));
        assert_eq!(ready(&mut pushes), [(1, 3)]);
    }
}
