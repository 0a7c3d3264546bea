//! The sample training job: a small neural network that learns two interleaved spirals, on the CPU, for real.
//!
//! `clawbernetes up --demo` submits it as a workload. It prints its loss as it falls, and fails if it doesn't.

use std::process::ExitCode;

use crate::{cli::App, failure::Outcome};

/// Train the sample network of `up --demo`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often all points are learnt from
    #[arg(long, default_value_t = 30)]
    epochs: u32,
    /// Where the random numbers begin
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// Points of each spiral.
const POINTS: usize = 200;
/// Width of the hidden layer.
const HIDDEN: usize = 32;
/// Features of a point: its coordinates, and sines of them, which make spirals learnable by a small network.
const FEATURES: usize = 6;
/// Step size of the descent.
const RATE: f64 = 0.02;
/// Passes over the points for each epoch that is printed.
const PASSES: u32 = 2;

/// `SplitMix64`: small, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn around_zero(&mut self, width: f64) -> f64 {
        (self.next() * 2.0 - 1.0) * width
    }
}

type Point = ([f64; FEATURES], f64);

fn spirals(random: &mut Random) -> Vec<Point> {
    let mut points = Vec::with_capacity(2 * POINTS);
    for i in 0..POINTS {
        let radius = i as f64 / POINTS as f64;
        for (turn, class) in [(0.0, 0.0), (std::f64::consts::PI, 1.0)] {
            let angle = radius * 6.0 + turn + random.around_zero(0.1);
            let (x, y) = (radius * angle.cos(), radius * angle.sin());
            points.push(([x, y, (3.0 * x).sin(), (3.0 * y).sin(), x * y, radius], class));
        }
    }
    points
}

struct Network {
    hidden: [[f64; FEATURES + 1]; HIDDEN],
    out: [f64; HIDDEN + 1],
}

impl Network {
    fn new(random: &mut Random) -> Self {
        let mut network = Self {
            hidden: [[0.0; FEATURES + 1]; HIDDEN],
            out: [0.0; HIDDEN + 1],
        };
        for row in &mut network.hidden {
            row.fill_with(|| random.around_zero(1.0));
        }
        network.out.fill_with(|| random.around_zero(0.5));
        network
    }

    fn activations(&self, x: &[f64; FEATURES]) -> [f64; HIDDEN] {
        let mut out = [0.0; HIDDEN];
        for (value, row) in out.iter_mut().zip(&self.hidden) {
            let sum: f64 = row.iter().zip(x).map(|(w, x)| w * x).sum();
            *value = (sum + row[FEATURES]).tanh();
        }
        out
    }

    fn predict(&self, activations: &[f64; HIDDEN]) -> f64 {
        let sum: f64 = self.out.iter().zip(activations).map(|(w, a)| w * a).sum();
        1.0 / (1.0 + (-(sum + self.out[HIDDEN])).exp())
    }

    /// One step of gradient descent on one point; gives its loss (cross-entropy) and whether it was right.
    fn learn(&mut self, (x, class): &Point) -> (f64, bool) {
        let activations = self.activations(x);
        let p = self.predict(&activations).clamp(1e-12, 1.0 - 1e-12);
        let error = p - class;
        for (j, a) in activations.iter().enumerate() {
            let back = error * self.out[j] * (1.0 - a * a);
            self.out[j] -= RATE * error * a;
            for (w, x) in self.hidden[j].iter_mut().zip(x.iter().chain([&1.0])) {
                *w -= RATE * back * x;
            }
        }
        self.out[HIDDEN] -= RATE * error;
        (
            -(class * p.ln() + (1.0 - class) * (1.0 - p).ln()),
            (p > 0.5) == (*class > 0.5),
        )
    }
}

impl Args {
    pub(crate) fn run(self, app: &App) -> Outcome {
        let mut random = Random(self.seed);
        let mut points = spirals(&mut random);
        let mut network = Network::new(&mut random);
        let weights = HIDDEN * (FEATURES + 1) + HIDDEN + 1;
        app.out.print(&format!(
            "training {weights} weights on {} points, on the CPU\n",
            points.len()
        ))?;
        let mut losses = Vec::new();
        for epoch in 1..=self.epochs {
            let (mut loss, mut right) = (0.0, 0);
            for _ in 0..PASSES {
                // A fresh order each time (Fisher-Yates).
                for i in (1..points.len()).rev() {
                    points.swap(i, (random.next() * (i + 1) as f64) as usize);
                }
                (loss, right) = points.iter().fold((0.0, 0), |(loss, right), point| {
                    let (l, r) = network.learn(point);
                    (loss + l, right + usize::from(r))
                });
            }
            let (loss, accuracy) = (loss / points.len() as f64, right as f64 / points.len() as f64);
            losses.push(loss);
            app.out.print(&format!(
                "epoch {epoch:>3}/{}  loss {loss:.4}  accuracy {:.1} %\n",
                self.epochs,
                accuracy * 100.0
            ))?;
        }
        let learnt = losses.len() < 2 || losses.last() < losses.first();
        app.out.print(if learnt {
            "done: the loss fell\n"
        } else {
            "failed: the loss didn't fall\n"
        })?;
        Ok(if learnt { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_learns() {
        let mut random = Random(7);
        let points = spirals(&mut random);
        let mut network = Network::new(&mut random);
        let mut pass = || points.iter().map(|p| network.learn(p).0).sum::<f64>() / points.len() as f64;
        let first = pass();
        let last = (0..300).map(|_| pass()).last().unwrap();
        assert!(last < first / 2.0, "{first} -> {last}");
    }
}
