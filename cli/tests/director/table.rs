//! Reading what `ipvsadm` prints.

use anyhow::{Context, Result};

/// The columns after a server's address in a listing: forward, weight, active, inactive; or the
/// numbers of `--stats` and `--rate`.
pub(crate) fn row(listing: &str, server: &str) -> Result<Vec<String>> {
    let begin = format!("-> {server} ");
    let line = listing
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(&begin));
    let line = line.with_context(|| format!("no server {server} in:\n{listing}"))?;
    Ok(line.split_whitespace().map(str::to_owned).collect())
}

/// Numbers of a server's row.
pub(crate) fn numbers(listing: &str, server: &str) -> Result<Vec<u64>> {
    let words = row(listing, server)?;
    let number = |word: &String| {
        word.parse()
            .with_context(|| format!("{word} in:\n{listing}"))
    };
    words.iter().map(number).collect()
}

/// ActiveConn and InActConn of a server.
pub(crate) fn live(listing: &str, server: &str) -> Result<(u64, u64)> {
    let words = row(listing, server)?;
    let [.., active, inactive] = words.as_slice() else {
        anyhow::bail!("a short row for {server} in:\n{listing}");
    };
    Ok((active.parse()?, inactive.parse()?))
}
