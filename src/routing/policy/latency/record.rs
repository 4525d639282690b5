//! How long one model of one provider takes to answer: histograms over a sliding window, in one small record.
//!
//! A histogram is log-linear, as HdrHistogram's: every power of two is divided into four buckets, so that a time is known to
//! within a quarter at worst, and to within less by interpolation in its bucket. The window consists of eight histograms. Where
//! requests are many the newest of them hold enough times, so that a change is noticed sooner.

use std::time::Duration;

use super::settled::Settled;
use crate::base::clock::{millis, Timestamp};
use crate::base::window::{Part, Window};

/// The version of the layout; changes whenever the layout does.
const VERSION: u8 = 2;
/// 2^4 = 16 ms: all times below are counted as this one, because nobody notices a difference between them.
const FIRST_OCTAVE: u32 = 4;
/// 2^19 ms, almost nine minutes: longer than an attempt may take by default. Longer times are counted in the last bucket.
const END_OCTAVE: u32 = 19;
/// The number of buckets of a histogram.
const BUCKETS: usize = (END_OCTAVE - FIRST_OCTAVE) as usize * 4;
/// The number of histograms in the window. With eight, an eighth of the window leaves at once, and the record takes a kilobyte.
const PARTS: usize = 8;
/// This many times are enough: the slowest five of them decide the percentile, and older times would only hide a change.
const PLENTY: u32 = 100;

/// The 95th percentile and the median, in twentieths.
const P95: u64 = 19;
const MEDIAN: u64 = 10;

/// Times that come later than by this many windows mean that the clock went back.
const LATE: u32 = 1000;

/// The sum of: version, fingerprint, settled (time, latest, count, interval, of), counts of the interval, parts (epoch, counts).
const LENGTH: usize = 1 + 8 + (4 + 4 + 4 + 4 + 1) + BUCKETS * 2 + PARTS * (4 + BUCKETS * 2);

/// A bucket of the histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket(u8);

impl Bucket {
    /// The bucket to which a time belongs.
    pub fn of(time: Duration) -> Self {
        let time = millis(time).clamp(1 << FIRST_OCTAVE, (1 << END_OCTAVE) - 1);
        let octave = time.ilog2();
        let quarter = (time >> (octave - 2)) & 3;
        Self(((octave - FIRST_OCTAVE) * 4 + quarter as u32) as u8)
    }
}

/// The least time of a bucket and the bucket's width, in milliseconds.
const fn bounds(bucket: usize) -> (u64, u64) {
    let width = 1_u64 << (FIRST_OCTAVE as usize + bucket / 4 - 2);
    ((4 + bucket as u64 % 4) * width, width)
}

/// The histogram of one part of the window: the number of times in each bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Histogram([u16; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Histogram {
    fn count(&mut self, Bucket(bucket): Bucket) {
        let Some(count) = self.0.get_mut(usize::from(bucket)) else { return };
        *count = count.saturating_add(1);
        if *count == u16::MAX {
            // Only the shares matter, so all counts can be halved.
            self.0.iter_mut().for_each(|count| *count /= 2);
        }
    }

    fn read(bytes: &[u8]) -> Self {
        let mut histogram = Self::default();
        for (count, bytes) in histogram.0.iter_mut().zip(bytes.chunks_exact(2)) {
            *count = bytes.first_chunk().map_or(0, |bytes| u16::from_le_bytes(*bytes));
        }
        histogram
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.0.iter().for_each(|count| out.extend(count.to_le_bytes()));
    }
}

/// The sum of histograms.
#[derive(Clone, Copy)]
struct Sum([u32; BUCKETS], u32);

impl Sum {
    const EMPTY: Self = Self([0; BUCKETS], 0);

    fn add(&mut self, histogram: &Histogram) {
        // Eight times sixty counts of 16 bits fit into 32.
        for (sum, count) in self.0.iter_mut().zip(histogram.0) {
            *sum += u32::from(count);
            self.1 += u32::from(count);
        }
    }

    /// The least time that so many of twenty times do not exceed; zero if there are none.
    fn percentile(&self, of_twenty: u64) -> Duration {
        let mut rank = (u64::from(self.1) * of_twenty).div_ceil(20);
        for (bucket, count) in self.0.into_iter().map(u64::from).enumerate() {
            if count > 0 && rank <= count {
                let (lower, width) = bounds(bucket);
                return Duration::from_millis(lower + width * rank / count);
            }
            rank -= count;
        }
        Duration::ZERO
    }
}

/// The times of one model of one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The fingerprint of the provider's configuration: times of another configuration do not apply.
    pub fingerprint: u64,
    /// The times by which the model is ordered.
    pub settled: Settled,
    /// The times that were noted in the present interval.
    interval: Histogram,
    window: Window<Histogram, PARTS, LATE>,
}

impl Record {
    /// A record without any time.
    pub fn new(fingerprint: u64) -> Self {
        Self {
            fingerprint,
            settled: Settled::default(),
            interval: Histogram::default(),
            window: Window::default(),
        }
    }

    /// Reads a record. One that is absent, damaged, of another version or of another configuration is read as a new one.
    pub fn read(bytes: &[u8], fingerprint: u64) -> Self {
        Self::decode(bytes)
            .filter(|record| record.fingerprint == fingerprint)
            .unwrap_or_else(|| Self::new(fingerprint))
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != LENGTH {
            return None;
        }
        let (version, rest) = bytes.split_first()?;
        let (fingerprint, rest) = rest.split_first_chunk()?;
        let (time, rest) = rest.split_first_chunk()?;
        let (latest, rest) = rest.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let (interval, rest) = rest.split_first_chunk()?;
        let (of, rest) = rest.split_first()?;
        let mut record = Self::new(u64::from_le_bytes(*fingerprint));
        let [time, latest, count, interval] =
            [time, latest, count, interval].map(|bytes: &[u8; 4]| u32::from_le_bytes(*bytes));
        record.settled = Settled { time, latest, count, interval, of: *of };
        let (counts, rest) = rest.split_at_checked(BUCKETS * 2)?;
        record.interval = Histogram::read(counts);
        let mut parts = [Part::<Histogram>::default(); PARTS];
        for (part, bytes) in parts.iter_mut().zip(rest.chunks_exact(4 + BUCKETS * 2)) {
            let (epoch, counts) = bytes.split_first_chunk()?;
            part.epoch = u32::from_le_bytes(*epoch);
            part.counts = Histogram::read(counts);
        }
        record.window = Window::of_parts(parts);
        (*version == VERSION).then_some(record)
    }

    /// The bytes of the record, always `LENGTH` of them.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LENGTH);
        out.push(VERSION);
        out.extend(self.fingerprint.to_le_bytes());
        let Settled { time, latest, count, interval, of } = self.settled;
        [time, latest, count, interval].iter().for_each(|number| out.extend(number.to_le_bytes()));
        out.push(of);
        self.interval.write(&mut out);
        for part in self.window.parts() {
            out.extend(part.epoch.to_le_bytes());
            part.counts.write(&mut out);
        }
        out
    }

    /// Counts times that were measured at the moment `met`, unless that moment has left the window. `window` is the window's length.
    pub fn count(&mut self, times: &[Bucket], met: Timestamp, window: Duration) {
        if let Some(histogram) = self.window.at(met, window) {
            times.iter().for_each(|time| histogram.count(*time));
            times.iter().for_each(|time| self.interval.count(*time));
        }
    }

    /// Decides by which times the model is ordered from now on; see [`Settled`]. Returns whether the record must be written for that.
    pub fn settle(&mut self, now: Timestamp, window: Duration) -> bool {
        let (samples, p95) = self.p95(now, window);
        let mut interval = Sum::EMPTY;
        interval.add(&self.interval);
        let ended = (interval.1, (interval.1 >= PLENTY).then(|| millis(interval.percentile(P95))));
        let Some(next) = self.settled.next(samples, millis(p95), ended, now) else { return false };
        if next.interval != self.settled.interval {
            self.interval = Histogram::default();
        }
        self.settled = next;
        true
    }

    /// The number of times in the newest parts of the window, and their 95th percentile. As many parts are taken as are needed to
    /// have `PLENTY` times.
    pub fn p95(&self, now: Timestamp, window: Duration) -> (u32, Duration) {
        let mut sum = Sum::EMPTY;
        for histogram in self.window.within(now, window) {
            sum.add(histogram);
            if sum.1 >= PLENTY {
                break;
            }
        }
        (sum.1, sum.percentile(P95))
    }

    /// The median of all times in the window.
    pub fn median(&self, now: Timestamp, window: Duration) -> Duration {
        let mut sum = Sum::EMPTY;
        self.window.within(now, window).for_each(|histogram| sum.add(histogram));
        sum.percentile(MEDIAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(300);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + seconds * 1000)
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn of(times: impl IntoIterator<Item = u64>) -> Record {
        let mut record = Record::new(1);
        let times: Vec<Bucket> = times.into_iter().map(|time| Bucket::of(ms(time))).collect();
        record.count(&times, at(0), WINDOW);
        record
    }

    #[test]
    fn a_bucket_holds_the_times_between_its_bounds() {
        for time in 16..100_000 {
            let Bucket(bucket) = Bucket::of(ms(time));
            let (lower, width) = bounds(usize::from(bucket));
            assert!((lower..lower + width).contains(&time), "{time}: {bucket}");
            assert!(width * 4 <= lower, "to a quarter");
        }
        assert_eq!(Bucket::of(ms(0)), Bucket(0));
        assert_eq!(Bucket::of(Duration::MAX), Bucket(BUCKETS as u8 - 1));
    }

    #[test]
    fn the_percentile_is_that_of_the_times_to_a_quarter() {
        for (times, expected) in [
            ((0..100).map(|_| 500).collect::<Vec<_>>(), 500),
            ((1..=100).map(|time| time * 10).collect(), 950),
            ((0..96).map(|_| 200).chain([9000; 4]).collect(), 200),
            ((0..94).map(|_| 200).chain([9000; 6]).collect(), 9000),
            (vec![700], 700),
        ] {
            let (samples, found) = of(times.iter().copied()).p95(at(0), WINDOW);
            assert_eq!(samples as usize, times.len());
            let ratio = found.as_millis() as f64 / f64::from(expected);
            assert!((0.8..=1.25).contains(&ratio), "{found:?} for {expected}");
        }
        assert_eq!(Record::new(1).p95(at(0), WINDOW), (0, Duration::ZERO));
    }

    #[test]
    fn times_leave_with_the_window() {
        let mut record = of([100; 10]);
        record.count(&[Bucket::of(ms(100)); 5], at(150), WINDOW);
        assert_eq!(record.p95(at(150), WINDOW).0, 15);
        assert_eq!(record.p95(at(301), WINDOW).0, 5);
        assert_eq!(record.p95(at(1000), WINDOW).0, 0);
        let mut record = Record::new(1);
        for second in 0..5000 {
            record.count(&[Bucket(3)], at(second), WINDOW);
            assert!(record.p95(at(second), WINDOW).0 < 140, "plenty, and a part more");
        }
        for second in (5000..20_000).step_by(10) {
            record.count(&[Bucket(3)], at(second), WINDOW);
            assert!(second < 5400 || (26..=30).contains(&record.p95(at(second), WINDOW).0));
        }
    }

    #[test]
    fn what_has_changed_is_soon_seen_where_requests_are_many() {
        let mut record = Record::new(1);
        for tenth in 0..10_000 {
            let (now, quick) = (at(tenth / 10), tenth < 9000);
            record.count(&[Bucket::of(ms(if quick { 100 } else { 5000 }))], now, WINDOW);
            let p95 = record.p95(now, WINDOW).1;
            assert_eq!(p95 < ms(200), tenth < 9040 && p95 < ms(200), "{tenth}");
            assert!(quick || tenth < 9040 || p95 > ms(4000), "{tenth}: {p95:?}");
        }
    }

    #[test]
    fn times_that_come_late_are_counted_where_they_belong_or_not_at_all() {
        let mut record = Record::new(1);
        let slow = [Bucket(50)];
        record.count(&slow, at(0), WINDOW);
        record.count(&slow, at(100), WINDOW);
        record.count(&slow, at(0), WINDOW);
        assert_eq!((record.p95(at(100), WINDOW).0, record.p95(at(310), WINDOW).0), (3, 1));
        record.count(&slow, at(300), WINDOW);
        record.count(&slow, at(0), WINDOW);
        assert_eq!(record.p95(at(300), WINDOW).0, 2, "its place is another's now");
        record.count(&slow, Timestamp::from_millis(5), WINDOW);
        assert_eq!(record.p95(Timestamp::from_millis(5), WINDOW).0, 1, "a clock that went back");
    }

    #[test]
    fn what_is_counted_very_often_keeps_its_share() {
        let record = of((0..200_000).map(|number| if number % 10 == 0 { 5000 } else { 100 }));
        let (samples, p95) = record.p95(at(0), WINDOW);
        assert!((30_000..200_000).contains(&samples) && p95 >= ms(4000), "{samples} {p95:?}");
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_anything_else_is_a_new_one() {
        let mut record = of([20, 300, 90_000]);
        record.settled = Settled { time: 70_000, latest: 75_000, count: 3, interval: 80_000, of: 9 };
        let bytes = record.encode();
        assert_eq!(bytes.len(), LENGTH);
        assert_eq!(Record::read(&bytes, 1), record);
        assert_eq!(Record::read(&bytes, 2), Record::new(2), "another provider's");
        assert_eq!(Record::read(&bytes[1..], 1), Record::new(1));
        assert_eq!(Record::read(&[], 1), Record::new(1));
        let mut other = bytes;
        other[0] = VERSION + 1;
        assert_eq!(Record::read(&other, 1), Record::new(1));
    }
}
