//! What the bytes in the queues' tables mean.

use bytes::Bytes;
use certs::AgentId;
use serde::{Deserialize, Serialize};

use super::order::{Order, Outline};
use super::{
    BURST_MS, MessagesQuery, NewDocument, NewMessage, PAGE_BYTES_MAX, Pushed, QUEUE_MESSAGES_MAX,
    QUEUES_BYTES_MAX, QUEUES_PER_PROJECT_MAX, QueueKey, QueueOutcome, QueueRecord, QueueWrite,
    SWEPT_PER_WRITE_MAX, StoredMessage, StoredObject, UNUSED_MS_MAX,
};
use crate::document::ValidDocument;
use crate::store::StoreError;
use crate::store::backend::{Snapshot, Table, Transaction};
use crate::store::documents;
use crate::store::ops::{get_json, get_number, joined, number_of, parse, put_json, put_number};

const KEY_QUEUES_BYTES: &[u8] = b"queues_bytes";

/// What is written before a message's body, in a line of its own.
#[derive(Serialize, Deserialize)]
struct Head {
    number: u64,
    ttl_s: u64,
    posted_unix_ms: u64,
    client: String,
    /// A document that was taken as a message, and is kept for the agent that will be bound.
    #[serde(default)]
    is_taken: bool,
}

impl Head {
    fn of(message: &StoredMessage) -> Self {
        Self {
            number: message.number,
            ttl_s: message.ttl_s,
            posted_unix_ms: message.posted_unix_ms,
            client: message.client.clone(),
            is_taken: false,
        }
    }

    fn is_expired(&self, now_unix_ms: u64) -> bool {
        let end = self.posted_unix_ms.saturating_add(self.ttl_s.saturating_mul(1000));
        now_unix_ms >= end
    }
}

/// Does one write inside a transaction.
pub(in crate::store) fn apply(
    tx: &mut dyn Transaction,
    write: &QueueWrite,
) -> Result<QueueOutcome, StoreError> {
    match write {
        QueueWrite::Make { queue, user, now_unix_ms } => {
            match open(tx, queue, user.as_deref(), *now_unix_ms)? {
                Ok((record, is_new)) => {
                    keep(tx, queue, &record, is_new)?;
                    Ok(QueueOutcome::Made { is_new })
                }
                Err(refused) => Ok(refused),
            }
        }
        QueueWrite::Remove { queue, user } => match get(tx, queue)? {
            Some(record) if is_foreign(&record, user.as_deref()) => Ok(QueueOutcome::NotYours),
            Some(record) => {
                remove(tx, queue, &record)?;
                Ok(QueueOutcome::Done)
            }
            None => Ok(QueueOutcome::Done),
        },
        QueueWrite::Post { queue, user, client, messages, now_unix_ms } => {
            post(tx, queue, user.as_deref(), client, messages, *now_unix_ms)
        }
        QueueWrite::Take { queue, user, count, now_unix_ms } => {
            take(tx, queue, user.as_deref(), *count, *now_unix_ms)
        }
        QueueWrite::Drop { queue, user, numbers } => {
            let Some(mut record) = get(tx, queue)? else { return Ok(QueueOutcome::Done) };
            if is_foreign(&record, user.as_deref()) {
                return Ok(QueueOutcome::NotYours);
            }
            for number in numbers {
                take_away(tx, queue, &mut record, *number)?;
            }
            save(tx, queue, &record)?;
            Ok(QueueOutcome::Done)
        }
        QueueWrite::Bind { queue, agent, owner, now_unix_ms } => {
            bind(tx, queue, agent, owner.as_deref(), *now_unix_ms)
        }
        QueueWrite::Settle { queue, pushes, document, now_unix_ms } => {
            settle(tx, queue, *pushes, document.as_ref(), *now_unix_ms)
        }
        QueueWrite::Sweep { from, now_unix_ms } => sweep(tx, from.as_ref(), *now_unix_ms),
    }
}

/// What is known of a queue.
pub(in crate::store) fn get(
    view: &dyn Snapshot,
    queue: &QueueKey,
) -> Result<Option<QueueRecord>, StoreError> {
    get_json(view, Table::Queues, &queue.bytes())
}

/// The queue whose newest document is an agent's.
pub(in crate::store) fn of_agent(
    view: &dyn Snapshot,
    agent: &AgentId,
) -> Result<Option<QueueKey>, StoreError> {
    let key = view.get(Table::QueueOfAgent, agent.as_str().as_bytes())?;
    key.map(|key| key_of(Table::QueueOfAgent, &key)).transpose()
}

/// All queues of which `wanted` says yes, with what is known of them.
pub(in crate::store) fn find(
    view: &dyn Snapshot,
    wanted: &dyn Fn(&QueueKey, &QueueRecord) -> bool,
) -> Result<Vec<(QueueKey, QueueRecord)>, StoreError> {
    let mut found = Vec::new();
    view.scan(Table::Queues, &[], &mut |key, value| {
        let queue = key_of(Table::Queues, key)?;
        let record = parse(Table::Queues, value)?;
        if wanted(&queue, &record) {
            found.push((queue, record));
        }
        Ok(true)
    })?;
    Ok(found)
}

/// Messages of a queue, the oldest first.
pub(in crate::store) fn messages(
    view: &dyn Snapshot,
    queue: &QueueKey,
    query: &MessagesQuery,
) -> Result<Vec<StoredMessage>, StoreError> {
    let mut page = Page { query, messages: Vec::new(), bytes: 0 };
    // The document of a queue that no agent is bound to is a message like others.
    let is_unbound = get(view, queue)?.is_some_and(|record| record.agent.is_none());
    let document = if is_unbound { view.get(Table::QueueDocuments, &queue.bytes())? } else { None };
    let mut document = match &document {
        Some(value) => Some(split(Table::QueueDocuments, value)?),
        None => None,
    };
    let prefix = prefix(queue);
    let from = joined(&prefix, &query.after.saturating_add(1).to_be_bytes());
    view.scan(Table::QueueMessages, &from, &mut |key, value| {
        if !key.starts_with(&prefix) {
            return Ok(false);
        }
        let (head, body) = split(Table::QueueMessages, value)?;
        if let Some((head, body)) = document.take_if(|(document, _)| document.number < head.number)
        {
            page.add(head, body);
        }
        page.add(head, body);
        Ok(!page.is_full())
    })?;
    if let Some((head, body)) = document {
        page.add(head, body);
    }
    Ok(page.messages)
}

/// Messages as they are found, as many as are wanted.
struct Page<'a> {
    query: &'a MessagesQuery,
    messages: Vec<StoredMessage>,
    bytes: usize,
}

impl Page<'_> {
    fn is_full(&self) -> bool {
        self.messages.len() >= self.query.limit || self.bytes >= PAGE_BYTES_MAX
    }

    fn add(&mut self, head: Head, body: &[u8]) {
        let query = self.query;
        let is_wanted = head.number > query.after
            && !head.is_taken
            && !head.is_expired(query.now_unix_ms)
            && query.not_of_client.as_ref().is_none_or(|client| *client != head.client);
        if is_wanted && !self.is_full() {
            self.bytes += body.len();
            self.messages.push(stored(head, body));
        }
    }
}

/// The document that came last and is not the agent's: none is bound, or its order is doubtful.
pub(in crate::store) fn waiting_document(
    view: &dyn Snapshot,
    queue: &QueueKey,
) -> Result<Option<StoredMessage>, StoreError> {
    let Some(value) = view.get(Table::QueueDocuments, &queue.bytes())? else { return Ok(None) };
    let (head, body) = split(Table::QueueDocuments, &value)?;
    Ok(Some(stored(head, body)))
}

/// What an object holds, and since when, in milliseconds since 1970.
pub(in crate::store) fn object(
    view: &dyn Snapshot,
    object: &QueueKey,
) -> Result<Option<(Bytes, u64)>, StoreError> {
    let Some(record) = get(view, object)? else { return Ok(None) };
    let newest = message_key(object, record.last_message);
    for (table, key) in [(Table::QueueMessages, newest), (Table::QueueDocuments, object.bytes())] {
        if let Some(value) = view.get(table, &key)? {
            let (head, body) = split(table, &value)?;
            return Ok(Some((Bytes::copy_from_slice(body), head.posted_unix_ms)));
        }
    }
    let Some(agent) = record.agent else { return Ok(None) };
    Ok(documents::document(view, &agent)?.map(|document| (document.body, record.pushed_unix_ms)))
}

/// The objects in the container of this one, in the order of their names.
pub(in crate::store) fn objects(
    view: &dyn Snapshot,
    any: &QueueKey,
) -> Result<Vec<StoredObject>, StoreError> {
    let mut found = Vec::new();
    let Some((container, _)) = any.name().split_once('/') else { return Ok(found) };
    let prefix = format!("{}\0{container}/", any.project());
    let mut all = Vec::new();
    view.scan(Table::Queues, prefix.as_bytes(), &mut |key, value| {
        if !key.starts_with(prefix.as_bytes()) {
            return Ok(false);
        }
        let name = String::from_utf8_lossy(key.get(prefix.len()..).unwrap_or_default());
        all.push((name.into_owned(), parse::<QueueRecord>(Table::Queues, value)?));
        Ok(true)
    })?;
    for (name, record) in all {
        let held = match &record.agent {
            Some(agent) if record.bytes == 0 => {
                documents::document_head(view, agent)?.map(|head| head.bytes)
            }
            _ => None,
        };
        let bytes = held.unwrap_or(record.bytes);
        found.push(StoredObject { name, bytes, modified_unix_ms: record.used_unix_ms });
    }
    Ok(found)
}

fn post(
    tx: &mut dyn Transaction,
    queue: &QueueKey,
    user: Option<&str>,
    client: &str,
    messages: &[NewMessage],
    now_unix_ms: u64,
) -> Result<QueueOutcome, StoreError> {
    let (mut record, is_new) = match open(tx, queue, user, now_unix_ms)? {
        Ok(opened) => opened,
        Err(refused) => return Ok(refused),
    };
    // Decided before anything is written: a refusal leaves nothing behind.
    let plain = messages.iter().filter(|message| message.document.is_none()).count() as u64;
    if plain > 0 && record.messages + plain > QUEUE_MESSAGES_MAX {
        expire(tx, queue, &mut record, now_unix_ms)?;
        if record.messages + plain > QUEUE_MESSAGES_MAX {
            keep(tx, queue, &record, is_new)?;
            return Ok(QueueOutcome::Full {
                what: "messages in the queue",
                max: QUEUE_MESSAGES_MAX,
            });
        }
    }
    // An agent's document is not kept here: no others' queues can be so full that it is refused.
    let is_kept = |message: &&NewMessage| message.document.is_none() || record.agent.is_none();
    let bytes: usize = messages.iter().filter(is_kept).map(|message| message.body.len()).sum();
    // An object is what was put last, and takes the place of what was there.
    let freed = if queue.is_object() { record.bytes } else { 0 };
    if bytes > 0 && total_bytes(tx)? + bytes as u64 > QUEUES_BYTES_MAX + freed {
        return Ok(QueueOutcome::Full { what: "bytes in all queues", max: QUEUES_BYTES_MAX });
    }
    if queue.is_object() {
        clear(tx, queue, &mut record)?;
    }
    let mut numbers = Vec::new();
    let mut newest = None;
    for message in messages {
        record.last_message += 1;
        numbers.push(record.last_message);
        let stored = StoredMessage {
            number: record.last_message,
            ttl_s: message.ttl_s,
            posted_unix_ms: now_unix_ms,
            client: client.to_owned(),
            body: message.body.clone(),
        };
        match &message.document {
            Some(document) => newest = Some((stored, document)),
            None => add_message(tx, queue, &mut record, &stored)?,
        }
    }
    let pushed = match newest {
        Some((stored, document)) => push(tx, queue, &mut record, &stored, document, now_unix_ms)?,
        None => None,
    };
    let is_unsettled = record.unsettled_since_unix_ms.is_some();
    keep(tx, queue, &record, is_new)?;
    Ok(QueueOutcome::Posted { numbers, pushed, is_unsettled })
}

/// A document has come: it is the agent's at once, unless it looks older than what the agent has.
fn push(
    tx: &mut dyn Transaction,
    queue: &QueueKey,
    record: &mut QueueRecord,
    stored: &StoredMessage,
    new: &NewDocument,
    now_unix_ms: u64,
) -> Result<Option<Pushed>, StoreError> {
    // Heat writes objects one after the other.
    let is_ordered = queue.is_object();
    let is_burst = !is_ordered
        && record.pushes > 0
        && now_unix_ms.saturating_sub(record.pushed_unix_ms) < BURST_MS;
    record.pushes += 1;
    record.pushed_unix_ms = now_unix_ms;
    let outline = &new.outline;
    let order = match &record.agent {
        Some(agent) if !is_ordered => documents::document(tx, agent)?
            .map_or(Order::Newer, |held| outline.compared_to(&Outline::of(&held.body))),
        _ => Order::Newer,
    };
    if outline.server_id.is_some() {
        record.server_id.clone_from(&outline.server_id);
    }
    let Some(agent) = record.agent.clone() else {
        set_document(tx, queue, record, Some(stored))?;
        return Ok(None);
    };
    if is_burst || order == Order::Older {
        record.unsettled_since_unix_ms.get_or_insert(now_unix_ms);
    }
    if order == Order::Older || (order == Order::Fewer && is_burst) {
        set_document(tx, queue, record, Some(stored))?;
        return Ok(None);
    }
    set_document(tx, queue, record, None)?;
    enforce(tx, agent, &new.valid, now_unix_ms)
}

fn take(
    tx: &mut dyn Transaction,
    queue: &QueueKey,
    user: Option<&str>,
    count: usize,
    now_unix_ms: u64,
) -> Result<QueueOutcome, StoreError> {
    let Some(mut record) = get(tx, queue)? else { return Ok(QueueOutcome::Taken(Vec::new())) };
    if is_foreign(&record, user) {
        return Ok(QueueOutcome::NotYours);
    }
    expire(tx, queue, &mut record, now_unix_ms)?;
    let query = MessagesQuery { after: 0, limit: count, not_of_client: None, now_unix_ms };
    let taken = messages(tx, queue, &query)?;
    for message in &taken {
        take_away(tx, queue, &mut record, message.number)?;
    }
    save(tx, queue, &record)?;
    Ok(QueueOutcome::Taken(taken))
}

fn bind(
    tx: &mut dyn Transaction,
    queue: &QueueKey,
    agent: &AgentId,
    owner: Option<&str>,
    now_unix_ms: u64,
) -> Result<QueueOutcome, StoreError> {
    let (mut record, is_new) = match open(tx, queue, None, now_unix_ms)? {
        Ok(opened) => opened,
        Err(refused) => return Ok(refused),
    };
    let mut is_taken_over = false;
    if let Some(owner) = owner {
        if is_foreign(&record, Some(owner)) {
            // Somebody else of the project was quicker to use the name. What they said counts nowhere, and an
            // answer of Heat's to what they said comes too late.
            is_taken_over = true;
            clear(tx, queue, &mut record)?;
            record.server_id = None;
            record.pushes += 1;
        }
        record.owner = Some(owner.to_owned());
    }
    if of_agent(tx, agent)?.is_some_and(|other| other != *queue) {
        unbind(tx, agent)?;
    }
    let was_bound = record.agent.is_some();
    tx.delete(Table::HeatSources, agent.as_str().as_bytes())?;
    let moved_from = record.agent.replace(agent.clone()).filter(|before| before != agent);
    if let Some(before) = &moved_from {
        tx.delete(Table::QueueOfAgent, before.as_str().as_bytes())?;
    }
    tx.put(Table::QueueOfAgent, agent.as_str().as_bytes(), &queue.bytes())?;
    let waiting = waiting_document(tx, queue)?;
    let is_held = match &waiting {
        // Heat cannot be asked about an object, and what was put last counts.
        _ if queue.is_object() => false,
        Some(_) if was_bound => true,
        // It may be what was held when the agent got another queue for a while.
        Some(waiting) => documents::document(tx, agent)?.is_some_and(|in_force| {
            let order = Outline::of(&waiting.body).compared_to(&Outline::of(&in_force.body));
            order == Order::Older
        }),
        None => false,
    };
    let body = match (waiting, &moved_from) {
        (Some(waiting), _) if !is_held => Some(waiting.body),
        (_, Some(before)) if !is_taken_over => {
            documents::document(tx, before)?.map(|document| document.body)
        }
        _ => None,
    };
    if !is_held {
        set_document(tx, queue, &mut record, None)?;
    }
    if record.pushes > 0 && !queue.is_object() {
        record.unsettled_since_unix_ms.get_or_insert(now_unix_ms);
    }
    keep(tx, queue, &record, is_new)?;
    let pushed = match body {
        Some(body) => enforce(tx, agent.clone(), &checked(body)?, now_unix_ms)?,
        None => None,
    };
    Ok(QueueOutcome::Bound { pushed, moved_from })
}

/// From here on no queue's newest document is this agent's.
pub(in crate::store) fn unbind(
    tx: &mut dyn Transaction,
    agent: &AgentId,
) -> Result<(), StoreError> {
    let Some(queue) = of_agent(tx, agent)? else { return Ok(()) };
    tx.delete(Table::QueueOfAgent, agent.as_str().as_bytes())?;
    if let Some(mut record) = get(tx, &queue)? {
        record.agent = None;
        record.unsettled_since_unix_ms = None;
        save(tx, &queue, &record)?;
    }
    Ok(())
}

fn settle(
    tx: &mut dyn Transaction,
    queue: &QueueKey,
    pushes: u64,
    in_force: Option<&ValidDocument>,
    now_unix_ms: u64,
) -> Result<QueueOutcome, StoreError> {
    let Some(mut record) = get(tx, queue)? else {
        return Ok(QueueOutcome::Settled { pushed: None, is_done: true });
    };
    let Some(agent) = record.agent.clone() else {
        return Ok(QueueOutcome::Settled { pushed: None, is_done: true });
    };
    if record.pushes != pushes {
        return Ok(QueueOutcome::Settled { pushed: None, is_done: false });
    }
    let last = waiting_document(tx, queue)?;
    let document = match (in_force, last) {
        (Some(document), _) => Some(document.clone()),
        (None, Some(last)) => Some(checked(last.body)?),
        (None, None) => None,
    };
    set_document(tx, queue, &mut record, None)?;
    record.unsettled_since_unix_ms = None;
    save(tx, queue, &record)?;
    let pushed = match document {
        Some(document) => enforce(tx, agent, &document, now_unix_ms)?,
        None => None,
    };
    Ok(QueueOutcome::Settled { pushed, is_done: true })
}

fn sweep(
    tx: &mut dyn Transaction,
    from: Option<&QueueKey>,
    now_unix_ms: u64,
) -> Result<QueueOutcome, StoreError> {
    let mut seen = Vec::new();
    let from = from.map(QueueKey::bytes).unwrap_or_default();
    tx.scan(Table::Queues, &from, &mut |key, value| {
        let record: QueueRecord = parse(Table::Queues, value)?;
        seen.push((key_of(Table::Queues, key)?, record));
        Ok(seen.len() <= SWEPT_PER_WRITE_MAX)
    })?;
    let next = (seen.len() > SWEPT_PER_WRITE_MAX).then(|| seen.pop()).flatten();
    for (queue, mut record) in seen {
        let unused_ms = now_unix_ms.saturating_sub(record.used_unix_ms);
        if record.agent.is_none() && unused_ms > UNUSED_MS_MAX {
            remove(tx, &queue, &record)?;
        } else if record.messages > 0 && expire(tx, &queue, &mut record, now_unix_ms)? {
            save(tx, &queue, &record)?;
        }
    }
    Ok(QueueOutcome::Swept(next.map(|(queue, _)| queue)))
}

/// The queue for a use of it and whether it is new, or why it may not be used. Nothing is written: what was
/// done is [`keep`]'s.
fn open(
    tx: &dyn Snapshot,
    queue: &QueueKey,
    user: Option<&str>,
    now_unix_ms: u64,
) -> Result<Result<(QueueRecord, bool), QueueOutcome>, StoreError> {
    if let Some(mut record) = get(tx, queue)? {
        if is_foreign(&record, user) {
            return Ok(Err(QueueOutcome::NotYours));
        }
        if record.owner.is_none() {
            record.owner = user.map(str::to_owned);
        }
        record.used_unix_ms = now_unix_ms;
        return Ok(Ok((record, false)));
    }
    let project = queue.project().as_bytes();
    let count = get_number(tx, Table::QueueCounts, project)?.unwrap_or(0);
    if count >= QUEUES_PER_PROJECT_MAX {
        return Ok(Err(QueueOutcome::Full {
            what: "queues of the project",
            max: QUEUES_PER_PROJECT_MAX,
        }));
    }
    let record = QueueRecord {
        owner: user.map(str::to_owned),
        created_unix_ms: now_unix_ms,
        used_unix_ms: now_unix_ms,
        ..QueueRecord::default()
    };
    Ok(Ok((record, true)))
}

/// Saves a queue after a use, and counts it if it is new.
fn keep(
    tx: &mut dyn Transaction,
    queue: &QueueKey,
    record: &QueueRecord,
    is_new: bool,
) -> Result<(), StoreError> {
    if is_new {
        let project = queue.project().as_bytes();
        let count = get_number(tx, Table::QueueCounts, project)?.unwrap_or(0);
        put_number(tx, Table::QueueCounts, project, count + 1)?;
    }
    save(tx, queue, record)
}

fn is_foreign(record: &QueueRecord, user: Option<&str>) -> bool {
    user.is_some() && record.owner.as_deref().is_some_and(|owner| Some(owner) != user)
}

fn enforce(
    tx: &mut dyn Transaction,
    agent: AgentId,
    new: &ValidDocument,
    now_unix_ms: u64,
) -> Result<Option<Pushed>, StoreError> {
    let (document, is_new) = documents::put(tx, &agent, new, now_unix_ms)?;
    Ok(is_new.then_some(Pushed { agent, document }))
}

/// A document that was checked when it came.
fn checked(body: Bytes) -> Result<ValidDocument, StoreError> {
    ValidDocument::check(body, usize::MAX)
        .map_err(|_| StoreError::Corrupt { what: "a queue's document is none".into() })
}

fn remove(
    tx: &mut dyn Transaction,
    queue: &QueueKey,
    record: &QueueRecord,
) -> Result<(), StoreError> {
    clear(tx, queue, &mut record.clone())?;
    if let Some(agent) = &record.agent {
        tx.delete(Table::QueueOfAgent, agent.as_str().as_bytes())?;
    }
    tx.delete(Table::Queues, &queue.bytes())?;
    let project = queue.project().as_bytes();
    match get_number(tx, Table::QueueCounts, project)?.unwrap_or(0) {
        0 | 1 => tx.delete(Table::QueueCounts, project),
        count => put_number(tx, Table::QueueCounts, project, count - 1),
    }
}

/// Removes all messages and the waiting document.
fn clear(
    tx: &mut dyn Transaction,
    queue: &QueueKey,
    record: &mut QueueRecord,
) -> Result<(), StoreError> {
    for number in numbers(tx, queue, &mut |_| Ok(true))? {
        drop_message(tx, queue, record, number)?;
    }
    set_document(tx, queue, record, None)
}

/// Removes messages that have expired; whether there were any.
fn expire(
    tx: &mut dyn Transaction,
    queue: &QueueKey,
    record: &mut QueueRecord,
    now_unix_ms: u64,
) -> Result<bool, StoreError> {
    let expired = numbers(tx, queue, &mut |value| {
        Ok(split(Table::QueueMessages, value)?.0.is_expired(now_unix_ms))
    })?;
    for number in &expired {
        drop_message(tx, queue, record, *number)?;
    }
    Ok(!expired.is_empty())
}

/// The numbers of the messages of whose value `wanted` says yes.
fn numbers(
    view: &dyn Snapshot,
    queue: &QueueKey,
    wanted: &mut dyn FnMut(&[u8]) -> Result<bool, StoreError>,
) -> Result<Vec<u64>, StoreError> {
    let prefix = prefix(queue);
    let mut numbers = Vec::new();
    view.scan(Table::QueueMessages, &prefix, &mut |key, value| {
        let Some(number) = key.strip_prefix(prefix.as_slice()) else { return Ok(false) };
        if wanted(value)? {
            numbers.push(number_of(Table::QueueMessages, number)?);
        }
        Ok(true)
    })?;
    Ok(numbers)
}

fn add_message(
    tx: &mut dyn Transaction,
    queue: &QueueKey,
    record: &mut QueueRecord,
    message: &StoredMessage,
) -> Result<(), StoreError> {
    let value = encode(&Head::of(message), &message.body)?;
    tx.put(Table::QueueMessages, &message_key(queue, message.number), &value)?;
    record.messages += 1;
    count_bytes(tx, record, 0, message.body.len() as u64)
}

/// Removes a message; whether it was there.
fn drop_message(
    tx: &mut dyn Transaction,
    queue: &QueueKey,
    record: &mut QueueRecord,
    number: u64,
) -> Result<bool, StoreError> {
    let key = message_key(queue, number);
    let Some(gone) = tx.get(Table::QueueMessages, &key)? else { return Ok(false) };
    tx.delete(Table::QueueMessages, &key)?;
    record.messages = record.messages.saturating_sub(1);
    count_bytes(tx, record, split(Table::QueueMessages, &gone)?.1.len() as u64, 0)?;
    Ok(true)
}

/// Removes the message with this number; the waiting document counts as taken, if it has it.
fn take_away(
    tx: &mut dyn Transaction,
    queue: &QueueKey,
    record: &mut QueueRecord,
    number: u64,
) -> Result<(), StoreError> {
    if drop_message(tx, queue, record, number)? {
        return Ok(());
    }
    let Some(document) = tx.get(Table::QueueDocuments, &queue.bytes())? else { return Ok(()) };
    let (head, body) = split(Table::QueueDocuments, &document)?;
    if head.number != number {
        return Ok(());
    }
    let taken = encode(&Head { is_taken: true, ..head }, body)?;
    tx.put(Table::QueueDocuments, &queue.bytes(), &taken)
}

/// Sets the waiting document, in place of the one before.
fn set_document(
    tx: &mut dyn Transaction,
    queue: &QueueKey,
    record: &mut QueueRecord,
    new: Option<&StoredMessage>,
) -> Result<(), StoreError> {
    let old = match tx.get(Table::QueueDocuments, &queue.bytes())? {
        Some(old) => split(Table::QueueDocuments, &old)?.1.len() as u64,
        None => 0,
    };
    match new {
        Some(new) => {
            let value = encode(&Head::of(new), &new.body)?;
            tx.put(Table::QueueDocuments, &queue.bytes(), &value)?;
        }
        None => tx.delete(Table::QueueDocuments, &queue.bytes())?,
    }
    count_bytes(tx, record, old, new.map_or(0, |new| new.body.len() as u64))
}

pub(super) fn total_bytes(view: &dyn Snapshot) -> Result<u64, StoreError> {
    Ok(get_number(view, Table::Meta, KEY_QUEUES_BYTES)?.unwrap_or(0))
}

fn count_bytes(
    tx: &mut dyn Transaction,
    record: &mut QueueRecord,
    minus: u64,
    plus: u64,
) -> Result<(), StoreError> {
    if minus == plus {
        return Ok(());
    }
    record.bytes = (record.bytes + plus).saturating_sub(minus);
    let total = (total_bytes(tx)? + plus).saturating_sub(minus);
    put_number(tx, Table::Meta, KEY_QUEUES_BYTES, total)
}

fn save(
    tx: &mut dyn Transaction,
    queue: &QueueKey,
    record: &QueueRecord,
) -> Result<(), StoreError> {
    put_json(tx, Table::Queues, &queue.bytes(), record)
}

fn prefix(queue: &QueueKey) -> Vec<u8> {
    joined(&queue.bytes(), &[0])
}

fn message_key(queue: &QueueKey, number: u64) -> Vec<u8> {
    joined(&prefix(queue), &number.to_be_bytes())
}

fn key_of(table: Table, key: &[u8]) -> Result<QueueKey, StoreError> {
    QueueKey::from_bytes(key)
        .ok_or_else(|| StoreError::Corrupt { what: format!("a queue's name in {}", table.name()) })
}

fn encode(head: &Head, body: &[u8]) -> Result<Vec<u8>, StoreError> {
    let mut bytes = serde_json::to_vec(head)
        .map_err(|e| StoreError::Io { what: format!("writing a message: {e}") })?;
    bytes.push(b'\n');
    bytes.extend_from_slice(body);
    Ok(bytes)
}

/// What is before a message's body, and the body.
fn split(table: Table, bytes: &[u8]) -> Result<(Head, &[u8]), StoreError> {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (head, body) = bytes.split_at(end);
    Ok((parse(table, head)?, body.get(1..).unwrap_or_default()))
}

fn stored(head: Head, body: &[u8]) -> StoredMessage {
    StoredMessage {
        number: head.number,
        ttl_s: head.ttl_s,
        posted_unix_ms: head.posted_unix_ms,
        client: head.client,
        body: Bytes::copy_from_slice(body),
    }
}
