//! Writing packets.

use std::time::Instant;

use super::{BACKGROUND_PACKETS_MAX, CLOSE_SPACING_MAX, CLOSE_SPACING_MIN, Phase, Session};
use crate::inbound::Quiet;
use crate::outbound::Urgency;
use crate::packet::Packet;
use crate::recovery::SentFrame;
use crate::repair::Lossy;
use crate::wire::{Frame, SHORT_ACK_BYTES, write_ack};

/// Share of a packet that an ACK may take when it has many ranges: a quarter.
const ACK_SHARE: usize = 4;

/// Fewer packets than this are no fewer if each is a fifth longer: not worth a probe of the path MTU.
const MTU_PROBE_PACKETS_MIN: usize = 5;

impl Session {
    /// Writes the next packet into `out`, which is cleared first: at most
    /// [`payload_max`](Self::payload_max) bytes, or longer if it is a probe of the path MTU.
    /// `packet_number` is the number the channel will give it: higher than any before. False:
    /// nothing to send now, and the number is still free.
    ///
    /// A packet that was written counts as sent. If the channel then fails to send it, that is a
    /// loss like any other; or, when the channel gives the same number to the next packet, the
    /// call with that number takes the earlier packet back and sends what it carried.
    pub fn poll_transmit(&mut self, now: Instant, packet_number: u64, out: &mut Vec<u8>) -> bool {
        out.clear();
        match self.recovery.largest_sent() {
            Some(last) if packet_number == last => {
                if self.marked {
                    self.marking.retracted();
                }
                self.inbound.doubt_quiet();
                for frame in self.recovery.retract(packet_number) {
                    self.frame_lost(frame);
                }
            }
            Some(last) if packet_number < last => {
                debug_assert!(false, "packet number {packet_number} after {last}");
                return false;
            }
            _ => {}
        }
        self.marked = false;
        if let Some(bytes) = self.mtu_probe_due(now) {
            return self.write_mtu_probe(now, packet_number, bytes, out);
        }
        let mut packet = Packet::new(out, self.packet_bytes_max());
        let acked = match self.phase {
            Phase::Open => self.write_open(now, packet_number, &mut packet),
            Phase::Closing(_) => self.write_closing(now, &mut packet),
            Phase::Over => self.write_over(now, &mut packet),
        };
        let (bytes, mut sent) = packet.finish();
        if bytes == 0 {
            return false;
        }
        if !sent.is_empty() {
            sent.extend(acked.map(|largest| SentFrame::Ack { largest }));
        }
        let asks = !sent.is_empty();
        self.marked = self.is_to_be_marked(now, asks);
        self.note_sent(now, packet_number, bytes, sent);
        if self.marked {
            self.marking.sent(asks);
            if asks {
                self.recovery.mark_last();
            }
        }
        true
    }

    /// `asks`: whether the packet asks for an acknowledgement. Only such a one can tell what the path does to marks.
    fn is_to_be_marked(&mut self, now: Instant, asks: bool) -> bool {
        // What is sent to find out why nothing comes back must not be dropped for its mark.
        let silent = self.recovery.timeouts() > 0;
        let marks = if asks { self.marking.marks(now) } else { self.marking.is_capable() };
        marks && !silent && matches!(self.phase, Phase::Open)
    }

    fn note_sent(&mut self, now: Instant, number: u64, bytes: usize, sent: Vec<SentFrame>) {
        if !sent.is_empty() {
            self.received.asked();
            let window = self.congestion.window();
            // A remembered window is larger than what may leave in a burst.
            let assumed = self.congestion.is_unproven().then(|| self.recovery.rtt().smoothed());
            let round_trip = self.recovery.rtt().measured().or(assumed);
            let slow_start = self.congestion.in_slow_start();
            self.pacer.on_sent(now, bytes, window, round_trip, slow_start);
        }
        self.recovery.on_sent(now, number, bytes, sent);
        self.counters.packets_sent += 1;
        self.counters.bytes_sent += bytes as u64;
    }

    /// How long a packet may be. When nothing comes back, what is sent to find out why has to fit
    /// whatever the path has become.
    fn packet_bytes_max(&self) -> usize {
        let silent = self.recovery.probe_owed() && self.recovery.timeouts() >= 2;
        if silent { self.path_mtu.floor() } else { self.path_mtu.payload_max() }
    }

    /// The size of a probe of the path MTU that may leave now. Only with much to send, as nobody
    /// else gains by it, and only when the peer needs no HELLO in it.
    fn mtu_probe_due(&mut self, now: Instant) -> Option<usize> {
        // Seldom true, and quickly told.
        let much = (MTU_PROBE_PACKETS_MIN * self.path_mtu.payload_max()) as u64;
        if self.outbound.wire_bytes() <= much {
            return None;
        }
        let greeted = self.greeting.hello(&self.config).is_none();
        let useful =
            self.outbound.has_something(Urgency::Usual) && matches!(self.phase, Phase::Open);
        if !greeted || !useful || self.recovery.probe_owed() || !self.may_send(now) {
            return None;
        }
        self.path_mtu.probe_size(now)
    }

    fn write_mtu_probe(
        &mut self,
        now: Instant,
        packet_number: u64,
        bytes: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        let mut packet = Packet::new(out, bytes);
        // It always fits.
        let _ = packet.push(&Frame::Ping, SentFrame::MtuProbe { bytes });
        packet.pad();
        let (bytes, sent) = packet.finish();
        self.path_mtu.probe_sent();
        self.counters.mtu_probes_sent += 1;
        self.note_sent(now, packet_number, bytes, sent);
        true
    }

    /// Writes what an open session has to say. Returns the largest number acknowledged, if any.
    fn write_open(&mut self, now: Instant, number: u64, packet: &mut Packet<'_>) -> Option<u64> {
        self.reckon_with_loss();
        let peer = self.greeting.peer_limits();
        for (name, version, code, reason) in self.outbound.promote(&peer) {
            self.refused(name, version, code, reason);
        }
        if self.recovery.probe_owed() && !self.has_content() {
            self.resend_oldest();
            self.ping_due |= !self.has_content();
        }
        let ack_due = self.is_ack_due(now);
        self.ping_due |= ack_due && self.received.should_ask();
        let content = self.has_content() && self.may_send(now);
        if !content && !ack_due {
            return None;
        }
        let quietly = content && self.may_answer_quietly();
        let acked = self.write_ack(now, packet);
        match acked.filter(|_| quietly) {
            Some(reported) => self.inbound.fill_quietly(Quiet { number, reported }, packet),
            None if content => self.write_content(packet),
            None => {}
        }
        acked
    }

    /// Whether what there is to say need not ask for an acknowledgement: that documents are stored, beside the
    /// acknowledgement of their last packets. If it is lost the peer misses both, and its probe brings both again. Where
    /// round trips are long or losses known, that would take too long.
    fn may_answer_quietly(&self) -> bool {
        self.received.is_missed()
            && !self.received.should_ask()
            && !self.is_far()
            && !self.congestion.has_lost()
            && self.recovery.timeouts() == 0
            && !self.recovery.probe_owed()
            && !self.ping_due
            && self.greeting.hello(&self.config).is_none()
            && self.outbound.is_empty()
            && self.inbound.has_only_stored()
    }

    /// Tells what is to be sent next how the path loses packets.
    pub(super) fn reckon_with_loss(&mut self) {
        // Who has nothing to send need not know.
        if self.outbound.is_empty() {
            return;
        }
        let symbols_max = self.greeting.peer_limits().repair_symbols_max;
        self.outbound.set_lossy(Lossy {
            loss: self.feared_loss(),
            window: self.congestion.window(),
            symbols_max: u16::try_from(symbols_max).unwrap_or(u16::MAX),
            seen: self.congestion.has_lost() || self.recovery.timeouts() > 0,
        });
    }

    fn write_content(&mut self, packet: &mut Packet<'_>) {
        if let Some(hello) = self.greeting.hello(&self.config) {
            let sent = SentFrame::Hello { generation: hello.generation };
            if packet.push(&Frame::Hello(hello), sent) {
                self.greeting.sent();
            }
        }
        self.inbound.fill(packet);
        let lowest = self.lowest_urgency();
        self.outbound.fill(packet, lowest);
        // Anything else that asks for an acknowledgement serves as well.
        if packet.is_ack_eliciting()
            || (self.ping_due && packet.push(&Frame::Ping, SentFrame::Ping))
        {
            self.ping_due = false;
        }
    }

    fn write_closing(&mut self, now: Instant, packet: &mut Packet<'_>) -> Option<u64> {
        let Phase::Closing(closing) = &mut self.phase else { return None };
        if closing.copies == 0 || closing.next_at > now {
            return None;
        }
        let spacing = self.recovery.rtt().probe_timeout();
        closing.copies -= 1;
        closing.next_at = now + spacing.clamp(CLOSE_SPACING_MIN, CLOSE_SPACING_MAX);
        let frame = Frame::Close { code: closing.code.to_wire(), reason: &closing.reason };
        // Alone in its packet, it always fits.
        let _ = packet.push(&frame, SentFrame::Close);
        self.write_ack(now, packet)
    }

    fn write_over(&mut self, now: Instant, packet: &mut Packet<'_>) -> Option<u64> {
        if self.is_ack_due(now) { self.write_ack(now, packet) } else { None }
    }

    fn write_ack(&mut self, now: Instant, packet: &mut Packet<'_>) -> Option<u64> {
        let room = match (self.received.has_news(), self.received.is_unconfirmed()) {
            (true, _) => self.config.payload_max / ACK_SHARE,
            (false, true) => SHORT_ACK_BYTES,
            (false, false) => return None,
        };
        let room = room.min(packet.room());
        let (waited, ranges) = self.received.report(now);
        let delay_us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX >> 2);
        let acked = write_ack(packet.out(), room, delay_us, self.received.ecn(), ranges);
        self.received.reported();
        acked
    }

    fn is_ack_due(&self, now: Instant) -> bool {
        self.received.ack_at().is_some_and(|at| at <= now)
    }

    /// Whether there is anything but acknowledgements to send.
    pub(super) fn has_content(&self) -> bool {
        self.greeting.is_due()
            || self.ping_due
            || self.inbound.has_something()
            || self.outbound.has_something(self.lowest_urgency())
    }

    /// What may leave at present, of what waits: in the background only as long as little is in flight.
    fn lowest_urgency(&self) -> Urgency {
        let in_flight_max = BACKGROUND_PACKETS_MAX * self.path_mtu.payload_max();
        let little = self.recovery.bytes_in_flight() + self.path_mtu.payload_max() <= in_flight_max;
        if little { Urgency::Background } else { Urgency::Usual }
    }

    /// Whether congestion control and bookkeeping let another packet go.
    fn may_send(&self, now: Instant) -> bool {
        self.recovery.probe_owed() || (self.has_room() && self.pacer.is_ready(now))
    }

    pub(super) fn has_room(&self) -> bool {
        !self.recovery.is_full() && self.congestion.has_room(self.recovery.bytes_in_flight())
    }

    /// Until when pacing alone holds a packet back.
    pub(super) fn paced_until(&self) -> Option<Instant> {
        let waiting = self.has_content() && self.has_room() && !self.recovery.probe_owed();
        if waiting { self.pacer.ready_at() } else { None }
    }
}
