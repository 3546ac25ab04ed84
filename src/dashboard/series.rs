//! Histories of bounded size: a number over the steps of a stage, and a histogram over its epochs.
//!
//! A history that is full merges its points in pairs and goes on at half the resolution, so a run of any length fits and none of its past is
//! forgotten. Extremes survive merging, and so does the fact that a reading was not finite.

use crate::run::event::CONFIDENCE_BINS;

/// One or more successive readings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Position of the last reading: a step or an epoch.
    pub x: f64,
    /// Of the finite readings; NaN where there are none.
    pub low: f32,
    pub high: f32,
    pub mean: f32,
    /// Readings in all, and those that were not finite.
    pub count: u32,
    pub bad: u32,
}

impl Point {
    fn new(x: f64, value: f64) -> Self {
        let (v, bad) = if value.is_finite() { (value as f32, 0) } else { (f32::NAN, 1) };
        Self { x, low: v, high: v, mean: v, count: 1, bad }
    }

    fn merge(self, next: Self) -> Self {
        let good = |p: &Self| f64::from(p.count - p.bad);
        let sum = |p: &Self| if p.count > p.bad { f64::from(p.mean) * good(p) } else { 0.0 };
        let n = good(&self) + good(&next);
        Self {
            x: next.x,
            // `min` and `max` prefer the number over NaN.
            low: self.low.min(next.low),
            high: self.high.max(next.high),
            mean: if n > 0.0 { ((sum(&self) + sum(&next)) / n) as f32 } else { f32::NAN },
            count: self.count + next.count,
            bad: self.bad + next.bad,
        }
    }
}

/// A number over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    points: Vec<Point>,
    pending: Option<Point>,
    stride: u32,
    capacity: usize,
    last: Option<f64>,
}

impl Series {
    /// Keeps between `capacity / 2` and `capacity` points once there are that many.
    pub fn new(capacity: usize) -> Self {
        Self { points: Vec::new(), pending: None, stride: 1, capacity: capacity.max(2), last: None }
    }

    /// `x` does not fall.
    pub fn push(&mut self, x: f64, value: f64) {
        self.last = Some(value);
        let point = Point::new(x, value);
        let point = self.pending.take().map_or(point, |p| p.merge(point));
        if point.count < self.stride {
            self.pending = Some(point);
            return;
        }
        self.points.push(point);
        if self.points.len() >= self.capacity {
            self.points =
                self.points.chunks(2).map(|pair| pair.iter().copied().reduce(Point::merge).expect("a chunk is not empty")).collect();
            self.stride *= 2;
        }
    }

    /// All points, oldest first.
    pub fn points(&self) -> impl Iterator<Item = Point> + Clone + '_ {
        self.points.iter().copied().chain(self.pending)
    }

    /// The newest reading, finite or not.
    pub fn last(&self) -> Option<f64> {
        self.last
    }

    pub fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// Exponentially smoothed means, `weight` in 0..1 for the past at one reading a point (0: the means themselves). The start is not biased
    /// towards zero (Kingma and Ba 2015, section 3). A point without a finite reading gives a gap and leaves the average alone.
    pub fn smoothed(&self, weight: f64) -> Vec<(f64, Option<f64>)> {
        let (mut sum, mut norm) = (0.0, 0.0);
        self.points()
            .map(|p| {
                if p.count == p.bad {
                    return (p.x, None);
                }
                let keep = weight.powf(f64::from(p.count));
                (sum, norm) = (keep * sum + (1.0 - keep) * f64::from(p.mean), keep * norm + (1.0 - keep));
                (p.x, Some(sum / norm))
            })
            .collect()
    }
}

/// Shares of the confidence bins (they sum to 1) up to the epoch `x`.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub x: f64,
    pub shares: [f32; CONFIDENCE_BINS],
    count: u32,
}

/// A histogram over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    rows: Vec<Row>,
    pending: Option<Row>,
    stride: u32,
}

impl Default for Rows {
    fn default() -> Self {
        Self { rows: Vec::new(), pending: None, stride: 1 }
    }
}

impl Rows {
    const MOST: usize = 512;

    /// A histogram of another number of bins, or of nothing, is left out: there is nothing true to be shown of it.
    pub fn push(&mut self, x: f64, histogram: &[u64]) {
        let total: u64 = histogram.iter().fold(0, |sum, &n| sum.saturating_add(n));
        if histogram.len() != CONFIDENCE_BINS || total == 0 {
            return;
        }
        let shares = std::array::from_fn(|i| (histogram[i] as f64 / total as f64) as f32);
        let row = Row { x, shares, count: 1 };
        let row = self.pending.take().map_or(row.clone(), |before| merge(&before, &row));
        if row.count < self.stride {
            self.pending = Some(row);
            return;
        }
        self.rows.push(row);
        if self.rows.len() >= Self::MOST {
            self.rows = self.rows.chunks(2).map(|pair| if let [a, b] = pair { merge(a, b) } else { pair[0].clone() }).collect();
            self.stride *= 2;
        }
    }

    /// All rows, oldest first.
    pub fn rows(&self) -> Vec<&Row> {
        self.rows.iter().chain(&self.pending).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.pending.is_none()
    }
}

fn merge(a: &Row, b: &Row) -> Row {
    let (n, m) = (a.count as f32, b.count as f32);
    Row { x: b.x, shares: std::array::from_fn(|i| (a.shares[i] * n + b.shares[i] * m) / (n + m)), count: a.count + b.count }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_history_keeps_its_extremes_and_its_gaps() {
        let mut series = Series::new(256);
        for i in 0..1_000_000u32 {
            let value = match i {
                123_456 => 99.0,
                654_321 => -99.0,
                777_777 => f64::NAN,
                _ => 1.0,
            };
            series.push(f64::from(i), value);
        }
        let points: Vec<Point> = series.points().collect();
        assert!((128..=257).contains(&points.len()), "{}", points.len());
        let of = |f: fn(&Point) -> f32, better: fn(f32, f32) -> f32| points.iter().map(f).reduce(better).unwrap();
        assert_eq!((of(|p| p.low, f32::min), of(|p| p.high, f32::max)), (-99.0, 99.0));
        assert_eq!(points.iter().map(|p| u64::from(p.count)).sum::<u64>(), 1_000_000);
        assert_eq!(points.iter().map(|p| p.bad).sum::<u32>(), 1);
        assert!(points.is_sorted_by(|a, b| a.x < b.x) && points.last().unwrap().x == 999_999.0);
    }

    #[test]
    fn smoothing_starts_unbiased_and_steps_over_gaps() {
        let mut series = Series::new(64);
        for (x, value) in [(1.0, 4.0), (2.0, f64::INFINITY), (3.0, 4.0)] {
            series.push(x, value);
        }
        let smooth = series.smoothed(0.9);
        assert!(smooth[0].1.is_some_and(|y| (y - 4.0).abs() < 1e-9) && smooth[2].1.is_some_and(|y| (y - 4.0).abs() < 1e-9));
        assert_eq!(smooth[1], (2.0, None));
        series.push(4.0, 0.0);
        // Three readings: (0.1 * (0.81 * 4 + 0.9 * 4 + 0)) / (1 - 0.9^3)
        assert!((series.smoothed(0.9)[3].1.unwrap() - 0.684 / 0.271).abs() < 1e-6);
        assert_eq!(series.smoothed(0.0)[3].1, Some(0.0));
    }

    #[test]
    fn rows_stay_shares() {
        let mut rows = Rows::default();
        rows.push(0.0, &[1, 2]);
        rows.push(0.0, &[0; CONFIDENCE_BINS]);
        assert!(rows.is_empty());
        for i in 0..5000u64 {
            let mut histogram = [0; CONFIDENCE_BINS];
            (histogram[3], histogram[19]) = (i, 5000 - i);
            rows.push(i as f64, &histogram);
        }
        assert!((256..=512).contains(&rows.rows().len()), "{}", rows.rows().len());
        for row in rows.rows() {
            assert!((row.shares.iter().sum::<f32>() - 1.0).abs() < 1e-4);
        }
        // The middle of the history is the middle of the change.
        let all = rows.rows();
        let middle = all.iter().find(|row| row.x >= 2500.0).unwrap();
        assert!((middle.shares[3] - 0.5).abs() < 0.01, "{middle:?}");
    }
}
