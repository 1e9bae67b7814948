//! Random numbers from a seed, the only randomness of a session.

/// SplitMix64 (<https://doi.org/10.1145/2714064.2660195>): it works with any seed.
pub(super) const fn throw(dice: &mut u64) -> u64 {
    *dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *dice;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A random number from 0 to 1, without 1.
pub(super) const fn throw_fraction(dice: &mut u64) -> f64 {
    // As many bits as the fraction of the type has.
    (throw(dice) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::{throw, throw_fraction};

    /// The first numbers of the reference implementation (<https://prng.di.unimi.it/splitmix64.c>).
    #[test]
    fn it_is_splitmix64() {
        let mut dice = 1_234_567;
        let numbers: [u64; 5] = std::array::from_fn(|_| throw(&mut dice));
        assert_eq!(
            numbers,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821,
            ]
        );
    }

    #[test]
    fn fractions_are_from_0_to_1() {
        let mut dice = 7;
        let fractions: Vec<f64> = (0..10_000).map(|_| throw_fraction(&mut dice)).collect();
        assert!(fractions.iter().all(|it| (0.0..1.0).contains(it)));
        let mean = fractions.iter().sum::<f64>() / 10_000.0;
        assert!((0.48..0.52).contains(&mean), "{mean}");
    }
}
