//! Random numbers for tasks: small, seeded, one per task, the same in each world.

/// xoshiro256** seeded by SplitMix64 (Blackman and Vigna).
#[derive(Clone, Debug)]
pub struct Rng([u64; 4]);

impl Rng {
    /// The generator number `stream` of a seed.
    pub fn new(seed: u64, stream: u64) -> Rng {
        let mut state = seed ^ stream.wrapping_mul(0xA24B_AED4_963E_E407);
        Rng(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        }))
    }

    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let out = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// A number below `n`, which is not zero (multiply-shift; the bias is below n / 2^64).
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Zipf's law over 0..n: rank k (from 0) has probability (k + 1)^-s / Σ i^-s.
///
/// Drawn by rejection from the area under x^-s (Hörmann and Derflinger 1996), so that no table of n entries is needed.
#[derive(Clone, Debug)]
pub struct Zipf {
    n: f64,
    s: f64,
    /// Integral of the hat at the left and right ends.
    low: f64,
    high: f64,
    /// Draws this near to their rank are accepted without another look.
    sure: f64,
}

impl Zipf {
    /// Ranks 0..n with exponent `s` > 0; n > 0.
    pub fn new(n: u64, s: f64) -> Zipf {
        let n = n as f64;
        let mut zipf = Zipf {
            n,
            s,
            low: 0.0,
            high: 0.0,
            sure: 0.0,
        };
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(n + 0.5);
        zipf.sure = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.weight(2.0));
        zipf
    }

    fn weight(&self, x: f64) -> f64 {
        x.powf(-self.s)
    }

    /// ∫ x^-s from 1 to x.
    fn integral(&self, x: f64) -> f64 {
        let (log, e) = (x.ln(), 1.0 - self.s);
        if (e * log).abs() < 1e-8 {
            log
        } else {
            (e * log).exp_m1() / e
        }
    }

    fn inverse(&self, area: f64) -> f64 {
        let e = 1.0 - self.s;
        let t = (area * e).max(-1.0);
        if t.abs() < 1e-8 {
            area.exp()
        } else {
            (t.ln_1p() / e).exp()
        }
    }

    /// A rank from 0.
    pub fn draw(&self, rng: &mut Rng) -> u64 {
        loop {
            let area = self.high + rng.unit() * (self.low - self.high);
            let x = self.inverse(area);
            let k = (x + 0.5).floor().clamp(1.0, self.n);
            if k - x <= self.sure || area >= self.integral(k + 0.5) - self.weight(k) {
                return k as u64 - 1;
            }
        }
    }
}

/// Spreads ranks over pages: a bijection of 0..n, so that hot ranks are no neighbours.
#[derive(Clone, Copy, Debug)]
pub struct Scatter {
    n: u64,
    step: u64,
}

impl Scatter {
    /// A bijection of 0..n.
    pub fn new(n: u64) -> Scatter {
        // A multiplier is a bijection modulo n when they share no divisor; one of these primes shares none with n.
        let step = [2_654_435_761, 2_246_822_519, 3_266_489_917, 668_265_263]
            .into_iter()
            .find(|p| !n.is_multiple_of(*p))
            .unwrap_or(1);
        Scatter { n, step }
    }

    /// The page of a rank.
    pub fn page(self, rank: u64) -> u64 {
        // A file of fewer than 2^32 places, that is nearly every one, needs no division of 128 bits.
        match rank.checked_mul(self.step) {
            Some(product) => product % self.n,
            None => ((u128::from(rank) * u128::from(self.step)) % u128::from(self.n)) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_and_repeat() {
        let draw = |seed, stream| {
            let mut rng = Rng::new(seed, stream);
            (0..8).map(|_| rng.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    /// The law itself: each rank's share, and the share of the first ten, within five standard deviations.
    #[test]
    fn zipf_follows_its_definition() {
        for (n, s) in [(1_000u64, 0.99), (50, 1.0), (10_000, 0.5), (300, 1.4)] {
            let zipf = Zipf::new(n, s);
            let mut rng = Rng::new(7, n);
            let draws = 200_000u64;
            let mut seen = vec![0u64; n as usize];
            for _ in 0..draws {
                seen[zipf.draw(&mut rng) as usize] += 1;
            }
            let total: f64 = (1..=n).map(|k| (k as f64).powf(-s)).sum();
            let near = |p: f64, got: u64, what: &str| {
                let want = p * draws as f64;
                let bound = 5.0 * (want * (1.0 - p)).sqrt() + 1.0;
                assert!(
                    (got as f64 - want).abs() <= bound,
                    "n {n} s {s} {what}: {got}, expected {want:.0} ± {bound:.0}"
                );
            };
            for k in [0usize, 1, 2, 9, 49] {
                near(
                    ((k + 1) as f64).powf(-s) / total,
                    seen[k],
                    &format!("rank {k}"),
                );
            }
            let top: f64 = (1..=10).map(|k| f64::from(k).powf(-s)).sum::<f64>() / total;
            near(top, seen[..10].iter().sum(), "first ten");
        }
    }

    #[test]
    fn scatter_is_a_bijection() {
        let large = Scatter::new(1 << 40);
        let wide = |rank: u64| ((u128::from(rank) * u128::from(large.step)) % (1 << 40)) as u64;
        for rank in [0, 1, 1 << 31, 1 << 32, (1 << 40) - 1] {
            assert_eq!(
                large.page(rank),
                wide(rank),
                "the short way and the long one"
            );
        }
        for n in [1u64, 2, 4096, 65_536, 17_408] {
            let scatter = Scatter::new(n);
            let mut hit = vec![false; n as usize];
            for rank in 0..n {
                let page = scatter.page(rank) as usize;
                assert!(
                    !std::mem::replace(&mut hit[page], true),
                    "page {page} twice for n {n}"
                );
            }
        }
    }
}
