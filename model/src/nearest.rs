//! Finds the known word that a misspelt word was probably meant to be.

/// Returns the known word nearest to `written`, if it is near enough to be a slip: at most one edit
/// for every three letters. Case does not count. Of several equally near words the first wins.
#[must_use]
pub fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    let letters = |word: &str| word.to_lowercase().chars().collect::<Vec<_>>();
    let written = letters(written);
    let most = written.len().div_ceil(3);
    let slips = |word: &str| slips(&written, &letters(word));
    known
        .iter()
        .map(|word| (slips(word), *word))
        .filter(|(slips, _)| *slips <= most)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, word)| word)
}

/// Returns `, did you mean "wlc"?`, or the list of known words if none is near.
#[must_use]
pub fn proposal(written: &str, known: &[&str]) -> String {
    match nearest(written, known) {
        Some(word) => format!(", did you mean \"{word}\"?"),
        None => format!("; known are {}", known.join(" ")),
    }
}

/// Returns the number of edits: letters added, left out, changed, or swapped with their neighbour.
fn slips(from: &[char], to: &[char]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for (i, letter) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, other) in to.iter().enumerate() {
            let changed = rows[i][j] + usize::from(letter != other);
            let mut least = changed.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *letter == to[j - 1] && from[i - 1] == *other {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapped_letters_are_one_slip() {
        assert_eq!(nearest("wcl", &["rr", "lc", "wlc"]), Some("wlc"));
        assert_eq!(
            nearest("masqerade", &["route", "masquerade"]),
            Some("masquerade")
        );
    }

    #[test]
    fn a_word_of_its_own_has_no_neighbour() {
        assert_eq!(nearest("fastest", &["rr", "lc", "wlc"]), None);
        assert_eq!(proposal("fastest", &["rr", "lc"]), "; known are rr lc");
    }
}
