//! The lots that twos and p2c draw: Walker's alias method, with Vose's construction of the table.

/// A lot for each weight, in order. The low half is the chance, of 2^32, that the lot is kept; the
/// high half is the lot that replaces it otherwise. A weight of 0 is never drawn.
pub(super) fn lots(weights: &[u32]) -> Vec<u64> {
    let count = weights.len() as u64;
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    if sum == 0 {
        return Vec::new();
    }
    // A lot has the size of the mean weight. Both sides are multiplied by the number of weights, so
    // that all values are whole.
    let mut shares: Vec<u128> = weights
        .iter()
        .map(|weight| u128::from(*weight) * u128::from(count))
        .collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) =
        (0..weights.len()).partition(|index| shares[*index] < sum);
    let mut lots: Vec<u64> = (0..count)
        .map(|index| u64::from(u32::MAX) | index << 32)
        .collect();
    while let (Some(poor), Some(rich)) = (small.pop(), large.last().copied()) {
        let kept = (shares[poor] << 32) / sum;
        lots[poor] = kept as u64 | (rich as u64) << 32;
        shares[rich] -= sum - shares[poor];
        if shares[rich] < sum {
            large.pop();
            small.push(rich);
        }
    }
    lots
}

#[cfg(test)]
mod tests {
    use super::*;

    // The kept and the replaced parts of all lots add up to the weights, up to rounding.
    #[test]
    fn each_weight_gets_its_share_of_the_lots() {
        for weights in [
            vec![1],
            vec![3, 2, 1],
            vec![0, 1, 0, 7],
            vec![i32::MAX.unsigned_abs(), 1, 1],
            (1..=4096).collect(),
        ] {
            let lots = lots(&weights);
            let mut drawn = vec![0_u64; weights.len()];
            for (index, lot) in lots.iter().enumerate() {
                let kept = lot & 0xffff_ffff;
                drawn[index] += kept;
                drawn[(lot >> 32) as usize] += (1 << 32) - kept;
            }

            let sum: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            let all = (1_u64 << 32) as f64 * weights.len() as f64;
            for (weight, drawn) in weights.iter().zip(&drawn) {
                let (fair, got) = (f64::from(*weight) / sum, *drawn as f64 / all);
                assert!((fair - got).abs() < 1e-8, "{weight} of {sum}: {got}");
                assert!(*weight != 0 || *drawn == 0, "a weight of 0 is drawn");
            }
        }
    }
}
