//! How many repair symbols a transfer's end needs.

use super::Loss;

/// How often what is sent has to be enough: at first, and in the midst of a burst, which is seldom.
const ENOUGH: f64 = 0.99;
const ENOUGH_IN_BURST: f64 = 0.95;

/// No path is believed to lose more than this.
const SHARE_MAX: f64 = 0.5;

/// The fewest repair symbols, at most `most`, with which at least `needed` symbols arrive in 99 of 100 cases when
/// `needed` and these are sent in a row. Counts all courses that the losses can take, packet by packet.
pub(super) fn amount(needed: usize, most: usize, loss: Loss) -> usize {
    let share = f64::from(loss.share).clamp(0.0, SHARE_MAX);
    let burst = f64::from(loss.burst).max(1.0 / (1.0 - share));
    let recovers = 1.0 / burst;
    let fails = share / (1.0 - share) * recovers;
    // Likelihood of each number of losses so far, with the last packet arrived or lost.
    let (mut arrived, mut lost) = (vec![0.0; most + 1], vec![0.0; most + 1]);
    lost[0] = if loss.in_burst { 1.0 } else { share };
    arrived[0] = 1.0 - lost[0];
    let enough = if loss.in_burst { ENOUGH_IN_BURST } else { ENOUGH };
    for sent in 1..=needed + most {
        let (mut now_arrived, mut now_lost) = (vec![0.0; most + 1], vec![0.0; most + 1]);
        for losses in 0..=most {
            now_arrived[losses] = arrived[losses] * (1.0 - fails) + lost[losses] * recovers;
            if losses > 0 {
                let before = losses - 1;
                now_lost[losses] = arrived[before] * fails + lost[before] * (1.0 - recovers);
            }
        }
        (arrived, lost) = (now_arrived, now_lost);
        if let Some(repairs) = sent.checked_sub(needed) {
            let likely: f64 = arrived.iter().zip(&lost).take(repairs + 1).map(|(a, b)| a + b).sum();
            if likely >= enough {
                return repairs;
            }
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alone(share: f64) -> Loss {
        Loss { share: share as f32, burst: 1.0, in_burst: false }
    }

    #[test]
    fn losses_one_by_one_are_those_of_the_binomial_distribution() {
        // At most 2 of 6 lost: 0.984; 3 of 7: 0.997.
        assert_eq!(amount(4, 100, alone(0.1)), 3);
        assert_eq!(amount(4, 100, alone(0.0)), 0);
        let likely = |sent: u32, share: f64, most: u32| -> f64 {
            let choose =
                |k: u32| (0..k).map(|n| f64::from(sent - n) / f64::from(n + 1)).product::<f64>();
            (0..=most)
                .map(|k| choose(k) * share.powi(k as i32) * (1.0 - share).powi((sent - k) as i32))
                .sum()
        };
        for (needed, share) in [(4, 0.3), (57, 0.1), (57, 0.3), (1, 0.5), (20, 0.02)] {
            let repairs = amount(needed, 200, alone(share)) as u32;
            let needed = needed as u32;
            assert!(likely(needed + repairs, share, repairs) >= ENOUGH, "{needed} {share}");
            assert!(likely(needed + repairs - 1, share, repairs - 1) < ENOUGH, "{needed} {share}");
        }
    }

    #[test]
    fn in_a_burst_more_are_needed_until_it_is_likely_over() {
        let loss = Loss { share: 0.1, burst: 4.0, in_burst: true };
        // The burst takes the first, and each next one with three quarters: eleven, and it is over in 95 of 100 cases.
        let symbols = 1 + amount(1, 100, loss);
        assert!((11..=13).contains(&symbols), "{symbols}");
        assert!(symbols > 1 + amount(1, 100, Loss { in_burst: false, ..loss }));
    }

    #[test]
    fn bursts_need_more_and_there_is_an_end_to_it() {
        let loss = Loss { share: 0.1, burst: 4.0, in_burst: false };
        assert!(amount(57, 100, loss) > amount(57, 100, alone(0.1)) + 5);
        assert_eq!(amount(57, 10, loss), 10);
        assert_eq!(amount(57, 0, loss), 0);
        let never = Loss { share: f32::INFINITY, burst: f32::MAX, in_burst: false };
        assert_eq!(amount(128, 128, never), 128);
    }
}
