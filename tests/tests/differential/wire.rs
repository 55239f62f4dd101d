//! Reads off the wire what was agreed, so that no implementation is believed.

/// ClientHello, ServerHello and ServerKeyExchange (RFC 5246 §7.4).
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const SERVER_KEY_EXCHANGE: u8 = 12;
const SUPPORTED_GROUPS: u16 = 10;
const EXTENDED_MASTER_SECRET: u16 = 23;

/// What the hellos and the server's flight say.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    offer: Message,
    hello: Message,
    exchange: Message,
    /// The fragments in clear of either end: (message, offset, end).
    fragments: [Vec<(u16, usize, usize)>; 2],
    /// True if an end sent a message again in other pieces.
    pub(crate) cuts_anew: [bool; 2],
}

/// What both ends are bound to by it: suite, group, extended master secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) suite: u16,
    pub(crate) group: u16,
    pub(crate) ems: bool,
}

/// What the client offers, in its own order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Offered {
    pub(crate) suites: Vec<u16>,
    pub(crate) groups: Vec<u16>,
}

#[derive(Debug, Default)]
struct Message {
    body: Vec<Option<u8>>,
}

impl Message {
    fn fill(&mut self, length: usize, offset: usize, piece: &[u8]) {
        // A hello comes again, longer by its cookie.
        if self.body.len() != length {
            self.body = vec![None; length];
        }
        for (slot, byte) in self.body[offset..].iter_mut().zip(piece) {
            *slot = Some(*byte);
        }
    }

    fn whole(&self) -> Option<Vec<u8>> {
        self.body.iter().copied().collect::<Option<Vec<u8>>>().filter(|body| !body.is_empty())
    }
}

/// One word per record, for people: type, epoch, and of handshake messages in clear the number,
/// kind and piece.
pub(crate) fn describe(datagram: &[u8]) -> String {
    let mut words = Vec::new();
    let mut rest = datagram;
    while rest.len() >= 13 {
        let (header, body) = rest.split_at(13);
        let (body, after) = body.split_at(number(&header[11..13]).min(body.len()));
        rest = after;
        words.push(match (header[0], &header[3..5], body) {
            (22, [0, 0], [kind, _, l1, l0, s1, s0, _, o1, o0, _, p1, p0, ..]) => format!(
                "hs{kind}#{}[{}+{}/{}]",
                number(&[*s1, *s0]),
                number(&[*o1, *o0]),
                number(&[*p1, *p0]),
                number(&[*l1, *l0])
            ),
            (21, [0, 0], [_, what]) => format!("alert{what}"),
            (kind, epoch, _) => format!("{kind}@{}({})", number(epoch), body.len()),
        });
    }
    words.join(" ")
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b))
}

impl Observer {
    /// Looks at a datagram of either end.
    pub(crate) fn see(&mut self, from: usize, datagram: &[u8]) {
        let mut rest = datagram;
        while rest.len() >= 13 {
            let (header, body) = rest.split_at(13);
            let (body, after) = body.split_at(number(&header[11..13]).min(body.len()));
            rest = after;
            if header[0] == 22 && header[3..5] == [0, 0] {
                self.see_fragments(from, body);
            }
        }
    }

    fn see_fragments(&mut self, from: usize, mut body: &[u8]) {
        while body.len() >= 12 {
            let (header, rest) = body.split_at(12);
            let (length, offset) = (number(&header[1..4]), number(&header[6..9]));
            let (piece, after) = rest.split_at(number(&header[9..12]).min(rest.len()));
            body = after;
            let (message, end) = (number(&header[4..6]) as u16, offset + piece.len());
            self.cuts_anew[from] |= self.fragments[from].iter().any(|(m, o, e)| {
                *m == message && (*o, *e) != (offset, end) && *o < end && offset < *e
            });
            self.fragments[from].push((message, offset, end));
            match header[0] {
                CLIENT_HELLO => self.offer.fill(length, offset, piece),
                SERVER_HELLO => self.hello.fill(length, offset, piece),
                SERVER_KEY_EXCHANGE => self.exchange.fill(length, offset, piece),
                _ => {}
            }
        }
    }

    /// What was agreed, if the whole of both messages was sent.
    pub(crate) fn agreed(&self) -> Option<Agreed> {
        let (hello, exchange) = (self.hello.whole()?, self.exchange.whole()?);
        let after_session_id = 35 + usize::from(hello[34]);
        let suite = number(&hello[after_session_id..after_session_id + 2]) as u16;
        let list = hello.get(after_session_id + 5..).unwrap_or_default();
        let ems = extensions(list).any(|(kind, _)| kind == EXTENDED_MASTER_SECRET);
        assert_eq!(exchange[0], 3, "a named curve");
        Some(Agreed { suite, group: number(&exchange[1..3]) as u16, ems })
    }

    /// What the client's last whole hello offers.
    pub(crate) fn offered(&self) -> Option<Offered> {
        let hello = self.offer.whole()?;
        // Version, random, session id, cookie.
        let mut at = 34;
        at += 1 + usize::from(hello[at]);
        at += 1 + usize::from(hello[at]);
        let suites_end = at + 2 + number(&hello[at..at + 2]);
        let suites = numbers(&hello[at + 2..suites_end]);
        let list = hello.get(suites_end + 1 + usize::from(hello[suites_end]) + 2..)?;
        let groups = extensions(list).find(|(kind, _)| *kind == SUPPORTED_GROUPS);
        Some(Offered {
            suites,
            groups: groups.map_or_else(Vec::new, |(_, body)| numbers(&body[2..])),
        })
    }
}

fn numbers(list: &[u8]) -> Vec<u16> {
    list.chunks(2).map(|pair| number(pair) as u16).collect()
}

/// The extensions of a hello: number and content.
fn extensions(mut list: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = list.split_at_checked(4)?;
        let (body, after) = rest.split_at_checked(number(&head[2..]))?;
        list = after;
        Some((number(&head[..2]) as u16, body))
    })
}
